"""Back-off and the pool of ready streams."""

from functools import partial

import pytest
import trio
import trio.testing

from pinaivu.p2p.errors import NoReadyStream, TooManyStreams
from pinaivu.p2p.host import run_on
from pinaivu.p2p.links import Backoff, ReadyPool
from tests.unit.p2p_pipes import PEER, framed, running


def test_ceiling_doubles_up_to_the_most() -> None:
    policy = Backoff(first=0.2, most=10.0)
    ceilings = [policy.delay(failures, lambda: 1.0) for failures in range(1, 9)]
    assert ceilings == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0])
    assert policy.delay(10_000, lambda: 1.0) == 10.0


def test_jitter_stays_in_the_upper_half() -> None:
    assert Backoff(first=0.2).delay(3, lambda: 0.0) == pytest.approx(0.4)
    assert Backoff(first=0.2).delay(3, lambda: 0.5) == pytest.approx(0.6)


async def test_pool_hands_out_the_oldest_stream_once() -> None:
    pool = ReadyPool()
    async with running() as one, running() as two, trio.open_nursery() as nursery:
        nursery.start_soon(pool.accept, PEER, one.stream)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(pool.accept, PEER, two.stream)
        await trio.testing.wait_all_tasks_blocked()
        assert (pool.count(PEER), pool.peers()) == (2, [PEER])
        assert await pool.take(PEER) is one.stream
        assert await pool.take(PEER) is two.stream
        assert (pool.count(PEER), pool.peers()) == (0, [])
        one.stream.reset()
        two.stream.reset()


async def test_empty_pool_fails_at_once_or_after_the_given_time(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    pool = ReadyPool()
    with pytest.raises(NoReadyStream):
        await pool.take(PEER)
    assert trio.current_time() == 0
    with pytest.raises(NoReadyStream):
        await pool.take(PEER, within=2.0)
    assert trio.current_time() == pytest.approx(2.0)


async def test_take_waits_for_a_stream_to_arrive() -> None:
    pool = ReadyPool()
    taken = []
    async with running() as rig, trio.open_nursery() as nursery:

        async def take() -> None:
            taken.append(await pool.take(PEER, within=60))

        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(pool.accept, PEER, rig.stream)
        await trio.testing.wait_all_tasks_blocked()
        assert taken == [rig.stream]
        rig.stream.reset()


async def test_stream_that_dies_unused_leaves_the_pool() -> None:
    pool = ReadyPool()
    async with running() as rig, trio.open_nursery() as nursery:
        nursery.start_soon(pool.accept, PEER, rig.stream)
        await trio.testing.wait_all_tasks_blocked()
        rig.pipe.feed_eof()
        await trio.testing.wait_all_tasks_blocked()
        assert (pool.count(PEER), pool.peers()) == (0, [])


async def test_stream_that_has_just_died_is_not_handed_out() -> None:
    pool = ReadyPool()
    async with running() as rig, trio.open_nursery() as nursery:
        nursery.start_soon(pool.accept, PEER, rig.stream)
        await trio.testing.wait_all_tasks_blocked()
        rig.stream.reset()
        with pytest.raises(NoReadyStream):
            await pool.take(PEER)


@pytest.mark.parametrize("ending", ["aclose", "reset"])
async def test_stream_that_was_handed_out_is_its_takers_to_close(ending: str) -> None:
    """Though its peer has said its last: what it said is still to be read, and may be answered."""
    pool = ReadyPool()
    async with running() as rig, trio.open_nursery() as nursery:
        served = trio.Event()

        async def serve() -> None:
            await run_on(rig.stream, partial(pool.accept, PEER, rig.stream))
            served.set()

        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        assert await pool.take(PEER) is rig.stream
        rig.pipe.feed(framed(b"all of it", b""))
        await trio.testing.wait_all_tasks_blocked()
        assert rig.stream.over
        assert not served.is_set()
        assert await rig.stream.receive() == b"all of it"
        rig.stream.send(b"thanks")
        if ending == "aclose":
            await rig.stream.aclose()
            assert rig.pipe.writes == [framed(b"thanks", b"")]
        else:
            rig.stream.reset()
        await served.wait()


async def test_stream_that_its_peer_ends_unused_is_closed() -> None:
    pool = ReadyPool()
    async with running() as rig:
        rig.pipe.feed(framed(b""))
        await run_on(rig.stream, partial(pool.accept, PEER, rig.stream))
        assert rig.pipe.closed
        assert (pool.count(PEER), pool.peers()) == (0, [])


async def test_peer_may_hold_only_so_many_unused_streams() -> None:
    pool = ReadyPool(most_per_peer=1)
    async with running() as one, running() as two, trio.open_nursery() as nursery:
        nursery.start_soon(pool.accept, PEER, one.stream)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(TooManyStreams):
            await pool.accept(PEER, two.stream)
        assert await pool.take(PEER) is one.stream
        one.stream.reset()
