"""Placings say of every entrant what the rule does with it: no more conditions, and no fewer."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pinaivu.auction import rule
from pinaivu.auction.placing import placings, price_to_lead, unmet
from pinaivu.auction.replay import Replay
from pinaivu.auction.rule import Entrant, Market
from pinaivu.codes import Feature
from tests.property.auction_markets import rounds

FLAWS: dict[str, Any] = {
    "other_log": {"log_id": b"X" * 32},
    "other_model": {"model": "other"},
    "not_yet_valid": {"issued_ms": 1_001},
    "expired": {"expires_ms": 1_000},
    "wrong_fingerprint": {"fingerprint": b"X" * 32},
    "missing_features": {"features": int(Feature.TOOLS)},
    "context_too_small": {"context_tokens": 3_999},
    "no_free_slot": {"slots": 0},
    "no_speed": {"tps_milli": 0},
}


@st.composite
def flawed_rounds(draw: Any) -> tuple[Market, list[Entrant], list[set[str]]]:
    """Rounds of which some offers lack something, and what they lack."""
    market, entrants = draw(rounds())
    flaws = [draw(st.sets(st.sampled_from(sorted(FLAWS)), max_size=2)) for _ in entrants]
    made = [
        Entrant(
            e.row, replace(e.offer, **{k: v for f in lacks for k, v in FLAWS[f].items()}), e.bid
        )
        for e, lacks in zip(entrants, flaws, strict=True)
    ]
    allow = draw(st.frozensets(st.sampled_from([e.row.node for e in made])))
    return replace(market, allow=allow), made, flaws


def replay_of(entrants: list[Entrant]) -> Replay:
    return Replay(header=None, calls=(), entrants=entrants, root=b"")  # type: ignore[arg-type]


@given(flawed_rounds())
def test_nothing_is_unmet_exactly_where_the_rule_says_eligible(
    made: tuple[Market, list[Entrant], list[set[str]]],
) -> None:
    """And every flaw that was put in is named."""
    market, entrants, flaws = made
    for entrant, lacks in zip(entrants, flaws, strict=True):
        named = {condition.name for condition in unmet(market, entrant)}
        assert (not named) == rule.eligible(market, entrant)
        assert lacks <= named


@given(flawed_rounds())
def test_each_condition_alone_decides(
    made: tuple[Market, list[Entrant], list[set[str]]],
) -> None:
    """The names for lists, success and prices stand for what they say."""
    market, entrants, _ = made
    for entrant in entrants:
        named = {condition.name for condition in unmet(market, entrant)}
        node, price = entrant.row.node, entrant.price_out
        assert ("denied" in named) == (node in market.deny)
        assert ("not_allowed" in named) == bool(market.allow and node not in market.allow)
        assert ("never_succeeds" in named) == (entrant.row.success_ppm == 0)
        limits = {name for name in named if name.endswith("_above_limit")}
        assert bool(limits) == (not market.within_limits(price))


@given(rounds())
def test_places_follow_the_rules_order(made: tuple[Market, list[Entrant]]) -> None:
    """Everybody stands once; the first is who wins where nothing is explored."""
    market, entrants = made
    found = placings(replay_of(entrants), market)
    order = rule.rank(market, entrants)
    assert [(p.entrant, p.score) for p in found[: len(order)]] == [
        (r.entrant, r.score) for r in order
    ]
    assert [p.place for p in found] == [
        *range(1, len(order) + 1),
        *[None] * (len(entrants) - len(order)),
    ]
    assert {p.entrant.row.node for p in found} == {e.row.node for e in entrants}
    cleared = rule.clear(replace(market, explore_ppm=0), entrants)
    assert (found[0].entrant if order else None) == (cleared.entrant if cleared else None)


@given(rounds())
def test_the_price_to_lead_is_the_highest_that_leads(
    made: tuple[Market, list[Entrant]],
) -> None:
    market, entrants = made
    order = placings(replay_of(entrants), market)
    taking_part = [p for p in order if p.place]
    for own in taking_part:
        node = own.entrant.row.node
        others = [p.score for p in taking_part if p is not own and p.score is not None]

        def leads(price: int, own: Any = own, others: Any = others) -> bool:
            offer = replace(own.entrant.offer, price_out=price)
            return all(rule.score(market, Entrant(own.entrant.row, offer)) < s for s in others)

        price = price_to_lead(market, order, node)
        if price is None:
            assert not leads(0)
        else:
            assert leads(price)
            assert price == own.entrant.price_out or not leads(price + 1)
