"""One model's slots: rows as an auction sees them, beside the numbers that sort them at a glance.

A slot's row, its numbers and its leaf in the book's tree are written in one place, `put`, so they
can't differ. `view` is the book at one moment: it stays as it is while the shelf moves on, and
costs what has changed since the last one.
"""

import heapq
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from coordinator.field import CHUNK, BookView, Counts, Field, Slot, Weights
from pinaivu.auction.rule import MILLION, Market
from pinaivu.codes import Feature
from pinaivu.merkle.padded import PaddedTree

_COUNTS: Final = (
    "room",
    "price",
    "issued_ms",
    "expires_ms",
    "features",
    "context_tokens",
    "fingerprint",
    "exploring",
)
_WEIGHTS: Final = ("price", "first_ms", "token_ms", "weight")

_NEVER: Final = 1 << 63
_NEARLY: Final = 1 - 2**-40

Number = TypeVar("Number", np.uint64, np.float64)


class Shelf:
    """The slots of one model; a slot that is given up goes to the next node that comes."""

    def __init__(self) -> None:
        self.places: dict[bytes, int] = {}  # by node
        self._slots: list[Slot | None] = []
        self._chunks: list[tuple[Slot | None, ...]] = []
        self._old_chunks: set[int] = set()
        self._free: list[int] = []  # a heap, so that the front fills first
        self._tree = PaddedTree()
        self._fingerprints: dict[bytes, int] = {}
        self._counts: dict[str, Counts] = {name: np.zeros(CHUNK, np.uint64) for name in _COUNTS}
        self._weights: dict[str, Weights] = {name: np.zeros(CHUNK) for name in _WEIGHTS}

    def __len__(self) -> int:
        return len(self._slots)

    def put(self, node: bytes, slot: Slot | None) -> None:
        """Write a node's slot; None: it keeps its place and is not there."""
        place = self.places.get(node)
        if place is None:
            place = self.places[node] = heapq.heappop(self._free) if self._free else self._add()
        self._write(place, slot)

    def give_up(self, node: bytes) -> None:
        """Empty a node's slot, if it has one, and leave it to whoever comes next."""
        place = self.places.pop(node, None)
        if place is not None:
            self._write(place, None)
            heapq.heappush(self._free, place)

    def _add(self) -> int:
        place = len(self._slots)
        self._slots.append(None)
        if place == len(self._counts["room"]):
            self._counts = {name: _doubled(column) for name, column in self._counts.items()}
            self._weights = {name: _doubled(column) for name, column in self._weights.items()}
        return place

    def _write(self, place: int, slot: Slot | None) -> None:
        self._slots[place] = slot
        self._old_chunks.add(place // CHUNK)
        self._tree[place] = slot.entrant.row.to_bytes() if slot else b""
        counts, weights = self._counts, self._weights
        counts["room"][place] = 0
        if slot is None:
            return
        offer, row = slot.entrant.offer, slot.entrant.row
        counts["price"][place] = weights["price"][place] = offer.price_out
        counts["issued_ms"][place] = offer.issued_ms
        counts["expires_ms"][place] = offer.expires_ms
        counts["features"][place] = offer.features
        counts["context_tokens"][place] = offer.context_tokens
        counts["fingerprint"][place] = self._number(offer.fingerprint)
        counts["exploring"][place] = row.newcomer and bool(offer.features & Feature.EXPLORATION)
        if row.success_ppm < 1 or offer.tps_milli < 1:
            return  # the rule leaves it out: no room
        counts["room"][place] = max(0, offer.slots - row.busy)
        weights["first_ms"][place] = -(-offer.ttft_ms * row.cal_t // 1000)
        weights["token_ms"][place] = 1000 * row.cal_s / offer.tps_milli
        weights["weight"][place] = MILLION / row.success_ppm

    def _number(self, fingerprint: bytes) -> int:
        return self._fingerprints.setdefault(fingerprint, len(self._fingerprints))

    def run_out(self, now_ms: int) -> list[bytes]:
        """Nodes whose offers have run out since they were written."""
        over = np.flatnonzero(self._count("expires_ms") <= now_ms)
        slots = [self._slots[place] for place in over.tolist()]
        return [slot.entrant.row.node for slot in slots if slot]

    def view(self) -> BookView:
        """The slots as they are now."""
        for number in sorted(self._old_chunks):
            chunk = tuple(self._slots[number * CHUNK : (number + 1) * CHUNK])
            self._chunks[number : number + 1] = [chunk]
        self._old_chunks.clear()
        return BookView(tuple(self._chunks), len(self._slots), self._tree.root())

    def field(self, market: Market) -> "Field":
        """Who fits a job now or before it closes, each with a lower bound of its score.

        Exactly `rule.fits`, but for an offer that isn't valid yet.
        """
        need = market.prompt_tokens + market.max_output_tokens
        fit = self._count("room") > 0
        fit &= self._count("expires_ms") > market.close_ms
        fit &= self._count("context_tokens") >= need
        fit &= self._count("features") & np.uint64(market.features) == market.features
        fit &= self._count("fingerprint") == self._fingerprints.get(market.fingerprint, _NEVER)
        fit[[self.places[node] for node in market.deny if node in self.places]] = False
        if market.allow:
            allowed = np.zeros(len(fit), np.bool_)
            allowed[[self.places[node] for node in market.allow if node in self.places]] = True
            fit &= allowed
        return Field(
            market=market,
            view=self.view(),
            fit=fit,
            bounds=self._bounds(market),
            price=self._count("price").copy(),
            issued_ms=self._count("issued_ms").copy(),
            expires_ms=self._count("expires_ms").copy(),
            exploring=self._count("exploring") > 0,
        )

    def _bounds(self, market: Market) -> Weights:
        """For those that fit: nowhere above `rule.score`, and hardly below.

        Of the rule's roundings only those that lower a score are left out (p_in and the score
        itself, each by less than 1) or put in (the time per token is not rounded up). Ten float
        operations on terms that are never negative are right to a part in 2⁴⁹; 2⁻⁴⁰ is taken off.
        """
        price, first_ms, token_ms, weight = (
            self._weights[name][: len(self._slots)] for name in _WEIGHTS
        )
        per_price = market.prompt_tokens * market.ratio_ppm / MILLION + market.expected_tokens
        waiting = first_ms + market.expected_tokens * token_ms
        total = price * per_price + float(market.value_of_time * 1000) * waiting
        return total * weight * _NEARLY - (market.prompt_tokens * weight + 2)

    def _count(self, name: str) -> Counts:
        return self._counts[name][: len(self._slots)]


def _doubled(column: NDArray[Number]) -> NDArray[Number]:
    return np.concatenate([column, np.zeros_like(column)])
