"""What nodes' standings are after given receipts."""

from typing import Any

import pytest
from msgspec.structs import replace

from pinaivu.codes import Reason, Status
from pinaivu.manifest import Parameters, local_development_parameters
from pinaivu.messages import Offer, Receipt
from pinaivu.reputation import Reputation, Standing
from pinaivu.reputation.pools import MOST_PARTIES, ceiling, pooled
from pinaivu.reputation.samples import Finding, Times, samples_of, whole_output
from pinaivu.testing.receipts import attempted, receipt_of
from tests.unit.ledger_support import NODES, offer

RULES = replace(local_development_parameters("http://127.0.0.1:8545"), party_share_ppm=100_000)
NODE, RIVAL, THIRD = (node.address for node in NODES[:3])
FAULTS = [int(reason) for reason in Reason if Reason.REFUSED <= reason < Reason.PASSED_OVER]


def party(number: int) -> bytes:
    return number.to_bytes(20)


def learnt(*receipts: Receipt, rules: Parameters = RULES) -> Reputation:
    reputation = Reputation(rules)
    for receipt in receipts:
        reputation.learn(receipt)
    return reputation


def served(count: int, node: bytes = NODE, *, parties: int = 20, **more: Any) -> list[Receipt]:
    """So many good answers, from as many gateways and payers in turn."""
    return [
        receipt_of(
            attempted(node, more.get("result", 0)),
            gateway=party(number % parties),
            payer=party(1000 + number % parties),
            **{name: value for name, value in more.items() if name != "result"},
        )
        for number in range(count)
    ]


def standing(reputation: Reputation, node: bytes = NODE, /, **promised: int) -> Standing:
    return reputation.standing(promise(node, **promised))


def calibrations(reputation: Reputation, **promised: int) -> tuple[int, int]:
    known = standing(reputation, **promised)
    return known.cal_t, known.cal_s


def promise(node: bytes = NODE, **promised: int) -> Offer:
    return replace(offer(NODES[0]), node=node, **promised)


# What one receipt says


@pytest.mark.parametrize(
    ("result", "finding"),
    [(0, Finding.WELL), *((reason, Finding.FAULT) for reason in FAULTS)]
    + [(reason, Finding.CONTRADICTION) for reason in (40, 41, 50, 51, 52)]
    + [(30, Finding.NOTHING), (53, Finding.NOTHING)],
)
def test_a_result_is_a_finding(result: int, finding: Finding) -> None:
    receipt = receipt_of(attempted(NODE, result), gateway=party(1), payer=party(2))
    assert [sample.finding for sample in samples_of(receipt)] == [finding]


def test_times_are_differences_of_one_clock_each() -> None:
    """A gateway whose clock is a minute off measures the same."""
    for skew_ms in (-60_000, 0, 60_000):
        receipt = receipt_of(
            attempted(NODE, output=101),
            gateway=party(1),
            payer=party(2),
            first_ms=80,
            streamed_ms=500,
            skew_ms=skew_ms,
        )
        assert samples_of(receipt)[0].times == Times(first_ms=80, token_us=5_000)


def test_a_stream_longer_than_the_attempt_is_a_contradiction() -> None:
    receipt = receipt_of(attempted(NODE), gateway=party(1), payer=party(2), streamed_ms=1_000)
    longer = replace(receipt, finished_ms=receipt.finished_ms + 500)
    backwards = replace(receipt, finished_ms=receipt.first_token_ms - 1)
    for contradicting in (longer, backwards):
        assert samples_of(contradicting)[0].finding == Finding.CONTRADICTION


def test_of_several_attempts_none_is_timed_and_the_passed_over_count_for_nothing() -> None:
    receipt = receipt_of(
        attempted(NODE, Reason.SILENT),
        attempted(RIVAL, Reason.PASSED_OVER, rank=0),
        attempted(THIRD, rank=2),
        gateway=party(1),
        payer=party(2),
    )
    samples = samples_of(receipt)
    assert [(s.node, s.finding) for s in samples] == [
        (NODE, Finding.FAULT),
        (THIRD, Finding.WELL),
    ]
    assert [sample.times for sample in samples] == [None, None]
    assert whole_output(receipt) == 100


