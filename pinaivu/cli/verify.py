"""`pinaivu verify`: check a request alone. The same steps that the explorer shows, run here."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from pinaivu.bundles import unpack
from pinaivu.chain.deployment import Deployment
from pinaivu.chain.facts import ContractFacts
from pinaivu.cli import holdings
from pinaivu.cli.fetched import book, fetch, public_bundle, request_id_of, root_beside
from pinaivu.cli.place import network_options, open_chain, open_folder
from pinaivu.cli.placed import Placed, placed
from pinaivu.encoding import from_hex, parse_json
from pinaivu.errors import InvalidEncoding, Misconfigured, PeerFault, TransportFailure
from pinaivu.local.ports import keep_ports
from pinaivu.tokens import Tokenizer
from pinaivu.typed_data import Domain
from pinaivu.verify import Report, SimulatedDocumentWarning
from pinaivu.verify.case import Copies
from pinaivu.verify.contents import read_contents
from pinaivu.verify.findings import Lacks
from pinaivu.verify.policy import Policy, development, strict
from pinaivu.verify.verifier import Verifier

_file = click.Path(dir_okay=False, exists=True, path_type=Path)


@click.command("verify")
@network_options
@click.argument("target", required=False)
@click.option(
    "--policy",
    "policy_name",
    type=click.Choice(["development", "strict"]),
    default="development",
    show_default=True,
    help="strict believes AWS Nitro alone; development accepts a SIMULATED attestation.",
)
@click.option("--api-key", envvar="PINAIVU_API_KEY", help="The request's key: its own copies.")
@click.option("--gateway-url", help="The gateway, such as http://127.0.0.1:8080.")
@click.option("--log-url", help="The log's public server, instead of the network's.")
@click.option("--request", "request_file", type=_file, help="My request body, as JSON.")
@click.option("--response", "response_file", type=_file, help="The response I got, as JSON.")
@click.option("--tokenizer", type=click.Path(file_okay=False, path_type=Path), help="Its folder.")
@click.option("--book", "book_file", type=_file, help="The auction's book, as the log served it.")
@click.option(
    "--node", "node_text", metavar="0x…", help="Also say how this node did in the auction."
)
@click.option(
    "--account", is_flag=True, help="All my requests together: no gap, no repeat, right sums."
)
@click.option("--limit-units", type=int, help="The limit I was promised for a hosted key.")
@click.option("--offline", is_flag=True, help="Don't ask a chain; what needs one is lacking then.")
@click.option("--public", is_flag=True, help="Somebody else's request: V4, V5, V9 don't count.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def command(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    target: str | None,
    policy_name: str,
    api_key: str | None,
    gateway_url: str | None,
    log_url: str | None,
    request_file: Path | None,
    response_file: Path | None,
    tokenizer: Path | None,
    book_file: Path | None,
    node_text: str | None,
    limit_units: int | None,
    *,
    account: bool,
    offline: bool,
    public: bool,
    as_json: bool,
) -> None:
    """Check TARGET: a bundle file, or a request id.

    A request id is looked up at the gateway with its API key (all steps), or without a key at the
    log's public server (everything but the holder's own copies). With --account TARGET is a folder
    of my bundles, as a verifying client keeps them; with an API key all its requests are fetched
    from the gateway, and none may be missing from the folder, if there is one. Exit codes: 0
    proven, 1 refuted, 2 incomplete, 3 wrong usage. What is said with --node never changes them.
    """
    if target is None and not (account and api_key):
        raise click.UsageError("name a bundle file or a request id; or --account and an --api-key")
    node = _node(node_text)
    deployed = Deployment.load(deployment or open_folder(network).deployment)
    policy: Policy = (strict if policy_name == "strict" else development)(deployed.domain)
    if public or (target and not api_key and not Path(target).exists()):
        policy = policy.without_copies()
    facts = None if offline else ContractFacts(open_chain(network, rpc, deployment))
    copies = Copies(
        request=_json(request_file),
        response=_json(response_file),
        account_limit=limit_units,
        tokenizer=_tokenizer(network, tokenizer),
        book=_json(book_file),
    )

    def copies_for(raw: bytes) -> Copies:
        book = copies.book or _book(raw, network, log_url, offline=offline)
        return replace(copies, book=book)

    verifier = Verifier(policy, facts)
    if account:
        raws, own = _all_bundles(target, network, api_key, gateway_url)
        raise click.exceptions.Exit(
            holdings.check(
                verifier, raws, copies_for, limit_units=limit_units, own=own, as_json=as_json
            )
        )
    assert target is not None
    raw = _bundle(target, network, api_key, gateway_url, log_url)
    copies = copies_for(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimulatedDocumentWarning)  # the report says it itself
        report = verifier.verify(raw, copies)
    said = _placed(raw, deployed.domain, copies.book, node) if node else None
    _show(report, said, as_json=as_json)
    raise click.exceptions.Exit(report.exit_code)


def _show(report: Report, said: Placed | str | None, *, as_json: bool) -> None:
    """Print a report, and how a node did where that was asked."""
    if as_json:
        placing = said.to_json() if isinstance(said, Placed) else said
        told = {} if said is None else {"node": placing}
        click.echo(json.dumps(report.to_json() | told, indent=2))
        return
    click.echo(report.to_text(), nl=False)
    if said is not None:
        click.echo(said.to_text() if isinstance(said, Placed) else f"node: {said}\n", nl=False)


def _all_bundles(
    target: str | None, network: Path, api_key: str | None, gateway_url: str | None
) -> tuple[Iterator[bytes], frozenset[str] | None]:
    """The bundles to reckon up, and the request ids that the holder knows to be its own."""
    if target is not None and not Path(target).is_dir():
        raise click.UsageError(f"{target!r} is no folder of bundles")
    if api_key is None:
        assert target is not None
        return holdings.bundles_in(Path(target)), None
    base = gateway_url or f"http://127.0.0.1:{_ports(network).gateway_http}"
    own = holdings.kept_in(Path(target)) if target is not None else None
    return holdings.bundles_at(base, api_key), own


def _bundle(
    target: str,
    network: Path,
    api_key: str | None,
    gateway_url: str | None,
    log_url: str | None,
) -> bytes:
    if Path(target).exists():
        return Path(target).read_bytes()
    request_id = request_id_of(target)
    if api_key:
        base = gateway_url or f"http://127.0.0.1:{_ports(network).gateway_http}"
        url = f"{base.rstrip('/')}/v1/receipts/{request_id}/bundle"
        return fetch(url, {"Authorization": f"Bearer {api_key}"}).content
    return public_bundle(_log(network, log_url), request_id)


def _book(raw: bytes, network: Path, log_url: str | None, *, offline: bool) -> Any:
    """The book that a bundle's transcript leaves out, from the log; None if it can't be had."""
    try:
        root = root_beside(raw)
    except InvalidEncoding:
        return None  # the report says so
    if root is None or (offline and not log_url):
        return None
    try:
        return book(_log(network, log_url), root)
    except (TransportFailure, InvalidEncoding, Misconfigured) as error:
        click.echo(f"no book: {error}", err=True)
        return None


def _node(text: str | None) -> bytes | None:
    try:
        return from_hex(text.lower(), 20) if text is not None else None
    except InvalidEncoding as error:
        raise click.UsageError(f"--node {text!r} is no 0x address") from error


def _placed(raw: bytes, domain: Domain, book: object, node: bytes) -> Placed | str:
    """How a node did; a text says why that can't be told."""
    try:
        return placed(read_contents(unpack(raw)), domain, book, node)
    except (InvalidEncoding, PeerFault, Lacks) as error:
        return str(error)


def _ports(network: Path) -> Any:
    return keep_ports(open_folder(network).ports)


def _log(network: Path, log_url: str | None) -> str:
    return (log_url or f"http://127.0.0.1:{_ports(network).coordinator_http}").rstrip("/")


def _json(path: Path | None) -> Any:
    return parse_json(path.read_bytes()) if path else None


def _tokenizer(network: Path, folder: Path | None) -> Tokenizer | None:
    if folder is None:
        folder = network / "model"
        if not folder.exists():
            return None
    return Tokenizer.from_directory(folder)
