"""What a job costs: the charge of every segment, from evidence alone, in integers.

One formula serves the coordinator, which bills by it, and `verify`, which recomputes it:

- no completion, no pay;
- output billed = max(acknowledged, min(node's count, gateway's count)), clipped over the job;
- prompt billed once, to the last segment that holds preimage 1 and a completion;
- amount = ceil((in·p_in + out·p_out) / 10⁶), fee = floor(amount·bps / 10⁴).

It proves nothing about the counts themselves; that needs the text and the tokenizer.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from pinaivu.codes import Outcome, Reason
from pinaivu.commitments import tokens_acknowledged
from pinaivu.messages import Award, Completion, Delivery, Failure, Job, Part

_MILLION: Final = 10**6
_BPS: Final = 10**4


class Tolerance(Struct, frozen=True):
    """How far two honest counts may lie apart: the larger of tokens and parts per million."""

    tokens: int
    ppm: int

    def exceeded(self, one: int, other: int) -> bool:
        """Whether the counts differ by more than the tolerance."""
        return abs(one - other) > max(self.tokens, max(one, other) * self.ppm // _MILLION)

    def least(self, count: int) -> int:
        """The smallest count that does not lie too far below `count`."""
        return count - max(self.tokens, count * self.ppm // _MILLION)


class Attempt(Struct, frozen=True, kw_only=True):
    """All evidence about one award: what the node and the gateway said of it."""

    award: Award
    completion: Completion | None = None
    completion_digest: bytes = bytes(32)
    failure: Failure | None = None
    part: Part | None = None


class Charge(Struct, frozen=True, kw_only=True):
    """One segment's bill."""

    prompt_billed: int
    output_billed: int
    output_node: int
    output_gateway: int
    acks: int
    result: int
    amount: int
    fee: int


def reserve(job: Job, max_per_job: int, limit_in: int, limit_out: int) -> int:
    """The most a job may cost: caller's limit, grant's cap, and both counts at the ceilings."""
    most = at_most(job.prompt_tokens, job.max_output_tokens, limit_in, limit_out)
    return min(job.max_cost, max_per_job, most)


def at_most(prompt_tokens: int, output_tokens: int, limit_in: int, limit_out: int) -> int:
    """What both counts come to at price ceilings (base units per million tokens), rounded up."""
    return -(-(prompt_tokens * limit_in + output_tokens * limit_out) // _MILLION)


def charge_attempts(
    job: Job,
    attempts: Sequence[Attempt],
    delivery: Delivery | None,
    *,
    reserve_units: int,
    fee_bps: Sequence[int],
    tolerance: Tolerance,
) -> list[Charge]:
    """Bill each award of a job, in rank order; `fee_bps` one per award, of its epoch."""
    paying = [i for i, a in enumerate(attempts) if a.completion and _acks(a) >= 1]
    last_paying = paying[-1] if paying else -1
    tokens_left, money_left = job.max_output_tokens, reserve_units
    charges = []
    for index, attempt in enumerate(attempts):
        prompt = job.prompt_tokens if index == last_paying else 0
        disputed = _disputed(attempt, delivery, last=index == len(attempts) - 1)
        wanted = _output(job, attempt, delivery, disputed=disputed)
        output = min(wanted, tokens_left, attempt.award.max_output_tokens)
        price = prompt * attempt.award.price_in + output * attempt.award.price_out
        amount = min(-(-price // _MILLION), money_left)
        clipped = output < wanted or amount * _MILLION < price
        charges.append(
            Charge(
                prompt_billed=prompt,
                output_billed=output,
                output_node=_node_count(attempt),
                output_gateway=_gateway_claim(attempt),
                acks=_acks(attempt),
                result=_result(job, attempt, delivery, tolerance, disputed, clipped),
                amount=amount,
                fee=amount * fee_bps[index] // _BPS,
            )
        )
        tokens_left -= output
        money_left -= amount
    return charges


def _acks(attempt: Attempt) -> int:
    """Proven by the node's preimage where there is a completion, else as the gateway says."""
    if attempt.completion:
        return attempt.completion.acks
    said = attempt.part or attempt.failure
    return said.acks if said else 0


def _node_count(attempt: Attempt) -> int:
    return attempt.completion.output_tokens if attempt.completion else 0


def _gateway_claim(attempt: Attempt) -> int:
    said = attempt.part or attempt.failure
    return said.output_tokens if said else 0


def _gateway_count(attempt: Attempt, delivery: Delivery | None) -> int:
    """What the gateway says it delivered; nothing where the text was cut."""
    cut = delivery is None or delivery.outcome == Outcome.CLIENT_GONE
    if cut or attempt.part is None or attempt.part.result or attempt.failure:
        return 0
    return attempt.part.output_tokens


def _output(job: Job, attempt: Attempt, delivery: Delivery | None, *, disputed: bool) -> int:
    if attempt.completion is None:
        return 0
    count = _node_count(attempt)
    acknowledged = min(tokens_acknowledged(_acks(attempt), job.max_output_tokens), count)
    if disputed:
        return acknowledged
    return max(acknowledged, min(count, _gateway_count(attempt, delivery)))


def _disputed(attempt: Attempt, delivery: Delivery | None, *, last: bool) -> bool:
    """Whether node and gateway commit to different bytes of a delivered segment."""
    completion, part = attempt.completion, attempt.part
    if not completion or not part or not delivery:
        return False
    if delivery.outcome != Outcome.COMPLETE or part.result:
        return False
    same_bytes = (part.segment_commitment, part.start_byte, part.end_byte) == (
        completion.segment_commitment,
        completion.start_byte,
        completion.end_byte,
    )
    whole = completion.response_commitment
    return not same_bytes or (last and any(whole) and whole != delivery.response_commitment)


def _result(
    job: Job,
    attempt: Attempt,
    delivery: Delivery | None,
    tolerance: Tolerance,
    disputed: bool,  # noqa: FBT001 - one of six findings of the same rank
    clipped: bool,  # noqa: FBT001
) -> int:
    """The gateway's own finding where it has one, else the first of the books' that holds."""
    said = attempt.part.result if attempt.part else 0
    said = said or (attempt.failure.reason if attempt.failure else 0)
    if said:
        return said
    claim = _gateway_claim(attempt)
    acknowledged = tokens_acknowledged(_acks(attempt), job.max_output_tokens)
    findings = (
        (disputed, Reason.COMMITMENT_MISMATCH),
        (attempt.completion is None, Reason.NO_COMPLETION),
        (delivery is None, Reason.NOT_REPORTED),
        (claim < acknowledged, Reason.BELOW_ACKNOWLEDGED),
        (tolerance.exceeded(_node_count(attempt), claim), Reason.COUNTS_DIFFER),
        (clipped, Reason.CLIPPED),
    )
    return next((reason for holds, reason in findings if holds), Reason.NONE)
