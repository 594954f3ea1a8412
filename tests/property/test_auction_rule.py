"""The auction rule against a second implementation, written from the text of the rule alone."""

from fractions import Fraction
from hashlib import sha256
from math import ceil, floor
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pinaivu.auction import rule
from pinaivu.auction.rule import Entrant, Market
from pinaivu.auction.transcript import CallEntry, Header, Row
from pinaivu.codes import CallOutcome, Clearing, Feature
from pinaivu.messages import Bid, Offer

LOG = b"L" * 32
prices = st.integers(0, 5_000_000)


def market(draw: Any) -> Market:
    return Market(
        log_id=LOG,
        nonce=draw(st.binary(min_size=32, max_size=32)),
        model="m",
        fingerprint=b"F" * 32,
        ratio_ppm=draw(st.integers(0, 2_000_000)),
        features=Feature.KIND_CHAT,
        prompt_tokens=draw(st.integers(0, 10_000)),
        expected_tokens=draw(st.integers(0, 4_000)),
        max_output_tokens=4_000,
        value_of_time=draw(st.integers(0, 10_000)),
        limit_in=draw(st.integers(0, 6_000_000)),
        limit_out=draw(prices),
        reserve=draw(st.integers(0, 50_000)),
        allow=frozenset(),
        deny=draw(st.frozensets(st.sampled_from([bytes([n]) * 20 for n in range(1, 7)]))),
        close_ms=1_000,
        discount_ppm=200_000,
        uplift_ppm=draw(st.integers(0, 1_000_000)),
        explore_ppm=draw(st.sampled_from([0, 20_000, 999_999])),
    )


def entrant(draw: Any, number: int) -> Entrant:
    node = bytes([number]) * 20
    offer = Offer(
        log_id=LOG,
        node=node,
        fingerprint=b"F" * 32,
        features=Feature.KIND_CHAT | draw(st.sampled_from([0, Feature.EXPLORATION])),
        context_tokens=14_000,
        price_out=draw(prices),
        ttft_ms=draw(st.integers(0, 5_000)),
        tps_milli=draw(st.integers(1, 200_000)),
        slots=draw(st.integers(1, 3)),
        sequence=1,
        issued_ms=0,
        expires_ms=draw(st.sampled_from([1_000, 15_000])),
        model="m",
    )
    lowest = rule.lowest_bid(offer.price_out, 200_000)
    bid = None
    if draw(st.booleans()):
        bid = Bid(
            job_digest=bytes(32),
            nonce=bytes(32),
            offer_digest=bytes(32),
            node=node,
            price_out=draw(st.integers(lowest, offer.price_out)),
            ttft_ms=offer.ttft_ms,
            tps_milli=offer.tps_milli,
        )
    row = Row(
        offer_digest=bytes(32),
        node=node,
        payout=bytes([draw(st.integers(1, 3))]) * 20,
        bond_funder=bytes([draw(st.integers(0, 2))]) * 20,
        success_ppm=draw(st.integers(0, 1_000_000)),
        cal_t=draw(st.integers(0, 3_000)),
        cal_s=draw(st.integers(0, 3_000)),
        busy=draw(st.integers(0, 2)),
        newcomer=draw(st.booleans()),
    )
    return Entrant(row, offer, bid)


@st.composite
def rounds(draw: Any) -> tuple[Market, list[Entrant]]:
    return market(draw), [entrant(draw, n) for n in range(1, draw(st.integers(1, 6)) + 1)]


