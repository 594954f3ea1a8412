"""What nodes and gateways report of awards: completions, failures, deliveries; first one wins.

Each is checked against the award it names, stored durably, and only then acted on. Repeating one
is harmless; a second, different one never replaces the first.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlmodel import Session

from coordinator.docket import Awarded, Docket, OpenJob
from coordinator.errors import JobRefused
from coordinator.log import Log
from pinaivu.codes import Outcome, Reason
from pinaivu.commitments import verify_acks
from pinaivu.errors import PeerFault
from pinaivu.keys import BadSignature
from pinaivu.messages import Completion, Delivery, Failure, Part
from pinaivu.store.coordinator import EvidenceRow
from pinaivu.store.writer import Writer
from pinaivu.typed_data import Message, Signed

M = TypeVar("M", bound=Message)
_NODE_REASONS = range(Reason.REFUSED, Reason.PASSED_OVER)


class Evidence:
    """Takes evidence for open jobs; `close` is called when a job has all it waits for."""

    def __init__(
        self,
        log: Log,
        docket: Docket,
        writer: Writer,
        close: Callable[[OpenJob], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._log = log
        self._docket = docket
        self._writer = writer
        self._close = close
        self._now_ms = now_ms

    async def completion(self, signed: Signed[Completion]) -> None:
        """A node's completion; unknown awards are refused, receipted ones are past caring."""
        job, entry = self._award(signed.message.award_digest)
        self._check_completion(job, entry, signed)
        await self._keep("Completion", entry.digest, signed)
        if entry.completion is None:
            if entry.failure is None:
                self._docket.release(entry)
            entry.completion = signed
        self._close_if_whole(job)

    async def failure(self, gateway: bytes, signed: Signed[Failure]) -> OpenJob:
        """A gateway's report that the newest award failed; the job, for its next rank."""
        failure = signed.message
        job, entry = self._award(failure.award_digest)
        self._require_gateway(job, gateway)
        if entry is not job.awards[-1] and entry.failure is None:
            raise JobRefused("stale_failure", "a later award stands")
        if failure.reason not in _NODE_REASONS or failure.gateway != gateway:
            raise JobRefused("bad_failure", "a failure has a node's reason and names its gateway")
        _signed_by(signed, self._log, gateway)
        await self._keep("Failure", entry.digest, signed)
        if entry.failure is None:
            if entry.completion is None:
                self._docket.release(entry)
            entry.failure = signed
        return job

    async def delivery(self, gateway: bytes, signed: Signed[Delivery]) -> OpenJob:
        """What the client got; the job, whose receipt follows."""
        delivery = signed.message
        job = next(
            (j for j in self._docket.jobs.values() if j.job_digest == delivery.job_digest), None
        )
        if job is None:
            raise JobRefused("unknown_job", "no open job has this digest")
        self._require_gateway(job, gateway)
        _signed_by(signed, self._log, gateway)
        _check_delivery(job, delivery)
        await self._keep("Delivery", job.job_digest, signed)
        if job.delivery is None:
            job.delivery = signed
            job.delivered_ms = self._now_ms()
        self._close_if_whole(job)
        return job

    def _close_if_whole(self, job: OpenJob) -> None:
        if job.delivery and all(entry.completion for entry in job.awards):
            self._close(job)

    async def _keep(self, kind: str, about: bytes, signed: Signed[M]) -> None:
        """Store it, unless it is there already; another one in its place is refused."""
        row = EvidenceRow(
            kind=kind, about=about, signed=signed.to_bytes(), arrived_ms=self._now_ms()
        )

        def write(session: Session) -> bool:
            found = session.get(EvidenceRow, (kind, about))
            if found is None:
                session.add(row)
            return found is None or found.signed == row.signed

        if not await self._writer.write(write):
            raise JobRefused("evidence_stands", f"another {kind} was given before")

    def _award(self, digest: bytes) -> tuple[OpenJob, Awarded]:
        found = self._docket.find_award(digest)
        if found is None:
            raise JobRefused("unknown_award", "no open job has this award")
        return found

    @staticmethod
    def _require_gateway(job: OpenJob, gateway: bytes) -> None:
        if job.job.message.gateway != gateway:
            raise JobRefused("foreign_gateway", "the job is another gateway's")

    def _check_completion(self, job: OpenJob, entry: Awarded, signed: Signed[Completion]) -> None:
        completion, award = signed.message, entry.signed.message
        _signed_by(signed, self._log, award.node)
        terms = job.job.message
        try:
            verify_acks(
                award.anchor,
                award.job_id,
                award.rank,
                terms.max_output_tokens,
                completion.acks,
                completion.last_preimage,
            )
        except PeerFault as error:
            raise JobRefused("bad_preimage", str(error)) from error
        checks = (
            (completion.node == award.node, "the completion names another node"),
            (completion.fingerprint == job.held.fingerprint, "another model was run"),
            (completion.start_byte == award.start_byte, "the segment starts elsewhere"),
            (completion.end_byte >= completion.start_byte, "the segment ends before it starts"),
        )
        for holds, detail in checks:
            if not holds:
                raise JobRefused("bad_completion", detail)


def _check_delivery(job: OpenJob, delivery: Delivery) -> None:
    digests = [entry.digest for entry in job.awards]
    if [part.award_digest for part in delivery.parts] != digests:
        raise JobRefused("bad_delivery", "a delivery's parts are the job's awards in rank order")
    whole = delivery.outcome == Outcome.COMPLETE
    if whole and (not delivery.parts or delivery.parts[-1].result):
        raise JobRefused("bad_delivery", "a complete delivery's last part went well")
    _check_tiling(delivery.parts)


def _check_tiling(parts: Sequence[Part]) -> None:
    end = 0
    for part in parts:
        if part.start_byte != end or part.end_byte < part.start_byte:
            raise JobRefused("bad_delivery", "a delivery's parts tile the text")
        end = part.end_byte


def _signed_by(signed: Signed[M], log: Log, signer: bytes) -> None:
    try:
        signed.require(log.domain, signer)
    except BadSignature as error:
        raise JobRefused("bad_signature", str(error)) from error
