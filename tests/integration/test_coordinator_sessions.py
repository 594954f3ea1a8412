"""Control streams over real hosts: who is who, what is answered, what a lost stream leaves."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import trio
from msgspec.structs import replace
from sqlmodel import select

from coordinator.courier import Courier
from coordinator.sessions import Handlers, Sessions
from pinaivu.codes import Outcome, Reason
from pinaivu.keys import SecretKey
from pinaivu.messages import Award, Bid, Receipt
from pinaivu.p2p import wire
from pinaivu.p2p.calls import Calls
from pinaivu.p2p.frames import FrameLimits
from pinaivu.p2p.host import Host, open_host
from pinaivu.store.batches import BatchFolder, BatchKeeper, CopyNotKept
from pinaivu.store.coordinator import BatchCopyRow
from pinaivu.store.database import open_database
from pinaivu.typed_data import Signed, signed_from_bytes
from tests.integration.p2p_support import PATIENCE, until
from tests.unit.coordinator_world import World, open_world, signed_grant, signed_job, signed_offer
from tests.unit.ledger_support import (
    DOMAIN,
    EPOCH,
    GATEWAY,
    LOG,
    MODEL,
    NODES,
    delivery,
    failure,
    part,
    secret,
)

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
LIMITS = FrameLimits.of(wire.MAX_CONTROL_FRAME)


@dataclass
class Place:
    """A coordinator's sessions on a host of their own, and the world behind them."""

    world: World
    sessions: Sessions
    address: str

    def attach(self) -> None:
        """Let the world behind answer."""

        async def find(gateway: bytes, job_id: bytes) -> wire.Receipted | None:
            return await self.world._find_receipt(gateway, job_id)

        world = self.world
        self.sessions.attach(Handlers(world.book, world.desk, world.evidence, find))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place, None]:
    database = open_database(f"sqlite:///{tmp_path}/c.db", "coordinator")
    async with (
        open_world(database) as world,
        open_host(secret(50).secret, [LOOPBACK]) as host,
    ):
        sessions = Sessions(world.directory, LOG, world.clock)
        host.serve(wire.NODE_PROTOCOL, sessions.serve_node, LIMITS)
        host.serve(wire.GATEWAY_PROTOCOL, sessions.serve_gateway, LIMITS)
        world.bidding = sessions.ask
        world.sequencer.on_receipt.append(sessions.announce)
        async with trio.open_nursery() as nursery:
            courier = Courier(world.log, world.writer, sessions.send, nursery, retry_s=0.05)
            sessions.on_hello.append(courier.owe)
            world.on_owed = courier.owe
            yield _attached(Place(world, sessions, host.addresses()[0]))
            nursery.cancel_scope.cancel()
    database.close()


def _attached(place: Place) -> Place:
    place.attach()
    return place


@dataclass
class Peer:
    """A party's end of a control stream."""

    key: SecretKey
    calls: Calls
    host: Host
    asked: list[wire.AuctionCall] = field(default_factory=list)
    notices: list[wire.ReceiptNotice] = field(default_factory=list)
    voided: list[bytes] = field(default_factory=list)
    folder: Path | None = None
    refusals: int = 0

    @property
    def kept(self) -> list[int]:
        """The numbers of the batches on its disk."""
        return BatchFolder(self.folder, LOG).sequences() if self.folder else []

    async def keep(self, frame: wire.PutBatch) -> bytes:
        """As node and gateway do; without a folder, refuse."""
        if self.folder is None:
            self.refusals += 1
            raise CopyNotKept("there is no disk")
        await BatchKeeper(self.folder, DOMAIN, LOG, _signer).keep(frame.batch, frame.consistency)
        return wire.encode(wire.Done())

    async def call(self, frame: msgspec.Struct) -> wire.GatewayAnswer:
        """The coordinator's answer."""
        reply = await self.calls.call(wire.encode(frame), PATIENCE)
        return wire.read_gateway_answer(reply)

    async def refused(self, frame: msgspec.Struct) -> str:
        """The code of the coordinator's refusal."""
        answer = await self.call(frame)
        assert isinstance(answer, wire.Refused), answer
        return answer.code

    async def hello(self, **change: bytes) -> wire.GatewayAnswer:
        """Say who we are."""
        return await self.call(replace(wire.Hello(self.key.address, LOG), **change))


