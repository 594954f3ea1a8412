"""Judges one answer by its bundle, under one client's trust.

Beside the policy's steps it asks what only the client knows: that the bundle is of this very
request, made when it was asked, by a pinned key, and no dearer than allowed.

A view of the chain serves for half a minute. What does not hold under it is judged again under a
new one: an epoch or a node may be younger than the view.
"""

from collections.abc import Callable
from typing import Final
from uuid import UUID

from pinaivu.client.errors import AnswerRefuted, AnswerUnproven
from pinaivu.client.exchange import Asked, Given
from pinaivu.client.trust import Trust
from pinaivu.errors import InvalidEncoding, PeerFault
from pinaivu.verify.case import Copies
from pinaivu.verify.contents import Contents
from pinaivu.verify.findings import shown
from pinaivu.verify.report import REFUTED, Report
from pinaivu.verify.rerun import book_beside
from pinaivu.verify.verifier import Verifier

_VIEW_MS: Final = 30_000


class Judge:
    """Judges answers; from several threads at once, too. `now_ms` is the client's clock."""

    def __init__(self, trust: Trust, now_ms: Callable[[], int]) -> None:
        self._trust = trust.checked()
        self._verifier = Verifier(trust.policy)
        self._now_ms = now_ms
        self._seen_ms: int | None = None

    def judge(self, asked: Asked, given: Given, raw: bytes) -> Report:
        """The report of an answer that holds; `AnswerRefuted` or `AnswerUnproven` otherwise.

        `ChainUnavailable`, another `TransportFailure`, where the chain gives no view at all.
        """
        try:
            contents = self._verifier.read(raw)
        except (InvalidEncoding, PeerFault) as error:
            raise AnswerRefuted(f"what the gateway gives out is no bundle: {error}") from error
        report = self._report(asked, given, contents)
        if report.exit_code == REFUTED:
            raise AnswerRefuted(_said(given, report), report)
        self._require_this_request(asked, given, contents, report)
        self._require_pins(contents, report)
        if report.exit_code:
            raise AnswerUnproven(_said(given, report), report)
        return report

    def _report(self, asked: Asked, given: Given, contents: Contents) -> Report:
        trust = self._trust
        copies = Copies(
            request=asked.body,
            response=given.response,
            account_limit=trust.account_limit,
            tokenizer=trust.tokenizer,
            book=self._book(contents),
        )
        young = self._seen_ms is not None and self._now_ms() < self._seen_ms + _VIEW_MS
        if young or trust.chain is None:
            report = self._verifier.check(contents, copies)
            if trust.chain is None or not report.exit_code:
                return report
        self._verifier.chain, self._seen_ms = trust.chain(), self._now_ms()
        return self._verifier.check(contents, copies)

    def _book(self, contents: Contents) -> object:
        """The book that the bundle's transcript leaves out, if it does."""
        if self._trust.books is None:
            return None
        try:
            root = book_beside(contents.transcript)
        except InvalidEncoding:
            return None  # the report says so
        return None if root is None else self._trust.books(root)

    def _require_this_request(
        self, asked: Asked, given: Given, contents: Contents, report: Report
    ) -> None:
        receipt, job = contents.receipt.message, contents.job.message
        found = str(UUID(bytes=receipt.job_id))
        if found != given.request_id:
            said = f"the bundle is of request {found}, the answer of {given.request_id}"
            raise AnswerRefuted(said, report)
        if job.created_ms < asked.sent_ms - self._trust.max_age_ms:
            raise AnswerRefuted("the bundle is of an earlier request with the same text", report)
        most = self._trust.max_cost_units
        if most is not None and receipt.total > most:
            said = f"the answer cost {receipt.total} base units, {most} are allowed"
            raise AnswerRefuted(said, report)

    def _require_pins(self, contents: Contents, report: Report) -> None:
        trust = self._trust
        signers = {part.signer for part in contents.epochs}
        if trust.signers and signers - trust.signers:
            stranger = shown(min(signers - trust.signers))
            raise AnswerRefuted(f"signed by {stranger}, which is not a pinned key", report)
        measurement = contents.receipt.message.measurement
        if trust.measurements and measurement not in trust.measurements:
            said = f"made by code {shown(measurement)}, which is not a pinned measurement"
            raise AnswerRefuted(said, report)


def _said(given: Given, report: Report) -> str:
    steps = report.failed or report.unmet
    reasons = "; ".join(f"{step.id}: {step.evidence}" for step in steps)
    return f"request {given.request_id} is {report.verdict} ({reasons})"
