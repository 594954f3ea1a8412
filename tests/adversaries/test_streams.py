"""Hostile peers on real streams: the real sessions on a real host, an honest node beside them."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from coordinator import sessions
from coordinator.docket import Docket
from coordinator.sessions import Handlers, Sessions
from pinaivu.keys import SecretKey
from pinaivu.p2p import wire
from pinaivu.p2p.calls import Calls
from pinaivu.p2p.errors import CallBusy, StreamBroken
from pinaivu.p2p.frames import FrameLimits, FrameStream
from pinaivu.p2p.host import Host, open_host
from pinaivu.typed_data import Signed
from tests.adversaries.stage import (
    ATTACKER,
    HONEST,
    award_in,
    bid_of,
    both_ways,
    reply,
    world_at,
)
from tests.integration.p2p_support import PATIENCE, until
from tests.unit.coordinator_world import World
from tests.unit.ledger_support import DOMAIN, LOG, MODEL, offer, secret

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
LIMITS = FrameLimits.of(wire.MAX_CONTROL_FRAME)
CHEAP, DEAR = 1_000_000, 1_200_000


@dataclass
class Site:
    """A coordinator's host with sessions for nodes, and the world behind."""

    world: World
    sessions: Sessions
    host: Host

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.host.addresses()[0]

    async def assert_serves_others(self) -> None:
        """An honest node comes, is greeted, and its offer stands, whatever goes on beside it."""
        async with node(self, HONEST) as honest:
            assert await honest.call(honest.hello()) == wire.Done()
            assert await honest.call(honest.offers(CHEAP)) == wire.Done()


@asynccontextmanager
async def site_at(folder: Path, limits: FrameLimits = LIMITS) -> AsyncGenerator[Site, None]:
    """Sessions as `coordinator.app` serves them."""
    async with world_at(folder) as world, open_host(secret(50).secret, [LOOPBACK]) as host:
        made = Sessions(world.directory, LOG, world.clock)
        made.attach(Handlers(world.book, world.desk, world.evidence, world._find_receipt))
        host.serve(wire.NODE_PROTOCOL, made.serve_node, limits)
        world.bidding = made.ask
        world.desk._reachable = made.reachable
        yield Site(world, made, host)


@dataclass
class Node:
    """One process of a node: its host and control stream, and the calls it was asked."""

    key: SecretKey
    host: Host
    stream: FrameStream
    calls: Calls
    site: Site
    asked: list[wire.AuctionCall]

    def hello(self, owner: SecretKey | None = None) -> wire.Hello:
        """Say who we are, or somebody else."""
        return wire.Hello((owner or self.key).address, LOG)

    def offers(self, price: int, **more: int) -> wire.PutOffer:
        """A fresh offer."""
        terms = {"sequence": next(self.site.world.sequence)} | more
        made = offer(self.key, price, **terms)
        return wire.PutOffer(Signed.by(self.key, DOMAIN, made).to_bytes())

    async def call(self, frame: msgspec.Struct) -> wire.NodeAnswer:
        """The coordinator's answer."""
        return wire.read_node_answer(await self.calls.call(wire.encode(frame), PATIENCE))


