"""What each kind of frame does, as a stranger sends it; and what ends the connection."""

import struct

import pytest
import trio
import trio.testing
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamEOF, MuxedStreamReset
from libp2p.stream_muxer.yamux.yamux import DEFAULT_WINDOW_SIZE, MAX_WINDOW_SIZE

from pinaivu.p2p.patches import patch_libp2p
from pinaivu.p2p.patches.incoming import AT_ONCE
from tests.unit.p2p_muxers import (
    ACK,
    CREDIT,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    Header,
    Peer,
    alone,
    frame,
)


@pytest.fixture(autouse=True)
def patched() -> None:
    patch_libp2p()


async def answer_of(peer: Peer) -> Header:
    """The next frame that the muxer sends, which has no body."""
    _, *header = struct.unpack("!BBHII", await peer.wire.read(12))
    return tuple(header)


async def say(peer: Peer, *frames: bytes) -> None:
    """Send some frames in one message, and wait until they are taken."""
    await peer.wire.write(b"".join(frames))
    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_stream_opens_speaks_and_ends_in_one_frame() -> None:
    async with alone() as peer:
        await say(peer, frame(DATA, SYN | FIN, 1, body=b"all of it"))
        assert await answer_of(peer) == (CREDIT, ACK, 1, 0)
        stream = await peer.muxer.accept_stream()
        assert await stream.read(100) == b"all of it"
        with pytest.raises(MuxedStreamEOF):
            await stream.read(100)


async def test_frames_come_in_any_pieces() -> None:
    """Many in a message, or one in many messages."""
    async with alone() as peer:
        said = frame(DATA, SYN, 1, body=b"one") + frame(DATA, 0, 1, body=b"two")
        for at in range(len(said)):
            await peer.wire._send.send_all(said[at : at + 1])
            await trio.testing.wait_all_tasks_blocked()
        await say(peer, frame(DATA, 0, 1, body=b"three"), frame(DATA, 0, 1, body=b"four"))
        stream = await peer.muxer.accept_stream()
        assert await stream.read(100) == b"onetwothreefour"


async def test_a_stream_that_is_open_cant_be_opened_again() -> None:
    """The second is reset, and what it says reaches nobody."""
    async with alone() as peer:
        await say(peer, frame(DATA, SYN, 1, body=b"mine"), frame(DATA, SYN, 1, body=b"no"))
        assert [await answer_of(peer) for _ in range(2)] == [
            (CREDIT, ACK, 1, 0),
            (CREDIT, RST, 1, 0),
        ]
        assert await (await peer.muxer.accept_stream()).read(100) == b"mine"


async def test_a_stream_that_is_reset_as_it_opens_is_announced_and_not_acknowledged() -> None:
    async with alone() as peer:
        await say(peer, frame(CREDIT, SYN | RST, 1), frame(PING, SYN, 0, 7))
        assert await answer_of(peer) == (PING, ACK, 0, 7)
        with pytest.raises((MuxedStreamReset, MuxedStreamEOF)):
            await (await peer.muxer.accept_stream()).read(1)


async def test_an_end_that_comes_with_the_acceptance_is_heeded() -> None:
    async with alone() as peer:
        stream = await peer.muxer.open_stream()
        assert await answer_of(peer) == (CREDIT, SYN, 2, 0)
        await say(peer, frame(DATA, ACK | FIN, 2, body=b"no"))
        assert await stream.read(10) == b"no"
        with pytest.raises(MuxedStreamEOF):
            await stream.read(10)


async def test_a_peer_that_ignores_its_window_is_cut_off() -> None:
    """Nobody reads: what it has credit for is kept, and not a byte more."""
    async with alone() as peer:
        await say(peer, frame(DATA, SYN, 1, body=bytes(DEFAULT_WINDOW_SIZE)))
        assert len(peer.muxer.stream_buffers[1]) == DEFAULT_WINDOW_SIZE
        assert not peer.muxer.event_shutting_down.is_set()
        await say(peer, frame(DATA, 0, 1, body=b"x"))
        assert peer.muxer.event_shutting_down.is_set()