@pytest.mark.parametrize("output", [0, 1])
def test_without_a_second_token_there_is_no_time_per_token(output: int) -> None:
    receipt = receipt_of(attempted(NODE, output=output), gateway=party(1), payer=party(2))
    assert samples_of(receipt)[0].times is None


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.FAILED, Status.DISPUTED])
def test_only_whole_answers_have_a_length(status: Status) -> None:
    receipt = receipt_of(attempted(NODE), gateway=party(1), payer=party(2), status=int(status))
    assert whole_output(receipt) is None


# How parties are weighed


@pytest.mark.parametrize(
    ("weights", "most"),
    [
        ([], 1_000),  # a tenth of the prior
        ([500], 1_050),  # within its share
        ([10**9], 1_111),  # x = (10,000 + x) / 10
        ([10**9, 10**9], 1_250),  # x = (10,000 + 2x) / 10
        ([10**9, 100], 1_122),  # x = (10,100 + x) / 10
        ([5_000] * 20, 11_000),  # nobody has a tenth
    ],
)
def test_the_largest_weight_is_a_share_of_what_counts(weights: list[int], most: int) -> None:
    assert ceiling(weights, 10_000, 100_000) == most


def test_ten_parties_alike_outweigh_any_prior() -> None:
    """From ten on nobody is cut."""
    assert ceiling([10**9] * 10, 10_000, 100_000) >= 10**9


def test_without_anything_the_start_stands() -> None:
    assert pooled([], 0, 7, 100_000) == (7, 0)


# Standings


def test_a_node_without_evidence_is_at_the_prior() -> None:
    assert standing(Reputation(RULES)) == Standing(900_000, 1000, 1000, newcomer=True)


def test_a_well_served_month_makes_an_established_node() -> None:
    known = standing(learnt(*served(200)))
    assert known.success_ppm > 980_000
    assert not known.newcomer


@pytest.mark.parametrize("reason", FAULTS)
def test_reported_failures_cost_success(reason: int) -> None:
    known = standing(learnt(*served(200), *served(200, result=reason)))
    assert known.success_ppm < 400_000


@pytest.mark.parametrize("reason", [30, 40, 41, 50, 51, 52, 53])
def test_what_is_contradicted_or_cut_counts_for_nobody(reason: int) -> None:
    before = learnt(*served(200))
    after = learnt(*served(200), *served(50, result=reason))
    assert standing(after) == standing(before)
    assert standing(learnt(*served(200, result=reason))).newcomer


def test_calibrations_are_measured_by_promised() -> None:
    """200 ms and 20 ms per token, against 100 ms and 50 tokens a second."""
    reputation = learnt(*served(200, first_ms=200, streamed_ms=99 * 20))
    assert calibrations(reputation, ttft_ms=100, tps_milli=50_000) == (2000, 1000)
    assert calibrations(reputation, ttft_ms=400, tps_milli=100_000) == (500, 2000)


def test_a_promise_changes_nothing_for_whom_is_known() -> None:
    """Promised · calibration is what was measured, whatever is promised, up to rounding."""
    reputation = learnt(*served(200, first_ms=200, streamed_ms=99 * 20))
    for ttft_ms, tps_milli in ((1, 10**9), (100, 50_000), (5_000, 1_000)):
        known = standing(reputation, ttft_ms=ttft_ms, tps_milli=tps_milli)
        assert 200 <= ttft_ms * known.cal_t / 1000 <= 200 + ttft_ms / 1000
        assert 20 <= 10**6 * known.cal_s / 1000 / tps_milli <= 20 + 1000 / tps_milli


def test_a_newcomers_promise_counts_where_it_is_slower_than_typical() -> None:
    reputation = learnt(*served(200, RIVAL, first_ms=200, streamed_ms=99 * 20))
    fast = standing(reputation, ttft_ms=10, tps_milli=500_000)
    slow = standing(reputation, ttft_ms=1_000, tps_milli=5_000)
    assert (fast.cal_t, fast.cal_s) == (20_000, 10_000)  # typical, not as promised
    assert (slow.cal_t, slow.cal_s) == (1000, 1000)  # as promised
    assert fast.newcomer
    assert slow.newcomer


