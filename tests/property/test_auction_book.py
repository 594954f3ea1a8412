"""The book's field and the live round against the rule's plain definitions."""

from collections.abc import Collection

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from coordinator.field import Ranking
from coordinator.round import Round
from pinaivu.auction import rule
from pinaivu.auction.rule import Entrant, Market
from pinaivu.auction.transcript import book_root
from pinaivu.merkle.hashing import root_of
from pinaivu.merkle.padded import PaddedTree
from tests.property.book_markets import CLOSE_MS, Draw, field_of, node, shelf_of, slot_of

seeds = st.integers(0, 2**64 - 1)
sizes = st.integers(0, 120)
LIVE = {"live_all": 16, "live_best": 8}
CROWD = Draw(7).entrants(600)  # more than a shelf keeps in one part


def _ranks(ranking: Ranking, entrants: list[Entrant]) -> None:
    """Every rank until nobody is left, and a few with others passed over."""
    excluded: frozenset[bytes] = frozenset()
    for _ in range(len(entrants) + 1):
        due = rule.clear(ranking.market, entrants, excluded)
        assert ranking.clear(excluded) == due
        if due is None:
            return
        excluded |= {due.entrant.row.node}


def _turns(ranking: Ranking, entrants: list[Entrant], draw: Draw) -> None:
    """Passing over who isn't ready, once, gives what clearing again for each of them does."""
    share = draw.rng.random()
    ready = {e.row.node for e in entrants if draw.chance(share)}
    excluded: frozenset[bytes] = frozenset()
    while True:
        passed, cleared = ranking.next_ready(excluded, ready.__contains__)
        for gone in passed:
            due = rule.clear(ranking.market, entrants, excluded)
            assert due
            assert gone == due.entrant.row.node
            assert gone not in ready
            excluded |= {gone}
        assert cleared == rule.clear(ranking.market, entrants, excluded)
        if cleared is None:
            return
        assert cleared.entrant.row.node in ready
        excluded |= {cleared.entrant.row.node}


@settings(max_examples=300, deadline=None)
@given(seeds, sizes)
def test_a_standing_auction_is_exactly_the_rules(seed: int, size: int) -> None:
    """Order, winner and price of every rank, number of eligible, cheapest price, root."""
    draw = Draw(seed)
    market, entrants = draw.market(size), draw.entrants(size)
    field = field_of(market, entrants)
    closed = replace(market, close_ms=CLOSE_MS)
    assert list(field.ranked(closed, ())) == rule.rank(closed, entrants)
    ranking = field.close(closed, [])
    assert ranking.eligible == rule.count_eligible(closed, entrants)
    fitting = [e.price_out for e in entrants if rule.fits(closed, e)]
    assert ranking.cheapest == min(fitting, default=None)
    assert field.view.root == book_root([e.row for e in entrants])
    _ranks(ranking, entrants)
    _turns(ranking, entrants, draw)


@settings(max_examples=300, deadline=None)
@given(seeds, sizes)
def test_a_live_auction_is_exactly_the_rules(seed: int, size: int) -> None:
    """Whom it calls, and what comes of any subset of bids."""
    draw = Draw(seed)
    market, entrants = draw.market(size), draw.entrants(size)
    field = field_of(market, entrants)
    called = field.to_call(**LIVE)
    assert called == rule.to_call(market, entrants, **LIVE)
    closed = replace(market, close_ms=CLOSE_MS)
    final = [draw.bid(market, e) if draw.chance(0.7) else e for e in called]
    ranking = field.close(closed, final)
    with_bids = {e.row.node: e for e in final}
    everybody = [with_bids.get(e.row.node, e) for e in entrants]
    assert ranking.entrants() == everybody
    assert ranking.eligible == rule.count_eligible(closed, everybody)
    fitting = [e.price_out for e in everybody if rule.fits(closed, e)]
    assert ranking.cheapest == min(fitting, default=None)
    _ranks(ranking, everybody)
    _turns(ranking, everybody, draw)


