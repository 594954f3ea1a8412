"""The control stream: offers, bids, receipts, and completions until they are taken."""

from functools import partial
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from node.journal import MOST_REFUSALS
from node.service import Node
from node.wallet import totals
from pinaivu.auction.rule import lowest_bid
from pinaivu.batch_copies import MAX_BATCH_BYTES, BatchCopy
from pinaivu.chain.records import NodeCredit
from pinaivu.keys import SecretKey
from pinaivu.p2p import wire
from pinaivu.p2p.errors import CallRefused
from pinaivu.p2p.host import open_host
from pinaivu.typed_data import Signed
from tests.integration.node_peers import LOOPBACK, Place, ScriptedCoordinator, place
from tests.integration.p2p_support import until
from tests.unit import node_support as n
from tests.unit.batch_support import copy
from tests.unit.test_node_journal import receipt

FAR = 20.0
SECOND_PEER = SecretKey(b"\x08" * 32)


def _call(offer_digest: bytes) -> wire.AuctionCall:
    return wire.AuctionCall(
        job_digest=b"\x41" * 32,
        nonce=b"\x42" * 32,
        offer_digest=offer_digest,
        model=n.MODEL,
        prompt_tokens=20,
        max_output_tokens=100,
        expected_output_tokens=50,
        features=0,
        window_ms=150,
    )


async def _served(here: Place) -> bytes:
    """One order, carried out; its award's digest."""
    talk = await here.gateway.dispatch(here.job(), await here.offered())
    assert isinstance((await talk.rest())[-1], wire.End)
    return talk.digest


async def test_the_node_introduces_itself_and_offers(tmp_path: Path) -> None:
    """Hello first, then one signed offer per model, renewed while it lives."""
    async with place(tmp_path) as here, here.node():
        (first,) = await here.coordinator.offers.reach(1)
        assert here.coordinator.hellos.items == [wire.Hello(n.NODE.address, n.LOG)]
        first.require(n.DOMAIN, n.NODE.address)
        assert (first.message.slots, first.message.price_out) == (2, n.PRICE)
        second = (await here.coordinator.offers.reach(2))[1]
        assert second.message.sequence > first.message.sequence
        assert second.message.issued_ms - first.message.issued_ms <= 5_000


async def test_a_call_is_answered_with_a_bid_that_can_be_awarded(tmp_path: Path) -> None:
    """The idle node gives its discount; an award for that bid is served."""
    async with place(tmp_path) as here, here.node():
        bid = await here.coordinator.bid(_call(await here.offered()))
        assert bid is not None
        bid.require(n.DOMAIN, n.NODE.address)
        price = lowest_bid(n.PRICE, 100_000)
        assert bid.message.price_out == price
        talk = await here.gateway.dispatch(
            here.job(), bid.digest(n.DOMAIN), price_out=price, price_in=price // 4
        )
        assert isinstance((await talk.rest())[-1], wire.End)


async def test_a_call_on_a_strange_offer_gets_no_bid(tmp_path: Path) -> None:
    """The stream lives on."""
    async with place(tmp_path) as here, here.node():
        offer = await here.offered()
        assert await here.coordinator.bid(_call(b"\x01" * 32)) is None
        assert await here.coordinator.bid(_call(offer)) is not None


async def test_an_engine_that_is_down_offers_no_slots(tmp_path: Path) -> None:
    """Nothing is promised that can't be kept now."""
    async with place(tmp_path) as here, here.node():
        await here.offered()
        assert here.model is not None
        here.model.engine.ready = False  # type: ignore[misc]
        await here.coordinator.offers.find(lambda offer: offer.message.slots == 0)
        here.model.engine.ready = True  # type: ignore[misc]
        here.coordinator.offers.items.clear()
        await here.coordinator.offers.find(lambda offer: offer.message.slots == 2)


