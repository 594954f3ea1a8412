"""Control streams, ready streams and calls between two hosts over loopback."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from pinaivu.errors import Misconfigured
from pinaivu.p2p import PeerId
from pinaivu.p2p.calls import Calls
from pinaivu.p2p.errors import NoReadyStream, NotConnected, StreamBroken, StreamEnded
from pinaivu.p2p.frames import FrameStream
from pinaivu.p2p.host import Host, open_host
from pinaivu.p2p.links import ReadyPool, keep_connected, keep_ready
from tests.integration.p2p_support import PATIENCE, until

CALLS, READY = "/pinaivu/test-calls/1", "/pinaivu/test-ready/1"


@asynccontextmanager
async def two_hosts() -> AsyncGenerator[tuple[Host, Host, PeerId]]:
    """A listening host, one that dialed it, and the first one's peer id."""
    async with (
        open_host(os.urandom(32), ["/ip4/127.0.0.1/tcp/0"]) as there,
        open_host(os.urandom(32)) as here,
    ):
        yield there, here, await here.connect(there.addresses()[0])


async def work(stream: FrameStream, first: bytes) -> None:
    """A job: answer with the first frame backwards, then end."""
    stream.send(first[::-1])
    await stream.aclose()


async def test_pool_is_topped_up_when_a_stream_is_used() -> None:
    pool = ReadyPool()
    async with two_hosts() as (there, here, peer), trio.open_nursery() as nursery:
        there.serve(READY, pool.accept)
        keep = partial(keep_ready, jobs=nursery, idle=3)
        nursery.start_soon(keep, here, peer, READY, work)
        await until(lambda: pool.count(here.peer_id) == 3)
        for number in range(5):
            stream = await pool.take(here.peer_id, within=PATIENCE)
            stream.send(b"%d-job" % number)
            with trio.fail_after(PATIENCE):
                assert await stream.receive() == b"boj-%d" % number
                with pytest.raises(StreamEnded):
                    await stream.receive()
            await stream.aclose()
        await until(lambda: pool.count(here.peer_id) == 3)
        nursery.cancel_scope.cancel()


async def test_taken_stream_that_is_not_used_keeps_its_place() -> None:
    """The dialing side can't know it was taken; the pool just runs empty."""
    pool = ReadyPool()
    async with two_hosts() as (there, here, peer), trio.open_nursery() as nursery:
        there.serve(READY, pool.accept)
        nursery.start_soon(partial(keep_ready, jobs=nursery, idle=1), here, peer, READY, work)
        stream = await pool.take(here.peer_id, within=PATIENCE)
        with pytest.raises(NoReadyStream):
            await pool.take(here.peer_id, within=0.05)
        stream.send(b"now")
        again = await pool.take(here.peer_id, within=PATIENCE)
        assert again is not stream
        nursery.cancel_scope.cancel()


async def test_stream_reset_unused_is_replaced() -> None:
    pool = ReadyPool()
    async with two_hosts() as (there, here, peer), trio.open_nursery() as nursery:
        there.serve(READY, pool.accept)
        keep = partial(keep_ready, jobs=nursery, idle=1, pause=0.0)
        nursery.start_soon(keep, here, peer, READY, work)
        stream = await pool.take(here.peer_id, within=PATIENCE)
        stream.reset()
        await (await pool.take(here.peer_id, within=PATIENCE)).aclose()
        nursery.cancel_scope.cancel()


async def test_pool_is_empty_and_keeping_ends_when_the_connection_does() -> None:
    pool = ReadyPool()
    async with two_hosts() as (there, here, peer), trio.open_nursery() as nursery:
        there.serve(READY, pool.accept)

        async def keep() -> None:
            with pytest.raises(NotConnected):
                await keep_ready(here, peer, READY, work, jobs=nursery, idle=2, pause=0.0)

        nursery.start_soon(keep)
        await until(lambda: pool.count(here.peer_id) == 2)
        there.drop(here.peer_id, "test")
        await until(lambda: pool.count(here.peer_id) == 0)
        with pytest.raises(NoReadyStream):
            await pool.take(here.peer_id)