def second_opinion(  # noqa: C901 - the rule's text, in one piece on purpose
    m: Market, entrants: list[Entrant], excluded: frozenset[bytes]
) -> tuple[bytes, int, Clearing] | None:
    """Winner, price and clearing, computed with exact fractions from the rule's text."""

    def p_in(price: int) -> int:
        return floor(Fraction(price * m.ratio_ppm, 10**6))

    def allowed(price: int) -> bool:
        most = ceil(Fraction(m.prompt_tokens * p_in(price) + m.max_output_tokens * price, 10**6))
        return price <= m.limit_out and p_in(price) <= m.limit_in and most <= m.reserve

    def delay(e: Entrant) -> int:
        t = e.bid or e.offer
        est = ceil(Fraction(t.ttft_ms * e.row.cal_t, 1000))
        est += ceil(Fraction(m.expected_tokens * 1000 * e.row.cal_s, t.tps_milli))
        return m.value_of_time * est * 1000

    def cost(price: int) -> int:
        return m.prompt_tokens * p_in(price) + m.expected_tokens * price

    def score(e: Entrant) -> tuple[int, bytes]:
        total = Fraction((cost(price(e)) + delay(e)) * 10**6, e.row.success_ppm)
        return floor(total), sha256(m.nonce + e.row.node).digest()

    def price(e: Entrant) -> int:
        return e.bid.price_out if e.bid else e.offer.price_out

    field = [
        e
        for e in entrants
        if e.offer.expires_ms > m.close_ms
        and e.row.busy < e.offer.slots
        and e.row.node not in m.deny
        and e.row.node not in excluded
        and e.row.success_ppm
        and m.prompt_tokens + m.max_output_tokens <= e.offer.context_tokens
        and allowed(price(e))
    ]
    if not field:
        return None
    field.sort(key=score)
    best, rest = field[0], field[1:]
    rivals = [
        e
        for e in rest
        if e.row.payout != best.row.payout
        and not (any(best.row.bond_funder) and e.row.bond_funder == best.row.bond_funder)
    ]
    own = price(best)
    if rivals:
        clearing = Clearing.SECOND_SCORE
        c = floor(Fraction(score(rivals[0])[0] * best.row.success_ppm, 10**6)) - delay(best)
        worth = c > cost(own) and cost(own) > 0
        start = floor(Fraction(own * c, cost(own))) if worth else own
    else:
        clearing, start = Clearing.LONE, best.offer.price_out
    cap = floor(Fraction(own * (10**6 + m.uplift_ppm), 10**6))
    low, high = own, max(own, min(start, cap))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if allowed(middle) else (low, middle - 1)
    regular = (best.row.node, low, clearing)
    drawn = Fraction(int.from_bytes(sha256(b"explore" + m.nonce).digest()[:8]), 1 << 64)
    if excluded or drawn >= Fraction(m.explore_ppm, 10**6):
        return regular
    new = [e for e in field if e.row.newcomer and e.offer.features & Feature.EXPLORATION]
    if not new:
        return regular
    pick = min(new, key=lambda e: sha256(b"explore" + m.nonce + e.row.node).digest())
    return pick.row.node, min(price(pick), low), Clearing.EXPLORATION


@settings(max_examples=400)
@given(rounds(), st.frozensets(st.sampled_from([bytes([n]) * 20 for n in range(1, 7)])))
def test_clearing_equals_a_second_implementation(
    case: tuple[Market, list[Entrant]], excluded: frozenset[bytes]
) -> None:
    m, entrants = case
    for out in (frozenset(), excluded):
        cleared = rule.clear(m, entrants, out)
        found = cleared and (cleared.entrant.row.node, cleared.price_out, cleared.clearing)
        assert found == second_opinion(m, entrants, out)


@given(rounds(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(case: tuple[Market, list[Entrant]], rng: Any) -> None:
    m, entrants = case
    shuffled = list(entrants)
    rng.shuffle(shuffled)
    assert rule.clear(m, entrants) == rule.clear(m, shuffled)


@given(rounds())
def test_a_clearing_price_breaks_no_limit_and_is_never_below_the_bid(
    case: tuple[Market, list[Entrant]],
) -> None:
    m, entrants = case
    cleared = rule.clear(m, entrants)
    if cleared is None or cleared.clearing == Clearing.EXPLORATION:
        return
    assert m.within_limits(cleared.price_out)
    assert cleared.entrant.price_out <= cleared.price_out
    assert cleared.price_in == m.price_in(cleared.price_out)


@given(rounds())
def test_layouts_come_back_whole(case: tuple[Market, list[Entrant]]) -> None:
    _, entrants = case
    for e in entrants:
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
