"""Standings: within their widths, the same for everyone, and moved by nobody beyond a share."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pinaivu.codes import Reason, Status
from pinaivu.manifest import Parameters, local_development_parameters
from pinaivu.messages import Receipt
from pinaivu.reputation import Reputation, Standing
from pinaivu.reputation.evidence import Rules
from pinaivu.reputation.pools import MILLION, MOST_PARTIES, Said, ceiling, pooled
from pinaivu.testing.receipts import attempted, receipt_of
from tests.unit.ledger_support import NODES, offer

RULES = replace(local_development_parameters("http://127.0.0.1:8545"), party_share_ppm=100_000)
SHARE = RULES.party_share_ppm
NODE = NODES[0].address
MAX_U32, MAX_U64 = (1 << 32) - 1, (1 << 64) - 1
RESULTS = [int(reason) for reason in Reason if reason not in range(1, 10)]

u64 = st.integers(0, MAX_U64)
few = st.integers(0, 5).map(lambda number: number.to_bytes(20))
weights = st.lists(st.integers(0, 10**9), max_size=MOST_PARTIES)
said = st.lists(st.builds(Said, st.integers(0, 10**9), st.integers(0, MILLION)), max_size=12)


@st.composite
def receipts(draw: st.DrawFn, /, **fixed: Any) -> Receipt:
    """Any receipt: results, counts and times as they come, one attempt or several."""
    segments = tuple(
        replace(
            attempted(draw(few), draw(st.sampled_from(RESULTS)), output=draw(u32), rank=rank),
            output_node=draw(u32),
        )
        for rank in draw(st.lists(st.integers(0, 3), max_size=3))
    )
    times = {name: draw(u64) for name in ("awarded_ms", "first_token_ms", "finished_ms")}
    more = {"gateway": draw(few), "payer": draw(few), "model": draw(st.sampled_from("ab"))}
    status = int(draw(st.sampled_from(list(Status))))
    made = {"status": status, "closed_ms": draw(u64)} | times | more | fixed
    return receipt_of(*segments, **made)


u32 = st.integers(0, MAX_U32)


@st.composite
def plain(draw: st.DrawFn, /, node: bytes = NODE, **fixed: Any) -> Receipt:
    """One attempt of one node, good or bad, timed."""
    result = draw(st.sampled_from([0, 0, 0, int(Reason.SILENT), int(Reason.STREAM_BROKEN)]))
    times = {
        "first_ms": draw(st.integers(1, 10**5)),
        "streamed_ms": draw(st.integers(0, 10**5)),
    }
    parties = {"gateway": draw(few), "payer": draw(few)}
    return receipt_of(attempted(node, result), **parties | times | fixed)


def learnt(many: list[Receipt], rules: Parameters = RULES) -> Reputation:
    reputation = Reputation(rules)
    for receipt in many:
        reputation.learn(receipt)
    return reputation


def standing(reputation: Reputation, node: bytes = NODE, **more: Any) -> Standing:
    return reputation.standing(replace(offer(NODES[0], **more), node=node))


@given(
    st.lists(receipts(), max_size=30),
    st.integers(0, MAX_U32),
    st.integers(1, MAX_U64),
    st.integers(0, MAX_U32),
)
def test_any_receipts_give_numbers_that_fit_a_row(
    many: list[Receipt], ttft_ms: int, tps_milli: int, most: int
) -> None:
    """Success in 1…10⁶, calibrations in 1…2³²−1, M within the limit, whatever is on receipts."""
    reputation = learnt(many)
    for node in {segment.node for receipt in many for segment in receipt.segments}:
        for model in "ab":
            known = standing(reputation, node, model=model, ttft_ms=ttft_ms, tps_milli=tps_milli)
            assert 1 <= known.success_ppm <= MILLION
            assert 1 <= known.cal_t <= MAX_U32
            assert 1 <= known.cal_s <= MAX_U32
            expected = reputation.expected_output(model, most)
            assert min(1, most) <= expected <= most


@given(
    st.lists(receipts(), max_size=15),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from([0, 1, 500_000, 990_000, MILLION]),
    st.sampled_from([0, 1, 100_000, 333_333, MILLION]),
)
def test_any_parameters_are_survived(
    many: list[Receipt], prior_a: int, prior_b: int, decay_ppm: int, share_ppm: int
) -> None:
    rules = replace(
        RULES, prior_a=prior_a, prior_b=prior_b, decay_ppm=decay_ppm, party_share_ppm=share_ppm
    )
    assert 1 <= standing(learnt(many, rules), model="a").success_ppm <= MILLION


@given(st.lists(receipts(), max_size=30), st.data())
def test_reading_changes_nothing(many: list[Receipt], data: st.DataObject) -> None:
    """State is the same whenever and of whom standings were read; and so is what is read."""
    reading, silent = Reputation(RULES), Reputation(RULES)
    for receipt in many:
        reading.learn(receipt)
        silent.learn(receipt)
        standing(reading, data.draw(few), model=data.draw(st.sampled_from("ab")))
    assert reading.to_bytes() == silent.to_bytes()
    for node in range(6):
        address = node.to_bytes(20)
        assert standing(reading, address, model="a") == standing(silent, address, model="a")


@given(st.lists(receipts(), max_size=40))
def test_who_is_not_named_as_changed_has_not_changed(many: list[Receipt]) -> None:
    reputation = Reputation(RULES)
    nodes = [number.to_bytes(20) for number in range(6)]
    for receipt in many:
        before = {(m, n): standing(reputation, n, model=m) for m in "ab" for n in nodes}
        changed = reputation.learn(receipt)
        for (model, node), known in before.items():
            if standing(reputation, node, model=model) != known:
                assert model == changed.model
                assert changed.everyone or node in changed.nodes


@given(st.lists(st.tuples(st.booleans(), plain()), max_size=30))
def test_models_are_independent(mixed: list[tuple[bool, Receipt]]) -> None:
    """Through gateways of their own, two models' receipts may come in any order."""
    ours = [receipt for mine, receipt in mixed if mine]
    theirs = [
        replace(receipt, model="another", gateway=b"\x01" + receipt.gateway[1:])
        for mine, receipt in mixed
        if not mine
    ]
    others = iter(theirs)
    woven = [receipt if mine else next(others) for mine, receipt in mixed]
    apart = learnt(ours + theirs)
    assert learnt(woven).to_bytes() == apart.to_bytes() == learnt(theirs + ours).to_bytes()


