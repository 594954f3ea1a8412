"""Standings: within their widths, the same for everyone, and moved by nobody beyond a share."""

from collections import defaultdict
from fractions import Fraction
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
from pinaivu.reputation.evidence import Node, Reading, Rules
from pinaivu.reputation.pools import (
    MILLION,
    Cell,
    Mean,
    Row,
    first_times,
    pooled,
    successes,
    token_times,
    within_shares,
)
from pinaivu.testing.receipts import attempted, receipt_of
from tests.unit.ledger_support import NODES, offer

RULES = replace(local_development_parameters("http://127.0.0.1:8545"), party_share_ppm=100_000)
SHARE = RULES.party_share_ppm
NODE = NODES[0].address
MAX_U32, MAX_U64 = (1 << 32) - 1, (1 << 64) - 1
RESULTS = [int(reason) for reason in Reason if reason not in range(1, 10)]

u64 = st.integers(0, MAX_U64)
few = st.integers(0, 5).map(lambda number: number.to_bytes(20))
means = st.tuples(st.integers(0, MILLION), st.integers(0, 10**9))
parts = st.dictionaries(few, st.sampled_from([1, 10, 10**3, 10**6, 10**9]), max_size=6)


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


@given(
    st.lists(st.tuples(parts, st.sampled_from([0, 1, 10**6])), max_size=12),
    st.sampled_from([0, 10, 10**4, 10**7]),
    st.sampled_from([0, 1, 50_000, 100_000, 333_333, 900_000, MILLION]),
)
def test_nobody_weighs_more_than_a_share_and_nobody_less_than_that_needs(
    many: list[tuple[dict[bytes, int], int]], prior: int, share_ppm: int
) -> None:
    """The ceiling is the largest, up to what rounding each part down may change of all.

    Where all grows nearly as the ceiling does, that is much; elsewhere next to nothing.
    """
    rows = [
        Row(Cell(weight=sum(paid.values()) + rest), {p: Cell(weight=w) for p, w in paid.items()})
        for paid, rest in many
    ]
    weights = [word.weight for word in within_shares(rows, prior, share_ppm)]
    assert all(weight * MILLION <= share_ppm * (prior + sum(weights)) for weight in weights)
    rounded = 2.0 + sum(1 + len(row.payers) for row in rows)
    least, most = (
        cut(rows, largest_ceiling(rows, prior + by, share_ppm / MILLION))
        for by in (-rounded, rounded)
    )
    for found, low, high in zip(weights, least, most, strict=True):
        assert low - 8 - low / 1000 <= found <= high + 8 + high / 1000


def largest_ceiling(rows: list[Row], prior: float, share: float) -> float:
    """The largest that is at most the share of what it leaves.

    What is left may cross the share several times, so no bisection of the whole: the largest of
    many places at which the share holds, and then what lies between that and the next.
    """

    def fits(most: float) -> bool:
        return most <= share * (prior + sum(cut(rows, most)))

    high = max(0.0, share * (prior + sum(row.total.weight for row in rows)))
    places = [high * 0.97**step for step in range(800)]
    found = next((step for step, place in enumerate(places) if fits(place)), None)
    if not found:
        return high if found == 0 else 0.0
    low, high = places[found], places[found - 1]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def cut(rows: list[Row], most: float) -> list[float]:
    """Every gateway cut to `most`, then every payer."""
    scales = [min(1, most / max(1, row.total.weight)) for row in rows]
    paid = defaultdict[bytes, float](float)
    for row, scale in zip(rows, scales, strict=True):
        for payer, part in row.payers.items():
            paid[payer] += part.weight * scale
    return [
        scale * row.total.weight
        - sum(
            scale * part.weight * (1 - min(1, most / paid[payer]))
            for payer, part in row.payers.items()
            if paid[payer]
        )
        for row, scale in zip(rows, scales, strict=True)
    ]


@given(st.lists(means, max_size=12), st.integers(0, 10**9), st.integers(0, MILLION))
def test_a_mean_lies_among_what_was_said(heard: list[Mean], prior: int, start: int) -> None:
    values = [start, *(mean for mean, weight in heard if weight)]
    assert min(values) <= pooled(heard, prior, start, SHARE) <= max(values)


BOUND = Fraction(2 * SHARE, MILLION - 2 * SHARE)
"""By how much of the others' range one party can move a standing: two shares of what is left."""


@pytest.mark.parametrize("role", ["gateway", "payer"])
@settings(max_examples=150)
@given(st.lists(plain(), max_size=40), st.lists(plain(), max_size=80), st.data())
def test_one_party_moves_a_standing_by_a_bounded_part_of_what_others_say(
    role: str, honest: list[Receipt], lies: list[Receipt], data: st.DataObject
) -> None:
    """Whatever it says, how often, when, and however large its share of the jobs is.

    A gateway for all payers; a payer through gateways of its own. The range is that of the start
    and of what each other gateway says; nobody is moved out of it, either.
    """
    if role == "gateway":
        lies = [replace(receipt, gateway=b"\xff" * 20) for receipt in lies]
    else:
        own = [b"\xff" + receipt.gateway[1:] for receipt in lies]
        lies = [replace(r, gateway=g, payer=b"\xff" * 20) for r, g in zip(lies, own, strict=True)]
    together = list(honest)
    for lie in lies:
        together.insert(data.draw(st.integers(0, len(together))), lie)
    rules = Rules.of(RULES)
    alone, lied = reading(honest, rules), reading(together, rules)
    checks: list[tuple[int, int, list[int]]] = [
        (alone.success(), lied.success(), [rules.start_ppm, *values(successes(alone.words))]),
        (alone.first_ms(1_000), lied.first_ms(1_000), times(first_times(alone.words))),
        (alone.token_us(1_000), lied.token_us(1_000), times(token_times(alone.words))),
    ]
    for without, with_it, said in checks:
        assert min(said) - 1 <= with_it <= max(said) + 1
        assert abs(with_it - without) <= BOUND * (max(said) - min(said)) + 2


def reading(many: list[Receipt], rules: Rules) -> Reading:
    """What is known of the one node."""
    found = learnt(many)._models.get("made-up/model")
    return (found.nodes[NODE] if found and NODE in found.nodes else Node()).read(rules)


def values(heard: list[Mean]) -> list[int]:
    """The gateways' means."""
    return [mean for mean, _ in heard]


def times(heard: list[Mean]) -> list[int]:
    """Times as they count where 1,000 is typical."""
    return [1_000, *(min(max(250, mean or 1_000), 4_000) for mean in values(heard))]


@given(st.lists(plain(), max_size=30), st.lists(plain(), max_size=30))
def test_what_one_gateway_says_leaves_every_other_ones_word_alone(
    ours: list[Receipt], theirs: list[Receipt]
) -> None:
    """Also on the jobs of the same payers."""
    theirs = [replace(receipt, gateway=b"\xff" * 20) for receipt in theirs]
    alone, among = (learnt(many)._models.get("made-up/model") for many in (ours, [*theirs, *ours]))
    before = alone.nodes[NODE].pool if alone else {}
    after = dict(among.nodes[NODE].pool) if among else {}
    after.pop(b"\xff" * 20, None)
    assert after == before


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
        learnt([*many, end])._models["made-up/model"].nodes[NODE].read(rules).success()
        for end in (bad, good)
    ]
    assert all(worse <= better for worse, better in pairwise(found))
