"""The rule: eligibility, score, order, clearing. Pure integer arithmetic over a `Market`.

    cost  = P·p_in + M·p_out                                     base units × 10⁶
    est   = ceil(ttft·cal_t/1000) + ceil(M·1000·cal_s/tps)       ms
    delay = value_of_time · est · 1000                           base units × 10⁶
    score = floor((cost + delay)·10⁶ / success)                  lowest wins

What it does not prove: that M is a good estimate, that reputation is fair, or that the coordinator
closed the round at a fair moment.
"""

from collections.abc import Iterable
from functools import cached_property
from hashlib import sha256
from typing import Final

from msgspec import Struct

from pinaivu.auction.transcript import Row
from pinaivu.codes import Clearing, Feature
from pinaivu.fields import MAX_U64
from pinaivu.messages import Bid, Offer

MILLION: Final = 10**6
_EXPLORE: Final = b"explore"


class Market(Struct, frozen=True, kw_only=True):
    """Everything of a job and its auction that decides, but the entrants.

    `limit_in`, `limit_out` are the smaller of job's and grant's price ceilings, `reserve` the most
    the job may cost; `allow` empty means all. `discount_ppm`, `uplift_ppm` and `explore_ppm` are
    the epoch's parameters.
    """

    log_id: bytes
    nonce: bytes
    model: str
    fingerprint: bytes
    ratio_ppm: int
    features: int
    prompt_tokens: int
    expected_tokens: int
    max_output_tokens: int
    value_of_time: int
    limit_in: int
    limit_out: int
    reserve: int
    allow: frozenset[bytes]
    deny: frozenset[bytes]
    close_ms: int
    discount_ppm: int
    uplift_ppm: int
    explore_ppm: int

    def price_in(self, price_out: int) -> int:
        """Input price that follows from an output price by the model's ratio."""
        return price_out * self.ratio_ppm // MILLION

    def cost(self, price_out: int) -> int:
        """Expected cost at a price, base units × 10⁶."""
        return self.prompt_tokens * self.price_in(price_out) + self.expected_tokens * price_out

    def within_limits(self, price_out: int) -> bool:
        """Whether a price breaks no ceiling and can't exceed the reserve."""
        price_in = self.price_in(price_out)
        most = self.prompt_tokens * price_in + self.max_output_tokens * price_out
        return (
            price_out <= self.limit_out
            and price_in <= self.limit_in
            and -(-most // MILLION) <= self.reserve
        )


class Entrant(Struct, frozen=True, dict=True):
    """A book row with its offer and, where the node answered with a valid one, its bid."""

    row: Row
    offer: Offer
    bid: Bid | None = None

    @property
    def price_out(self) -> int:
        """The price this entrant takes part at."""
        return self.bid.price_out if self.bid else self.offer.price_out

    def standing(self) -> "Entrant":
        """The same entrant without its bid."""
        return Entrant(self.row, self.offer) if self.bid else self


class Cleared(Struct, frozen=True):
    """The winner, its price and how that came about."""

    entrant: Entrant
    price_in: int
    price_out: int
    clearing: Clearing


class Ranked(Struct, frozen=True, dict=True):
    """An entrant with its score and tie-break."""

    score: int
    tie: bytes
    entrant: Entrant

    @cached_property
    def key(self) -> tuple[int, bytes]:
        """Sort key: lowest score first, ties by lowest hash."""
        return (self.score, self.tie)


def lowest_bid(offer_price: int, discount_ppm: int) -> int:
    """The lowest price a bid may name against its standing offer."""
    return -(-offer_price * (MILLION - discount_ppm) // MILLION)


def highest_offer(highest: int, discount_ppm: int) -> int:
    """The highest standing offer whose lowest bid is not above `highest`."""
    if discount_ppm >= MILLION:
        return MAX_U64
    return min(highest * MILLION // (MILLION - discount_ppm), MAX_U64)


def highest_price(market: Market) -> int:
    """The highest price within the limits."""
    return _highest_within(market, 0, market.limit_out)


def delay(market: Market, entrant: Entrant) -> int:
    """What the entrant's expected duration costs the caller, base units × 10⁶."""
    terms = entrant.bid or entrant.offer
    first = -(-terms.ttft_ms * entrant.row.cal_t // 1000)
    rest = -(-market.expected_tokens * 1000 * entrant.row.cal_s // terms.tps_milli)
    return market.value_of_time * (first + rest) * 1000


def score(market: Market, entrant: Entrant) -> int:
    """The entrant's score at its price; lowest wins."""
    total = market.cost(entrant.price_out) + delay(market, entrant)
    return total * MILLION // entrant.row.success_ppm


def fits(market: Market, entrant: Entrant) -> bool:
    """Whether the entrant could serve the job at all, price apart."""
    offer, row = entrant.offer, entrant.row
    return (
        offer.log_id == market.log_id
        and offer.model == market.model
        and offer.issued_ms <= market.close_ms < offer.expires_ms
        and offer.fingerprint == market.fingerprint
        and market.features & ~offer.features == 0
        and market.prompt_tokens + market.max_output_tokens <= offer.context_tokens
        and row.busy < offer.slots
        and (not market.allow or row.node in market.allow)
        and row.node not in market.deny
        and row.success_ppm >= 1
        and offer.tps_milli >= 1
    )


def eligible(market: Market, entrant: Entrant) -> bool:
    """Whether the entrant takes part at its price."""
    return fits(market, entrant) and market.within_limits(entrant.price_out)


def could_become_eligible(market: Market, entrant: Entrant) -> bool:
    """Whether the largest discount would let the entrant take part: who is worth calling."""
    lowest = lowest_bid(entrant.offer.price_out, market.discount_ppm)
    return fits(market, entrant) and market.within_limits(lowest)


def count_eligible(market: Market, entrants: Iterable[Entrant]) -> int:
    """Rows eligible at their offer's or their bid's price."""
    return sum(eligible(market, e) or eligible(market, e.standing()) for e in entrants)


def rank(market: Market, entrants: Iterable[Entrant]) -> list[Ranked]:
    """Eligible entrants, best first."""
    found = [ranked(market, e) for e in entrants if eligible(market, e)]
    return sorted(found, key=lambda r: r.key)


def ranked(market: Market, entrant: Entrant) -> Ranked:
    """The entrant's place in the order."""
    return Ranked(score(market, entrant), tie(market.nonce, entrant.row.node), entrant)


def to_call(
    market: Market, entrants: Iterable[Entrant], *, live_all: int, live_best: int
) -> list[Entrant]:
    """Whom the live round asks, in order of standing score: all up to `live_all`, else the best."""
    standing = [e.standing() for e in entrants]
    found = sorted(
        (ranked(market, e) for e in standing if could_become_eligible(market, e)),
        key=lambda r: r.key,
    )
    return [r.entrant for r in (found if len(found) <= live_all else found[:live_best])]


def clear(
    market: Market, entrants: Iterable[Entrant], excluded: frozenset[bytes] = frozenset()
) -> Cleared | None:
    """The winner among entrants outside `excluded` and its price; None when nobody is left."""
    order = [r for r in rank(market, entrants) if r.entrant.row.node not in excluded]
    if not order:
        return None
    regular = second_score(market, order[0], runner_up(order))
    if excluded or not explores(market):
        return regular
    newcomer = explorer(market, (r.entrant for r in order))
    return explored(market, newcomer, regular) if newcomer else regular


def runner_up(order: Iterable[Ranked]) -> Ranked | None:
    """Who sets the winner's price: the next with another payout wallet and bond funder."""
    following = iter(order)
    winner = next(following, None)
    return next(
        (r for r in following if winner and _independent(winner.entrant.row, r.entrant.row)), None
    )


def second_score(market: Market, first: Ranked, rival: Ranked | None) -> Cleared:
    """What the first pays: up to the price at which it would score as its runner-up does."""
    winner = first.entrant
    price = winner.price_out
    if rival is None:
        return _cleared(market, winner, winner.offer.price_out, Clearing.LONE)
    cost = market.cost(price)
    room = rival.score * winner.row.success_ppm // MILLION - delay(market, winner)
    start = price * room // cost if cost and room > cost else price
    return _cleared(market, winner, start, Clearing.SECOND_SCORE)


def _cleared(market: Market, winner: Entrant, start: int, clearing: Clearing) -> Cleared:
    """The largest price from the winner's own up to `start` that keeps every limit."""
    low = winner.price_out
    high = min(start, low * (MILLION + market.uplift_ppm) // MILLION, market.limit_out)
    high = max(low, high)
    price = _highest_within(market, low, high)
    return Cleared(winner, market.price_in(price), price, clearing)


def _highest_within(market: Market, low: int, high: int) -> int:
    """The highest price up to `high` within the limits, which `low` is."""
    while low < high:  # limits are monotone in the price, so bisect
        middle = (low + high + 1) // 2
        if market.within_limits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def explorer(market: Market, eligible_ones: Iterable[Entrant]) -> Entrant | None:
    """The newcomer among the eligible that an exploration job goes to."""
    newcomers = (
        e for e in eligible_ones if e.row.newcomer and e.offer.features & Feature.EXPLORATION
    )
    return min(
        newcomers,
        key=lambda e: sha256(_EXPLORE + market.nonce + e.row.node).digest(),
        default=None,
    )


def explored(market: Market, newcomer: Entrant, regular: Cleared) -> Cleared:
    """The newcomer instead of the regular winner, at the lesser of its own and that price."""
    price = min(newcomer.price_out, regular.price_out)
    return Cleared(newcomer, market.price_in(price), price, Clearing.EXPLORATION)


def explores(market: Market) -> bool:
    """Whether the job's nonce makes it an exploration job."""
    drawn = int.from_bytes(sha256(_EXPLORE + market.nonce).digest()[:8])
    return drawn * MILLION < market.explore_ppm << 64


def _independent(winner: Row, other: Row) -> bool:
    """Another payout wallet and, where bonded, another funder: no sister sets the price."""
    bonded = any(winner.bond_funder)
    return other.payout != winner.payout and not (
        bonded and other.bond_funder == winner.bond_funder
    )


def tie(nonce: bytes, node: bytes) -> bytes:
    """What decides between equal scores; the lowest wins."""
    return sha256(nonce + node).digest()
