"""What nodes' standings are after given receipts."""

from typing import Any

import pytest
from msgspec.structs import replace

from pinaivu.codes import Reason, Status
from pinaivu.manifest import Parameters, local_development_parameters
from pinaivu.messages import Offer, Receipt
from pinaivu.reputation import Reputation, Standing
from pinaivu.reputation.pools import (
    MOST_GATEWAYS,
    MOST_PAYERS,
    Cell,
    Row,
    pooled,
    within_shares,
)
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


def test_a_silence_that_the_nodes_preimage_refutes_is_a_contradiction() -> None:
    """Preimage 1 is released on the first frame, so something did come."""
    silent = attempted(NODE, Reason.SILENT)
    cases = {
        Finding.FAULT: [
            silent,
            replace(silent, acks=1),
            replace(silent, completion_digest=b"C" * 32),
        ],
        Finding.CONTRADICTION: [replace(silent, acks=1, completion_digest=b"C" * 32)],
    }
    for finding, segments in cases.items():
        for segment in segments:
            receipt = receipt_of(segment, gateway=party(1), payer=party(2))
            assert samples_of(receipt)[0].finding == finding


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


def row(weight: int, *payers: bytes) -> Row:
    """So many samples from one gateway, as many for each of the payers."""
    part = Cell(weight=weight // max(1, len(payers)))
    return Row(Cell(weight=weight), dict.fromkeys(payers, part))


@pytest.mark.parametrize(
    ("weights", "cut"),
    [
        ([], []),
        ([500], [500]),  # within its share
        ([10**9], [1_111]),  # x = (10,000 + x) / 10
        ([10**9, 10**9], [1_250, 1_250]),  # x = (10,000 + 2x) / 10
        ([10**9, 100], [1_122, 100]),  # x = (10,100 + x) / 10
        ([5_000] * 20, [5_000] * 20),  # nobody has a tenth
    ],
)
def test_a_gateways_weight_is_cut_to_its_share_of_what_counts(
    weights: list[int], cut: list[int]
) -> None:
    words = within_shares([row(weight) for weight in weights], 10_000, 100_000)
    assert [word.weight for word in words] == cut


def test_gateways_of_one_payer_have_one_share_together() -> None:
    """Of twenty gateways four serve one payer."""
    own, others = [row(1_000, party(1))] * 4, [row(1_000, party(9 + n)) for n in range(16)]
    words = within_shares([*own, *others], 10_000, 100_000)
    assert [word.weight for word in words[4:]] == [1_000] * 16
    together = sum(word.weight for word in words[:4])
    assert together == pytest.approx(26_000 / 9, abs=5)  # x = (26,000 + x) / 10


def test_a_flood_of_one_payers_jobs_takes_of_that_payers_share_only() -> None:
    """Half of what twenty gateways said is of the same payer: what is of others stays."""
    flood, others = row(10**9, party(1)), [row(1_000, party(1), party(9 + n)) for n in range(20)]
    words = within_shares([flood, *others], 10_000, 100_000)
    together = sum(word.weight for word in words)
    assert all(word.weight >= 500 for word in words[1:])
    assert together - 20 * 500 == pytest.approx(20_000 / 9, abs=5)  # x = (20,000 + x) / 10


def test_ten_gateways_alike_outweigh_any_prior() -> None:
    """From ten on nobody is cut."""
    words = within_shares([row(10**9, party(n)) for n in range(10)], 10_000, 100_000)
    assert [word.weight for word in words] == [10**9] * 10


def test_without_anything_the_start_stands() -> None:
    assert pooled([], 0, 7, 100_000) == 7


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


def test_a_newcomer_is_taken_to_be_typical_whatever_it_promises() -> None:
    reputation = learnt(*served(200, RIVAL, first_ms=200, streamed_ms=99 * 20))
    assert standing(reputation).newcomer
    assert calibrations(reputation, ttft_ms=10, tps_milli=500_000) == (20_000, 10_000)
    assert calibrations(reputation, ttft_ms=1_000, tps_milli=5_000) == (200, 100)


def test_a_newcomer_starts_below_the_models_median() -> None:
    """Also where the model's nodes fare badly: a new key is no fresh start."""
    good, bad = served(500, RIVAL), served(500, RIVAL, result=Reason.SILENT)
    reputation = learnt(*(bad[n] if n % 3 == 0 else good[n] for n in range(500)))
    rival = standing(reputation, RIVAL)
    assert rival.success_ppm < 900_000
    assert standing(reputation, THIRD).success_ppm < rival.success_ppm


def test_a_contradicting_gateways_word_weighs_less() -> None:
    """Its faults cost a node less than those of one that never contradicted anybody."""
    faults = served(20, result=Reason.SILENT, parties=1)
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
    past = served(200, result=Reason.SILENT, parties=10)
    assert standing(learnt(*past, *served(300, parties=10))).success_ppm > 900_000


def test_the_parties_kept_are_the_ones_heard_last() -> None:
    reputation = learnt(*served(3 * MOST_GATEWAYS, parties=3 * MOST_GATEWAYS))
    (model,) = reputation._models.values()
    heard = [party(number) for number in range(2 * MOST_GATEWAYS, 3 * MOST_GATEWAYS)]
    assert list(model.nodes[NODE].pool) == heard


def test_of_a_gateways_payers_the_ones_heard_last_are_known() -> None:
    """What the others' jobs said stays with the gateway."""
    reputation = learnt(
        *(
            replace(receipt, payer=party(1000 + number))
            for number, receipt in enumerate(served(3 * MOST_PAYERS, parties=1))
        )
    )
    (model,) = reputation._models.values()
    (only,) = model.nodes[NODE].pool.values()
    assert list(only.payers) == [
        party(1000 + number) for number in range(2 * MOST_PAYERS, 3 * MOST_PAYERS)
    ]
    assert only.total.weight > 1.5 * sum(part.weight for part in only.payers.values())


@pytest.mark.parametrize("share_ppm", [100_000, 900_000])
def test_a_gateway_remembers_its_share_of_the_samples(share_ppm: int) -> None:
    """Kept are share / (1 − decay) of them."""
    rules = replace(RULES, party_share_ppm=share_ppm)
    (model,) = learnt(*served(2_000, parties=1), rules=rules)._models.values()
    (only,) = model.nodes[NODE].pool.values()
    assert only.total.weight == pytest.approx(share_ppm / 10_000 * 1_000_000, rel=0.02)


def test_a_gateway_that_fails_a_rival_for_all_payers_spoils_its_own_word_only() -> None:
    """Every eighth job of twelve payers goes through it, and fails by its word."""

    def word(number: int, *, lies: bool) -> Receipt:
        liar = number % 8 == 0
        return receipt_of(
            attempted(NODE, Reason.STREAM_BROKEN if lies and liar else 0),
            gateway=party(99 if liar else number % 11),
            payer=party(1000 + number // 8 % 12),
        )

    honest, lied = (
        standing(learnt(*(word(n, lies=lies) for n in range(800)))) for lies in (False, True)
    )
    assert honest.success_ppm - lied.success_ppm < 15_000


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


def test_m_is_not_of_embeddings() -> None:
    """A model that answers and embeds expects of an answer what its answers had."""
    both = [
        receipt_of(attempted(NODE, output=output), gateway=party(1), payer=party(2))
        for output in [300, 0, 0, 0] * 50
    ]
    assert learnt(*both).expected_output("made-up/model", 4096) == 300
    assert learnt(*both[1:4]).expected_output("made-up/model", 4096) == 2048
    assert whole_output(both[1]) is None
    assert [sample.finding for sample in samples_of(both[1])] == [Finding.WELL]


def test_m_is_at_least_one_and_never_above_the_limit() -> None:
    reputation = learnt(receipt_of(attempted(NODE, output=1), gateway=party(1), payer=party(2)))
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
