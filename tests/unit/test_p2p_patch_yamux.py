"""The patched muxer keeps the library's promises: flow control, ends and resets.

Two muxers talk over a pipe in memory that keeps what crosses it, so that credit can be counted.
"""

import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux.yamux import DEFAULT_WINDOW_SIZE, Yamux, YamuxStream

from pinaivu.p2p.patches import patch_libp2p
from tests.integration.p2p_support import until

DATA, CREDIT = 0, 1


@pytest.fixture(autouse=True)
def patched() -> None:
    patch_libp2p()


class Wire:
    """One end of a secured connection in memory; keeps the header of every frame it sends."""

    is_initiator = True

    def __init__(self, send: Any, receive: Any) -> None:
        self._send, self._receive = send, receive
        self.sent: list[tuple[int, int, int, int]] = []  # kind, flags, stream, length

    async def write(self, data: bytes) -> None:
        """Send a frame."""
        _, *header = struct.unpack("!BBHII", data[:12])
        self.sent.append(tuple(header))
        await self._send.send_all(data)

    async def read(self, n: int) -> bytes:
        """Up to `n` bytes."""
        return bytes(await self._receive.receive_some(n))

    async def close(self) -> None:
        """Close both directions."""
        self._send.close()
        self._receive.close()

    def total(self, kind: int) -> int:
        """Bytes of data or of credit sent so far."""
        return sum(length for found, _, _, length in self.sent if found == kind)

    def frames(self, kind: int) -> int:
        """Frames without flags of a kind sent so far."""
        return sum(found == kind and not flags for found, flags, _, _ in self.sent)


class Pair(SimpleNamespace):
    """Two muxers, a stream between them, and the wires beneath."""

    near: YamuxStream
    far: YamuxStream
    near_wire: Wire
    far_wire: Wire


@asynccontextmanager
async def muxed() -> AsyncGenerator[Pair]:
    """A stream, and its other end."""
    one, two = trio.testing.memory_stream_pair()
    wires = [Wire(end.send_stream, end.receive_stream) for end in (one, two)]
    near, far = (
        Yamux(wire, "peer", is_initiator=first)
        for wire, first in zip(wires, (True, False), strict=True)
    )
    async with trio.open_nursery() as nursery:
        for muxer in (near, far):
            nursery.start_soon(muxer.start)
            await muxer.event_started.wait()
        opened = await near.open_stream()
        accepted = await far.accept_stream()
        yield Pair(near=opened, far=accepted, near_wire=wires[0], far_wire=wires[1])
        nursery.cancel_scope.cancel()


async def read_whole(stream: YamuxStream, size: int, step: int = 65536) -> bytes:
    whole = bytearray()
    while len(whole) < size:
        whole += await stream.read(min(step, size - len(whole)))
    return bytes(whole)


async def test_small_reads_give_no_credit_before_half_a_window() -> None:
    """And then all of it in one frame."""
    size, number = 1024, DEFAULT_WINDOW_SIZE // 2 // 1024
    async with muxed() as pair:
        for count in range(1, number + 1):
            await pair.near.write(bytes(size))
            assert await read_whole(pair.far, size) == bytes(size)
            assert pair.far_wire.frames(CREDIT) == (count == number)
        assert pair.far_wire.total(CREDIT) >= size * number


async def test_a_writer_waits_for_a_reader_that_doesnt_read() -> None:
    """It sends a window and not a byte more, and goes on once half of it was read."""
    much = bytes(4 * DEFAULT_WINDOW_SIZE)
    async with muxed() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.near.write, much)
        await until(lambda: pair.near._zero_window_waits > 0)
        assert pair.near_wire.total(DATA) == DEFAULT_WINDOW_SIZE
        await read_whole(pair.far, DEFAULT_WINDOW_SIZE // 2 - 1, 999)
        assert pair.far_wire.total(CREDIT) == 0
        rest = len(much) - (DEFAULT_WINDOW_SIZE // 2 - 1)
        assert await read_whole(pair.far, rest) == bytes(rest)


@pytest.mark.parametrize("step", [7_000, 65_536, 1 << 20])
async def test_much_goes_both_ways_and_never_beyond_the_credit(step: int) -> None:
    """What is on its way or unread is never more than the windows that were given."""
    there, back = bytes(range(256)) * 16_000, bytes(range(255, -1, -1)) * 16_000
    async with muxed() as pair:
        got: dict[str, bytes] = {}

        async def read(name: str, stream: YamuxStream, writer: Wire, reader: Wire) -> None:
            whole = bytearray()
            while len(whole) < len(there):
                whole += await stream.read(step)
                assert writer.total(DATA) <= DEFAULT_WINDOW_SIZE + reader.total(CREDIT)
                held = reader.total(CREDIT) + DEFAULT_WINDOW_SIZE - len(whole)
                assert held <= stream.target_recv_window
            got[name] = bytes(whole)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.near.write, there)
            nursery.start_soon(pair.far.write, back)
            nursery.start_soon(read, "there", pair.far, pair.near_wire, pair.far_wire)
            nursery.start_soon(read, "back", pair.near, pair.far_wire, pair.near_wire)
        assert got == {"there": there, "back": back}


async def test_a_writer_gives_up_a_window_that_stays_shut(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with muxed() as pair:
        await pair.near.write(bytes(DEFAULT_WINDOW_SIZE))
        began = trio.current_time()
        with pytest.raises(MuxedStreamError, match="Timed out"):
            await pair.near.write(b"x")
        assert trio.current_time() - began == pytest.approx(5.0, abs=0.02)


async def test_one_direction_ends_and_the_other_goes_on() -> None:
    async with muxed() as pair:
        await pair.near.write(b"all")
        await pair.near.close()
        assert await pair.far.read(10) == b"all"
        with pytest.raises(MuxedStreamEOF):
            await pair.far.read(10)
        with pytest.raises(MuxedStreamError):
            await pair.near.write(b"more")
        await pair.far.write(b"answer")
        assert await pair.near.read(10) == b"answer"


async def test_a_reset_reaches_whoever_reads_or_writes() -> None:
    async with muxed() as pair, trio.open_nursery() as nursery:

        async def reads() -> None:
            with pytest.raises((MuxedStreamReset, MuxedStreamEOF)):  # the stream is forgotten
                await pair.far.read(10)

        async def writes() -> None:
            with pytest.raises(MuxedStreamError):
                await pair.far.write(bytes(2 * DEFAULT_WINDOW_SIZE))

        nursery.start_soon(reads)
        nursery.start_soon(writes)
        await until(lambda: pair.far._zero_window_waits > 0)
        await pair.near.reset()


async def test_what_arrived_before_the_end_is_read_after_it() -> None:
    async with muxed() as pair:
        await pair.near.write(b"0123456789")
        await pair.near.close()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert [await pair.far.read(4) for _ in range(3)] == [b"0123", b"4567", b"89"]


async def test_a_read_that_leaves_something_gives_way() -> None:
    async with muxed() as pair:
        await pair.near.write(b"0123456789")
        await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.testing.assert_checkpoints():
            assert await pair.far.read(4) == b"0123"