@settings(deadline=None)
@given(seeds, sizes)
def test_a_bound_is_never_above_the_score(seed: int, size: int) -> None:
    """However large the numbers."""
    draw = Draw(seed)
    market, entrants = draw.market(size), draw.entrants(size)
    field = field_of(market, entrants)
    for fits, bound, entrant in zip(field.fit, field.bounds.tolist(), entrants, strict=True):
        assert not fits or bound <= rule.score(market, entrant)


def decided(
    market: Market, entrants: list[Entrant], called: list[Entrant], answered: Collection[bytes]
) -> bool:
    """The definition: everybody scored anew; `entrants` have the bids that have come."""
    outstanding = [e for e in called if e.row.node not in answered]
    if not outstanding:
        return True
    rival = rule.runner_up(rule.rank(market, entrants))
    if rival is None:
        return False
    lowest = [
        replace(e.offer, price_out=rule.lowest_bid(e.offer.price_out, market.discount_ppm))
        for e in outstanding
    ]
    best = [Entrant(e.row, offer) for e, offer in zip(outstanding, lowest, strict=True)]
    return all(ranked.key > rival.key for ranked in rule.rank(market, best))


@settings(max_examples=300, deadline=None)
@given(seeds, sizes)
def test_a_round_is_decided_when_the_definition_says_so(seed: int, size: int) -> None:
    """After every answer, in any order, bids or none."""
    draw = Draw(seed)
    market, entrants = draw.market(size), draw.entrants(size)
    field = field_of(market, entrants)
    called = field.to_call(**LIVE)
    standings = Round(field, called)
    now = {e.row.node: e for e in entrants}
    answered: set[bytes] = set()
    for entrant in draw.rng.sample(called, len(called)):
        final = draw.bid(market, entrant) if draw.chance(0.7) else entrant
        now[entrant.row.node] = final
        answered.add(entrant.row.node)
        standings.answered(final)
        assert standings.decided() == decided(market, list(now.values()), called, answered)


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_a_view_stays_as_it_was(seed: int) -> None:
    """While slots are written, given up and taken again; its root is that of its rows."""
    draw = Draw(seed)
    shelf, market, kept = shelf_of(CROWD), draw.market(0), []
    for _ in range(40):
        number = draw.rng.randint(1, 700)
        if draw.chance(0.3):
            shelf.give_up(node(number))
        elif draw.chance(0.2):
            shelf.put(node(number), None)
        else:
            shelf.put(node(number), slot_of(draw.entrant(number)))
        if draw.chance(0.3):
            view = shelf.field(market).view
            kept.append((view, list(view)))
    for view, slots in kept:
        assert list(view) == slots
        assert len(view) == len(slots)
        assert view.root == book_root([slot.entrant.row if slot else None for slot in slots])


def test_a_slot_that_was_given_up_is_taken_again() -> None:
    """So the book is no longer than it ever had nodes at once, across its parts too."""
    draw = Draw(1)
    shelf = shelf_of(draw.entrants(600))
    for number in range(1, 601):
        shelf.give_up(node(number))
        shelf.put(node(number + 1000), slot_of(draw.entrant(number + 1000)))
    assert len(shelf) == 600
    assert len(shelf.places) == 600


@given(st.lists(st.tuples(st.integers(0, 70), st.binary(max_size=3)), max_size=60))
def test_a_padded_tree_has_the_root_of_its_entries(writes: list[tuple[int, bytes]]) -> None:
    """Asked after every write or only now and then."""
    tree, entries = PaddedTree(), [b""]
    for number, (place, entry) in enumerate(writes):
        tree[place] = entry
        while place >= len(entries):
            entries += [b""] * len(entries)
        entries[place] = entry
        if number % 3 == 0:
            assert tree.root() == root_of(entries)
    assert tree.root() == root_of(entries)
