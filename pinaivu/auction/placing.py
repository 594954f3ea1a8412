"""Where each offer of an auction stood: its place, price and score, or why it could not take part.

The same predicates as `rule.fits` and `Market.within_limits`, one by one and with a name each, for
people; what decides is the rule. A node that isn't in the book has no placing: whether it should
have been there, a transcript alone can't tell.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from pinaivu.auction import rule
from pinaivu.auction.replay import Replay
from pinaivu.auction.rule import MILLION, Entrant, Market
from pinaivu.auction.transcript import Row
from pinaivu.codes import CallOutcome, Feature
from pinaivu.encoding import to_hex
from pinaivu.messages import Offer

Condition = tuple[str, bool, str]
"""Name, whether it holds, and what to say if it doesn't."""


class Unmet(Struct, frozen=True):
    """A condition of taking part that an offer did not meet: its name, and the values."""

    name: str
    detail: str


class Placing(Struct, frozen=True, kw_only=True):
    """One entrant of a rerun auction. `place` from 1 and `score` (base units × 10⁶) if eligible.

    `called` is None for who was not called. `unmet` is empty exactly if it was eligible.
    """

    entrant: Entrant
    place: int | None
    score: int | None
    called: CallOutcome | None
    unmet: tuple[Unmet, ...]


def placings(replay: Replay, market: Market) -> list[Placing]:
    """Every entrant: the eligible by their place, then the others in the book's order."""
    ranked = rule.rank(market, replay.entrants)
    taking_part = {place.entrant.row.node for place in ranked}
    calls = {call.node: call.outcome for call in replay.calls}
    first = [
        Placing(
            entrant=found.entrant,
            place=place,
            score=found.score,
            called=calls.get(found.entrant.row.node),
            unmet=(),
        )
        for place, found in enumerate(ranked, 1)
    ]
    others = [
        Placing(
            entrant=entrant,
            place=None,
            score=None,
            called=calls.get(entrant.row.node),
            unmet=unmet(market, entrant),
        )
        for entrant in replay.entrants
        if entrant.row.node not in taking_part
    ]
    return first + others


def unmet(market: Market, entrant: Entrant) -> tuple[Unmet, ...]:
    """The conditions that an entrant does not meet at its price; none if it is eligible."""
    return tuple(
        Unmet(name, detail) for name, holds, detail in _conditions(market, entrant) if not holds
    )


def price_to_lead(market: Market, order: Sequence[Placing], node: bytes) -> int | None:
    """The highest price at which an eligible node would have scored below all others; None if none.

    Base units per million output tokens, everything else as it was; 0 means by giving it away.
    """
    own = next(found.entrant for found in order if found.entrant.row.node == node)
    best = min(
        (f.score for f in order if f.score is not None and f.entrant.row.node != node), default=None
    )
    low, high = -1, own.price_out
    while low < high:  # the score rises with the price, so bisect
        middle = (low + high + 1) // 2
        if best is None or rule.score(market, _at_price(own, middle)) < best:
            low = middle
        else:
            high = middle - 1
    return low if low >= 0 else None


def _at_price(entrant: Entrant, price_out: int) -> Entrant:
    return Entrant(entrant.row, replace(entrant.offer, price_out=price_out))


def _conditions(market: Market, entrant: Entrant) -> Iterator[Condition]:
    """Each condition of *eligible* (docs/types.md, section 5)."""
    yield from _of_offer(market, entrant.offer)
    yield from _of_row(market, entrant.row, entrant.offer)
    yield from _of_price(market, entrant.price_out)


def _of_offer(market: Market, offer: Offer) -> Iterator[Condition]:
    early, late = offer.issued_ms - market.close_ms, market.close_ms - offer.expires_ms
    needed = market.prompt_tokens + market.max_output_tokens
    missing = market.features & ~offer.features
    names = [feature.name.lower() for feature in Feature if feature & missing and feature.name]
    yield "other_log", offer.log_id == market.log_id, "the offer was made to another log"
    yield "other_model", offer.model == market.model, f"the offer is for {offer.model!r}"
    yield "not_yet_valid", early <= 0, f"issued {early} ms after the auction closed"
    yield "expired", late < 0, f"ran out {late} ms before the auction closed"
    same = offer.fingerprint == market.fingerprint
    yield "wrong_fingerprint", same, f"its weights are {to_hex(offer.fingerprint)}"
    yield "missing_features", not missing, f"the job needs {', '.join(names) or hex(missing)}"
    fits = needed <= offer.context_tokens
    yield "context_too_small", fits, f"{offer.context_tokens} tokens, the job may take {needed}"
    yield "no_speed", offer.tps_milli >= 1, "it promises no tokens per second"


def _of_row(market: Market, row: Row, offer: Offer) -> Iterator[Condition]:
    free = row.busy < offer.slots
    yield "no_free_slot", free, f"{row.busy} of {offer.slots} slots busy"
    allowed = not market.allow or row.node in market.allow
    yield "not_allowed", allowed, f"the job allows {len(market.allow)} others alone"
    yield "denied", row.node not in market.deny, "the job denies this node"
    yield "never_succeeds", row.success_ppm >= 1, "its measured success is 0"


def _of_price(market: Market, price_out: int) -> Iterator[Condition]:
    price_in = market.price_in(price_out)
    most = market.prompt_tokens * price_in + market.max_output_tokens * price_out
    units = -(-most // MILLION)
    dear = f"{price_out} per million output tokens, the limit is {market.limit_out}"
    yield "output_price_above_limit", price_out <= market.limit_out, dear
    dear = f"{price_in} per million input tokens, the limit is {market.limit_in}"
    yield "input_price_above_limit", price_in <= market.limit_in, dear
    dear = f"the job could cost {units} base units, the limit is {market.reserve}"
    yield "cost_above_limit", units <= market.reserve, dear
