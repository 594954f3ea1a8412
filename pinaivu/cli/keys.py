"""`pinaivu keys`: API keys of a gateway."""

import os
import pwd
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from pinaivu.cli.limits import policy_changes, policy_options
from pinaivu.cli.place import network_options, open_folder, parse_address
from pinaivu.errors import Misconfigured
from pinaivu.keys import checksum
from pinaivu.store.database import Database, open_database
from pinaivu.store.gateway_acts import list_acts
from pinaivu.store.gateway_keys import (
    KeyInfo,
    change_policy,
    create_key,
    find_key,
    list_grants,
    list_keys,
    revoke_key,
    rotate_key,
)
from pinaivu.store.gateway_policy import Policy, changed


def gateway_database(network: Path, database: str | None) -> Database:
    """The gateway's database, by URL or as the network's folder has it."""
    return open_database(database or open_folder(network).database("gateway"), "gateway")


def whoever() -> str:
    """Who runs this command, for the log of acts: the machine's user."""
    user = os.getuid()
    try:
        return f"cli:{pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"cli:{user}"


def now_ms() -> int:
    """The machine's time."""
    return time.time_ns() // 1_000_000


database_option = click.option("--database", help="The gateway's database URL.")


@click.group("keys")
def command() -> None:
    """API keys of a gateway. A key is shown once, when it is made; only its hash is stored.

    A running gateway notices every change within seconds. Every change is logged (`keys log`).
    """


@command.command("create")
@network_options
@database_option
@click.option("--label", default="", help="What the key is for.")
@click.option(
    "--payer",
    "payers",
    multiple=True,
    help="Wallet that pays; may be left out when one wallet only has granted. Repeated: in order, "
    "the next one where those before can't, such as when their log is away.",
)
@policy_options
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
    limit_units: int | None,
    *,
    hosted: bool,
    **given: Any,
) -> None:
    """Make a key; use it as `api_key` with any OpenAI SDK."""
    del rpc, deployment
    if hosted == (limit_units is None):
        raise click.UsageError("--hosted and --limit-units go together: say what the key may cost")
    store = gateway_database(network, database)
    policy = changed(Policy(), policy_changes(given))
    made = create_key(
        store,
        **_payers(store, payers, policy),
        label=label,
        random=os.urandom,
        now_ms=now_ms(),
        policy=policy,
        hosted_limit_units=limit_units,
        who=whoever(),
    )
    click.echo(f"{made.key_id}  {made.secret}")
    click.echo("This is the only time the key is shown.", err=True)


def _payers(store: Database, named: tuple[str, ...], policy: Policy) -> dict[str, Any]:
    """Who pays for a key; nobody for an administrator's."""
    if "admin" in policy.scopes:
        if named:
            raise click.UsageError("a key for administration spends nothing: leave --payer out")
        return {"payer": b""}
    first, *further = [parse_address(payer) for payer in named] or [_only_payer(store)]
    return {"payer": first, "further_payers": further}


def _only_payer(store: Database) -> bytes:
    payers = {grant.message.payer for grant in list_grants(store)}
    if len(payers) != 1:
        raise Misconfigured(
            f"{len(payers)} wallets have granted this gateway: name one with --payer"
        )
    return payers.pop()


@command.command("list")
@network_options
@database_option
def list_command(
    network: Path, rpc: str | None, deployment: Path | None, database: str | None
) -> None:
    """List keys, revoked ones too."""
    del rpc, deployment
    for key in list_keys(gateway_database(network, database)):
        payer = checksum(key.payer) if key.payer else "-"
        click.echo(
            f"{key.key_id}  {key.shown:16}  {_state(key):8} {_shown(key.created_ms)}  {payer}  "
            f"{key.label}"
        )


@command.command("show")
@network_options
@database_option
@click.argument("key_id")
def show(
    network: Path, rpc: str | None, deployment: Path | None, database: str | None, key_id: str
) -> None:
    """Show what a key may do."""
    del rpc, deployment
    key = find_key(gateway_database(network, database), key_id)
    said = msgspec.to_builtins(key.policy)
    terms = said.pop("terms", {})
    lines = {"key": key.shown, "label": key.label, "state": _state(key)}
    lines |= {"payer": checksum(key.payer)} if key.payer else {}
    lines |= {"created": _shown(key.created_ms), "scopes": ", ".join(key.policy.scopes)}
    said.pop("scopes", None)
    if "expires_ms" in said:
        said = {"expires": _shown(said.pop("expires_ms"))} | said
    for name, value in (lines | said | terms).items():
        text = ", ".join(value) if isinstance(value, list) else value
        click.echo(f"{name:20} {text}")


@command.command("limit")
@network_options
@database_option
@click.argument("key_id")
@policy_options
def limit(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    database: str | None,
    key_id: str,
    **given: Any,
) -> None:
    """Change what a key may do; `none` takes a limit away, what isn't named stays as it is."""
    del rpc, deployment
    changes = policy_changes(given)
    if not changes:
        raise click.UsageError("name at least one limit; `pinaivu keys limit --help` lists them")
    store = gateway_database(network, database)
    change_policy(store, key_id, changes, now_ms=now_ms(), who=whoever())
    click.echo(f"{key_id} is changed")


@command.command("revoke")
@network_options
@database_option
@click.argument("key_id")
def revoke(
    network: Path, rpc: str | None, deployment: Path | None, database: str | None, key_id: str
) -> None:
    """End a key; a running gateway notices within seconds."""
    del rpc, deployment
    revoke_key(gateway_database(network, database), key_id, now_ms(), whoever())
    click.echo(f"{key_id} is revoked")


@command.command("rotate")
@network_options
@database_option
@click.argument("key_id")
def rotate(
    network: Path, rpc: str | None, deployment: Path | None, database: str | None, key_id: str
) -> None:
    """Give a key a new secret; the old one ends. Limits and what was used stay."""
    del rpc, deployment
    store = gateway_database(network, database)
    made = rotate_key(store, key_id, random=os.urandom, now_ms=now_ms(), who=whoever())
    click.echo(f"{made.key_id}  {made.secret}")
    click.echo("This is the only time the key is shown.", err=True)


@command.command("log")
@network_options
@database_option
@click.argument("subject", required=False)
def log(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    database: str | None,
    subject: str | None,
) -> None:
    """Show who did what and when, of all or of one key or grant."""
    del rpc, deployment
    with gateway_database(network, database).read() as session:
        after = 0
        while acts := list_acts(session, subject=subject, after=after):
            for act in acts:
                detail = msgspec.json.encode(act.detail).decode() if act.detail else ""
                click.echo(
                    f"{_shown(act.at_ms)}  {act.who}  {act.what}  {act.subject}  {detail}".rstrip()
                )
            after = acts[-1].number


def _state(key: KeyInfo) -> str:
    if key.revoked_ms is not None:
        return "revoked"
    expires_ms = key.policy.expires_ms
    return "expired" if expires_ms is not None and expires_ms <= now_ms() else "active"


def _shown(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
