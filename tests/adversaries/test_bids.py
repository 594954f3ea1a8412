"""Lying bidders: a bid counts only if its node signed it, for this call, within its own offer."""

from pathlib import Path

import pytest
import trio

from coordinator import auctioneer
from pinaivu.errors import InvalidEncoding
from pinaivu.fields import MAX_U64
from pinaivu.p2p import wire
from tests.adversaries.stage import (
    ATTACKER,
    HONEST,
    Answer,
    answering,
    award_in,
    bid_of,
    both_ways,
    reply,
    world_at,
)
from tests.unit.coordinator_world import with_rules
from tests.unit.ledger_support import NODES, PAYER

CHEAP, DEAR = 1_000_000, 1_200_000


def believe_bids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the guard: whatever can be decoded counts as its node's bid."""
    monkeypatch.setattr(auctioneer, "require_valid_bid", lambda *_args: bytes(32))


async def winner(folder: Path, attack: Answer) -> tuple[bytes, int]:
    """Who wins, and at which price, where an honest node is cheaper than the attacker."""
    async with world_at(folder) as world:
        world.put_offers(CHEAP, DEAR)
        world.bidding = answering({ATTACKER: attack})
        award = award_in(await world.submit())
        return award.node, award.price_out


def lying(price: int, **lies: object) -> Answer:
    """The attacker's answer, signed by itself."""

    async def answer(call: wire.AuctionCall) -> wire.BidReply:
        await trio.lowlevel.checkpoint()
        return reply(bid_of(ATTACKER, call, price, **lies), ATTACKER)

    return answer


LOW = DEAR * 82 // 100  # within the discount, below the honest price
LIES = {
    "for another job": lying(LOW, job_digest=b"\x01" * 32),
    "for another call of the job": lying(LOW, nonce=b"\x01" * 32),
    "on another offer": lying(LOW, offer_digest=b"\x01" * 32),
    "promising more speed than offered": lying(LOW, tps_milli=10**9),
    "promising an earlier token than offered": lying(LOW, ttft_ms=0),
    "better than the discount allows": lying(DEAR // 2),
    "for nothing": lying(0),
    "in another node's name": lying(LOW, node=NODES[3].address),
}


@both_ways
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_a_bid_that_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: Answer, *, guarded: bool
) -> None:
    """It wins the job from a cheaper node if nobody checks it."""
    if not guarded:
        believe_bids(monkeypatch)
    node, _ = await winner(tmp_path, lie)
    assert node == (HONEST if guarded else ATTACKER).address


async def test_the_same_bid_without_the_lie_wins(tmp_path: Path) -> None:
    """So it is the lie that is refused above."""
    node, _ = await winner(tmp_path, lying(LOW))
    assert node == ATTACKER.address


@both_ways
async def test_a_bid_with_anothers_wallet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """The attacker's call is answered by a bid that somebody else's key signed."""

    async def stolen(call: wire.AuctionCall) -> wire.BidReply:
        await trio.lowlevel.checkpoint()
        return reply(bid_of(ATTACKER, call, LOW), PAYER)

    if not guarded:
        believe_bids(monkeypatch)
    node, _ = await winner(tmp_path, stolen)
    assert node == (HONEST if guarded else ATTACKER).address


@both_ways
@pytest.mark.parametrize(
    "price", [DEAR * 11 // 10, MAX_U64], ids=["by a tenth", "minus one as unsigned"]
)
async def test_a_bid_worse_than_the_offer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, price: int, *, guarded: bool
) -> None:
    """A rival that calls itself dear lifts the price its accomplice is paid."""
    if not guarded:
        believe_bids(monkeypatch)
    node, paid = await winner(tmp_path, lying(price))
    assert node == HONEST.address
    most = CHEAP * 3 // 2  # the greatest uplift
    honest_price = (await winner(_sub(tmp_path), _silent))[1]
    assert (paid == honest_price) is guarded
    assert paid <= most


def _sub(folder: Path) -> Path:
    inner = folder / "honest"
    inner.mkdir()
    return inner


async def _silent(_call: wire.AuctionCall) -> wire.BidReply:
    await trio.lowlevel.checkpoint()
    return wire.BidReply()


@both_ways
async def test_replayed_bid_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """What a node bid for one job, sent again by whoever saw it, doesn't bind it in the next."""
    recorded = list[wire.BidReply]()

    async def record(call: wire.AuctionCall) -> wire.BidReply:
        await trio.lowlevel.checkpoint()
        recorded.append(reply(bid_of(ATTACKER, call, LOW), ATTACKER))
        return recorded[0]  # for ever

    async with world_at(tmp_path) as world:
        world.put_offers(CHEAP, DEAR, slots=2)
        world.bidding = answering({ATTACKER: record})
        assert award_in(await world.submit(1)).node == ATTACKER.address
        if not guarded:
            believe_bids(monkeypatch)
        second = award_in(await world.submit(2))
        assert second.node == (HONEST if guarded else ATTACKER).address


@both_ways
async def test_a_bid_after_close(tmp_path: Path, *, guarded: bool) -> None:
    """Whoever answers when it likes could wait for others to commit, and hold every job up."""
    asked, speak = trio.Event(), trio.Event()

    async def late(call: wire.AuctionCall) -> wire.BidReply:
        asked.set()
        await speak.wait()
        return reply(bid_of(ATTACKER, call, LOW), ATTACKER)

    rules = with_rules() if guarded else with_rules(window_ms=3_600_000)
    async with world_at(tmp_path, rules=rules) as world, trio.open_nursery() as nursery:
        world.put_offers(CHEAP, DEAR)
        world.bidding = answering({ATTACKER: late})
        won = list[bytes]()

        async def submit() -> None:
            won.append(award_in(await world.submit()).node)
            speak.set()

        nursery.start_soon(submit)
        await asked.wait()
        if not guarded:
            speak.set()
    assert won == [(HONEST if guarded else ATTACKER).address]


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut", "long"])
async def test_bytes_that_are_no_bid(tmp_path: Path, damage: str) -> None:
    """Fields have fixed widths and no sign: a negative number can't even be written."""

    async def answer(call: wire.AuctionCall) -> wire.BidReply:
        await trio.lowlevel.checkpoint()
        whole = reply(bid_of(ATTACKER, call, LOW), ATTACKER).bid
        assert whole
        raw = {"empty": b"", "garbage": b"\xff" * len(whole), "cut": whole[:-1], "long": whole * 2}
        return wire.BidReply(raw[damage])

    assert (await winner(tmp_path, answer))[0] == HONEST.address


def test_numbers_out_of_range_can_not_be_written() -> None:
    """Neither below zero nor beyond the field's width, by whatever node: no bytes mean them."""
    call = wire.AuctionCall(bytes(32), bytes(32), bytes(32), "m", 1, 1, 1, 0, 150)
    for price in (-1, MAX_U64 + 1, 1 << 300):
        with pytest.raises(InvalidEncoding, match="uint64"):
            reply(bid_of(ATTACKER, call, price), ATTACKER)
