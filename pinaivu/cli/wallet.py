"""`pinaivu wallet`: a payer's money. Every command is a transaction or a read of the chain."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from pinaivu.chain.calls import Call, Calls
from pinaivu.chain.client import ChainClient
from pinaivu.chain.records import NO_LOG
from pinaivu.chain.transactor import Transactor
from pinaivu.cli.place import (
    network_options,
    open_chain,
    open_folder,
    parse_address,
    parse_tokens,
    tokens,
)
from pinaivu.encoding import from_hex
from pinaivu.fields import MAX_U64, MAX_U96
from pinaivu.keyfiles import load_key
from pinaivu.keys import SecretKey, checksum
from pinaivu.messages import Grant
from pinaivu.typed_data import Signed

_DAY_MS = 86_400_000
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
    sender = Transactor(client.rpc, client.deployment.chain_id, key)
    outcome = sender.send(call)
    click.echo(f"{call.what}: transaction 0x{outcome.tx_hash.hex()} block {outcome.block_number}")


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
    log = "none" if state.log_id == NO_LOG else f"0x{state.log_id.hex()}"
    click.echo(f"assigned to log   {log}")
    click.echo(f"grant epoch       {state.grant_epoch}")
    if state.requested:
        at = datetime.fromtimestamp(state.withdrawable_at_ms / 1000, UTC)
        click.echo(f"withdrawal        {tokens(state.requested)} from {at:%Y-%m-%d %H:%M:%S} UTC")
    if state.debt:
        click.echo(f"debt              {tokens(state.debt)}")


@command.command("deposit")
@network_options
@_key_option
@click.argument("amount")
def deposit(
    network: Path, rpc: str | None, deployment: Path | None, key_file: Path | None, amount: str
) -> None:
    """Move AMOUNT tokens from the wallet into the settlement contract."""
    client, key = open_chain(network, rpc, deployment), _key(network, key_file)
    calls, units = Calls(client.deployment), parse_tokens(amount)
    _send(client, key, calls.approve(units))
    _send(client, key, calls.deposit(units))


@command.command("assign")
@network_options
@_key_option
@click.argument("log_id")
def assign(
    network: Path, rpc: str | None, deployment: Path | None, key_file: Path | None, log_id: str
) -> None:
    """Let the batches of LOG_ID, and of no other log, debit the deposit."""
    client, key = open_chain(network, rpc, deployment), _key(network, key_file)
    _send(client, key, Calls(client.deployment).assign(from_hex(log_id, 32)))


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
    message = Grant(
        log_id=state.log_id,
        payer=key.address,
        gateway=parse_address(gateway),
        grant_epoch=state.grant_epoch,
        max_total=min(parse_tokens(total), MAX_U96),
        max_per_job=parse_tokens(per_job),
        max_per_day=parse_tokens(per_day),
        max_price_in=max_price,
        max_price_out=max_price,
        not_before_ms=0,
        not_after_ms=min(now + days * _DAY_MS, MAX_U64),
        salt=os.urandom(32),
        models=(),
    )
    click.echo(json.dumps(Signed.by(key, client.deployment.domain, message).to_json()))


@command.command("revoke-grants")
@network_options
@_key_option
def revoke_grants(
    network: Path, rpc: str | None, deployment: Path | None, key_file: Path | None
) -> None:
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
    """Ask for AMOUNT tokens back; `withdraw` works after the delay, whatever the operator does."""
    client, key = open_chain(network, rpc, deployment), _key(network, key_file)
    _send(client, key, Calls(client.deployment).request_withdrawal(parse_tokens(amount)))


@command.command("withdraw")
@network_options
@_key_option
def withdraw(
    network: Path, rpc: str | None, deployment: Path | None, key_file: Path | None
) -> None:
    """Take a matured withdrawal out into the wallet."""
    client, key = open_chain(network, rpc, deployment), _key(network, key_file)
    _send(client, key, Calls(client.deployment).withdraw(key.address))
