"""A job's view of one model's book: everybody who fits it, in the rule's order, as far as asked.

Every offer takes part. A float bound on each score says where to look first; what is compared in
the end are the rule's own integers, of all whose bound doesn't already place them behind. The order
is therefore `rule.rank`'s, found without scoring everybody.
"""

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, count
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pinaivu.auction import rule
from pinaivu.auction.rule import Cleared, Entrant, Market, Ranked
from pinaivu.messages import Offer
from pinaivu.typed_data import Signed

CHUNK: Final = 256
_AT_FIRST: Final = 48
_FRONT: Final = 4

Counts = NDArray[np.uint64]
Weights = NDArray[np.float64]
Places = NDArray[np.intp]
Mask = NDArray[np.bool_]


class Slot(Struct, frozen=True):
    """One slot of the book as an auction sees it: the entrant and the offer it signed."""

    entrant: Entrant
    signed: Signed[Offer]


class BookView(Struct, frozen=True):
    """A model's slots and their root at one moment; equal parts are shared with other moments."""

    chunks: tuple[tuple[Slot | None, ...], ...]
    size: int
    root: bytes

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, place: int) -> Slot | None:
        return self.chunks[place // CHUNK][place % CHUNK]

    def __iter__(self) -> Iterator[Slot | None]:
        for chunk in self.chunks:
            yield from chunk

    def entrants(self) -> list[Entrant]:
        """Everybody who stands in the book, at the standing price."""
        return [slot.entrant for slot in self if slot]


class Field(Struct, frozen=True, kw_only=True):
    """Who fits a job, the price and the moment apart; one column a number, by place in the book."""

    market: Market
    view: BookView
    fit: Mask
    bounds: Weights
    price: Counts
    issued_ms: Counts
    expires_ms: Counts
    exploring: Mask  # a newcomer that takes exploration jobs

    def to_call(self, *, live_all: int, live_best: int) -> list[Entrant]:
        """`rule.to_call` among everybody."""
        market = self.market
        highest = rule.highest_price(market)
        callable_ = self._there(market.close_ms) & (
            self.price <= rule.highest_offer(highest, market.discount_ppm)
        )
        found = np.flatnonzero(callable_)
        most = live_all if len(found) <= live_all else live_best
        order = self._order(market, found)
        return [ranked.entrant for ranked, _ in zip(order, range(most), strict=False)]

    def ranked(self, market: Market, without: Collection[bytes]) -> "Order":
        """Everybody eligible at the standing price when `market` closes, but nodes `without`."""
        return self._ranked(market, self._eligible(market), without)

    def close(self, market: Market, called: Sequence[Entrant]) -> "Ranking":
        """The order once the round is over; `called` with the bids that they made.

        `market` differs from the field's in the moment it closes, which is not before.
        """
        nodes = {entrant.row.node for entrant in called}
        eligible = self._eligible(market)
        others = int(np.count_nonzero(eligible)) - rule.count_eligible(
            market, [entrant.standing() for entrant in called]
        )
        merged = heapq.merge(
            rule.rank(market, called), self._ranked(market, eligible, nodes), key=lambda r: r.key
        )
        order = Order(merged)
        rule.runner_up(order)  # looks no further than it must
        return Ranking(
            market=market,
            view=self.view,
            called=tuple(called),
            front=order.at_least(_FRONT),
            whole=order.whole,
            newcomer=self._newcomer(market, called) if rule.explores(market) else None,
            eligible=others + rule.count_eligible(market, called),
            cheapest=self._cheapest(market, called),
        )

    def _ranked(self, market: Market, among: Mask, without: Collection[bytes]) -> "Order":
        order = self._order(market, np.flatnonzero(among))
        return Order(ranked for ranked in order if ranked.entrant.row.node not in without)

    def _there(self, at_ms: int) -> Mask:
        return self.fit & (self.issued_ms <= at_ms) & (self.expires_ms > at_ms)

    def _eligible(self, market: Market) -> Mask:
        return self._there(market.close_ms) & (self.price <= rule.highest_price(market))

    def _order(self, market: Market, found: Places) -> Iterator[Ranked]:
        """Exact and lazy: whoever is next has a score below every bound not yet looked behind.

        Equal terms are scored once, and ties hashed only when their turn comes: markets crowd.
        """
        scores: dict[tuple[int, ...], int] = {}
        waiting: list[int] = []  # a heap of scores
        alike: dict[int, list[Entrant]] = {}  # by score
        for bound, place in self._by_bound(found):
            while waiting and waiting[0] < bound:
                score = heapq.heappop(waiting)
                yield from _tied(market, score, alike.pop(score))
            entrant = self._entrant(place)
            terms = _terms(entrant)
            if terms not in scores:
                scores[terms] = rule.score(market, entrant)
            score = scores[terms]
            if score not in alike:
                alike[score] = []
                heapq.heappush(waiting, score)
            alike[score].append(entrant)
        for score in sorted(waiting):
            yield from _tied(market, score, alike[score])

    def _by_bound(self, found: Places) -> Iterator[tuple[float, int]]:
        """Bounds rising, with their places; the first few are found without sorting the rest."""
        bounds, places = self.bounds[found], found
        number = _AT_FIRST
        while len(bounds) > number:
            parted = np.argpartition(bounds, number)
            first, rest = parted[:number], parted[number:]
            yield from _sorted(bounds[first], places[first])
            bounds, places, number = bounds[rest], places[rest], number * 8
        yield from _sorted(bounds, places)

    def _entrant(self, place: int) -> Entrant:
        slot = self.view[place]
        assert slot
        return slot.entrant

    def _newcomer(self, market: Market, called: Sequence[Entrant]) -> Entrant | None:
        nodes = {entrant.row.node for entrant in called}
        found = np.flatnonzero(self._eligible(market) & self.exploring).tolist()
        others = [e for e in map(self._entrant, found) if e.row.node not in nodes]
        return rule.explorer(market, [*others, *(r.entrant for r in rule.rank(market, called))])

    def _cheapest(self, market: Market, called: Sequence[Entrant]) -> int | None:
        standing = self.price[self._there(market.close_ms)]
        bids = [entrant.price_out for entrant in called if rule.fits(market, entrant)]
        return min([*bids, int(standing.min())] if len(standing) else bids, default=None)


def _sorted(bounds: Weights, places: Places) -> Iterator[tuple[float, int]]:
    order = np.argsort(bounds)
    return zip(bounds[order].tolist(), places[order].tolist(), strict=True)


def _terms(entrant: Entrant) -> tuple[int, ...]:
    """All that an entrant brings to its score."""
    offer, row = entrant.offer, entrant.row
    return (offer.price_out, offer.ttft_ms, offer.tps_milli, row.cal_t, row.cal_s, row.success_ppm)


def _tied(market: Market, score: int, entrants: list[Entrant]) -> list[Ranked]:
    """Those of one score, best first."""
    found = [Ranked(score, rule.tie(market.nonce, e.row.node), e) for e in entrants]
    return sorted(found, key=lambda ranked: ranked.tie)


class Order(Iterable[Ranked]):
    """An order that is found as far as somebody looks, once."""

    def __init__(self, source: Iterator[Ranked]) -> None:
        self._source = source
        self._known: list[Ranked] = []
        self.whole = False  # nobody comes after those found

    def __iter__(self) -> Iterator[Ranked]:
        for number in count():
            if number == len(self._known) and not self._find():
                return
            yield self._known[number]

    def at_least(self, number: int) -> tuple[Ranked, ...]:
        """The first `number`, or all where there are fewer; more where more are known."""
        while len(self._known) < number and self._find():
            pass
        return tuple(self._known)

    def _find(self) -> bool:
        for ranked in self._source:
            self._known.append(ranked)
            return True
        self.whole = True
        return False


class Ranking(Struct, frozen=True, kw_only=True):
    """A closed auction's order: its front, and behind it the book as it stood.

    `eligible` as in the transcript's header; `cheapest` is the lowest price of those that fit, None
    when nobody does. What is kept for later ranks is the front; the book's parts are shared.
    """

    market: Market
    view: BookView
    called: tuple[Entrant, ...]
    front: tuple[Ranked, ...]
    whole: bool
    newcomer: Entrant | None
    eligible: int
    cheapest: int | None

    def clear(self, excluded: Collection[bytes]) -> Cleared | None:
        """`rule.clear` over `entrants`; slow only where the front doesn't decide."""
        return self._clear(self._order(), excluded)

    def next_ready(
        self, excluded: Collection[bytes], ready: Callable[[bytes], bool]
    ) -> tuple[list[bytes], Cleared | None]:
        """The nodes that aren't ready although it is their turn, and what clears without them.

        As if `clear` were asked again with each of them excluded, but everybody is ranked once.
        """
        order = self._order()
        passed: list[bytes] = []
        for node in self._in_turn(order, excluded):
            if ready(node):
                return passed, self._clear(order, {*excluded, *passed})
            passed.append(node)
        return passed, None

    def _in_turn(self, order: "Order", excluded: Collection[bytes]) -> Iterator[bytes]:
        """Each node that wins once all before it are out."""
        explorer = None if excluded or self.newcomer is None else self.newcomer.row.node
        if explorer:
            yield explorer
        for ranked in order:
            node = ranked.entrant.row.node
            if node != explorer and node not in excluded:
                yield node

    def _clear(self, everybody: "Order", excluded: Collection[bytes]) -> Cleared | None:
        order = Order(r for r in everybody if r.entrant.row.node not in excluded)
        first = next(iter(order), None)
        if first is None:
            return None
        regular = rule.second_score(self.market, first, rule.runner_up(order))
        if excluded or self.newcomer is None:
            return regular
        return rule.explored(self.market, self.newcomer, regular)

    def _order(self) -> "Order":
        return Order(chain(self.front, self._behind()))

    def _behind(self) -> Iterator[Ranked]:
        """Who comes after the front; everybody is ranked when the first of them is asked for."""
        if not self.whole:
            yield from rule.rank(self.market, self.entrants())[len(self.front) :]

    def entrants(self) -> list[Entrant]:
        """Everybody in the book, with the bids that were made."""
        called = {entrant.row.node: entrant for entrant in self.called}
        return [called.get(e.row.node, e) for e in self.view.entrants()]