@asynccontextmanager
async def peer(
    place: Place, key: SecretKey, protocol: str, *, peer_key: SecretKey | None = None
) -> AsyncIterator[Peer]:
    """A connected party that bids a tenth less than it offers, and keeps its notices."""
    async with open_host((peer_key or key).secret) as host, trio.open_nursery() as nursery:
        stream = await host.open_stream(await host.connect(place.address), protocol, LIMITS)
        here: list[Peer] = []

        async def on_call(payload: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            call = wire.read_coordinator_to_node(payload)
            if isinstance(call, wire.PutBatch):
                return await here[0].keep(call)
            assert isinstance(call, wire.AuctionCall)
            here[0].asked.append(call)
            return wire.encode(_bid(key, call))

        def on_notice(payload: bytes) -> None:
            notice = wire.read_coordinator_to_node(payload)
            if isinstance(notice, wire.AwardVoided):
                here[0].voided.append(notice.failure)
                return
            assert isinstance(notice, wire.ReceiptNotice)
            here[0].notices.append(notice)

        here.append(Peer(key, Calls(stream, on_call=on_call, on_notice=on_notice), host))
        nursery.start_soon(here[0].calls.run)
        yield here[0]
        nursery.cancel_scope.cancel()


async def _signer(epoch: int) -> bytes:
    assert epoch == 1
    return EPOCH.address


def _bid(key: SecretKey, call: wire.AuctionCall) -> wire.BidReply:
    made = Bid(
        job_digest=call.job_digest,
        nonce=call.nonce,
        offer_digest=call.offer_digest,
        node=key.address,
        price_out=900_000,
        ttft_ms=100,
        tps_milli=50_000,
    )
    return wire.BidReply(Signed.by(key, DOMAIN, made).to_bytes())


def _offer(place: Place, key: SecretKey, **more: int) -> wire.PutOffer:
    terms = {"sequence": next(place.world.sequence)} | more
    return wire.PutOffer(signed_offer(key, 1_000_000, **terms).to_bytes())


def _submit(place: Place, number: int = 1) -> wire.SubmitJob:
    now = place.world.now
    job = signed_job(number, created_ms=now, deadline_ms=now + 300_000)
    return wire.SubmitJob(job.to_bytes(), signed_grant().to_bytes())


@pytest.mark.parametrize("protocol", [wire.NODE_PROTOCOL, wire.GATEWAY_PROTOCOL])
async def test_a_party_is_whom_the_chain_names_for_its_peer_key(
    place: Place, protocol: str
) -> None:
    """Nobody without a registration, nobody under another's, nobody of another log."""
    key = NODES[0] if protocol == wire.NODE_PROTOCOL else GATEWAY
    async with peer(place, key, protocol, peer_key=secret(60)) as stranger:
        assert await stranger.refused(wire.Hello(secret(60).address, LOG)) == "not_registered"
        assert await stranger.refused(wire.Hello(key.address, LOG)) == "foreign_peer"
    async with peer(place, key, protocol) as known:
        assert await known.refused(wire.Hello(key.address, bytes(32))) == "foreign_log"
        assert await known.hello() == wire.Done()


async def test_nothing_is_taken_before_hello(place: Place) -> None:
    async with peer(place, NODES[0], wire.NODE_PROTOCOL) as node:
        assert await node.refused(_offer(place, NODES[0])) == "no_hello"
        assert place.sessions.market() == place.sessions.refused_offers() == {}
    async with peer(place, GATEWAY, wire.GATEWAY_PROTOCOL) as gateway:
        assert await gateway.refused(_submit(place)) == "no_hello"


async def test_nothing_is_taken_before_the_epoch_is_active(place: Place) -> None:
    """Whoever comes early is told to come again."""
    place.sessions._handlers = None
    async with peer(place, NODES[0], wire.NODE_PROTOCOL) as node:
        await node.hello()
        assert await node.refused(_offer(place, NODES[0])) == "starting"
    assert place.sessions.market() == place.sessions.refused_offers() == {}


async def test_garbage_fails_one_call_and_no_more(place: Place) -> None:
    """An unknown frame, an offer that is none: refused, the stream goes on."""
    async with peer(place, NODES[0], wire.NODE_PROTOCOL) as node:
        await node.hello()
        assert await node.refused(wire.Cancel()) == "bad_message"
        assert await node.refused(wire.PutOffer(b"\xc1")) == "bad_message"
        assert await node.refused(_offer(place, NODES[1])) == "foreign_node"
        assert await node.call(_offer(place, NODES[0])) == wire.Done()
    assert place.sessions.refused_offers() == {"malformed": 1, "foreign_node": 1}


async def test_an_offer_brings_what_the_chain_says_by_now(place: Place) -> None:
    """A bond posted, or a wallet changed, while the stream stays open."""
    async with peer(place, NODES[0], wire.NODE_PROTOCOL) as node:
        await node.hello()
        place.world.chain.funders[NODES[0].address] = b"\xf0" * 20
        place.world.directory.renew()
        assert await node.call(_offer(place, NODES[0])) == wire.Done()
    held = place.world.book.held(MODEL, NODES[0].address)
    assert held is not None
    assert held.record.bond_funder == b"\xf0" * 20


async def test_from_offer_to_receipt(place: Place) -> None:
    """Two nodes bid, one is awarded and completes, the gateway delivers; both get the receipt."""
    async with (
        peer(place, NODES[0], wire.NODE_PROTOCOL) as one,
        peer(place, NODES[1], wire.NODE_PROTOCOL) as other,
        peer(place, GATEWAY, wire.GATEWAY_PROTOCOL) as gateway,
    ):
        for node in (one, other):
            await node.hello()
            assert await node.call(_offer(place, node.key)) == wire.Done()
        assert place.sessions.market() == {MODEL: 2}
        await gateway.hello()
        answer = await gateway.call(_submit(place))
        assert isinstance(answer, wire.Awarded)
        award = signed_from_bytes(Award, answer.award).message
        assert one.asked
        assert other.asked
        winner, loser = (one, other) if award.node == one.key.address else (other, one)
        assert answer.peer == winner.key.point

        done = place.world.completion_of(award)
        assert await winner.call(wire.PutCompletion(done.to_bytes())) == wire.Done()
        deliver = _deliver(place, part(award, done.message))
        receipted = await gateway.call(deliver)
        assert isinstance(receipted, wire.Receipted)
        assert await gateway.call(deliver) == receipted
        assert await gateway.call(_submit(place)) == receipted
        await until(lambda: bool(winner.notices))
        assert winner.notices[0].receipt == receipted.receipt
        assert not loser.notices
        receipt = signed_from_bytes(Receipt, receipted.receipt).message
        assert receipt.total > 0
        assert await winner.call(wire.PutCompletion(done.to_bytes())) == wire.Done()


def _deliver(place: Place, *parts: object, **more: object) -> wire.Deliver:
    (job,) = place.world.docket.jobs.values()
    said = delivery(*parts, of=job.job.message, **more)  # type: ignore[arg-type]
    return wire.Deliver(
        delivery=Signed.by(GATEWAY, DOMAIN, said).to_bytes(),
        job=job.job.to_bytes(),
        grant=job.grant.to_bytes(),
        awards=[entry.signed.to_bytes() for entry in job.awards],
        completions=[],
        failures=[],
    )


async def test_a_node_is_told_by_the_log_that_its_award_is_void(place: Place) -> None:
    """In the gateway's own signed words, before another node has its next award; nobody else is."""
    async with (
        peer(place, NODES[0], wire.NODE_PROTOCOL) as one,
        peer(place, NODES[1], wire.NODE_PROTOCOL) as other,
        peer(place, GATEWAY, wire.GATEWAY_PROTOCOL) as gateway,
    ):
        for node in (one, other):
            await node.hello()
            assert await node.call(_offer(place, node.key)) == wire.Done()
        await gateway.hello()
        award = _award_in(await gateway.call(_submit(place)))
        failed, next_one = (one, other) if award.node == one.key.address else (other, one)
        forged = Signed.by(failed.key, DOMAIN, failure(award)).to_bytes()
        assert await gateway.refused(wire.ReportFailure(forged)) == "bad_signature"
        await failed.refused(_offer(place, GATEWAY))  # what was sent before has come by now
        assert failed.voided == []
        report = Signed.by(GATEWAY, DOMAIN, failure(award)).to_bytes()
        following = _award_in(await gateway.call(wire.ReportFailure(report)))
        assert (following.node, following.rank) == (next_one.key.address, 2)
        await until(lambda: failed.voided == [report])
        assert next_one.voided == []


async def test_a_report_handed_in_with_the_delivery_reaches_the_node_too(place: Place) -> None:
    """The gateway could not report it before; the node may still hold a slot for it."""
    async with (
        peer(place, NODES[0], wire.NODE_PROTOCOL) as node,
        peer(place, GATEWAY, wire.GATEWAY_PROTOCOL) as gateway,
    ):
        for party in (node, gateway):
            await party.hello()
        assert await node.call(_offer(place, node.key)) == wire.Done()
        award = _award_in(await gateway.call(_submit(place)))
        report = Signed.by(GATEWAY, DOMAIN, failure(award)).to_bytes()
        said = part(award, result=Reason.STREAM_BROKEN)
        deliver = replace(_deliver(place, said, outcome=Outcome.FAILED), failures=[report])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.call, deliver)
            await until(lambda: node.voided == [report])
            assert place.world.docket.jobs  # the receipt still waits for the node's completion
            assert place.world.docket.busy(award.node) == 0
            nursery.cancel_scope.cancel()


