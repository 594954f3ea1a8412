"""What is checked of the others' signed statements before they are relied on.

    require_award        raises `CoordinatorFault`: this award is not what the job asked for
    require_completion   raises `AttemptFailed`: this is no completion of that award
    discrepancies        a node's valid completion that says other than what arrived
    require_receipt      raises `CoordinatorFault`: this receipt contradicts our own evidence

What they don't prove: that the auction was fair (`pinaivu verify` replays the transcript) or that
the named weights were run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.drafts import Draft
from gateway.errors import AttemptFailed, CoordinatorFault
from pinaivu.codes import Clearing, Reason
from pinaivu.commitments import tokens_acknowledged, verify_acks
from pinaivu.errors import PeerFault
from pinaivu.keys import BadSignature
from pinaivu.manifest import Parameters
from pinaivu.messages import (
    Award,
    Completion,
    Delivery,
    Failure,
    Grant,
    Job,
    Part,
    Receipt,
    Segment,
)
from pinaivu.metering import Attempt, Charge, Tolerance, charge_attempts, reserve
from pinaivu.typed_data import Domain, Signed

_MILLION: Final = 10**6
_ZERO: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Before:
    """An earlier award of the job, and how its failure was reported."""

    award: Award
    award_digest: bytes
    failure: Failure


def require_award(
    signed: Signed[Award],
    signer: bytes,
    domain: Domain,
    draft: Draft,
    ratio_ppm: int,
    before: Sequence[Before],
) -> bytes:
    """The digest of an award that is `signer`'s answer to this job, after those before it."""
    try:
        digest = signed.require(domain, signer)
    except BadSignature as error:
        raise CoordinatorFault(str(error)) from error
    award, job = signed.message, draft.job.message
    rank = len(before) + 1
    last = before[-1] if before else None
    expected = {
        "log_id": job.log_id,
        "job_id": job.job_id,
        "job_digest": draft.job_digest,
        "gateway": job.gateway,
        "rank": rank,
        "prior": last.award_digest if last else _ZERO,
        "price_in": award.price_out * ratio_ppm // _MILLION,
        "prompt_tokens": job.prompt_tokens,
        "max_output_tokens": job.max_output_tokens - _acknowledged(job, before),
        "start_byte": last.failure.end_byte if last else 0,
        "request_commitment": job.request_commitment,
        "anchor": job.anchors[rank - 1],
        "lease": _ZERO,
    }
    if last:
        expected |= {"nonce": last.award.nonce, "bids_root": last.award.bids_root}
    for name, value in expected.items():
        if getattr(award, name) != value:
            raise CoordinatorFault(f"the award's {name} is not what the job asks for")
    _require_limits(award, draft, before)
    return digest


