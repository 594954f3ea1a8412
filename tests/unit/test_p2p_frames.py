"""`FrameStream` over in-memory pipes: cutting, queueing, ending, breaking."""

from contextlib import suppress

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from pinaivu.errors import InvalidEncoding
from pinaivu.p2p.errors import FrameTooLarge, SlowPeer, StreamBroken, StreamEnded
from pinaivu.p2p.frames import FrameLimits
from tests.unit.p2p_pipes import framed, running

END = bytes(4)


@given(frames=st.lists(st.binary(min_size=1, max_size=40), max_size=8), cut=st.integers(1, 50))
def test_frames_are_the_same_however_the_bytes_arrive(frames: list[bytes], cut: int) -> None:
    async def main() -> list[bytes]:
        wire = framed(*frames) + END
        got = []
        async with running() as rig:
            for start in range(0, len(wire), cut):
                rig.pipe.feed(wire[start : start + cut])
            with suppress(StreamEnded):
                while True:
                    got.append(await rig.stream.receive())
            await rig.stream.wait_over()
        return got

    assert trio.run(main) == frames


async def test_receive_many_takes_all_that_is_there() -> None:
    async with running() as rig:
        rig.pipe.feed(framed(b"a", b"b", b"c") + framed(b"half")[:6])
        assert await rig.stream.receive_many() == [b"a", b"b", b"c"]


async def test_eof_without_end_mark_is_broken_after_the_whole_frames() -> None:
    async with running() as rig:
        rig.pipe.feed(framed(b"whole") + framed(b"half")[:6])
        rig.pipe.feed_eof()
        assert await rig.stream.receive() == b"whole"
        for _ in range(2):
            with pytest.raises(StreamBroken, match="end mark"):
                await rig.stream.receive()


async def test_after_the_peers_end_mark_we_can_still_send() -> None:
    async with running() as rig:
        rig.pipe.feed(END)
        with pytest.raises(StreamEnded):
            await rig.stream.receive()
        rig.stream.send(b"last word")
        await rig.stream.aclose()
        assert b"".join(rig.pipe.writes) == framed(b"last word") + END
        assert not rig.pipe.was_reset


async def test_frame_above_the_limit_is_the_peers_fault_and_drops_it() -> None:
    async with running(FrameLimits(max_frame=10)) as rig:
        rig.pipe.feed(framed(b"0123456789"))
        rig.pipe.feed((11).to_bytes(4, "big"))
        assert await rig.stream.receive() == b"0123456789"
        with pytest.raises(FrameTooLarge, match="11 bytes"):
            await rig.stream.receive()
        assert rig.drops == ["oversize frame"]
        await trio.testing.wait_all_tasks_blocked()
        assert rig.pipe.was_reset


QUICK = FrameLimits(frame_timeout=2.0, frame_rate=10, max_frame=100)


