"""`pinaivu node`: what a GPU owner does on chain. The service itself is `python -m node`."""

import os
from pathlib import Path

import click

from pinaivu.bindings import sign_peer_binding
from pinaivu.chain.calls import Calls
from pinaivu.chain.transactor import Transactor
from pinaivu.cli import bond
from pinaivu.cli.place import network_options, open_chain, open_folder, parse_address, tokens
from pinaivu.codes import Role
from pinaivu.keyfiles import load_key
from pinaivu.keys import checksum, peer_id_of_point
from pinaivu.local.folder import NODES

_path = click.Path(dir_okay=False, path_type=Path)


@click.group("node")
def command() -> None:
    """Register a node, bond it, see what it earned, have it paid out.

    The node itself runs as `python -m node --config FILE`; docs/node.md has a configuration.
    """


command.add_command(bond.command)


@command.command("register")
@network_options
@click.option("--key", "key_file", type=_path, required=True, help="The node's signing key file.")
@click.option("--peer-key", type=_path, required=True, help="The node's peer key file.")
@click.option("--payout", required=True, help="Wallet address that gets the money.")
def register(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    key_file: Path,
    peer_key: Path,
    payout: str,
) -> None:
    """Register a node, or change its payout wallet or peer. Missing key files are made."""
    client = open_chain(network, rpc, deployment)
    key, peer = load_key(key_file, os.urandom), load_key(peer_key, os.urandom)
    proof = sign_peer_binding(client.deployment.domain, key.address, Role.NODE, peer)
    call = Calls(client.deployment).register_node(parse_address(payout), peer.point, proof)
    outcome = Transactor(client.rpc, client.deployment.chain_id, key).send(call)
    click.echo(f"node     {checksum(key.address)}")
    click.echo(f"peer id  {peer_id_of_point(peer.point)}")
    click.echo(f"registered in block {outcome.block_number}, 0x{outcome.tx_hash.hex()}")


@command.command("earnings")
@network_options
@click.argument("nodes", nargs=-1)
def earnings(
    network: Path, rpc: str | None, deployment: Path | None, nodes: tuple[str, ...]
) -> None:
    """Show credit and payouts of NODES (addresses; the network's own by default)."""
    client = open_chain(network, rpc, deployment)
    for address in _addresses(network, nodes):
        record = client.node(address)
        (credit,) = client.node_credits([address])
        if record is None:
            click.echo(f"{checksum(address)}  not registered")
            continue
        click.echo(
            f"{checksum(address)}  credited {tokens(credit.lifetime)}  "
            f"to be paid {tokens(credit.credit)}  "
            f"payout wallet {checksum(record.payout)} holds "
            f"{tokens(client.token_balance(record.payout))}"
        )


@command.command("payout")
@network_options
@click.option("--key", "key_file", type=_path, help="Key that pays the gas; anybody's will do.")
@click.argument("nodes", nargs=-1)
def payout(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    key_file: Path | None,
    nodes: tuple[str, ...],
) -> None:
    """Push the credit of NODES to their payout wallets; anybody may."""
    client = open_chain(network, rpc, deployment)
    key = load_key(key_file or open_folder(network).key_path("submitter"), os.urandom)
    call = Calls(client.deployment).payout(_addresses(network, nodes))
    outcome = Transactor(client.rpc, client.deployment.chain_id, key).send(call)
    click.echo(f"paid out in block {outcome.block_number}, 0x{outcome.tx_hash.hex()}")


def _addresses(network: Path, nodes: tuple[str, ...]) -> list[bytes]:
    if nodes:
        return [parse_address(node) for node in nodes]
    folder = open_folder(network)
    return [folder.key(name).address for name in NODES]