async def test_offers_follow_an_engines_change_at_once(tmp_path: Path) -> None:
    """They are not due for an hour; a call that crosses the withdrawal gets no bid."""
    async with place(tmp_path) as here, here.assembled() as node, trio.open_nursery() as nursery:
        for link in node.links.values():
            link._renew_s = 3600
        nursery.start_soon(node.run, trio.sleep_forever)
        offer = await here.offered()
        assert here.model is not None
        here.model.engine.ready = False  # type: ignore[misc]
        assert await here.coordinator.bid(_call(offer)) is None
        for hear in here.heard:
            hear()
        await here.coordinator.offers.find(lambda offer: offer.message.slots == 0)
        nursery.cancel_scope.cancel()


async def test_a_completion_is_handed_in_again_after_a_restart(tmp_path: Path) -> None:
    """The coordinator was away when the order ended, and the node is killed meanwhile."""
    async with place(tmp_path) as here:
        here.coordinator.refusal = _refusing_completions
        async with here.killed():
            digest = await _served(here)
            await here.coordinator.completions.reach(1)
        here.coordinator.refusal = lambda _: None
        here.coordinator.completions.items.clear()
        async with here.node() as node:
            (again,) = await here.coordinator.completions.reach(1)
            assert again.message.award_digest == digest
            await _settled(node)
        here.coordinator.completions.items.clear()
        async with here.node() as node:
            await here.offered()
            await _settled(node)
            assert here.coordinator.completions.items == []


def _refusing_completions(frame: wire.NodeToCoordinator) -> wire.Refused | None:
    if isinstance(frame, wire.PutCompletion):
        return wire.Refused("unavailable", "the database is away")
    return None


async def _settled(node: Node) -> None:
    with trio.fail_after(FAR):
        await node.links[n.LOG].flushed()


@pytest.mark.parametrize(("retry_after_ms", "left"), [(1000, 1), (0, 0)])
async def test_only_a_refusal_for_good_is_given_up(
    tmp_path: Path, retry_after_ms: int, left: int
) -> None:
    """A coordinator in trouble says when to come back; a completion it rejects is let go."""
    async with place(tmp_path) as here, here.node() as node:
        refused = wire.Refused("no", "no", retry_after_ms=retry_after_ms)
        here.coordinator.refusal = lambda frame: (
            refused if isinstance(frame, wire.PutCompletion) else None
        )
        await _served(here)
        for _ in range(MOST_REFUSALS):
            await _settled(node)
        assert len(await node.journal.owed(n.LOG)) == left


async def test_a_lost_stream_is_opened_again_and_nothing_is_lost(tmp_path: Path) -> None:
    """What was not answered is said again."""
    async with place(tmp_path) as here, here.node() as node:
        here.coordinator.refusal = _refusing_completions
        digest = await _served(here)
        await here.coordinator.completions.reach(1)
        here.coordinator.completions.items.clear()
        here.coordinator.refusal = lambda _: None
        here.coordinator.host.drop(n.peer_of(n.NODE_PEER), "a test")
        await here.coordinator.hellos.reach(2)
        (again,) = await here.coordinator.completions.reach(1)
        assert again.message.award_digest == digest
        await _settled(node)


async def test_a_restarted_coordinator_with_new_keys_is_found(tmp_path: Path) -> None:
    """New epoch key, new peer key, new address: the node follows without a restart."""
    async with place(tmp_path) as here, here.node():
        await here.offered()
        manifest = n.manifest(n.STRANGER, SECOND_PEER)
        async with open_host(SECOND_PEER.secret, [LOOPBACK]) as host:
            second = ScriptedCoordinator(host)
            at = host.addresses()[0].partition("/p2p/")[0]
            here.directory.published = n.published(2, manifest, at)
            here.chain.epochs[2] = n.epoch_record(2, manifest, n.STRANGER)
            here.chain.active = 2
            here.coordinator.host.drop(n.peer_of(n.NODE_PEER), "restart")
            (offer,) = await second.offers.reach(1)
            job = here.job()
            award = job.award(offer.digest(n.DOMAIN), epoch=2)
            talk = await here.gateway.send(job, award, job.dispatch(award, n.STRANGER))
            assert isinstance((await talk.rest())[-1], wire.End)
            old = here.job()
            talk = await here.gateway.dispatch(old, offer.digest(n.DOMAIN))
            last = await talk.next()
            assert isinstance(last, wire.NodeRefused)
            assert "active is 2" in last.detail


