"""Hypothesis draws of auctions: ordinary ones, and ones at the edges of the integers.

Ordinary draws are shaped so that every way of clearing comes up often (`test_auction_rule` counts
them); edges take each number from zero, one and its type's maximum.
"""

from typing import Any, Final

from hypothesis import strategies as st

from pinaivu.auction import rule
from pinaivu.auction.rule import Entrant, Market
from pinaivu.auction.transcript import Row
from pinaivu.codes import Feature
from pinaivu.messages import Bid, Offer

LOG: Final = b"L" * 32
U32, U64, U96 = (1 << 32) - 1, (1 << 64) - 1, (1 << 96) - 1
NODES: Final = [bytes([n]) * 20 for n in range(1, 7)]
CLOSE_MS: Final = 1_000
_DISCOUNT: Final = 200_000


def edge(top: int, *, least: int = 0) -> st.SearchStrategy[int]:
    """A number at an edge of what its type holds, or anywhere within."""
    edges = st.sampled_from([least, least + 1, top // 2, top - 1, top])
    return st.one_of(edges, st.integers(least, top))


def _mostly(usual: int, *rare: int) -> st.SearchStrategy[int]:
    return st.sampled_from([usual] * 20 + list(rare))


@st.composite
def markets(draw: Any) -> Market:
    """A job with ceilings that bind now and then."""
    return Market(
        log_id=LOG,
        nonce=draw(st.binary(min_size=32, max_size=32)),
        model="m",
        fingerprint=b"F" * 32,
        ratio_ppm=draw(st.sampled_from([0, 250_000, 999_999, 2_000_000])),
        features=Feature.KIND_CHAT,
        prompt_tokens=draw(st.sampled_from([0, 1, 500, 10_000])),
        expected_tokens=draw(st.sampled_from([0, 1, 300, 4_000])),
        max_output_tokens=4_000,
        value_of_time=draw(st.sampled_from([0, 1, 20, 10_000])),
        limit_in=draw(st.sampled_from([U64, U64, U64, U64, 250_000, 400_000])),
        limit_out=draw(st.sampled_from([U64, U64, U64, 900_000, 1_500_000, 2_000_000])),
        reserve=draw(st.sampled_from([U96, U96, U96, U96, 6_000, 9_000])),
        allow=draw(st.sampled_from([frozenset[bytes]()] * 6 + [frozenset(NODES[:3])])),
        deny=draw(st.sampled_from([frozenset[bytes]()] * 6 + [frozenset(NODES[1:2])])),
        close_ms=CLOSE_MS,
        discount_ppm=_DISCOUNT,
        uplift_ppm=draw(st.sampled_from([0, 50_000, 500_000, 2_000_000])),
        explore_ppm=draw(st.sampled_from([0, 20_000, 500_000, 1_000_000])),
    )


@st.composite
def entrants(draw: Any, node: bytes) -> Entrant:
    """A node that could serve most jobs; each reason not to comes up in a tenth of the draws."""
    offer = Offer(
        log_id=draw(st.sampled_from([LOG] * 19 + [b"X" * 32])),
        node=node,
        fingerprint=draw(st.sampled_from([b"F" * 32] * 19 + [bytes(32)])),
        features=draw(
            st.sampled_from(
                [Feature.KIND_CHAT, Feature.KIND_CHAT | Feature.EXPLORATION] * 6
                + [Feature.EXPLORATION]
            )
        ),
        context_tokens=draw(_mostly(14_000, 4_000)),
        price_out=draw(st.sampled_from([0, 600_000, *range(400_000, 2_000_000, 77_777)])),
        ttft_ms=draw(st.sampled_from([0, 1, 400, 5_000])),
        tps_milli=draw(_mostly(60_000, 0, 1, 200_000)),
        slots=draw(st.integers(1, 3)),
        sequence=1,
        issued_ms=draw(_mostly(0, CLOSE_MS, CLOSE_MS + 1)),
        expires_ms=draw(_mostly(15_000, CLOSE_MS, CLOSE_MS + 1)),
        model=draw(st.sampled_from(["m"] * 19 + ["n"])),
    )
    row = Row(
        offer_digest=bytes(32),
        node=node,
        payout=draw(st.sampled_from([b"a" * 20, node, node])),
        bond_funder=draw(st.sampled_from([bytes(20), bytes(20), b"f" * 20, b"g" * 20])),
        success_ppm=draw(_mostly(950_000, 0, 1, 1_000_000)),
        cal_t=draw(st.sampled_from([0, 999, 1_000, 3_000])),
        cal_s=draw(st.sampled_from([0, 999, 1_000, 3_000])),
        busy=draw(_mostly(0, 1, 3)),
        newcomer=draw(st.booleans()),
    )
    return Entrant(row, offer, draw(_bids(offer)))


@st.composite
def _bids(draw: Any, offer: Offer) -> Bid | None:
    if draw(st.booleans()):
        return None
    lowest = rule.lowest_bid(offer.price_out, _DISCOUNT)
    return Bid(
        job_digest=bytes(32),
        nonce=bytes(32),
        offer_digest=bytes(32),
        node=offer.node,
        price_out=draw(st.integers(lowest, offer.price_out)),
        ttft_ms=offer.ttft_ms,
        tps_milli=offer.tps_milli,
    )


@st.composite
def rounds(draw: Any) -> tuple[Market, list[Entrant]]:
    """An auction of one to six nodes."""
    count = draw(st.sampled_from([1, 3, 4, 5, len(NODES)]))
    return draw(markets()), [draw(entrants(node)) for node in NODES[:count]]


@st.composite
def edge_rounds(draw: Any) -> tuple[Market, list[Entrant]]:
    """An auction in which every number may be zero or the largest of its type."""
    market = Market(
        log_id=LOG,
        nonce=draw(st.binary(min_size=32, max_size=32)),
        model="m",
        fingerprint=b"F" * 32,
        ratio_ppm=draw(edge(U32)),
        features=0,
        prompt_tokens=draw(edge(U32)),
        expected_tokens=draw(edge(U32)),
        max_output_tokens=draw(edge(U32)),
        value_of_time=draw(edge(U64)),
        limit_in=draw(edge(U64)),
        limit_out=draw(edge(U64)),
        reserve=draw(edge(U96)),
        allow=frozenset(),
        deny=frozenset(),
        close_ms=CLOSE_MS,
        discount_ppm=draw(st.sampled_from([0, _DISCOUNT, 1_000_000])),
        uplift_ppm=draw(edge(U32)),
        explore_ppm=draw(st.sampled_from([0, 1, 1_000_000])),
    )
    return market, [draw(_edge_entrants(node)) for node in NODES[: draw(st.integers(1, 4))]]


@st.composite
def _edge_entrants(draw: Any, node: bytes) -> Entrant:
    offer = Offer(
        log_id=LOG,
        node=node,
        fingerprint=b"F" * 32,
        features=Feature.EXPLORATION,
        context_tokens=U32,
        price_out=draw(edge(U64)),
        ttft_ms=draw(edge(U32)),
        tps_milli=draw(edge(U64, least=1)),
        slots=draw(edge(U32, least=1)),
        sequence=U64,
        issued_ms=0,
        expires_ms=U64,
        model="m",
    )
    row = Row(
        offer_digest=bytes(32),
        node=node,
        payout=node,
        bond_funder=bytes(20),
        success_ppm=draw(edge(U32, least=1)),
        cal_t=draw(edge(U32)),
        cal_s=draw(edge(U32)),
        busy=0,
        newcomer=draw(st.booleans()),
    )
    return Entrant(row, offer)
