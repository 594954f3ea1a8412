"""`pinaivu keys`: API keys of a gateway."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from pinaivu.cli.place import network_options, open_folder, parse_address
from pinaivu.errors import Misconfigured
from pinaivu.keys import checksum
from pinaivu.store.database import Database, open_database
from pinaivu.store.gateway_keys import create_key, list_grants, list_keys, revoke_key
from pinaivu.store.gateway_policy import Policy


def _database(network: Path, database: str | None) -> Database:
    return open_database(database or open_folder(network).database("gateway"), "gateway")


_database_option = click.option("--database", help="The gateway's database URL.")


@click.group("keys")
def command() -> None:
    """API keys of a gateway. A key is shown once, when it is made; only its hash is stored."""


@command.command("create")
@network_options
@_database_option
@click.option("--label", default="", help="What the key is for.")
@click.option(
    "--payer",
    "payers",
    multiple=True,
    help="Wallet that pays; may be left out when one wallet only has granted. Repeated: in order, "
    "the next one where those before can't, such as when their log is away.",
)
@click.option("--daily-tokens", type=int, help="Most tokens per UTC day, prompt and output.")
@click.option("--daily-units", type=int, help="Most base units per UTC day.")
@click.option(
    "--hosted", is_flag=True, help="The wallet is the gateway's own: give the key a sub-account."
)
@click.option(
    "--limit-units", type=click.IntRange(1), help="With --hosted: most base units the key may cost."
)
def create(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    database: str | None,
    label: str,
    payers: tuple[str, ...],
    daily_tokens: int | None,
    daily_units: int | None,
    limit_units: int | None,
    *,
    hosted: bool,
) -> None:
    """Make a key; use it as `api_key` with any OpenAI SDK."""
    del rpc, deployment
    if hosted == (limit_units is None):
        raise click.UsageError("--hosted and --limit-units go together: say what the key may cost")
    store = _database(network, database)
    first, *further = [parse_address(payer) for payer in payers] or [_only_payer(store)]
    made = create_key(
        store,
        payer=first,
        further_payers=further,
        label=label,
        random=os.urandom,
        now_ms=time.time_ns() // 1_000_000,
        policy=Policy(daily_tokens=daily_tokens, daily_units=daily_units),
        hosted_limit_units=limit_units,
    )
    click.echo(f"{made.key_id}  {made.secret}")
    click.echo("This is the only time the key is shown.", err=True)


def _only_payer(store: Database) -> bytes:
    payers = {grant.message.payer for grant in list_grants(store)}
    if len(payers) != 1:
        raise Misconfigured(
            f"{len(payers)} wallets have granted this gateway: name one with --payer"
        )
    return payers.pop()


@command.command("list")
@network_options
@_database_option
def show(network: Path, rpc: str | None, deployment: Path | None, database: str | None) -> None:
    """List keys, revoked ones too."""
    del rpc, deployment
    for key in list_keys(_database(network, database)):
        state = "revoked" if key.revoked_ms else "active"
        made = datetime.fromtimestamp(key.created_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        payer = checksum(key.payer)
        click.echo(f"{key.key_id}  {key.shown:16}  {state:8} {made}  {payer}  {key.label}")


@command.command("revoke")
@network_options
@_database_option
@click.argument("key_id")
def revoke(
    network: Path, rpc: str | None, deployment: Path | None, database: str | None, key_id: str
) -> None:
    """End a key; a running gateway notices within seconds."""
    del rpc, deployment
    revoke_key(_database(network, database), key_id, time.time_ns() // 1_000_000)
    click.echo(f"{key_id} is revoked")