async def test_an_address_that_is_none_does_not_end_the_node(tmp_path: Path) -> None:
    """The log's host may publish anything; the next answer may be better."""
    async with place(tmp_path) as here:
        right = here.directory.published
        here.directory.published = n.published(address="/ip4/nowhere/tcp/x")
        async with here.node():
            await here.directory.read_times(2)
            assert here.coordinator.hellos.items == []
            here.directory.published = right
            await here.coordinator.offers.reach(1)


async def test_receipts_are_kept_if_the_log_signed_them(tmp_path: Path) -> None:
    """They add up to what the node has earned."""
    async with place(tmp_path) as here, here.node() as node:
        await here.offered()
        forged = Signed.by(n.STRANGER, n.DOMAIN, receipt(9, 81).message)
        here.coordinator.notify(forged)
        for counter in (1, 2):
            here.coordinator.notify(receipt(counter, 9 * counter))
        kept = await _earned(node, 18)
        assert kept == [(2, 0, 18)]
        here.chain.credits = NodeCredit(credit=9, lifetime=9)
        found = totals(n.NODE.address, await node.journal.earnings(), here.chain)
        assert (found.earned, found.credited, found.paid, found.unsettled) == (18, 9, 0, 9)


async def _earned(node: Node, total: int) -> list[tuple[int, int, int]]:
    with trio.fail_after(FAR):
        while True:
            found = await node.journal.earnings()
            if sum(log.running_total for log in found) >= total:
                return [(log.receipts, log.missing, log.known_total) for log in found]
            await trio.sleep(0.02)


async def test_a_refused_hello_is_tried_again(tmp_path: Path) -> None:
    """The coordinator may not have seen the registration yet."""
    async with place(tmp_path) as here:
        here.coordinator.refusal = lambda frame: (
            wire.Refused("not_registered", "not yet") if isinstance(frame, wire.Hello) else None
        )
        async with here.node():
            await here.coordinator.hellos.reach(2)
            assert here.coordinator.offers.items == []
            here.coordinator.refusal = lambda _: None
            await here.coordinator.offers.reach(1)


async def test_offers_are_withdrawn_when_the_node_stops(tmp_path: Path) -> None:
    """The last word is an offer of no slots."""
    async with place(tmp_path) as here:
        async with here.node():
            await here.offered()
        assert here.coordinator.offers.items[-1].message.slots == 0
        await until(lambda: not here.coordinator.calls)


def _frame(given: BatchCopy) -> wire.PutBatch:
    return wire.PutBatch(given.signed.to_bytes(), list(given.consistency))


async def test_batches_are_kept_if_they_settle(tmp_path: Path) -> None:
    """By its epoch's key and with its proof, in the state folder; over a restart too."""
    own = partial(copy, key=n.COORDINATOR)
    async with place(tmp_path) as here:
        async with here.node():
            await here.offered()
            for wrong in (
                wire.PutBatch(b"\xc1", []),
                wire.PutBatch(bytes(MAX_BATCH_BYTES + 1), []),
                _frame(own(2, log_id=b"\x12" * 32)),
                _frame(copy(2, key=n.STRANGER)),
                _frame(own(2, epoch=9)),
                replace(_frame(own(2)), consistency=[]),
            ):
                with pytest.raises(CallRefused):
                    await here.coordinator.put(wrong)
            assert _kept(tmp_path) == []
            assert await here.coordinator.put(_frame(own(1))) == wire.Done()
        async with here.killed():
            await here.offered()
            assert await here.coordinator.put(_frame(own(1))) == wire.Done()
            assert await here.coordinator.put(_frame(own(2))) == wire.Done()
        assert _kept(tmp_path) == [f"0x{n.LOG.hex()}/1.json", f"0x{n.LOG.hex()}/2.json"]


def _kept(state: Path) -> list[str]:
    folder = state / "batches"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.json"))