async def test_keeping_that_is_cancelled_takes_its_unused_streams_along() -> None:
    pool = ReadyPool()
    async with two_hosts() as (there, here, peer), trio.open_nursery() as jobs:
        there.serve(READY, pool.accept)
        async with trio.open_nursery() as nursery:
            keep = partial(keep_ready, jobs=jobs, idle=2, pause=0.0)
            nursery.start_soon(keep, here, peer, READY, work)
            await until(lambda: pool.count(here.peer_id) == 2)
            nursery.cancel_scope.cancel()
        await until(lambda: pool.count(here.peer_id) == 0)
        assert there.peers() == [here.peer_id]


async def test_many_calls_at_once_on_one_stream_in_both_directions() -> None:
    async def answer(suffix: bytes, payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return payload + suffix

    async def serve(_peer: PeerId, stream: FrameStream) -> None:
        calls = Calls(stream, on_call=partial(answer, b" there"), backlog=1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.run)
            for number in range(200):
                nursery.start_soon(ask, calls, number, b" here")

    async def ask(calls: Calls, number: int, suffix: bytes) -> None:
        payload = b"%d" % number
        assert await calls.call(payload, timeout=PATIENCE) == payload + suffix
        answered.append(number)

    answered: list[int] = []
    async with two_hosts() as (there, here, peer):
        there.serve(CALLS, serve)
        stream = await here.open_stream(peer, CALLS)
        calls = Calls(stream, on_call=partial(answer, b" here"), backlog=1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.run)
            for number in range(1000):
                nursery.start_soon(ask, calls, number, b" there")
            await until(lambda: len(answered) == 1200)
            nursery.cancel_scope.cancel()


async def test_calls_fail_at_once_when_the_peer_is_gone() -> None:
    async def never(_payload: bytes) -> bytes:
        there.drop(here.peer_id, "test")
        await trio.sleep_forever()
        return b"never"

    async def serve(_peer: PeerId, stream: FrameStream) -> None:
        await Calls(stream, on_call=never).run()

    async with two_hosts() as (there, here, peer), trio.open_nursery() as nursery:
        there.serve(CALLS, serve)
        calls = Calls(await here.open_stream(peer, CALLS))

        async def run() -> None:
            with pytest.raises(StreamBroken):
                await calls.run()

        nursery.start_soon(run)
        with trio.fail_after(PATIENCE), pytest.raises(StreamBroken):
            await calls.call(b"x", timeout=3600)


async def test_link_to_a_malformed_address_is_a_mistake_to_be_seen() -> None:
    async with open_host(os.urandom(32)) as host:
        with pytest.raises(Misconfigured):
            await keep_connected(host, ("nowhere",), CALLS, _no_session, random=lambda: 0.0)


async def test_bug_in_a_session_is_seen() -> None:
    async def buggy(stream: FrameStream) -> None:
        await stream.flush()
        raise ZeroDivisionError

    async with two_hosts() as (there, here, _peer):
        there.serve(CALLS, _hold)
        with trio.fail_after(PATIENCE), pytest.raises(ZeroDivisionError):
            await keep_connected(here, tuple(there.addresses()), CALLS, buggy, random=lambda: 0.0)


async def test_what_fails_while_a_link_is_cancelled_stays_inside() -> None:
    """A session's own tasks may notice the end of their stream before the cancellation."""
    begun = trio.Event()

    async def fail_at_the_end() -> None:
        try:
            begun.set()
            await trio.sleep_forever()
        finally:
            raise StreamBroken("noticed the end")

    async def session(_stream: FrameStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_at_the_end)
            nursery.start_soon(trio.sleep_forever)

    async with two_hosts() as (there, here, _peer):
        there.serve(CALLS, _hold)
        async with trio.open_nursery() as nursery:
            link = partial(keep_connected, random=lambda: 0.0)
            nursery.start_soon(link, here, tuple(there.addresses()), CALLS, session)
            with trio.fail_after(PATIENCE):
                await begun.wait()
            nursery.cancel_scope.cancel()


async def _no_session(_stream: FrameStream) -> None: ...


async def _hold(_peer: PeerId, stream: FrameStream) -> None:
    await stream.wait_over()
