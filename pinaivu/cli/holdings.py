"""`pinaivu verify --account`: all of a holder's bundles, each alone and then together."""

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import httpx

from pinaivu.bundles import unpack
from pinaivu.encoding import parse_json
from pinaivu.errors import InvalidEncoding, PeerFault, TransportFailure
from pinaivu.verify import SimulatedDocumentWarning
from pinaivu.verify.case import Copies
from pinaivu.verify.contents import Contents, read_contents
from pinaivu.verify.holdings import Book, reckon
from pinaivu.verify.report import INCOMPLETE, PROVEN, REFUTED, Report
from pinaivu.verify.verifier import Verifier


def kept_in(folder: Path) -> frozenset[str]:
    """The request ids of the bundles that a verifying client has kept in a folder."""
    return frozenset(path.stem for path in folder.glob("*.pnv"))


def bundles_in(folder: Path) -> Iterator[bytes]:
    """Every bundle in a folder; none is a usage error."""
    paths = sorted(folder.glob("*.pnv"))
    if not paths:
        raise click.UsageError(f"{folder} holds no bundle (*.pnv)")
    yield from (path.read_bytes() for path in paths)


def bundles_at(gateway_url: str, api_key: str) -> Iterator[bytes]:
    """The bundle of every request that a key has made, by the gateway's list of them.

    What the list leaves out shows as a gap; what was answered just now may not be there yet, which
    is a `TransportFailure` that says so.
    """
    base, after = gateway_url.rstrip("/"), ""
    with httpx.Client(headers={"Authorization": f"Bearer {api_key}"}, timeout=30) as http:
        while True:
            page: Any = parse_json(_get(http, f"{base}/v1/receipts?after={after}").content)
            for entry in page["data"]:
                yield _get(http, f"{base}/v1/receipts/{entry['request_id']}/bundle").content
            if not page["has_more"]:
                return
            after = page["last_id"]


def check(
    verifier: Verifier,
    raws: Iterator[bytes],
    copies_for: Callable[[bytes], Copies],
    *,
    limit_units: int | None,
    own: frozenset[str] | None,
    as_json: bool,
) -> int:
    """Verify each bundle and reckon them up; prints the outcome, returns the exit code.

    `own` are the request ids that the holder has kept itself: no other may be among them.
    """
    reports, contents = list[Report](), list[Contents]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimulatedDocumentWarning)  # the reports say it themselves
        for raw in raws:
            reports.append(verifier.verify(raw, copies_for(raw)))
            try:
                contents.append(read_contents(unpack(raw)))
            except (InvalidEncoding, PeerFault):
                continue  # its report says so
    books = reckon(verifier.policy.domain, contents, limit=limit_units)
    ids = {str(report.subject.get("request_id", "?")) for report in reports}
    strangers = sorted(ids - own) if own is not None else []
    code = REFUTED if strangers else _code(reports, books)
    if as_json:
        told = _json(reports, books, code) | {"strangers": strangers}
        click.echo(json.dumps(told, indent=2))
    else:
        for report in reports:
            click.echo(f"{report.subject.get('request_id', '?')}  {report.verdict}")
            for step in report.failed or report.unmet:
                click.echo(f"  {step.id} {step.outcome.value}: {step.evidence}")
        for book in books:
            click.echo(book.to_text())
        for request_id in strangers:
            click.echo(f"FAILED request {request_id} is billed as mine and not among those kept")
    return code


def _code(reports: list[Report], books: list[Book]) -> int:
    codes = {report.exit_code for report in reports}
    if REFUTED in codes or any(book.fault for book in books):
        return REFUTED
    return INCOMPLETE if INCOMPLETE in codes or not books else PROVEN


def _json(reports: list[Report], books: list[Book], code: int) -> dict[str, Any]:
    return {
        "reports": [report.to_json() for report in reports],
        "books": [
            {
                "payer": "0x" + book.whose.payer.hex(),
                "log_id": "0x" + book.whose.log_id.hex(),
                "role": book.whose.role.name.lower(),
                "receipts": book.receipts,
                "total": book.total,
                "settled": book.settled,
                "fault": book.fault,
            }
            for book in books
        ],
        "exit_code": code,
    }


def _get(http: httpx.Client, url: str) -> httpx.Response:
    try:
        answer = http.get(url)
    except httpx.HTTPError as error:
        raise TransportFailure(f"{url}: {error or type(error).__name__}") from error
    if answer.status_code == httpx.codes.ACCEPTED:
        raise TransportFailure(f"{url}: the receipt is still to come; try again in a few seconds")
    if answer.status_code != httpx.codes.OK:
        raise TransportFailure(f"{url} answered {answer.status_code}: {answer.text[:300]}")
    return answer