async def test_an_award_whose_answer_was_lost_is_told_again_by_its_job(place: Place) -> None:
    """A delivery without it is refused; asking for the job again gives it, and signs no other."""
    async with (
        peer(place, NODES[0], wire.NODE_PROTOCOL) as one,
        peer(place, NODES[1], wire.NODE_PROTOCOL) as other,
        peer(place, GATEWAY, wire.GATEWAY_PROTOCOL) as gateway,
    ):
        for node in (one, other):
            await node.hello()
            assert await node.call(_offer(place, node.key)) == wire.Done()
        await gateway.hello()
        first = _award_in(await gateway.call(_submit(place)))
        report = Signed.by(GATEWAY, DOMAIN, failure(first)).to_bytes()
        second = _award_in(await gateway.call(wire.ReportFailure(report)))
        said = part(first, result=Reason.STREAM_BROKEN)
        short = _deliver(place, said, outcome=Outcome.FAILED)
        assert await gateway.refused(short) == "bad_delivery"
        assert _award_in(await gateway.call(_submit(place))) == second
        never_used = part(second, result=Reason.CLIENT_GONE)
        whole = _deliver(place, said, never_used, outcome=Outcome.FAILED)
        (job,) = place.world.docket.jobs.values()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.call, whole)
            await until(lambda: job.delivery is not None)
            nursery.cancel_scope.cancel()
        assert len(job.awards) == 2


