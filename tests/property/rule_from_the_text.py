"""The auction rule a second time, from docs/types.md section 5 and the design's section 5 alone.

It shares no arithmetic with `pinaivu.auction.rule`: exact fractions instead of integer tricks, one
sentence of the text per function, no bisection. What it takes from the tree are the values a rule
is about (`Market`, `Entrant`) and the codes. It is slow, and it is allowed to be.

`clearing` gives the line of one rank, `order` the ranking, `largest_price` the price by trying each
one (only for small numbers; `largest_price_by_steps` for any).
"""

from collections.abc import Sequence
from fractions import Fraction
from hashlib import sha256
from math import ceil, floor
from typing import Final, NamedTuple

from pinaivu.auction.rule import Entrant, Market
from pinaivu.auction.transcript import Row

PPM: Final = 10**6
SECOND_SCORE, LONE, EXPLORATION = 1, 2, 3
ACCEPTS_EXPLORATION: Final = 8
_FEW: Final = 3_000


class Line(NamedTuple):
    """One rank's outcome."""

    node: bytes
    price_in: int
    price_out: int
    clearing: int


def price_in(m: Market, p: int) -> int:
    """p_in = floor(p · ratio_ppm / 10⁶)."""
    return floor(Fraction(p) * Fraction(m.ratio_ppm, PPM))


def cost(m: Market, p: int) -> int:
    """P·p_in + M·p."""
    return m.prompt_tokens * price_in(m, p) + m.expected_tokens * p


def delay(m: Market, e: Entrant) -> int:
    """ValueOfTime · est · 1000, est = ⌈ttft·cal_t/1000⌉ + ⌈M·1000·cal_s/tps⌉ ms."""
    first = Fraction(e.offer.ttft_ms) * Fraction(e.row.cal_t, 1000)
    rest = Fraction(m.expected_tokens) / Fraction(e.offer.tps_milli) * 1000 * e.row.cal_s
    return m.value_of_time * (ceil(first) + ceil(rest)) * 1000


def asked(e: Entrant) -> int:
    """The bid's price where there is a bid, else the offer's."""
    return e.offer.price_out if e.bid is None else e.bid.price_out


def score(m: Market, e: Entrant) -> int:
    """floor((cost + delay) · 10⁶ / success_ppm)."""
    return floor(Fraction(cost(m, asked(e)) + delay(m, e)) / Fraction(e.row.success_ppm, PPM))


def keeps_limits(m: Market, p: int) -> bool:
    """Whether p keeps both ceilings and can't exceed the reserve."""
    units = Fraction(m.prompt_tokens * price_in(m, p) + m.max_output_tokens * p, PPM)
    return p <= m.limit_out and price_in(m, p) <= m.limit_in and ceil(units) <= m.reserve


def could_serve(m: Market, e: Entrant) -> bool:
    """Everything of *eligible* but the price."""
    offer, row = e.offer, e.row
    conditions = [
        offer.log_id == m.log_id,
        offer.model == m.model,
        offer.fingerprint == m.fingerprint,
        offer.issued_ms <= m.close_ms,
        m.close_ms < offer.expires_ms,
        all(offer.features >> bit & 1 for bit in range(64) if m.features >> bit & 1),
        m.prompt_tokens + m.max_output_tokens <= offer.context_tokens,
        row.busy < offer.slots,
        row.node in m.allow or len(m.allow) == 0,
        row.node not in m.deny,
        row.success_ppm >= 1,
        offer.tps_milli >= 1,
    ]
    return all(conditions)


def order(m: Market, entrants: Sequence[Entrant]) -> list[Entrant]:
    """Eligible entrants by score, ties by lowest H(nonce ‖ node20)."""
    eligible = [e for e in entrants if could_serve(m, e) and keeps_limits(m, asked(e))]
    return sorted(eligible, key=lambda e: (score(m, e), sha256(m.nonce + e.row.node).hexdigest()))


def sisters(winner: Row, other: Row) -> bool:
    """Whether `other` sets no price for `winner`: same payout, or same funder of a bond."""
    if winner.payout == other.payout:
        return True
    return winner.bond_funder != bytes(20) and winner.bond_funder == other.bond_funder


def largest_price(m: Market, p: int, start: Fraction) -> int:
    """The largest q from p up to `start` that keeps every limit and the uplift."""
    uplifted = Fraction(p * (PPM + m.uplift_ppm), PPM)
    bounds = [start, uplifted, Fraction(m.limit_out)]
    top = max(p, floor(min(bounds)))
    if top - p <= _FEW:
        return max(q for q in range(p, top + 1) if q == p or keeps_limits(m, q))
    return largest_price_by_steps(m, p, top)


def largest_price_by_steps(m: Market, p: int, top: int) -> int:
    """The same by steps that halve: up while the next step still keeps the limits."""
    q, step = p, 1 << 100
    while step:
        if q + step <= top and keeps_limits(m, q + step):
            q += step
        else:
            step //= 2
    return q


def regular(m: Market, line_up: Sequence[Entrant]) -> Line:
    """The first of the line-up at the price that its first independent rival leaves it."""
    winner = line_up[0]
    p = asked(winner)
    rivals = [e for e in line_up[1:] if not sisters(winner.row, e.row)]
    if not rivals:
        q = largest_price(m, p, Fraction(winner.offer.price_out))
        return Line(winner.row.node, price_in(m, q), q, LONE)
    value = floor(Fraction(score(m, rivals[0]) * winner.row.success_ppm, PPM)) - delay(m, winner)
    own = cost(m, p)
    start = Fraction(p) if own == 0 or value <= own else Fraction(p * value, own)
    q = largest_price(m, p, start)
    return Line(winner.row.node, price_in(m, q), q, SECOND_SCORE)


def explores(m: Market) -> bool:
    """Whether the first 8 bytes of H("explore" ‖ nonce), as a share of 2⁶⁴, fall below the ppm."""
    drawn = int(sha256(b"explore" + m.nonce).hexdigest()[:16], 16)
    return Fraction(drawn, 2**64) < Fraction(m.explore_ppm, PPM)


def clearing(
    m: Market, entrants: Sequence[Entrant], excluded: frozenset[bytes] = frozenset()
) -> Line | None:
    """The line of the rank that follows the excluded nodes; None when nobody is left."""
    line_up = [e for e in order(m, entrants) if e.row.node not in excluded]
    if not line_up:
        return None
    usual = regular(m, line_up)
    if len(excluded) > 0 or not explores(m):
        return usual
    hashes = {
        sha256(b"explore" + m.nonce + e.row.node).hexdigest(): e
        for e in line_up
        if e.row.newcomer and e.offer.features >> ACCEPTS_EXPLORATION & 1
    }
    if not hashes:
        return usual
    chosen = hashes[min(hashes)]
    q = min(asked(chosen), usual.price_out)
    return Line(chosen.row.node, price_in(m, q), q, EXPLORATION)
