"""What nodes and gateways report of awards: completions, failures, deliveries; first one wins.

Each is checked against the award it names and counts from then on; the answer is given once it is
durable. Writes are kept in order, so a receipt can't become durable before the evidence in it, and
a writer that fails ends the coordinator. Repeating evidence is harmless; a second, different one
never replaces the first. A job takes none while it is being auctioned or receipted.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import le
from typing import TypeVar

from coordinator.docket import Awarded, Docket, OpenJob
from coordinator.errors import JobRefused
from coordinator.log import Log
from pinaivu.codes import Outcome, Reason
from pinaivu.commitments import verify_acks
from pinaivu.errors import InvalidEncoding, PeerFault
from pinaivu.keys import BadSignature
from pinaivu.messages import Completion, Delivery, Failure, Part
from pinaivu.store.coordinator import EvidenceRow
from pinaivu.store.writer import Writer
from pinaivu.typed_data import Domain, Message, Signed

M = TypeVar("M", bound=Message)
_NODE_REASONS = range(Reason.REFUSED, Reason.PASSED_OVER)
_RESULTS = frozenset((Reason.NONE, Reason.CLIENT_GONE, *_NODE_REASONS))
_WHOLE_RESULTS = _RESULTS - {Reason.CLIENT_GONE}


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
        check_completion(job, entry, signed, self._log.domain)
        _require_same(entry.completion, signed)
        self._docket.complete(entry, signed)
        await self._keep(entry.digest, signed)
        self._close_if_whole(job)

    async def failure(self, gateway: bytes, signed: Signed[Failure]) -> tuple[OpenJob, Awarded]:
        """A gateway's report that the newest award failed; job and award, for the next rank."""
        job, entry = self._award(signed.message.award_digest)
        _require_gateway(job, gateway)
        check_failure(job, entry, signed, self._log.domain)
        _require_same(entry.failure, signed)
        if entry.failure is None and job.delivery:
            raise JobRefused("delivered", "the job has been delivered: nothing failed any more")
        if entry.failure is None and entry is not job.awards[-1]:
            raise JobRefused("stale_failure", "a later award stands")
        self._docket.fail(entry, signed)
        await self._keep(entry.digest, signed)
        return job, entry

    async def delivery(self, gateway: bytes, signed: Signed[Delivery]) -> OpenJob:
        """What the client got; the job, whose receipt follows, with it or, too late, without."""
        job = self._docket.find_job(signed.message.job_digest)
        if job is None:
            raise JobRefused("unknown_job", "no open job has this digest")
        _require_gateway(job, gateway)
        if job.closing:
            return job
        if not job.decided:  # its receipt would come before the job, which would then be awarded
            raise JobRefused("in_progress", "the job is being auctioned", retry_after_ms=100)
        check_delivery(job, signed, self._log.domain)
        _require_same(job.delivery, signed)
        if job.delivery is None:
            job.delivery = signed
            job.delivered_ms = self._now_ms()
        await self._keep(job.job_digest, signed)
        self._close_if_whole(job)
        return job

    def _close_if_whole(self, job: OpenJob) -> None:
        if job.delivery and all(entry.completion for entry in job.awards):
            self._close(job)

    async def _keep(self, about: bytes, signed: Signed[M]) -> None:
        """Store it, unless it is there already; durable when this returns."""
        row = {
            "kind": type(signed.message).__name__,
            "about": about,
            "signed": signed.to_bytes(),
            "arrived_ms": self._now_ms(),
        }
        await self._writer.write_rows(lambda rows: rows.add_once(EvidenceRow, **row))

    def _award(self, digest: bytes) -> tuple[OpenJob, Awarded]:
        found = self._docket.find_award(digest)
        if found is None or found[0].closing:
            raise JobRefused("unknown_award", "no open job has this award")
        return found


