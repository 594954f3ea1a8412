"""A live round as its answers come in: whether any that is outstanding could still matter."""

from collections.abc import Sequence
from itertools import takewhile

from msgspec.structs import replace

from coordinator.field import Field
from pinaivu.auction import rule
from pinaivu.auction.rule import Entrant, Ranked


class Round:
    """Where everybody stands. An answer moves its own node, and nobody is scored again."""

    def __init__(self, field: Field, called: Sequence[Entrant]) -> None:
        self._market = field.market
        self._now = {r.entrant.row.node: r for r in rule.rank(self._market, called)}
        self._at_best = {e.row.node: self._best(e) for e in called}  # of the outstanding
        self._others = field.ranked(self._market, frozenset(self._at_best))

    def answered(self, entrant: Entrant) -> None:
        """A called node's answer: with the bid it made, if it made a valid one."""
        node = entrant.row.node
        del self._at_best[node]
        if entrant.bid and rule.eligible(self._market, entrant):
            self._now[node] = rule.ranked(self._market, entrant)

    def decided(self) -> bool:
        """Whether no outstanding answer, at its best possible, could change winner or runner-up."""
        if not self._at_best:
            return True
        limit = min(r.key for r in self._at_best.values())
        # Winner and runner-up stand iff both are among those whom nobody outstanding can reach.
        ahead = [r for r in self._now.values() if r.key < limit]
        ahead += takewhile(lambda r: r.key < limit, self._others)
        return rule.runner_up(sorted(ahead, key=_key)) is not None

    def _best(self, entrant: Entrant) -> Ranked:
        """The entrant at the lowest price it may bid."""
        lowest = rule.lowest_bid(entrant.offer.price_out, self._market.discount_ppm)
        offer = replace(entrant.offer, price_out=lowest)
        return rule.ranked(self._market, Entrant(entrant.row, offer))


def _key(ranked: Ranked) -> tuple[int, bytes]:
    return ranked.key
