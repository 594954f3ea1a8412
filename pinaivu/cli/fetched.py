"""What commands fetch from public servers: bundles, books, and the receipts of a log."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import click
import httpx

from pinaivu.bundles import unpack
from pinaivu.cli.place import open_folder
from pinaivu.encoding import parse_json, to_hex
from pinaivu.errors import InvalidEncoding, Misconfigured, PeerFault, TransportFailure
from pinaivu.local.ports import keep_ports
from pinaivu.merkle.tiles import tiles_at
from pinaivu.verify.contents import read_contents
from pinaivu.verify.findings import Lacks
from pinaivu.verify.rerun import book_beside

REFUTED: Final = 1
INCOMPLETE: Final = 2
"""Exit codes of commands that go through evidence."""


def fetch(url: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """The answer to a GET; `TransportFailure` for none, or one that is no success."""
    try:
        answer = httpx.get(url, headers=headers, timeout=30)
    except httpx.HTTPError as error:
        raise TransportFailure(f"{url}: {error or type(error).__name__}") from error
    if answer.status_code != httpx.codes.OK:
        raise TransportFailure(f"{url} answered {answer.status_code}: {answer.text[:300]}")
    return answer


def request_id_of(text: str) -> str:
    """A request id in its one form; a usage error for anything else."""
    try:
        return str(UUID(text))
    except ValueError as error:
        raise click.UsageError(f"{text!r} is neither a file nor a request id") from error


def public_bundle(log: str, request_id: str) -> bytes:
    """A request's bundle from the log's public server, without the holder's copies."""
    found: Any = parse_json(fetch(f"{log}/receipts/{request_id}").content)
    gateways = {entry["receipt"]["message"]["gateway"] for entry in found["receipts"]}
    if len(gateways) != 1:
        raise Misconfigured(f"{len(gateways)} gateways used this id: name a bundle file instead")
    return fetch(f"{log}/bundles/{gateways.pop()}/{request_id}").content


def root_beside(bundle: bytes) -> bytes | None:
    """The root of the book that a bundle's transcript leaves out; None where it holds it."""
    return book_beside(read_contents(unpack(bundle)).transcript)


def book(log: str, root: bytes) -> Any:
    """A book of the log's, by its root."""
    return parse_json(fetch(f"{log}/books/{to_hex(root)}").content)


def leaf_lines(log: str, size: int) -> Iterator[bytes]:
    """The log's first leaves with their signatures, a JSON line each, in order."""
    for tile in tiles_at("receipts", size):
        yield from fetch(f"{log}/{tile.path}").content.splitlines()


def log_of(network: Path) -> str:
    """The public server of a local network's log."""
    return f"http://127.0.0.1:{keep_ports(open_folder(network).ports).coordinator_http}"


@contextmanager
def judged() -> Iterator[None]:
    """Say why evidence can't be gone through; end with 1 where it's refuted, 2 where it lacks."""
    try:
        yield
    except (InvalidEncoding, PeerFault) as error:
        click.echo(f"refuted: {error}", err=True)
        raise click.exceptions.Exit(REFUTED) from error
    except Lacks as error:
        click.echo(f"incomplete: {error}", err=True)
        raise click.exceptions.Exit(INCOMPLETE) from error