@given(st.lists(plain(), max_size=20), st.lists(plain(NODES[1].address), max_size=20))
def test_nodes_are_independent_but_for_what_is_typical(
    ours: list[Receipt], theirs: list[Receipt]
) -> None:
    """Another node's receipts, through other gateways, leave a node's evidence as it was."""
    theirs = [replace(receipt, gateway=b"\x01" + receipt.gateway[1:]) for receipt in theirs]
    alone, among = learnt(ours), learnt(theirs + ours)
    if ours:
        (model,), (crowded,) = alone._models.values(), among._models.values()
        assert crowded.nodes.get(NODE) == model.nodes.get(NODE)


# Shares


@given(weights, st.integers(0, 10**9), st.integers(0, MILLION))
def test_no_party_weighs_more_than_its_share(many: list[int], prior: int, share_ppm: int) -> None:
    """And the ceiling is the largest such: with one more somebody would."""
    most = ceiling(many, prior, share_ppm)
    counted = [min(weight, most) for weight in many]
    total = prior + sum(counted)
    assert all(weight * MILLION <= share_ppm * total for weight in counted)
    if any(weight > most for weight in many):
        above = [min(weight, most + 1) for weight in many]
        assert (most + 1) * MILLION > share_ppm * (prior + sum(above))


@given(said, st.builds(Said, st.integers(0, 10**9), st.integers(0, MILLION)))
def test_one_party_moves_a_mean_by_its_share_at_most(others: list[Said], liar: Said) -> None:
    """By 10 % of the range, whatever it says and how often; 2 for rounding."""
    prior, start = Rules.of(RULES).prior, Rules.of(RULES).start_ppm
    without, _ = pooled(others, prior, start, SHARE)
    for word in (liar, replace(liar, mean=0), replace(liar, mean=MILLION)):
        with_it, _ = pooled([*others, word], prior, start, SHARE)
        assert abs(with_it - without) <= SHARE + 2


@pytest.mark.parametrize("role", ["gateway", "payer"])
@settings(max_examples=50)
@given(st.lists(plain(), max_size=25), st.lists(plain(), max_size=60), st.data())
def test_a_lone_liar_moves_a_standing_by_its_share_at_most(
    role: str, honest: list[Receipt], lies: list[Receipt], data: st.DataObject
) -> None:
    """Wherever its receipts stand in the log, through however many of the other kind.

    Between the start and what the others say, give or take its share: it can at most hide them.
    """
    alone = learnt(honest)._models.get("made-up/model")
    lies = [replace(receipt, **{role: b"\xff" * 20}) for receipt in lies]
    together = list(honest)
    for lie in lies:
        together.insert(data.draw(st.integers(0, len(together))), lie)
    rules = Rules.of(RULES)
    others = rules.start_ppm
    if alone and NODE in alone.nodes:
        pool = alone.nodes[NODE].by_gateway if role == "gateway" else alone.nodes[NODE].by_payer
        words = [Said(c.weight, c.good * MILLION // c.weight) for c in pool.values()]
        others, _ = pooled(words, rules.prior, rules.start_ppm, SHARE)
    found = learnt(together)._models.get("made-up/model")
    success = found.nodes[NODE].success(rules)[0] if found else rules.start_ppm
    low, high = sorted((others, rules.start_ppm))
    slack = 4 * SHARE // 10  # one party more fades the others' words a little faster
    assert low - SHARE - slack <= success <= high + SHARE + slack


@given(st.lists(plain(), min_size=1, max_size=20), st.data())
def test_one_answer_more_never_costs_and_one_failure_never_helps(
    many: list[Receipt], data: st.DataObject
) -> None:
    """From one gateway and payer that are known to the node already, a good sample raises it."""
    last = data.draw(st.sampled_from(many))
    good = replace(last, segments=(attempted(NODE),), status=int(Status.COMPLETED))
    bad = replace(last, segments=(attempted(NODE, Reason.SILENT),))
    rules = Rules.of(RULES)
    found = [
        learnt([*many, end])._models["made-up/model"].nodes[NODE].success(rules)[0]
        for end in (bad, good)
    ]
    assert all(worse <= better for worse, better in pairwise(found))