def _award_in(answer: object) -> Award:
    assert isinstance(answer, wire.Awarded), answer
    return signed_from_bytes(Award, answer.award).message


async def test_a_lost_node_takes_part_at_its_standing_price(place: Place) -> None:
    """Its offer is firm, but no award goes to a node that isn't there."""
    async with peer(place, GATEWAY, wire.GATEWAY_PROTOCOL) as gateway:
        await gateway.hello()
        async with peer(place, NODES[0], wire.NODE_PROTOCOL) as node:
            await node.hello()
            await node.call(_offer(place, NODES[0]))
        await until(lambda: not place.sessions.reachable(NODES[0].address))
        place.world.reachable.discard(NODES[0].address)
        assert place.sessions.market() == {MODEL: 1}
        answer = await gateway.call(_submit(place))
        assert isinstance(answer, wire.Refused)
        assert answer.code == "no_nodes_available"


async def test_the_newer_stream_of_a_node_stays_when_the_older_ends(place: Place) -> None:
    """A reconnection may be faster than the end of what it replaces."""
    async with peer(place, NODES[0], wire.NODE_PROTOCOL) as newer:
        async with peer(place, NODES[0], wire.NODE_PROTOCOL) as older:
            await older.hello()
            first = place.sessions._nodes[NODES[0].address]
            await newer.hello()
            assert place.sessions._nodes[NODES[0].address] is not first
        await until(lambda: first._over is not None)
        assert place.sessions.reachable(NODES[0].address)
        assert await newer.call(_offer(place, NODES[0])) == wire.Done()


