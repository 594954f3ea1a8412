# ruff: noqa: ARG001 - the virtual clock acts by being there
"""The live round on a virtual clock: whom it asks, how long it waits, what it publishes."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from coordinator.archive import written_out
from coordinator.auctioneer import Auctioneer, Held
from coordinator.book import OrderBook
from coordinator.rows import transcript_values
from pinaivu.auction import rule
from pinaivu.auction.replay import read_transcript, rows_document
from pinaivu.codes import CallOutcome
from pinaivu.errors import InvalidEncoding
from pinaivu.keys import SecretKey
from pinaivu.messages import Bid
from pinaivu.p2p import wire
from pinaivu.p2p.errors import StreamBroken
from pinaivu.typed_data import Signed
from tests.unit.auction_support import STANDING, header, market
from tests.unit.coordinator_world import MODEL_RECORD, RULES, node_record, signed_offer
from tests.unit.ledger_support import DOMAIN, LOG, NODES, NOW, grant, job

WINDOW_S = RULES.window_ms / 1000
Answer = Callable[[wire.AuctionCall], Awaitable[wire.BidReply]]


def bid(by: SecretKey, call: wire.AuctionCall, price: int, **more: object) -> wire.BidReply:
    terms = {
        "job_digest": call.job_digest,
        "nonce": call.nonce,
        "offer_digest": call.offer_digest,
        "node": by.address,
        "price_out": price,
        "ttft_ms": 100,
        "tps_milli": 50_000,
    }
    made = Bid(**(terms | more))  # type: ignore[arg-type]
    return wire.BidReply(Signed.by(by, DOMAIN, made).to_bytes())


def bids(node: SecretKey, price: int, after_s: float = 0.0) -> Answer:
    async def answer(call: wire.AuctionCall) -> wire.BidReply:
        await trio.sleep(after_s)
        return bid(node, call, price)

    return answer


async def silent(_call: wire.AuctionCall) -> wire.BidReply:
    await trio.sleep_forever()
    raise AssertionError


async def hold(
    answers: dict[SecretKey, tuple[int, Answer]], *, live: bool = True, live_all: int = 16
) -> tuple[Held, float]:
    """Hold an auction among nodes with a standing price and an answer; and how long it took."""
    book = OrderBook(DOMAIN, LOG, ttl_ms=15_000, standing=lambda _: STANDING, busy=lambda _: 0)
    by_address = {node.address: answer for node, (_, answer) in answers.items()}
    for node, (price, _) in answers.items():
        book.put(signed_offer(node, price), node_record(node), MODEL_RECORD, NOW)

    async def ask(node: bytes, call: wire.AuctionCall) -> wire.BidReply:
        return await by_address[node](call)

    began = trio.current_time()
    auctioneer = Auctioneer(
        DOMAIN,
        ask,
        lambda: NOW + round((trio.current_time() - began) * 1000),
        window_ms=RULES.window_ms,
        live_all=live_all,
        live_best=2,
    )
    held = await auctioneer.hold(book.field(market()), header(), live=live)
    return held, trio.current_time() - began


def winner(held: Held) -> tuple[bytes, int]:
    cleared = rule.clear(held.market, held.ranking.entrants())
    assert cleared
    assert cleared == held.ranking.clear(frozenset())
    return cleared.entrant.row.node, cleared.price_out


def outcomes(held: Held) -> list[CallOutcome]:
    return [call.outcome for call in held.calls]


A, B, C = NODES[:3]


async def test_everybody_is_asked_and_the_lowest_bid_wins(autojump_clock: MockClock) -> None:
    """C's discount beats A's standing price; the runner-up's score sets the price."""
    held, took = await hold({A: (100, bids(A, 100)), B: (110, bids(B, 105)), C: (120, bids(C, 96))})
    assert outcomes(held) == [CallOutcome.BID] * 3
    assert held.header.called == held.header.eligible == 3
    node, price = winner(held)
    assert node == C.address
    assert 96 < price <= 100
    assert took == 0


async def test_it_ends_when_no_answer_could_change_anything(autojump_clock: MockClock) -> None:
    """B can't get below the first two any more: nobody waits for it."""
    held, took = await hold({A: (100, bids(A, 90, 0.01)), C: (101, bids(C, 91)), B: (200, silent)})
    assert took == pytest.approx(0.01)
    assert outcomes(held) == [CallOutcome.BID, CallOutcome.BID, CallOutcome.SILENT]