async def test_what_was_read_may_be_sent_again() -> None:
    async with alone() as peer:
        await say(peer, frame(DATA, SYN, 1, body=bytes(DEFAULT_WINDOW_SIZE)))
        stream = await peer.muxer.accept_stream()
        for _ in range(3):
            assert len(await stream.read(DEFAULT_WINDOW_SIZE)) == DEFAULT_WINDOW_SIZE
            await say(peer, frame(DATA, 0, 1, body=bytes(DEFAULT_WINDOW_SIZE)))
        assert not peer.muxer.event_shutting_down.is_set()


async def test_credit_adds_to_the_window_also_as_a_stream_opens() -> None:
    async with alone() as peer:
        await say(peer, frame(CREDIT, SYN, 1, 1000), frame(CREDIT, 0, 1, 24))
        stream = await peer.muxer.accept_stream()
        assert stream.send_window == DEFAULT_WINDOW_SIZE + 1024


async def test_frames_of_unknown_streams_are_passed_over() -> None:
    async with alone() as peer:
        strange = [frame(DATA, 0, 9, body=b"?"), frame(CREDIT, 0, 9, 5), frame(CREDIT, RST, 9)]
        await say(peer, *strange, frame(DATA, SYN, 1, body=b"mine"))
        assert await (await peer.muxer.accept_stream()).read(100) == b"mine"
        assert list(peer.muxer.streams) == [1]


async def test_a_pings_answer_wakes_who_waits_and_tells_the_time_it_took() -> None:
    async with alone() as peer:
        peer.muxer._ping_event, peer.muxer._ping_sent_time = trio.Event(), trio.current_time()
        await say(peer, frame(PING, ACK, 0, 1))
        assert peer.muxer._ping_event.is_set()
        assert peer.muxer.rtt() > 0


@pytest.mark.parametrize(
    "said",
    [
        frame(GO_AWAY, 0, 0),
        frame(GO_AWAY, 0, 0, 1),
        frame(DATA, 0, 1, MAX_WINDOW_SIZE + 1),
        None,
    ],
    ids=["goes away", "goes away in anger", "oversize", "gone"],
)
async def test_the_connection_ends_and_who_waits_hears_of_it(said: bytes | None) -> None:
    """Readers, and whoever waits for a stream."""
    async with alone() as peer, trio.open_nursery() as nursery:
        await say(peer, frame(DATA, SYN, 1))
        stream = await peer.muxer.accept_stream()

        async def reads() -> None:
            with pytest.raises((MuxedStreamReset, MuxedStreamEOF)):
                await stream.read(1)

        async def accepts() -> None:
            with pytest.raises(MuxedConnUnavailable):
                await peer.muxer.accept_stream()

        nursery.start_soon(reads)
        nursery.start_soon(accepts)
        await trio.testing.wait_all_tasks_blocked()
        if said is None:
            await peer.wire.close()
        else:
            await say(peer, said)
        await peer.muxer.event_closed.wait()


async def test_a_body_that_doesnt_come_ends_the_connection(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    """After the library's minute; a header may take as long as it likes."""
    async with alone() as peer:
        await say(peer, frame(DATA, SYN, 1, body=b"x") + frame(DATA, 0, 1, 10)[:11])
        await trio.sleep(600)
        assert not peer.muxer.is_closed
        began = trio.current_time()
        await peer.wire._send.send_all(frame(DATA, 0, 1, 10)[11:] + b"123456789")
        await peer.muxer.event_closed.wait()
        assert trio.current_time() - began == pytest.approx(60, abs=1)


async def test_a_message_full_of_frames_gives_others_their_turn() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with alone() as peer, trio.open_nursery() as nursery:
        number = 4000
        await peer.wire._send.send_all(frame(DATA, SYN, 1) + frame(CREDIT, 0, 1, 1) * number)
        stream = await peer.muxer.accept_stream()
        nursery.start_soon(others)
        while stream.send_window < DEFAULT_WINDOW_SIZE + number:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert turns >= number // AT_ONCE // 2
