"""Every row of the failure table (types.md section 8), and every clause of the charge's formula."""

import pytest

from pinaivu.codes import Outcome, Reason
from pinaivu.messages import Delivery
from pinaivu.metering import Attempt, Charge, Tolerance, charge_attempts, reserve
from tests.unit.ledger_support import (
    FEE_BPS,
    RESERVE,
    TOLERANCE,
    ZERO,
    attempt,
    award,
    completion,
    delivery,
    failure,
    job,
    part,
)

PROMPT_UNITS = 5  # 10 tokens at half a unit


def _charges(
    attempts: list[Attempt], delivered: Delivery | None, *, reserve_units: int = RESERVE
) -> list[Charge]:
    return charge_attempts(
        job(),
        attempts,
        delivered,
        reserve_units=reserve_units,
        fee_bps=[FEE_BPS] * len(attempts),
        tolerance=TOLERANCE,
    )


def _one(attempts: list[Attempt], delivered: Delivery | None) -> Charge:
    (found,) = _charges(attempts, delivered)
    return found


def test_whole_answer_is_billed_by_the_smaller_count() -> None:
    """80 by the node, 79 by the gateway, 64 acknowledged: 79 are billed, and the prompt."""
    a = award()
    c = completion(a, output_tokens=80)
    d = part(a, c, output_tokens=79)
    found = _one([attempt(a, c, said=d)], delivery(d))
    assert (found.prompt_billed, found.output_billed, found.result) == (10, 79, Reason.NONE)
    assert found.amount == PROMPT_UNITS + 79
    assert found.fee == found.amount * FEE_BPS // 10_000
    assert (found.output_node, found.output_gateway, found.acks) == (80, 79, 3)


@pytest.mark.parametrize(
    ("prompt", "output", "amount"),
    [(10, 1, 6), (1, 0, 1), (0, 0, 0), (3, 1, 3)],
)
def test_amount_is_rounded_up_once(prompt: int, output: int, amount: int) -> None:
    """Half units are summed first, then rounded up."""
    a = award()
    c = completion(a, acks=1, output_tokens=output)
    d = part(a, c)
    (found,) = charge_attempts(
        job(prompt_tokens=prompt),
        [attempt(a, c, said=d)],
        delivery(d),
        reserve_units=RESERVE,
        fee_bps=[0],
        tolerance=TOLERANCE,
    )
    assert found.amount == amount


def test_node_refuses() -> None:
    """The first is paid nothing and says why; the second is paid for prompt and output."""
    a1, a2 = award(1), award(2)
    f, c = failure(a1, Reason.REFUSED_CAPACITY), completion(a2)
    d1, d2 = part(a1, result=Reason.REFUSED_CAPACITY), part(a2, c)
    first, second = _charges(
        [attempt(a1, failed=f, said=d1), attempt(a2, c, said=d2)], delivery(d1, d2)
    )
    assert (first.amount, first.result) == (0, Reason.REFUSED_CAPACITY)
    assert (second.prompt_billed, second.output_billed) == (10, 80)


def test_node_dies_in_mid_stream() -> None:
    """Text arrived and 32 tokens were acknowledged; without a completion nothing is paid."""
    a1, a2 = award(1), award(2, start_byte=200, max_output_tokens=68)
    f = failure(a1, acks=2, output_tokens=40, end_byte=200)
    c = completion(a2, acks=2, output_tokens=40)
    d1 = part(a1, result=Reason.STREAM_BROKEN, output_tokens=40, acks=2, end_byte=200)
    d2 = part(a2, c)
    first, second = _charges(
        [attempt(a1, failed=f, said=d1), attempt(a2, c, said=d2)], delivery(d1, d2)
    )
    assert (first.amount, first.acks, first.output_gateway) == (0, 2, 40)
    assert (second.prompt_billed, second.output_billed) == (10, 40)


def test_node_dies_in_mid_stream_and_still_signs() -> None:
    """The acknowledged tokens are its due, and no more, whatever both counted."""
    a1, a2 = award(1), award(2, start_byte=200, max_output_tokens=68)
    f = failure(a1, acks=2, output_tokens=40, end_byte=200)
    c1, c2 = completion(a1, acks=2, output_tokens=60), completion(a2, acks=2, output_tokens=40)
    d1 = part(a1, c1, result=Reason.STREAM_BROKEN, output_tokens=40)
    d2 = part(a2, c2)
    first, second = _charges([attempt(a1, c1, f, d1), attempt(a2, c2, said=d2)], delivery(d1, d2))
    assert (first.prompt_billed, first.output_billed, first.amount) == (0, 32, 32)
    assert (second.prompt_billed, second.output_billed) == (10, 40)