async def test_it_waits_for_whoever_could_still_win(autojump_clock: MockClock) -> None:
    """B at its best would win, so its answer is waited for."""
    held, took = await hold(
        {A: (100, bids(A, 95)), C: (101, bids(C, 95)), B: (110, bids(B, 88, 0.1))}
    )
    assert took == pytest.approx(0.1)
    assert winner(held)[0] == B.address


async def test_never_longer_than_the_window(autojump_clock: MockClock) -> None:
    """Who is silent takes part at its standing price, and may win by it."""
    held, took = await hold({A: (100, silent), B: (110, bids(B, 105))})
    assert took == pytest.approx(WINDOW_S)
    assert outcomes(held) == [CallOutcome.SILENT, CallOutcome.BID]
    assert winner(held)[0] == A.address
    assert held.header.close_ms == NOW + RULES.window_ms


@pytest.mark.parametrize(
    "change",
    [
        {"price_out": 79},
        {"price_out": 101},
        {"nonce": bytes(32)},
        {"job_digest": bytes(32)},
        {"offer_digest": bytes(32)},
        {"ttft_ms": 1},
        {"tps_milli": 10**6},
        {"node": NODES[1].address},
    ],
)
async def test_an_invalid_bid_counts_as_none(
    change: dict[str, object], autojump_clock: MockClock
) -> None:
    """Too low, too high, for another call or with other promises: the standing price holds."""

    async def answer(call: wire.AuctionCall) -> wire.BidReply:
        return bid(A, call, 90, **change)

    held, _ = await hold({A: (100, answer), B: (110, bids(B, 105))})
    assert outcomes(held) == [CallOutcome.INVALID, CallOutcome.BID]
    assert winner(held)[0] == A.address


async def test_anothers_signature_and_garbage_are_invalid(autojump_clock: MockClock) -> None:
    async def forged(call: wire.AuctionCall) -> wire.BidReply:
        real = bid(A, call, 90)
        assert real.bid
        return wire.BidReply(real.bid[:-65] + bytes(65))

    async def garbage(_call: wire.AuctionCall) -> wire.BidReply:
        raise InvalidEncoding("no frame")

    held, _ = await hold({A: (100, forged), B: (110, garbage), C: (120, bids(C, 110))})
    assert outcomes(held) == [CallOutcome.INVALID, CallOutcome.INVALID, CallOutcome.BID]


async def test_a_broken_stream_is_silence(autojump_clock: MockClock) -> None:
    """Also one that isn't there: whom the round asks follows from the book alone."""

    async def broken(_call: wire.AuctionCall) -> wire.BidReply:
        raise StreamBroken("gone")

    held, took = await hold({A: (100, broken), B: (110, bids(B, 100))})
    assert outcomes(held) == [CallOutcome.SILENT, CallOutcome.BID]
    assert took == 0


async def test_standing_mode_asks_nobody(autojump_clock: MockClock) -> None:
    held, took = await hold({A: (100, silent), B: (110, silent)}, live=False)
    assert (len(held.calls), took) == (0, 0)
    assert winner(held)[0] == A.address


async def test_beyond_the_limit_only_the_best_are_asked(autojump_clock: MockClock) -> None:
    held, _ = await hold(
        {C: (120, silent), A: (100, bids(A, 95)), B: (110, bids(B, 95))}, live_all=2
    )
    assert [call.node for call in held.calls] == [A.address, B.address]


async def test_an_empty_book_is_no_auction(autojump_clock: MockClock) -> None:
    held, took = await hold({})
    assert (held.header.eligible, took) == (0, 0)
    assert rule.clear(held.market, held.ranking.entrants()) is None


async def test_the_published_transcript_replays_to_the_same(autojump_clock: MockClock) -> None:
    """An outsider gets the same root, winner and price from the document alone."""
    held, _ = await hold({A: (100, bids(A, 90)), B: (110, silent), C: (105, bids(C, 91))})
    rows = [(n, s.entrant.row, s.signed) for n, s in enumerate(held.slots) if s]
    document = written_out(transcript_values(held)["document"]) | {"rows": rows_document(rows)}
    replay, market = read_transcript(document, DOMAIN, job(), grant(), RULES)
    assert replay.root == held.bids_root
    cleared = replay.clear(market, frozenset())
    assert cleared
    assert (cleared.entrant.row.node, cleared.price_out) == winner(held)