@asynccontextmanager
async def node(site: Site, key: SecretKey, peer: SecretKey | None = None) -> AsyncIterator[Node]:
    """A node's process, which answers calls by a bid at its discount."""
    async with open_host((peer or key).secret) as host, trio.open_nursery() as nursery:
        stream = await host.open_stream(
            await host.connect(site.address), wire.NODE_PROTOCOL, FrameLimits.of(64 << 20)
        )
        asked = list[wire.AuctionCall]()

        async def on_call(payload: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            call = wire.read_coordinator_to_node(payload)
            assert isinstance(call, wire.AuctionCall)
            asked.append(call)
            return wire.encode(reply(bid_of(key, call, CHEAP * 9 // 10), key))

        calls = Calls(stream, on_call=on_call)
        nursery.start_soon(_until_over, calls)
        yield Node(key, host, stream, calls, site, asked)
        nursery.cancel_scope.cancel()


async def _until_over(calls: Calls) -> None:
    """A conversation of the attacker's may end as it likes."""
    with suppress(StreamBroken):
        await calls.run()


@both_ways
async def test_anothers_wallet_on_the_attackers_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """Whoever could pass for another node would get its calls, and take it out of the market."""
    if not guarded:
        monkeypatch.setattr(Sessions, "_require_peer", lambda *_args: None)
    async with site_at(tmp_path) as site, node(site, HONEST) as honest:
        await honest.call(honest.hello())
        await honest.call(honest.offers(CHEAP))
        async with node(site, ATTACKER) as attacker:
            answer = await attacker.call(attacker.hello(HONEST))
            assert (answer == wire.Done()) is not guarded
            award_in(await site.world.submit())
            assert len(honest.asked) == (1 if guarded else 0)
            assert len(attacker.asked) == (0 if guarded else 1)


@both_ways
async def test_an_oversized_frame(tmp_path: Path, *, guarded: bool) -> None:
    """Announced and never sent whole, it would have to be kept in memory as far as it comes."""
    limits = LIMITS if guarded else FrameLimits.of(1 << 30)
    async with site_at(tmp_path, limits) as site, node(site, ATTACKER) as attacker:
        await attacker.call(attacker.hello())
        attacker.stream._outbox.append((1 << 29).to_bytes(4))  # past the sender's own check
        attacker.stream._outbox_bytes += 4
        attacker.stream._idle_writer.unpark()
        attacker.stream.send(bytes(8 << 20))
        if guarded:
            await until(lambda: not site.sessions.reachable(ATTACKER.address))
            await until(lambda: site.host.drops["oversize frame"] == 1)
        else:
            with trio.fail_after(PATIENCE):
                await attacker.stream.flush()
            assert site.sessions.reachable(ATTACKER.address)
        await site.assert_serves_others()


@both_ways
async def test_a_slow_loris_frame(tmp_path: Path, *, guarded: bool) -> None:
    """A frame that is begun and never ended, over a peer that answers every ping."""
    limits = FrameLimits(frame_timeout=0.3 if guarded else 1e9, frame_rate=1 << 30)
    async with site_at(tmp_path, limits) as site, node(site, ATTACKER) as attacker:
        await attacker.call(attacker.hello())
        attacker.stream._outbox.append((1000).to_bytes(4) + b"drip")
        attacker.stream._outbox_bytes += 8
        attacker.stream._idle_writer.unpark()
        if guarded:
            await until(lambda: site.host.drops["slow: unfinished frame"] == 1)
            await until(lambda: not site.sessions.reachable(ATTACKER.address))
        else:
            with trio.move_on_after(1.5):  # five times what the guarded run allows
                await attacker.stream.wait_over()
            assert site.sessions.reachable(ATTACKER.address)
        await site.assert_serves_others()


@both_ways
async def test_a_half_open_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """Strangers who open streams and never say who they are would hold them for ever."""
    monkeypatch.setattr(sessions, "HELLO_WITHIN_S", 0.3 if guarded else 1e9)
    stranger = secret(70)
    async with site_at(tmp_path) as site, node(site, stranger) as silent:
        more = [
            await silent.host.open_stream(site.host.peer_id, wire.NODE_PROTOCOL) for _ in range(9)
        ]
        if guarded:
            for stream in more:
                with trio.fail_after(PATIENCE):
                    await stream.wait_over()
            await until(lambda: silent.host.peer_id not in site.host.peers())
            assert site.host.drops["no hello"] == 1
        else:
            with trio.move_on_after(1.5):
                await more[0].wait_over()
            assert not any(stream.over for stream in more)
        await site.assert_serves_others()


async def test_who_has_said_hello_may_be_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is for the greeting only."""
    monkeypatch.setattr(sessions, "HELLO_WITHIN_S", 0.3)
    async with site_at(tmp_path) as site, node(site, HONEST) as honest:
        await honest.call(honest.hello())
        with trio.move_on_after(1.5):
            await honest.stream.wait_over()
        assert site.sessions.reachable(HONEST.address)


@both_ways
async def test_a_thousand_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """A stream has so many workers and no more; who asks beyond is told so, others are served."""
    if not guarded:
        unbounded = partial(Calls, workers=10_000, backlog=10_000)
        monkeypatch.setattr(sessions, "Calls", unbounded)
    working, most, gate = 0, 0, trio.Event()
    honest_call = Sessions._node_call

    async def slow(self: Sessions, record: object, frame: object) -> None:
        nonlocal working, most
        if record.node == ATTACKER.address:  # type: ignore[attr-defined]
            working += 1
            most = max(most, working)
            await gate.wait()
            working -= 1
        await honest_call(self, record, frame)  # type: ignore[arg-type]

    monkeypatch.setattr(Sessions, "_node_call", slow)
    async with site_at(tmp_path) as site, node(site, ATTACKER) as attacker:
        await attacker.call(attacker.hello())
        answers = list[None]()

        async def ask() -> None:
            with suppress(CallBusy):
                await attacker.call(attacker.offers(DEAR))
            answers.append(None)

        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(ask)
            if guarded:
                await until(lambda: len(answers) >= 1000 - 32 - 256)
            else:
                await until(lambda: working == 1000)
            await site.assert_serves_others()
            assert (most <= 32) is guarded
            gate.set()


@both_ways
async def test_two_nodes_with_one_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """Two machines under one registration have one stream, one offer and its slots together."""
    if not guarded:
        monkeypatch.setattr(Docket, "busy", lambda _self, _node: 0)
    async with (
        site_at(tmp_path) as site,
        node(site, ATTACKER) as one,
        node(site, ATTACKER) as two,
    ):
        for twin in (one, two):
            assert await twin.call(twin.hello()) == wire.Done()
            assert await twin.call(twin.offers(CHEAP)) == wire.Done()
        assert site.sessions.market() == {MODEL: 1}
        assert award_in(await site.world.submit(1)).node == ATTACKER.address
        assert (one.asked, len(two.asked)) == ([], 1)
        again = await site.world.submit(2)
        assert isinstance(again, wire.Refused if guarded else wire.Awarded)


@both_ways
async def test_flapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool) -> None:
    """Come and gone twenty times: nothing is left of it, and no job is awarded to a ghost."""
    async with site_at(tmp_path) as site, node(site, ATTACKER) as steady:
        await steady.call(steady.hello())
        await steady.call(steady.offers(DEAR))
        for _ in range(20):
            async with node(site, HONEST) as flapping:
                await flapping.call(flapping.hello())
                await flapping.call(flapping.offers(CHEAP))
        await until(lambda: not site.sessions.reachable(HONEST.address))
        await until(lambda: site.host.peers() == [steady.host.peer_id])
        assert list(site.sessions._nodes) == [ATTACKER.address]
        assert site.sessions.market() == {MODEL: 2}
        if not guarded:
            monkeypatch.setattr(Sessions, "reachable", lambda *_args: True)
            site.world.desk._reachable = site.sessions.reachable
        award = award_in(await site.world.submit())
        assert award.node == (ATTACKER if guarded else HONEST).address


async def test_duplicate_answers_to_one_call(tmp_path: Path) -> None:
    """Answers nobody waits for, to calls that are over or still to come: each is passed over.

    The next call is really asked, and answered once.
    """
    async with site_at(tmp_path) as site, node(site, ATTACKER) as attacker:
        await attacker.call(attacker.hello())
        await attacker.call(attacker.offers(CHEAP, slots=9))
        for number in (1, 2, 3):
            assert award_in(await site.world.submit(number)).price_out >= CHEAP * 9 // 10
            assert len(attacker.asked) == number
            for correlation in range(1, 50):
                attacker.stream.send(msgspec.msgpack.encode([2, 1, correlation, b"again"]))
            await attacker.call(attacker.offers(CHEAP, slots=9))  # all of it has been read by now
        assert site.sessions.reachable(ATTACKER.address)
