"""How a receipt follows from its evidence: one pure function, used to write and to check.

`compose` states everything about a job but its signature and its place in the log. The coordinator
signs what it returns; `verify` and `audit` call it again and compare.
"""

from collections.abc import Sequence

from msgspec import Struct

from pinaivu.books import Books, Running
from pinaivu.codes import Outcome, Reason, Status
from pinaivu.messages import Delivery, Grant, Job, Receipt, Segment
from pinaivu.metering import Attempt, Charge, Tolerance, charge_attempts

_ZERO = bytes(32)


class Origin(Struct, frozen=True, kw_only=True):
    """Who signs: the log, the epoch and what runs in it."""

    log_id: bytes
    epoch: int
    measurement: bytes
    parameters_digest: bytes


class Held(Struct, frozen=True, kw_only=True):
    """The auction behind a job; zeros where none was held."""

    fingerprint: bytes
    nonce: bytes
    bids_root: bytes
    bids: int


class PassedOver(Struct, frozen=True):
    """A node that won a rank but was gone or full when the award would have been signed."""

    node: bytes


class Case(Struct, frozen=True, kw_only=True):
    """All evidence of one job. `line` has its attempts and passed-over nodes in order."""

    job: Job
    job_digest: bytes
    grant: Grant
    held: Held
    line: Sequence[Attempt | PassedOver]
    award_digests: Sequence[bytes]
    delivery: Delivery | None
    delivery_digest: bytes
    unserved_reason: int
    received_ms: int
    closed_ms: int
    reserve_units: int
    fee_bps: Sequence[int]
    tolerance: Tolerance
    supersedes: bytes = _ZERO

    @property
    def attempts(self) -> list[Attempt]:
        """The awards among the line, in rank order."""
        return [entry for entry in self.line if isinstance(entry, Attempt)]


def compose(case: Case, origin: Origin, books: Books) -> Receipt:
    """The receipt that follows from `case` after everything posted in `books`."""
    job, delivery = case.job, case.delivery
    charges = charge_attempts(
        job,
        case.attempts,
        delivery,
        reserve_units=case.reserve_units,
        fee_bps=case.fee_bps,
        tolerance=case.tolerance,
    )
    segments = _segments(case, charges, books)
    total = sum(charge.amount for charge in charges)
    payer = books.payer(case.grant.payer).plus(total)
    account = Running()
    if any(job.account):
        account = books.account(case.grant.payer, job.account).plus(total)
    status = status_of(case, segments)
    return Receipt(
        log_id=origin.log_id,
        epoch=origin.epoch,
        job_id=job.job_id,
        gateway=job.gateway,
        payer=case.grant.payer,
        account=job.account,
        job_digest=case.job_digest,
        grant_digest=job.grant_digest,
        delivery_digest=case.delivery_digest,
        fingerprint=case.held.fingerprint,
        request_commitment=job.request_commitment,
        response_commitment=_response_commitment(case),
        status=status,
        reason=_reason(case, status, segments),
        total=total,
        payer_counter=payer.counter,
        payer_total=payer.total,
        account_counter=account.counter,
        account_total=account.total,
        account_limit=job.account_limit if any(job.account) else 0,
        grant_spent=books.spent(job.grant_digest) + total,
        grant_spent_day=books.spent_on_day(job.grant_digest, case.received_ms) + total,
        nonce=case.held.nonce,
        bids_root=case.held.bids_root,
        bids=case.held.bids,
        received_ms=case.received_ms,
        awarded_ms=case.attempts[0].award.awarded_ms if case.attempts else 0,
        first_token_ms=_first_token_ms(case),
        finished_ms=_finished_ms(case),
        closed_ms=case.closed_ms,
        measurement=origin.measurement,
        parameters_digest=origin.parameters_digest,
        supersedes=case.supersedes,
        model=job.model,
        segments=segments,
    )


