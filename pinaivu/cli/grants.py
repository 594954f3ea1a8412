"""`pinaivu grants`: the payers' permissions that a gateway spends under."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import click

from pinaivu.chain.deployment import Deployment
from pinaivu.cli.keys import database_option, gateway_database, now_ms, whoever
from pinaivu.cli.place import network_options, open_folder, tokens
from pinaivu.encoding import from_hex, to_hex
from pinaivu.errors import InvalidEncoding, Misconfigured
from pinaivu.keys import BadSignature, checksum
from pinaivu.messages import Grant
from pinaivu.store.gateway_keys import add_grant, list_grants, remove_grant
from pinaivu.typed_data import Domain, Signed, signed_from_json


@click.group("grants")
def command() -> None:
    """Take in, list and forget grants: signed permissions of payers to this gateway's key.

    A payer makes one with `pinaivu wallet grant` and hands over the JSON. The coordinator checks
    every job against it; `pinaivu wallet revoke` is how a payer ends it for good.
    """


@command.command("add")
@network_options
@database_option
@click.argument("file", type=click.File(encoding="utf-8"))
def add(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    database: str | None,
    file: IO[str],
) -> None:
    """Take in the grant in FILE (`-` reads standard input), if its payer has signed it."""
    del rpc
    signed = _read(file.read())
    domain = _domain(network, deployment)
    try:
        digest = add_grant(gateway_database(network, database), domain, signed, now_ms(), whoever())
    except BadSignature as error:
        raise Misconfigured(
            f"this grant is not signed by its payer for chain {domain.chain_id} and these"
            f" contracts: {error}"
        ) from error
    click.echo(to_hex(digest))


@command.command("list")
@network_options
@database_option
def list_command(
    network: Path, rpc: str | None, deployment: Path | None, database: str | None
) -> None:
    """List grants, newest first: digest, payer, gateway, caps in tokens, validity."""
    del rpc
    domain = _domain(network, deployment)
    for signed in list_grants(gateway_database(network, database)):
        grant = signed.message
        click.echo(
            f"{to_hex(signed.digest(domain))}  payer {checksum(grant.payer)}  "
            f"gateway {checksum(grant.gateway)}  {tokens(grant.max_per_job)} a request  "
            f"{tokens(grant.max_per_day)} a day  {tokens(grant.max_total)} in all  {_until(grant)}"
        )


@command.command("remove")
@network_options
@database_option
@click.argument("digest")
def remove(
    network: Path, rpc: str | None, deployment: Path | None, database: str | None, digest: str
) -> None:
    """Forget the grant of this DIGEST; its payer's keys use another one or get 403."""
    del rpc, deployment
    try:
        wanted = from_hex(digest)
    except InvalidEncoding as error:
        raise click.BadParameter(f"{digest!r} is no 0x digest") from error
    remove_grant(gateway_database(network, database), wanted, now_ms(), whoever())
    click.echo(f"{digest} is forgotten")


def _read(text: str) -> Signed[Grant]:
    try:
        return signed_from_json(Grant, json.loads(text))
    except (ValueError, InvalidEncoding) as error:
        raise Misconfigured(
            f"this is no grant as `pinaivu wallet grant` prints it: {error}"
        ) from error


def _domain(network: Path, deployment: Path | None) -> Domain:
    return Deployment.load(deployment or open_folder(network).deployment).domain


def _until(grant: Grant) -> str:
    state = "until" if grant.not_after_ms > now_ms() else "expired"
    ends = min(grant.not_after_ms / 1000, datetime.max.replace(tzinfo=UTC).timestamp())
    return f"{state} {datetime.fromtimestamp(ends, UTC):%Y-%m-%d}"