def check_completion(
    job: OpenJob, entry: Awarded, signed: Signed[Completion], domain: Domain
) -> None:
    """Refuse a completion that its node did not sign for this award, or that claims too much."""
    completion, award = signed.message, entry.signed.message
    _signed_by(signed, domain, award.node)
    try:
        verify_acks(
            award.anchor,
            award.job_id,
            award.rank,
            job.job.message.max_output_tokens,
            completion.acks,
            completion.last_preimage,
        )
    except (PeerFault, InvalidEncoding) as error:
        raise JobRefused("bad_preimage", str(error)) from error
    checks = (
        (completion.award_digest == entry.digest, "the completion names another award"),
        (completion.node == award.node, "the completion names another node"),
        (completion.fingerprint == job.held.fingerprint, "another model was run"),
        (completion.start_byte == award.start_byte, "the segment starts elsewhere"),
        (completion.end_byte >= completion.start_byte, "the segment ends before it starts"),
    )
    _require_all("bad_completion", checks)


def check_failure(job: OpenJob, entry: Awarded, signed: Signed[Failure], domain: Domain) -> None:
    """Refuse a failure that the job's gateway did not sign for this award."""
    failure, gateway = signed.message, job.job.message.gateway
    _signed_by(signed, domain, gateway)
    checks = (
        (failure.award_digest == entry.digest, "the failure names another award"),
        (failure.gateway == gateway, "the failure names another gateway"),
        (failure.reason in _NODE_REASONS, "a failure has a node's reason"),
        (
            failure.end_byte >= entry.signed.message.start_byte,
            "the text ends before this award's part of it",
        ),
    )
    _require_all("bad_failure", checks)


def check_delivery(job: OpenJob, signed: Signed[Delivery], domain: Domain) -> None:
    """Refuse a delivery that is not the gateway's, or contradicts the job's awards or itself."""
    delivery = signed.message
    _signed_by(signed, domain, job.job.message.gateway)
    whole = delivery.outcome == Outcome.COMPLETE
    checks = (
        (delivery.job_digest == job.job_digest, "the delivery is of another job"),
        (delivery.gateway == job.job.message.gateway, "the delivery names another gateway"),
        (delivery.outcome in tuple(Outcome), f"no outcome {delivery.outcome}"),
        (
            [part.award_digest for part in delivery.parts] == [e.digest for e in job.awards],
            "a delivery's parts are the job's awards in rank order",
        ),
        (all(part.result in _RESULTS for part in delivery.parts), "no such result of a part"),
        (
            not whole or _is_whole(delivery.parts, job.job.message.max_output_tokens),
            "a complete delivery's last part went well, or the parts have all of the job's tokens",
        ),
        (_tile(delivery.parts), "a delivery's parts tile the text"),
    )
    _require_all("bad_delivery", checks)


def _is_whole(parts: Sequence[Part], most: int) -> bool:
    """Whether an answer came to its end, or to the length that the job allows (ADR 25)."""
    if not parts or parts[-1].result not in _WHOLE_RESULTS:
        return False
    return not parts[-1].result or sum(part.output_tokens for part in parts) >= most > 0


def _tile(parts: Sequence[Part]) -> bool:
    starts, ends = [p.start_byte for p in parts], [p.end_byte for p in parts]
    return starts == [0, *ends][: len(parts)] and all(map(le, starts, ends))


def _require_all(code: str, checks: Iterable[tuple[bool, str]]) -> None:
    for holds, detail in checks:
        if not holds:
            raise JobRefused(code, detail)


def _require_gateway(job: OpenJob, gateway: bytes) -> None:
    if job.job.message.gateway != gateway:
        raise JobRefused("foreign_gateway", "the job is another gateway's")


def _require_same(standing: Signed[M] | None, signed: Signed[M]) -> None:
    """Refuse other evidence in the place of some that was given before."""
    if standing is not None and standing.message != signed.message:
        raise JobRefused(
            "evidence_stands", f"another {type(signed.message).__name__} was given before"
        )


def _signed_by(signed: Signed[M], domain: Domain, signer: bytes) -> None:
    try:
        signed.require(domain, signer)
    except BadSignature as error:
        raise JobRefused("bad_signature", str(error)) from error
