"""Which network a command speaks to: a folder made by `pinaivu up`, or endpoints by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployment import Deployment
from pinaivu.chain.rpc import HttpRpc
from pinaivu.errors import Misconfigured
from pinaivu.local.folder import Folder
from pinaivu.local.ports import keep_ports

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_FOLDER: Final = ".demo"
TOKEN: Final = 10**6


def network_options(function: F) -> F:
    """`--network`, `--rpc` and `--deployment`."""
    options = (
        click.option(
            "--network",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path(DEFAULT_FOLDER),
            show_default=True,
            help="Folder of a network made by `pinaivu up`.",
        ),
        click.option("--rpc", help="JSON-RPC URL of the chain, instead of the network's."),
        click.option(
            "--deployment",
            type=click.Path(dir_okay=False, path_type=Path),
            help="File with the contracts' addresses, instead of the network's.",
        ),
    )
    for option in options:
        function = option(function)
    return function


def open_folder(network: Path) -> Folder:
    """The folder, if `pinaivu up` has made it."""
    folder = Folder(network)
    if not folder.deployment.exists():
        raise Misconfigured(
            f"there is no network in {network}: run `pinaivu up` first, or name its folder with "
            "--network"
        )
    return folder


def rpc_url(network: Path, rpc: str | None) -> str:
    """The chain's endpoint: the one given, or the network's."""
    return rpc or f"http://127.0.0.1:{keep_ports(open_folder(network).ports).chain}"


def open_chain(network: Path, rpc: str | None, deployment: Path | None) -> ChainClient:
    """A checked chain client for the network or the endpoints given."""
    if deployment is None:
        deployment = open_folder(network).deployment
    endpoint = HttpRpc(rpc_url(network, rpc))
    click.get_current_context().with_resource(endpoint)  # closed with the command
    client = ChainClient(endpoint, Deployment.load(deployment))
    client.check()
    return client


def tokens(units: int) -> str:
    """Base units as tokens, all six decimals."""
    sign = "-" if units < 0 else ""
    whole, part = divmod(abs(units), TOKEN)
    return f"{sign}{whole}.{part:06d}"


def parse_tokens(text: str) -> int:
    """Tokens as people write them (`1.5`) in base units; exact, or a usage error."""
    whole, _, part = text.partition(".")
    valid = text.isascii() and whole.isdigit() and (part.isdigit() or not part)
    if not valid or len(part) > 6:  # noqa: PLR2004 - the token's decimals
        raise click.BadParameter(f"{text!r} is no amount of tokens, such as 1.5 (six decimals)")
    return int(whole) * TOKEN + int((part or "0").ljust(6, "0"))


def parse_address(text: str) -> bytes:
    """A 0x address, checksummed or not."""
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no 0x address") from error
    if len(value) != 20:  # noqa: PLR2004 - address
        raise click.BadParameter(f"{text!r} is no address of 20 bytes")
    return value
