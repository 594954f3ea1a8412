"""A request's bundle, fetched from the log and verified here, step by step.

The explorer is nobody's gateway: it holds no request, response or salt, so V4, V5 and V9 stay open
on its pages. Whoever holds them runs the same steps with `pinaivu verify`.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from msgspec import Struct

from explorer.sources import LogSource, NotThere
from pinaivu.bundles import unpack
from pinaivu.encoding import to_hex
from pinaivu.errors import InvalidEncoding, PinaivuError
from pinaivu.verify import Copies, Outcome, Report, Step, Verifier
from pinaivu.verify.rerun import book_beside


class Proof(Struct, frozen=True, kw_only=True):
    """What came of verifying a request. Without a `report`, `problem` says why there is none.

    `book` is the auction's, where its transcript leaves it out. `foreign`: the log gave the bundle
    of another receipt, of which nothing is shown.
    """

    raw: bytes = b""
    document: Mapping[str, Any] = {}
    book: object = None
    report: Report | None = None
    problem: str = ""
    foreign: bool = False

    def step(self, step_id: str) -> Step:
        """A step of the report; a lacking one where it was not run."""
        if self.report is not None:
            try:
                return self.report.step(step_id)
            except KeyError:
                why = f"not run: {self.report.verdict}"
        else:
            why = self.problem
        return Step(id=step_id, claim="not run", outcome=Outcome.LACKING, evidence=why)


def prove(
    log: LogSource, verifier: Verifier, gateway: bytes, request_id: UUID, receipt_digest: bytes
) -> Proof:
    """Fetch and verify; never raises for what log or bundle do, the result says it.

    `receipt_digest` is the one of the leaf that the explorer has proven: a bundle that verifies and
    is about another receipt says nothing here.
    """
    try:
        raw = log.bundle(gateway, request_id)
    except NotThere:
        return Proof(problem="the log has no bundle of this request yet")
    except PinaivuError as error:
        return Proof(problem=f"the log did not give the bundle: {error}")
    try:
        document = unpack(raw)
        book = _book(log, document)
    except InvalidEncoding:
        document, book = {}, None
    report = verifier.verify(raw, Copies(book=book))
    if report.subject.get("receipt_digest", to_hex(receipt_digest)) != to_hex(receipt_digest):
        return Proof(problem="the log's bundle holds another receipt than its leaf", foreign=True)
    return Proof(raw=raw, document=document, book=book, report=report)


def _book(log: LogSource, document: Mapping[str, Any]) -> object:
    """A large auction's book; None where the log has none, which V7 then says."""
    transcript = document.get("transcript")
    root = book_beside(transcript) if isinstance(transcript, dict) else None
    if root is None:
        return None
    try:
        return log.book(root)
    except PinaivuError:
        return None