def test_a_newcomer_starts_below_the_models_median() -> None:
    """Also where the model's nodes fare badly: a new key is no fresh start."""
    good, bad = served(500, RIVAL), served(500, RIVAL, result=Reason.SILENT)
    reputation = learnt(*(bad[n] if n % 3 == 0 else good[n] for n in range(500)))
    rival = standing(reputation, RIVAL)
    assert rival.success_ppm < 900_000
    assert standing(reputation, THIRD).success_ppm < rival.success_ppm


def test_a_contradicting_gateways_word_weighs_less() -> None:
    """Its faults cost a node less than those of one that never contradicted anybody."""
    faults = served(5, result=Reason.SILENT, parties=1)
    rules = replace(RULES, party_share_ppm=10**6)
    honest, liar = (
        learnt(*served(200, RIVAL, parties=1, result=result), *faults, rules=rules)
        for result in (0, int(Reason.COUNTS_DIFFER))
    )
    assert standing(honest).success_ppm + 100_000 < standing(liar).success_ppm < 900_000


def test_a_nodes_models_are_apart() -> None:
    reputation = learnt(*served(200, model="another/model"))
    assert standing(reputation).newcomer


def test_old_evidence_fades() -> None:
    """After enough good answers a bad past hardly shows."""
    past = served(200, result=Reason.SILENT)
    assert standing(learnt(*past, *served(300))).success_ppm > 900_000


def test_the_parties_kept_are_the_ones_heard_last() -> None:
    reputation = learnt(*served(3 * MOST_PARTIES, parties=3 * MOST_PARTIES))
    (model,) = reputation._models.values()
    heard = {party(number) for number in range(2 * MOST_PARTIES, 3 * MOST_PARTIES)}
    assert set(model.nodes[NODE].by_gateway) == heard


# M


def test_m_is_the_mean_of_lengths_cut_at_the_limit() -> None:
    many = [
        receipt_of(attempted(NODE, output=output), gateway=party(1), payer=party(2))
        for output in [10, 1000] * 500
    ]
    reputation = learnt(*many)
    assert reputation.expected_output("made-up/model", 4096) == pytest.approx(505, rel=0.02)
    assert reputation.expected_output("made-up/model", 100) == pytest.approx(55, rel=0.02)
    assert reputation.expected_output("made-up/model", 5) == 5


@pytest.mark.parametrize(("most", "expected"), [(0, 0), (1, 1), (2, 1), (1000, 500)])
def test_m_without_answers_is_half_of_the_limit(most: int, expected: int) -> None:
    assert Reputation(RULES).expected_output("made-up/model", most) == expected


def test_m_is_at_least_one_and_never_above_the_limit() -> None:
    reputation = learnt(receipt_of(attempted(NODE, output=0), gateway=party(1), payer=party(2)))
    assert [reputation.expected_output("made-up/model", most) for most in (0, 1, 99)] == [0, 1, 1]


# What changed


def test_who_changed_is_said() -> None:
    reputation = learnt(*served(300), *served(300, RIVAL))
    before = {node: standing(reputation, node) for node in (NODE, RIVAL, THIRD)}
    failed = receipt_of(attempted(NODE, Reason.SILENT), gateway=party(1), payer=party(2))
    changed = reputation.learn(failed)
    assert (changed.model, changed.nodes) == ("made-up/model", frozenset({NODE}))
    assert not changed.everyone
    after = {node: standing(reputation, node) for node in (NODE, RIVAL, THIRD)}
    assert {node for node in after if after[node] != before[node]} == {NODE}


def test_the_first_evidence_on_a_model_changes_everyones_standing() -> None:
    reputation = Reputation(RULES)
    before = standing(reputation, RIVAL)
    (first,) = served(1, first_ms=700)
    assert reputation.learn(first).everyone
    assert standing(reputation, RIVAL) != before