def status_of(case: Case, segments: Sequence[Segment]) -> Status:
    """What became of the job: the first condition that holds."""
    if not case.attempts:
        return Status.UNSERVED
    if any(segment.result == Reason.COMMITMENT_MISMATCH for segment in segments):
        return Status.DISPUTED
    if case.delivery is None:
        return Status.UNDELIVERED
    by_outcome = {Outcome.CLIENT_GONE: Status.CANCELLED, Outcome.FAILED: Status.FAILED}
    return by_outcome.get(Outcome(case.delivery.outcome), Status.COMPLETED)


def _reason(case: Case, status: Status, segments: Sequence[Segment]) -> int:
    if status == Status.UNSERVED:
        return case.unserved_reason
    return segments[-1].result


def _segments(case: Case, charges: Sequence[Charge], books: Books) -> tuple[Segment, ...]:
    running: dict[bytes, Running] = {}
    billed = iter(zip(case.award_digests, charges, strict=True))
    segments = []
    for entry in case.line:
        if isinstance(entry, PassedOver):
            segments.append(_passed_over(entry.node))
            continue
        award_digest, charge = next(billed)
        node = entry.award.node
        before = running.get(node) or books.node(node)
        running[node] = before.plus(charge.amount - charge.fee)
        segments.append(_segment(case, entry, award_digest, charge, running[node]))
    return tuple(segments)


def _segment(
    case: Case, attempt: Attempt, award_digest: bytes, charge: Charge, node: Running
) -> Segment:
    award = attempt.award
    commitment, start, end = _range(case, attempt)
    return Segment(
        node=award.node,
        rank=award.rank,
        award_digest=award_digest,
        completion_digest=attempt.completion_digest,
        segment_commitment=commitment,
        start_byte=start,
        end_byte=end,
        prompt_billed=charge.prompt_billed,
        output_billed=charge.output_billed,
        output_node=charge.output_node,
        output_gateway=charge.output_gateway,
        acks=charge.acks,
        price_in=award.price_in,
        price_out=award.price_out,
        clearing=award.clearing,
        result=charge.result,
        amount=charge.amount,
        fee=charge.fee,
        node_counter=node.counter,
        node_total=node.total,
    )


def _passed_over(node: bytes) -> Segment:
    zeros = dict.fromkeys(Segment.__struct_fields__, 0)
    digests = ("award_digest", "completion_digest", "segment_commitment")
    return Segment(
        **{**zeros, **dict.fromkeys(digests, _ZERO)}  # type: ignore[arg-type]
        | {"node": node, "result": Reason.PASSED_OVER}
    )


def _range(case: Case, attempt: Attempt) -> tuple[bytes, int, int]:
    """Commitment and byte range: the gateway's view, else the node's cut at the failure."""
    part, completion = attempt.part, attempt.completion
    start = attempt.award.start_byte
    if case.delivery is not None and part is not None:
        return part.segment_commitment, part.start_byte, part.end_byte
    if attempt.failure is not None:
        return _ZERO, start, attempt.failure.end_byte
    if completion is not None:
        return completion.segment_commitment, completion.start_byte, completion.end_byte
    return _ZERO, start, start


def _response_commitment(case: Case) -> bytes:
    if case.delivery is not None:
        return case.delivery.response_commitment
    completions = [a.completion for a in case.attempts if a.completion]
    return completions[-1].response_commitment if completions else _ZERO


def _first_token_ms(case: Case) -> int:
    parts = case.delivery.parts if case.delivery else ()
    seen = [p.first_token_ms for p in parts if p.first_token_ms]
    seen += [a.completion.first_token_ms for a in case.attempts if a.completion]
    return next((ms for ms in seen if ms), 0)


def _finished_ms(case: Case) -> int:
    parts = case.delivery.parts if case.delivery else ()
    seen = [p.finished_ms for p in parts if p.finished_ms]
    seen = seen or [a.completion.finished_ms for a in case.attempts if a.completion]
    return seen[-1] if seen else 0