def test_prompt_goes_to_the_last_that_was_acknowledged_and_completed() -> None:
    """A second node that signed without preimage 1 leaves the prompt to the first."""
    a1, a2 = award(1), award(2)
    f = failure(a1, acks=2, output_tokens=40)
    c1, c2 = completion(a1, acks=2), completion(a2, acks=0, output_tokens=0)
    d1, d2 = part(a1, c1, result=Reason.STREAM_BROKEN), part(a2, c2, result=Reason.SILENT)
    first, second = _charges(
        [attempt(a1, c1, f, d1), attempt(a2, c2, said=d2)],
        delivery(d1, d2, outcome=Outcome.FAILED),
    )
    assert (first.prompt_billed, second.prompt_billed) == (10, 0)


def test_client_goes_away() -> None:
    """Acknowledged tokens are paid; texts may differ, which is no dispute."""
    a = award()
    c = completion(a, acks=2, output_tokens=50)
    d = part(a, c, result=Reason.CLIENT_GONE, output_tokens=45, segment_commitment=b"\x01" * 32)
    found = _one([attempt(a, c, said=d)], delivery(d, outcome=Outcome.CLIENT_GONE))
    assert (found.output_billed, found.result) == (32, Reason.CLIENT_GONE)
    assert found.prompt_billed == 10


def test_gateway_never_reports() -> None:
    """No delivery: acknowledged tokens, result not_reported."""
    a = award()
    c = completion(a, acks=3, output_tokens=80)
    found = _one([attempt(a, c)], None)
    assert (found.output_billed, found.result) == (64, Reason.NOT_REPORTED)


def test_gateway_reports_less_than_it_acknowledged() -> None:
    """It stays with what it acknowledged, and its standing suffers."""
    a = award()
    c = completion(a, acks=3, output_tokens=80)
    d = part(a, c, output_tokens=5)
    found = _one([attempt(a, c, said=d)], delivery(d))
    assert (found.output_billed, found.result) == (64, Reason.BELOW_ACKNOWLEDGED)


@pytest.mark.parametrize(
    "other",
    [{"segment_commitment": b"\x01" * 32}, {"start_byte": 1}, {"end_byte": 399}],
)
def test_segments_differ(other: dict[str, object]) -> None:
    """Disputed: acknowledged tokens only."""
    a = award()
    c = completion(a, acks=2, output_tokens=80)
    d = part(a, c, **other)
    found = _one([attempt(a, c, said=d)], delivery(d))
    assert (found.output_billed, found.result) == (32, Reason.COMMITMENT_MISMATCH)


def test_whole_responses_differ() -> None:
    """The last segment's node saw another response end than the gateway gave out."""
    a = award()
    c = completion(a, acks=2)
    d = part(a, c)
    found = _one([attempt(a, c, said=d)], delivery(d, response_commitment=b"\x02" * 32))
    assert found.result == Reason.COMMITMENT_MISMATCH


def test_only_the_last_node_saw_the_whole_response() -> None:
    """What an earlier one took for the whole is no dispute."""
    a1, a2 = award(1), award(2, start_byte=400)
    c1, c2 = completion(a1, acks=1, response_commitment=b"\x02" * 32), completion(a2, acks=1)
    d1, d2 = part(a1, c1), part(a2, c2)
    first, second = _charges([attempt(a1, c1, said=d1), attempt(a2, c2, said=d2)], delivery(d1, d2))
    assert (first.result, second.result) == (Reason.NONE, Reason.CLIPPED)


def test_a_stopped_nodes_zero_response_commitment_is_no_dispute() -> None:
    a = award()
    c = completion(a, acks=2, response_commitment=ZERO)
    d = part(a, c)
    found = _one([attempt(a, c, said=d)], delivery(d))
    assert (found.output_billed, found.result) == (80, Reason.NONE)