async def _served(place: Place, node: Peer, gateway: Peer) -> None:
    """One job of this gateway, receipted, and time passes: its batch is due."""
    for one in (node, gateway):
        await one.hello()
    assert await node.call(_offer(place, node.key)) == wire.Done()
    answer = await gateway.call(_submit(place))
    assert isinstance(answer, wire.Awarded)
    award = signed_from_bytes(Award, answer.award).message
    done = place.world.completion_of(award)
    assert await node.call(wire.PutCompletion(done.to_bytes())) == wire.Done()
    receipted = await gateway.call(_deliver(place, part(award, done.message)))
    assert isinstance(receipted, wire.Receipted)
    place.world.now += place.world.rules.batch_age_ms


def _owed(place: Place) -> int:
    """How many copies nobody has said to keep."""
    with place.world.writer._database.read() as session:
        return sum(not row.kept for row in session.exec(select(BatchCopyRow)))


async def test_a_signed_batch_reaches_the_disks_of_everybody_in_it(
    place: Place, tmp_path: Path
) -> None:
    """Gateway and node, over their control streams; a node without a receipt gets none."""
    async with (
        peer(place, NODES[0], wire.NODE_PROTOCOL) as node,
        peer(place, NODES[1], wire.NODE_PROTOCOL) as idle,
        peer(place, GATEWAY, wire.GATEWAY_PROTOCOL) as gateway,
    ):
        node.folder, idle.folder = tmp_path / "node", tmp_path / "idle"
        gateway.folder = tmp_path / "gateway"
        await idle.hello()
        await _served(place, node, gateway)
        await place.world.settler._look()
        await until(lambda: node.kept == gateway.kept == [1])
        await until(lambda: _owed(place) == 0)
        assert idle.kept == []


async def test_a_batch_waits_for_who_refuses_or_is_away(place: Place, tmp_path: Path) -> None:
    """The node's disk is full for a while; the gateway is gone and comes back."""
    async with peer(place, NODES[0], wire.NODE_PROTOCOL) as node:
        async with peer(place, GATEWAY, wire.GATEWAY_PROTOCOL) as gateway:
            await _served(place, node, gateway)
        await until(lambda: GATEWAY.address not in place.sessions._gateways)
        await place.world.settler._look()
        await until(lambda: node.refusals > 1)
        assert _owed(place) == 2
        node.folder = tmp_path / "node"
        await until(lambda: _owed(place) == 1)
        assert node.kept == [1]
    async with peer(place, GATEWAY, wire.GATEWAY_PROTOCOL) as again:
        again.folder = tmp_path / "gateway"
        assert again.kept == []
        await again.hello()
        await until(lambda: _owed(place) == 0)
        assert again.kept == [1]