@pytest.mark.parametrize(
    ("begun", "due"),
    [(b"\0", 12), (framed(b"0123456789")[:5], 3), (framed(b"0123456789")[:-1], 3)],
    ids=["half a header", "one byte", "all but one"],
)
async def test_peer_that_begins_a_frame_and_does_not_end_it_is_dropped(
    begun: bytes,
    due: float,
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    """In the time that its size is worth, however the bytes come: one after the other is late."""
    async with running(QUICK) as rig:
        began = trio.current_time()
        for piece in (begun[:4], *(bytes((byte,)) for byte in begun[4:])):
            rig.pipe.feed(piece)
            await trio.sleep(due / (len(begun) + 1))
        with pytest.raises(SlowPeer, match="does not end it"):
            await rig.stream.receive()
        assert trio.current_time() - began <= due
        assert rig.drops == ["slow: unfinished frame"]


async def test_each_frame_has_its_own_time(autojump_clock: trio.testing.MockClock) -> None:  # noqa: ARG001
    """Frames that overlap in the pieces they come in, for longer than any one of them has."""
    frames = framed(*[b"0123456789"] * 9)
    async with running(QUICK) as rig:
        for at in range(0, len(frames), 13):
            rig.pipe.feed(frames[at : at + 13])
            await trio.sleep(1.5)
        await trio.sleep(100)
        assert len(await rig.stream.receive_many()) == 9
        assert rig.drops == []


async def test_time_does_not_run_while_nobody_receives(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    """Then it is we who hold the rest of the frame back."""
    limits = FrameLimits(inbox_bytes=10, frame_timeout=2.0, frame_rate=10, max_frame=100)
    async with running(limits) as rig:
        rig.pipe.feed(framed(b"0123456789", b"second")[:-1])
        await trio.sleep(100)
        assert await rig.stream.receive() == b"0123456789"
        rig.pipe.feed(b"d")
        assert await rig.stream.receive() == b"second"


@pytest.mark.parametrize("frame", [b"", b"0123456789a"])
async def test_forbidden_sizes_are_not_sent(frame: bytes) -> None:
    async with running(FrameLimits(max_frame=10)) as rig:
        with pytest.raises(InvalidEncoding):
            rig.stream.send(frame)
        rig.stream.send(b"0123456789")
        await rig.stream.flush()
        assert rig.pipe.writes == [framed(b"0123456789")]


async def test_cancelled_receive_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:  # noqa: ARG001
    async with running() as rig:
        for start in range(0, 9, 3):
            rig.pipe.feed(framed(b"split")[start : start + 3])
            with trio.move_on_after(0 if start < 6 else 1):
                assert await rig.stream.receive() == b"split"
                break
        rig.pipe.feed(framed(b"next"))
        assert await rig.stream.receive() == b"next"


async def test_frames_queued_together_are_written_together() -> None:
    async with running() as rig:
        for number in range(100):
            rig.stream.send(b"%d" % number)
        await rig.stream.flush()
        assert rig.pipe.writes == [framed(*(b"%d" % number for number in range(100)))]


async def test_large_frames_are_written_in_slices_the_muxer_takes_whole() -> None:
    frame = bytes(range(256)) * 1000
    async with running() as rig:
        rig.stream.send(frame)
        await rig.stream.flush()
        assert b"".join(rig.pipe.writes) == framed(frame)
        assert max(map(len, rig.pipe.writes)) == 64 * 1024 - 12


@pytest.mark.parametrize(
    "limits",
    [FrameLimits(max_frame=100, outbox_bytes=350), FrameLimits(max_frame=100, outbox_frames=3)],
    ids=["bytes", "count"],
)
async def test_peer_with_a_full_queue_is_dropped_at_once(limits: FrameLimits) -> None:
    async with running(limits) as rig:
        rig.pipe.writable = trio.Event()
        for _ in range(3):
            rig.stream.send(bytes(100))
        with pytest.raises(SlowPeer):
            rig.stream.send(bytes(100))
        assert rig.drops == ["slow: queue full"]
        with pytest.raises(SlowPeer):
            rig.stream.send(b"more")
        with pytest.raises(SlowPeer):
            await rig.stream.flush()


async def test_peer_that_takes_nothing_within_the_write_timeout_is_dropped(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with running(FrameLimits(write_timeout=4.0)) as rig:
        rig.pipe.writable = trio.Event()
        rig.stream.send(b"never taken")
        with pytest.raises(SlowPeer, match="write timeout"):
            await rig.stream.aclose()
        assert trio.current_time() == pytest.approx(4.0)
        assert rig.drops == ["slow: write timeout"]


async def test_aclose_writes_everything_before_the_end() -> None:
    async with running() as rig:
        rig.stream.send(b"one")
        rig.stream.send(b"two")
        await rig.stream.aclose()
        assert b"".join(rig.pipe.writes) == framed(b"one", b"two") + END
        assert rig.pipe.closed
        with pytest.raises(StreamBroken, match="closed on this side"):
            rig.stream.send(b"three")


async def test_aclose_on_a_stream_that_broke_with_nothing_queued_is_silent() -> None:
    async with running() as rig:
        rig.pipe.feed_eof()
        await rig.stream.wait_over()
        await rig.stream.aclose()
        await rig.stream.aclose()


async def test_peer_that_never_ends_its_side_is_reset_after_the_linger(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with running(FrameLimits(linger=2.0)) as rig:
        await rig.stream.aclose()
        assert not rig.pipe.was_reset
        await rig.stream.wait_over()
        assert trio.current_time() == pytest.approx(2.0)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.pipe.was_reset


async def test_run_returns_when_both_sides_have_ended() -> None:
    """The host forgets the stream then: nothing may be left running, and nothing was reset."""
    async with trio.open_nursery() as nursery, running() as rig:
        del nursery
        rig.pipe.feed(framed(b"x") + END)
        await rig.stream.aclose()
        await rig.stream.wait_over()
        await trio.testing.wait_all_tasks_blocked()
        rig.stream.reset()
        assert not rig.pipe.was_reset


async def test_reset_wakes_a_receiver_and_resets_the_pipe() -> None:
    async with running() as rig, trio.open_nursery() as nursery:

        async def receiver() -> None:
            with pytest.raises(StreamBroken, match="client gone"):
                await rig.stream.receive()

        nursery.start_soon(receiver)
        await trio.testing.wait_all_tasks_blocked()
        rig.stream.reset("client gone")
        await trio.testing.wait_all_tasks_blocked()
        assert rig.pipe.was_reset
        assert rig.stream.over


async def test_reader_stops_at_the_inbox_limit_and_goes_on_when_there_is_room() -> None:
    async with running(FrameLimits(inbox_bytes=100)) as rig:
        for _ in range(10):
            rig.pipe.feed(framed(bytes(60)))
        await trio.testing.wait_all_tasks_blocked()
        assert rig.pipe.unread == 8
        await rig.stream.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert rig.pipe.unread == 7
        for _ in range(9):
            await rig.stream.receive()
        assert rig.pipe.unread == 0