def _require_limits(award: Award, draft: Draft, before: Sequence[Before]) -> None:
    job = draft.job.message
    spoken_for = sum(-(-_tokens(job, b.failure) * b.award.price_out // _MILLION) for b in before)
    limit_in = min(job.max_price_in, draft.grant.message.max_price_in)
    limit_out = min(job.max_price_out, draft.grant.message.max_price_out)
    most = reserve(job, draft.grant.message.max_per_job, limit_in, limit_out)
    limits = (
        (award.price_in <= limit_in, "input price is above the limit"),
        (award.price_out <= limit_out, "output price is above the limit"),
        (award.max_amount <= max(0, most - spoken_for), "amount is above the reserve"),
        (not job.allow or award.node in job.allow, "node is not on the allow list"),
        (award.node not in job.deny, "node is on the deny list"),
        (award.node not in {b.award.node for b in before}, "node has failed already"),
        (award.clearing in set(Clearing), "clearing is unknown"),
        (award.awarded_ms < award.expires_ms <= job.deadline_ms, "expiry is not a valid one"),
    )
    for holds, what in limits:
        if not holds:
            raise CoordinatorFault(f"the award's {what}")


def require_completion(
    signed: Signed[Completion],
    award: Award,
    award_digest: bytes,
    domain: Domain,
    job: Job,
    fingerprint: bytes,
    acks_released: int,
) -> Completion:
    """A completion that its node signed for this award, claiming no more than was released."""
    completion = signed.message
    try:
        signed.require(domain, award.node)
        verify_acks(
            award.anchor,
            award.job_id,
            award.rank,
            job.max_output_tokens,
            completion.acks,
            completion.last_preimage,
        )
    except PeerFault as error:
        raise _violation(str(error)) from error
    checks = (
        (completion.award_digest == award_digest, "is for another award"),
        (completion.node == award.node, "names another node"),
        (completion.fingerprint == fingerprint, "names other weights"),
        (completion.start_byte == award.start_byte, "starts elsewhere"),
        (completion.end_byte >= completion.start_byte, "ends before it starts"),
        (completion.acks <= acks_released, "claims acknowledgements that were not released"),
    )
    for holds, what in checks:
        if not holds:
            raise _violation(f"the node's completion {what}")
    return completion


def discrepancies(
    completion: Completion, part: Part, delivery: Delivery, prompt_tokens: int, tolerance: Tolerance
) -> list[str]:
    """Where a valid completion and our own view of a whole answer differ; the books judge them."""
    found = []
    if completion.end_byte != part.end_byte:
        found.append(f"it ends at byte {completion.end_byte}, {part.end_byte} arrived")
    if completion.segment_commitment != part.segment_commitment:
        found.append("it commits to another text")
    if completion.response_commitment not in (_ZERO, delivery.response_commitment):
        found.append("it commits to another response")
    if tolerance.exceeded(completion.output_tokens, part.output_tokens):
        found.append(
            f"it counts {completion.output_tokens} output tokens, here are {part.output_tokens}"
        )
    if tolerance.exceeded(completion.prompt_tokens, prompt_tokens):
        found.append(f"it counts {completion.prompt_tokens} prompt tokens, here {prompt_tokens}")
    return found


@dataclass(frozen=True, slots=True)
class Evidence:
    """What this gateway holds of a job, one attempt for each award in rank order."""

    job: Job
    job_digest: bytes
    grant: Grant
    delivery: Delivery
    delivery_digest: bytes
    attempts: Sequence[Attempt]


def require_receipt(receipt: Receipt, evidence: Evidence, rules: Parameters | None) -> Receipt:
    """A receipt that contradicts nothing we hold; its signature is checked before.

    Charges are recomputed where `rules` are those of all awards, and where we hold every
    completion the receipt names: one that reached the coordinator alone leaves nothing to
    recompute from.
    """
    job, delivery = evidence.job, evidence.delivery
    segments = [segment for segment in receipt.segments if segment.rank]
    expected = {
        "log_id": job.log_id,
        "job_id": job.job_id,
        "gateway": job.gateway,
        "payer": evidence.grant.payer,
        "job_digest": evidence.job_digest,
        "grant_digest": job.grant_digest,
        "account": job.account,
        "account_limit": job.account_limit if any(job.account) else 0,
        "delivery_digest": evidence.delivery_digest,
        "request_commitment": job.request_commitment,
        "response_commitment": delivery.response_commitment,
        "model": job.model,
        "total": sum(segment.amount for segment in receipt.segments),
    }
    wrong = [name for name, value in expected.items() if getattr(receipt, name) != value]
    if [s.award_digest for s in segments] != [part.award_digest for part in delivery.parts]:
        wrong.append("segments")
    if receipt.total > min(job.max_cost, evidence.grant.max_per_job):
        wrong.append("total above the limit")
    held = [attempt.completion_digest for attempt in evidence.attempts]
    if rules and not wrong and [s.completion_digest for s in segments] == held:
        wrong += _wrong_charges(segments, charges_of(evidence, rules))
    if wrong:
        raise CoordinatorFault(f"the receipt does not fit our evidence: {', '.join(wrong)}")
    return receipt


def _wrong_charges(segments: Sequence[Segment], charges: Sequence[Charge]) -> list[str]:
    return [
        f"{name} of rank {segment.rank}, which should be {getattr(charge, name)}"
        for segment, charge in zip(segments, charges, strict=True)
        for name in Charge.__struct_fields__
        if getattr(segment, name) != getattr(charge, name)
    ]


def charges_of(evidence: Evidence, rules: Parameters) -> list[Charge]:
    """What the job costs by our own evidence."""
    job, grant = evidence.job, evidence.grant
    limit_in = min(job.max_price_in, grant.max_price_in)
    limit_out = min(job.max_price_out, grant.max_price_out)
    return charge_attempts(
        job,
        evidence.attempts,
        evidence.delivery,
        reserve_units=reserve(job, grant.max_per_job, limit_in, limit_out),
        fee_bps=[rules.fee_bps] * len(evidence.attempts),
        tolerance=Tolerance(rules.tolerance_tokens, rules.tolerance_ppm),
    )


def _acknowledged(job: Job, before: Sequence[Before]) -> int:
    return sum(_tokens(job, b.failure) for b in before)


def _tokens(job: Job, failure: Failure) -> int:
    return tokens_acknowledged(failure.acks, job.max_output_tokens)


def _violation(detail: str) -> AttemptFailed:
    return AttemptFailed(Reason.PROTOCOL_VIOLATION, detail)