def test_no_completion_although_delivered() -> None:
    """No completion, no pay, whatever the gateway says arrived."""
    a = award()
    d = part(a, output_tokens=80, acks=3)
    found = _one([attempt(a, said=d)], delivery(d))
    assert (found.amount, found.result, found.acks) == (0, Reason.NO_COMPLETION, 3)


def test_counts_differ_beyond_tolerance() -> None:
    """The smaller is billed all the same; three apart is more than two and than one per cent."""
    a = award()
    c = completion(a, acks=1, output_tokens=80)
    close, far = part(a, c, output_tokens=78), part(a, c, output_tokens=77)
    assert _one([attempt(a, c, said=close)], delivery(close)).result == Reason.NONE
    found = _one([attempt(a, c, said=far)], delivery(far))
    assert (found.output_billed, found.result) == (77, Reason.COUNTS_DIFFER)


def test_acknowledgements_above_the_nodes_own_count_are_capped_by_it() -> None:
    a = award()
    c = completion(a, acks=4, output_tokens=70)
    assert _one([attempt(a, c)], None).output_billed == 70


def test_output_is_clipped_over_all_awards() -> None:
    """Σ output never exceeds the job's maximum; the clipped one says so."""
    a1, a2 = award(1), award(2)
    f = failure(a1, acks=3, output_tokens=64)
    c1, c2 = completion(a1, acks=3, output_tokens=64), completion(a2, acks=3, output_tokens=80)
    d1, d2 = part(a1, c1, result=Reason.STREAM_BROKEN), part(a2, c2)
    first, second = _charges([attempt(a1, c1, f, d1), attempt(a2, c2, said=d2)], delivery(d1, d2))
    assert (first.output_billed, second.output_billed) == (64, 36)
    assert second.result == Reason.CLIPPED


def test_an_awards_own_maximum_clips() -> None:
    a = award(max_output_tokens=20)
    c = completion(a, acks=1, output_tokens=50)
    d = part(a, c)
    found = _one([attempt(a, c, said=d)], delivery(d))
    assert (found.output_billed, found.result) == (20, Reason.CLIPPED)


def test_money_is_clipped_by_the_reserve() -> None:
    """Σ amounts never exceeds the reservation."""
    a = award()
    c = completion(a, acks=1)
    d = part(a, c)
    (found,) = _charges([attempt(a, c, said=d)], delivery(d), reserve_units=40)
    assert (found.amount, found.result) == (40, Reason.CLIPPED)


def test_a_failed_delivery_counts_what_went_well() -> None:
    """Outcome failed with a part that ended well: the gateway's count holds for it."""
    a = award()
    c = completion(a, acks=1, output_tokens=80)
    d = part(a, c, output_tokens=79)
    found = _one([attempt(a, c, said=d)], delivery(d, outcome=Outcome.FAILED))
    assert found.output_billed == 79


def test_a_reported_failure_counts_though_the_part_says_it_went_well() -> None:
    """What the gateway once reported as failed, it can't bill as delivered: acknowledged only."""
    a = award()
    f, c = failure(a, acks=2), completion(a, acks=2, output_tokens=80)
    d = part(a, c, segment_commitment=c.segment_commitment)
    found = _one([attempt(a, c, f, d)], delivery(d))
    assert (found.output_billed, found.result) == (32, Reason.STREAM_BROKEN)


@pytest.mark.parametrize(
    ("one", "other", "exceeded"),
    [(0, 2, False), (0, 3, True), (1000, 1010, False), (1000, 1011, True), (1010, 1000, False)],
)
def test_tolerance_is_the_larger_of_tokens_and_share(
    one: int, other: int, *, exceeded: bool
) -> None:
    assert Tolerance(2, 10_000).exceeded(one, other) is exceeded


@pytest.mark.parametrize(
    ("max_cost", "per_job", "limit_in", "limit_out", "expected"),
    [
        (10**9, 10**9, 500_000, 1_000_000, 105),
        (50, 10**9, 500_000, 1_000_000, 50),
        (10**9, 60, 500_000, 1_000_000, 60),
        (10**9, 10**9, 1, 1, 1),
    ],
)
def test_reserve_is_the_least_of_its_limits(
    max_cost: int, per_job: int, limit_in: int, limit_out: int, expected: int
) -> None:
    assert reserve(job(max_cost=max_cost), per_job, limit_in, limit_out) == expected
