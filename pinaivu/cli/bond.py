"""`pinaivu node bond`: money that a node loses if it signs two completions for one award."""

from datetime import UTC, datetime
from pathlib import Path

import click

from pinaivu.chain.calls import Calls
from pinaivu.cli.place import network_options, open_chain, parse_address, parse_tokens, tokens
from pinaivu.cli.sending import send
from pinaivu.keyfiles import read_key
from pinaivu.keys import ZERO_ADDRESS, checksum

_key_option = click.option(
    "--key",
    "key_file",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Key file of the account that acts; it pays the gas.",
)
_node_option = click.option("--node", help="The node's address; the key's own by default.")


@click.group("bond")
def command() -> None:
    """A node's bond: shown in every auction, lost if the node signs two completions for one award.

    A bond has one funder, who takes it back as a whole, after a delay: the node, its payout wallet,
    or whom one of them allowed. Whoever holds the node key can burn the bond, so fund no key that
    you don't trust.
    """


@command.command("show")
@network_options
@click.argument("nodes", nargs=-1, required=True)
def show(network: Path, rpc: str | None, deployment: Path | None, nodes: tuple[str, ...]) -> None:
    """Show the bonds of NODES (addresses)."""
    client = open_chain(network, rpc, deployment)
    for bond in client.bonds([parse_address(node) for node in nodes]):
        line = f"{checksum(bond.node)}  "
        if not bond.amount:
            line += "no bond"
        else:
            line += f"{tokens(bond.amount)}  funder {checksum(bond.funder)}"
        if bond.unbonding_at_ms:
            at = datetime.fromtimestamp(bond.unbonding_at_ms / 1000, UTC)
            line += f"  can be withdrawn from {at:%Y-%m-%d %H:%M:%S} UTC"
        if bond.allowed_funder != ZERO_ADDRESS:
            line += f"  next funder allowed {checksum(bond.allowed_funder)}"
        click.echo(line)


@command.command("add")
@network_options
@_key_option
@_node_option
@click.argument("amount")
def add(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    key_file: Path,
    node: str | None,
    amount: str,
) -> None:
    """Add AMOUNT tokens from the key's wallet to the bond."""
    client, key = open_chain(network, rpc, deployment), read_key(key_file)
    calls, units = Calls(client.deployment), parse_tokens(amount)
    send(client, key, calls.approve_bond(units))
    send(client, key, calls.bond(_node(node, key.address), units))


@command.command("allow")
@network_options
@_key_option
@_node_option
@click.argument("funder")
def allow(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    key_file: Path,
    node: str | None,
    funder: str,
) -> None:
    """Let FUNDER (`none`: nobody) start the next bond; by the node or its payout wallet."""
    client, key = open_chain(network, rpc, deployment), read_key(key_file)
    allowed = ZERO_ADDRESS if funder == "none" else parse_address(funder)
    send(client, key, Calls(client.deployment).allow_funder(_node(node, key.address), allowed))


@command.command("request-withdrawal")
@network_options
@_key_option
@_node_option
def request_withdrawal(
    network: Path, rpc: str | None, deployment: Path | None, key_file: Path, node: str | None
) -> None:
    """Ask for the whole bond back; `withdraw` works after the delay."""
    client, key = open_chain(network, rpc, deployment), read_key(key_file)
    send(client, key, Calls(client.deployment).request_unbonding(_node(node, key.address)))


@command.command("cancel-withdrawal")
@network_options
@_key_option
@_node_option
def cancel_withdrawal(
    network: Path, rpc: str | None, deployment: Path | None, key_file: Path, node: str | None
) -> None:
    """Leave the bond where it is after all."""
    client, key = open_chain(network, rpc, deployment), read_key(key_file)
    send(client, key, Calls(client.deployment).cancel_unbonding(_node(node, key.address)))


@command.command("withdraw")
@network_options
@_key_option
@_node_option
@click.option("--to", help="Wallet that gets the money; the key's own by default.")
def withdraw(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    key_file: Path,
    node: str | None,
    to: str | None,
) -> None:
    """Take the whole bond out, once the delay is over."""
    client, key = open_chain(network, rpc, deployment), read_key(key_file)
    wallet = parse_address(to) if to else key.address
    send(client, key, Calls(client.deployment).withdraw_bond(_node(node, key.address), wallet))


def _node(address: str | None, own: bytes) -> bytes:
    return parse_address(address) if address else own
