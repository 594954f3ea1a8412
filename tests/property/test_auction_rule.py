"""The auction rule: equal to a second implementation, blind to arrival, within every limit."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, seed, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pinaivu.auction import rule
from pinaivu.auction.rule import Cleared, Entrant, Market
from pinaivu.auction.transcript import CallEntry, Header, Row
from pinaivu.codes import CallOutcome, Clearing
from tests.property import rule_from_the_text as text
from tests.property.auction_markets import NODES, edge_rounds, rounds

Case = tuple[Market, list[Entrant]]
out_of_the_race = st.frozensets(st.sampled_from(NODES), max_size=4)
NOBODY: frozenset[bytes] = frozenset()


def line(cleared: Cleared | None) -> text.Line | None:
    """A clearing as the second implementation writes it."""
    if cleared is None:
        return None
    node = cleared.entrant.row.node
    return text.Line(node, cleared.price_in, cleared.price_out, int(cleared.clearing))


@settings(max_examples=400)
@given(rounds(), out_of_the_race)
def test_clearing_equals_a_second_implementation(case: Case, excluded: frozenset[bytes]) -> None:
    """Winner, both prices and the way of clearing, at every rank."""
    for out in (NOBODY, excluded):
        found = line(rule.clear(*case, out))
        event(f"clearing {found.clearing if found else None}")
        assert found == text.clearing(*case, out)


@given(edge_rounds())
def test_clearing_equals_it_at_the_edges_of_the_integers(case: Case) -> None:
    """Zeros and the largest u32, u64 and u96: nothing wraps, nothing divides by zero."""
    assert line(rule.clear(*case)) == text.clearing(*case)


@given(rounds())
def test_the_ranking_equals_it_too(case: Case) -> None:
    """Every eligible entrant in the same place, with the same score."""
    market, entrants = case
    found = [(r.entrant.row.node, r.score) for r in rule.rank(market, entrants)]
    expected = [(e.row.node, text.score(market, e)) for e in text.order(market, entrants)]
    assert found == expected


@given(rounds(), out_of_the_race, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(
    case: Case, excluded: frozenset[bytes], rng: Any
) -> None:
    """Not for the clearing, nor for the ranking or who is called."""
    market, entrants = case
    shuffled = list(entrants)
    rng.shuffle(shuffled)
    for out in (NOBODY, excluded):
        assert rule.clear(market, entrants, out) == rule.clear(market, shuffled, out)
    assert rule.rank(market, entrants) == rule.rank(market, shuffled)
    called = [rule.to_call(market, e, live_all=3, live_best=2) for e in (entrants, shuffled)]
    assert called[0] == called[1]


@pytest.mark.parametrize("draws", [rounds(), edge_rounds()], ids=["ordinary", "edges"])
@given(st.data())
def test_no_limit_is_ever_exceeded(draws: st.SearchStrategy[Case], data: st.DataObject) -> None:
    """Ceilings, reserve and uplift hold; the price is never below what the winner asked."""
    market, entrants = data.draw(draws)
    cleared = rule.clear(market, entrants, data.draw(out_of_the_race))
    if cleared is None:
        return
    q, p = cleared.price_out, cleared.entrant.price_out
    most = market.prompt_tokens * cleared.price_in + market.max_output_tokens * q
    assert cleared.price_in == q * market.ratio_ppm // 10**6 <= market.limit_in
    assert q <= market.limit_out
    assert most <= market.reserve * 10**6
    if cleared.clearing == Clearing.EXPLORATION:
        assert q <= p
    else:
        assert p <= q <= p * (10**6 + market.uplift_ppm) // 10**6
    if cleared.clearing == Clearing.LONE:
        assert q <= cleared.entrant.offer.price_out


@given(rounds(), out_of_the_race)
def test_a_rank_clears_as_if_those_before_had_not_bid(
    case: Case, excluded: frozenset[bytes]
) -> None:
    """Leaving entrants out of the book gives the same line, exploration apart."""
    market = replace(case[0], explore_ppm=0)
    without = [e for e in case[1] if e.row.node not in excluded]
    assert rule.clear(market, case[1], excluded) == rule.clear(market, without)


@given(rounds())
def test_what_the_winner_asks_does_not_move_its_price(case: Case) -> None:
    """With a rival, no cap in the way and one token as unit, asking less is paid the same."""
    market = replace(case[0], ratio_ppm=10**6, uplift_ppm=10**18, explore_ppm=0)
    cleared = rule.clear(market, case[1])
    if cleared is None or cleared.clearing != Clearing.SECOND_SCORE or not cleared.price_out:
        return
    winner = cleared.entrant
    lower = Entrant(winner.row, replace(winner.offer, price_out=winner.price_out // 2 or 1))
    again = rule.clear(market, [lower if e is winner else e for e in case[1]])
    assert again is not None
    assert again.entrant.row.node == winner.row.node
    weight = market.prompt_tokens + market.expected_tokens
    if weight and winner.price_out > 1:
        assert abs(again.price_out - cleared.price_out) <= 1


def test_ordinary_draws_reach_every_way_of_clearing_often() -> None:
    """Of 600 draws at least ten of nearly each: a generator that went blind would prove nothing."""
    seen: Counter[str] = Counter()

    @seed(4)
    @settings(
        max_examples=600, database=None, phases=[Phase.generate], deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(rounds())
    def census(case: Case) -> None:
        seen.update(_kinds(*case))

    census()
    expected = {
        "nobody", "second score", "lone", "exploration", "uplift binds", "limit binds", "sister",
        "cost 0", "worth no more than it costs", "paid more than asked", "tie", "lone with a bid",
        "explorer paid less than asked", "input limit or reserve binds",
    }  # fmt: skip
    rare = {"limit binds": 5, "input limit or reserve binds": 2}  # under the price that is due
    assert {kind for kind in expected if seen[kind] < rare.get(kind, 10)} == set()


def _kinds(market: Market, entrants: list[Entrant]) -> set[str]:
    order = text.order(market, entrants)
    if not order:
        return {"nobody"}
    winner, found = order[0], text.regular(market, order)
    p, q = text.asked(winner), found.price_out
    kinds = {"lone" if found.clearing == text.LONE else "second score"}
    kinds |= {"cost 0"} if text.cost(market, p) == 0 else set()
    kinds |= {"sister"} if any(text.sisters(winner.row, e.row) for e in order[1:]) else set()
    scores = [text.score(market, e) for e in order]
    kinds |= {"tie"} if len(set(scores)) < len(scores) else set()
    if found.clearing == text.LONE and winner.bid and p < winner.offer.price_out:
        kinds.add("lone with a bid")
    if found.clearing == text.SECOND_SCORE and q == p:
        kinds.add("worth no more than it costs")
    if q > p:
        kinds.add("paid more than asked")
        kinds |= {"uplift binds"} if q == p * (10**6 + market.uplift_ppm) // 10**6 else set()
        kinds |= {"limit binds"} if not text.keeps_limits(market, q + 1) else set()
        hidden = q < market.limit_out and not text.keeps_limits(market, q + 1)
        kinds |= {"input limit or reserve binds"} if hidden else set()
    line = text.clearing(market, entrants)
    if line and line.clearing == text.EXPLORATION:
        asked = {e.row.node: text.asked(e) for e in entrants}
        kinds.add("exploration")
        kinds |= {"explorer paid less than asked"} if line.price_out < asked[line.node] else set()
    return kinds


@settings(max_examples=50)
@given(rounds())
def test_bisection_finds_what_trying_every_price_finds(case: Case) -> None:
    """In a market of single-digit prices, where every price can be tried."""
    market = replace(
        case[0], limit_out=3_000, limit_in=2_000, reserve=min(case[0].reserve, 9), uplift_ppm=10**9
    )
    small = [
        Entrant(e.row, replace(e.offer, price_out=e.offer.price_out // 1_000)) for e in case[1]
    ]
    assert line(rule.clear(market, small)) == text.clearing(market, small)


@given(rounds())
def test_layouts_come_back_whole(case: Case) -> None:
    for e in case[1]:
        raw = e.row.to_bytes()
        assert len(raw) == 109
        assert Row.from_bytes(raw) == e.row


def test_header_and_call_entry_have_their_published_sizes() -> None:
    header = Header(
        **dict.fromkeys(Header.__struct_fields__, 7)
        | dict.fromkeys(
            (
                "job_digest",
                "log_id",
                "nonce",
                "model_key",
                "fingerprint",
                "parameters_digest",
                "book_root",
            ),
            b"x" * 32,
        )  # type: ignore[arg-type]
    )
    assert len(header.to_bytes()) == 305
    assert Header.from_bytes(header.to_bytes()) == header
    entry = CallEntry(
        node=b"n" * 20,
        offer_digest=b"o" * 32,
        outcome=CallOutcome.BID,
        bid_digest=b"b" * 32,
        at_ms=5,
    )
    assert len(entry.to_bytes()) == 93
    assert CallEntry.from_bytes(entry.to_bytes()) == entry
