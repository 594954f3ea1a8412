"""`pinaivu wallet`: a payer's money. Every command is a transaction or a read of the chain."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from pinaivu.chain.anvil import fund
from pinaivu.chain.calls import Call, Calls
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployment import Deployment
from pinaivu.chain.errors import ChainUnavailable, Reverted
from pinaivu.chain.records import NO_LOG
from pinaivu.chain.roles import LOCAL_CHAINS
from pinaivu.chain.views import simulate
from pinaivu.cli.place import (
    network_options,
    open_chain,
    open_folder,
    parse_address,
    parse_tokens,
    tokens,
)
from pinaivu.cli.sending import send
from pinaivu.encoding import from_hex
from pinaivu.errors import InvalidEncoding, Misconfigured
from pinaivu.grants import Caps, sign_grant
from pinaivu.keyfiles import load_key
from pinaivu.keys import SecretKey, checksum

_PERMIT_S: Final = 3600
_MEANINGS: Final = {
    "TooEarly": "the delay is not over; `pinaivu wallet balance` says when it is",
    "NothingRequested": "nothing was asked for; `request-withdrawal` or `move`, and wait, first",
    "AlreadyAssigned": "the wallet is assigned to a log already; `pinaivu wallet move` changes it",
    "NotAssigned": "the wallet is assigned to no log; `pinaivu wallet assign LOG_ID` does that",
    "UnknownLog": "there is no log of this id on this chain",
    "ZeroAmount": "an amount above zero is needed",
    "ERC20InsufficientBalance": "the wallet does not hold that many tokens",
    "ERC20InsufficientAllowance": "the token did not take the permit; try --approve",
}
_key_option = click.option(
    "--key",
    "key_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The wallet's key file; the demo payer's by default.",
)


def _key(network: Path, key_file: Path | None) -> SecretKey:
    path = key_file or open_folder(network).key_path("payer")
    return load_key(path, os.urandom)


def _send(client: ChainClient, key: SecretKey, call: Call) -> None:
    send(client, key, call, _MEANINGS)


@click.group("wallet")
def command() -> None:
    """A payer's money: deposit, grants to gateways, withdrawal without anybody's help."""


@command.command("balance")
@network_options
@_key_option
def balance(network: Path, rpc: str | None, deployment: Path | None, key_file: Path | None) -> None:
    """Show what the contracts hold for this wallet."""
    client, key = open_chain(network, rpc, deployment), _key(network, key_file)
    state = client.payer(key.address)
    click.echo(f"wallet            {checksum(key.address)}")
    click.echo(f"tokens in wallet  {tokens(client.token_balance(key.address))}")
    click.echo(f"deposited         {tokens(state.balance)}")
    click.echo(f"assigned to log   {_named(state.log_id)}")
    click.echo(f"grant epoch       {state.grant_epoch}")
    if state.requested:
        click.echo(f"withdrawal        {tokens(state.requested)} {_from(state.withdrawable_at_ms)}")
    if state.movable_at_ms:
        click.echo(f"move              to {_named(state.next_log_id)} {_from(state.movable_at_ms)}")
    if state.debt:
        click.echo(f"debt              {tokens(state.debt)}")


def _named(log_id: bytes) -> str:
    return "none" if log_id == NO_LOG else f"0x{log_id.hex()}"


def _from(time_ms: int) -> str:
    return f"from {datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


@command.command("faucet")
@network_options
@_key_option
@click.argument("amount")
def faucet(
    network: Path, rpc: str | None, deployment: Path | None, key_file: Path | None, amount: str
) -> None:
    """Give the wallet AMOUNT tokens of play money, and coin for gas: on a development chain."""
    chain_id = Deployment.load(deployment or open_folder(network).deployment).chain_id
    if chain_id not in LOCAL_CHAINS:
        raise Misconfigured(
            f"chain {chain_id} is no development chain: nobody gives money away there; send tokens"
            " to the wallet"
        )
    client, key = open_chain(network, rpc, deployment), _key(network, key_file)
    fund(client.rpc, key.address)
    _send(client, key, Calls(client.deployment).mint(key.address, parse_tokens(amount)))


@command.command("deposit")
@network_options
@_key_option
@click.argument("amount")
@click.option("--approve", is_flag=True, help="By approval and deposit, as tokens without permits.")
def deposit(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    key_file: Path | None,
    amount: str,
    *,
    approve: bool,
) -> None:
    """Move AMOUNT tokens from the wallet into the settlement contract.

    One transaction by the token's permit (ERC-2612) where it has them, or where the contract may
    take as much already, else approval and deposit.
    """
    client, key = open_chain(network, rpc, deployment), _key(network, key_file)
    calls, units = Calls(client.deployment), parse_tokens(amount)
    allowed = not approve and client.allowance(key.address) >= units
    if not approve and not allowed:
        by_permit = _by_permit(client, key, units)
        if by_permit is not None:
            _send(client, key, by_permit)
            return
        click.echo("the token takes no permit (ERC-2612): approval and deposit, as with --approve")
    if not allowed:
        _send(client, key, calls.approve(units))
    _send(client, key, calls.deposit(units))


def _by_permit(client: ChainClient, key: SecretKey, units: int) -> Call | None:
    """The deposit with a permit; None where the token takes no such permit, which is tried first.

    Some have none, some of an older form, and some accept any call and do nothing.
    """
    deadline_s = client.block().time_ms // 1000 + _PERMIT_S
    try:
        permit = key.sign(client.permit_digest(key.address, units, deadline_s))
    except (Reverted, ChainUnavailable):
        return None
    call = Calls(client.deployment).deposit_with_permit(key.address, units, deadline_s, permit)
    try:
        simulate(client.rpc, call, key.address)
    except Reverted as reverted:
        if reverted.name == "ERC20InsufficientAllowance" or reverted.name not in _MEANINGS:
            return None
    return call


@command.command("assign")
@network_options
@_key_option
@click.argument("log_id")
def assign(
    network: Path, rpc: str | None, deployment: Path | None, key_file: Path | None, log_id: str
) -> None:
    """Let the batches of LOG_ID, and of no other log, debit the deposit."""
    client, key = open_chain(network, rpc, deployment), _key(network, key_file)
    _send(client, key, Calls(client.deployment).assign(_log_id(log_id)))


@command.command("grant")
@network_options
@_key_option
@click.argument("gateway")
@click.option("--per-day", default="10", show_default=True, help="Most tokens a day.")
@click.option("--per-job", default="1", show_default=True, help="Most tokens a request.")
@click.option("--total", default="100", show_default=True, help="Most tokens ever.")
@click.option("--max-price", default=20_000_000, show_default=True, help="Base units per million.")
@click.option("--days", default=30, show_default=True, help="How long the grant is valid.")
def grant(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    key_file: Path | None,
    gateway: str,
    per_day: str,
    per_job: str,
    total: str,
    max_price: int,
    days: int,
) -> None:
    """Sign a grant that lets GATEWAY spend within caps; prints it as JSON for the gateway."""
    client, key = open_chain(network, rpc, deployment), _key(network, key_file)
    state, now = client.payer(key.address), time.time_ns() // 1_000_000
    if state.log_id == NO_LOG:
        raise Misconfigured(
            "the wallet is assigned to no log, and a grant names one; `pinaivu wallet assign"
            " LOG_ID` first"
        )
    caps = Caps(
        per_job=parse_tokens(per_job),
        per_day=parse_tokens(per_day),
        total=parse_tokens(total),
        max_price=max_price,
        days=days,
    )
    signed = sign_grant(
        key,
        client.deployment.domain,
        state.log_id,
        parse_address(gateway),
        state.grant_epoch,
        caps,
        now_ms=now,
        salt=os.urandom(32),
    )
    click.echo(json.dumps(signed.to_json()))


@command.command("move")
@network_options
@_key_option
@click.argument("log_id", required=False)
@click.option("--complete", is_flag=True, help="Move now, once the delay is over.")
def move(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    key_file: Path | None,
    log_id: str | None,
    *,
    complete: bool,
) -> None:
    """Ask to move the deposit to LOG_ID (`none`: to no log), and with --complete move it.

    In between lies the withdrawal delay, in which the present log serves no new request of this
    wallet and still debits what it owes. Asking for the present log cancels.
    """
    if complete == (log_id is not None):
        raise click.UsageError("name the LOG_ID to ask for, or --complete a move asked for before")
    client, key = open_chain(network, rpc, deployment), _key(network, key_file)
    calls = Calls(client.deployment)
    if log_id is None:
        _send(client, key, calls.complete_move())
        return
    _send(client, key, calls.request_move(NO_LOG if log_id == "none" else _log_id(log_id)))
    state = client.payer(key.address)
    if state.movable_at_ms:
        click.echo(f"`pinaivu wallet move --complete` works {_from(state.movable_at_ms)}")


def _log_id(text: str) -> bytes:
    try:
        return from_hex(text.lower(), 32)
    except InvalidEncoding as error:
        raise click.BadParameter(f"{text!r} is no id of a log, 0x and 64 hex digits") from error


@command.command("revoke")
@network_options
@_key_option
def revoke(network: Path, rpc: str | None, deployment: Path | None, key_file: Path | None) -> None:
    """End every grant signed so far, on chain."""
    client, key = open_chain(network, rpc, deployment), _key(network, key_file)
    _send(client, key, Calls(client.deployment).bump_grant_epoch())


@command.command("request-withdrawal")
@network_options
@_key_option
@click.argument("amount")
def request_withdrawal(
    network: Path, rpc: str | None, deployment: Path | None, key_file: Path | None, amount: str
) -> None:
    """Ask for AMOUNT tokens back; `withdraw` works after the delay, whatever the operator does.

    A new request replaces the one before and restarts the delay; 0 cancels it.
    """
    client, key = open_chain(network, rpc, deployment), _key(network, key_file)
    _send(client, key, Calls(client.deployment).request_withdrawal(parse_tokens(amount)))
    state = client.payer(key.address)
    if state.requested:
        click.echo(f"`pinaivu wallet withdraw` works {_from(state.withdrawable_at_ms)}")


@command.command("withdraw")
@network_options
@_key_option
@click.option("--to", help="Another address to pay to, instead of the wallet itself.")
def withdraw(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    key_file: Path | None,
    to: str | None,
) -> None:
    """Take a matured withdrawal out into the wallet."""
    client, key = open_chain(network, rpc, deployment), _key(network, key_file)
    receiver = parse_address(to) if to else key.address
    _send(client, key, Calls(client.deployment).withdraw(receiver))
