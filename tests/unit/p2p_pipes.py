"""In-memory pipes in place of libp2p streams, to bring `FrameStream` into any state."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from pinaivu.p2p import PeerId
from pinaivu.p2p.errors import StreamBroken
from pinaivu.p2p.frames import FrameLimits, FrameStream

PEER = PeerId("16Uiu2HAmPeer")


class MemoryPipe:
    """A `BytePipe` that reads what the test feeds and keeps what is written, write by write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.writable = trio.Event()
        self.writable.set()
        self.closed = False
        self.was_reset = False
        self.other: MemoryPipe | None = None
        self._feed, self._input = trio.open_memory_channel[bytes](1000)

    @property
    def unread(self) -> int:
        """How many pieces were fed and not yet read."""
        return self._input.statistics().current_buffer_used

    def feed(self, data: bytes) -> None:
        """Let `read` return `data` in one piece."""
        self._feed.send_nowait(data)

    def feed_eof(self) -> None:
        """Let `read` return nothing after what was fed."""
        self._feed.close()

    async def read(self, limit: int) -> bytes:
        """What was fed next, whole."""
        try:
            data = await self._input.receive()
        except trio.EndOfChannel:
            return b""
        if self.was_reset:
            raise StreamBroken("reset")
        assert len(data) <= limit
        return data

    async def write(self, data: bytes) -> None:
        """Keep `data` once the pipe is writable, and feed it to the other end if there is one."""
        await self.writable.wait()
        if self.was_reset:
            raise StreamBroken("reset")
        self.writes.append(data)
        if self.other is not None:
            self.other.feed(data)

    async def close(self) -> None:
        """End this direction."""
        await trio.lowlevel.checkpoint()
        self.closed = True
        if self.other is not None:
            self.other.feed_eof()

    async def reset(self) -> None:
        """End both directions and wake whoever is blocked."""
        await trio.lowlevel.checkpoint()
        self.was_reset = True
        self.writable.set()
        self.feed_eof()
        if self.other is not None:
            self.other.feed_eof()


class Rig:
    """A `FrameStream` over a `MemoryPipe`, and the reasons it gave for dropping its peer."""

    def __init__(self, limits: FrameLimits | None = None) -> None:
        self.pipe = MemoryPipe()
        self.drops: list[str] = []
        self.stream = FrameStream(self.pipe, PEER, limits or FrameLimits(), self.drops.append)


@asynccontextmanager
async def running(limits: FrameLimits | None = None) -> AsyncGenerator[Rig]:
    """A rig whose stream runs in the block, and is reset after it."""
    rig = Rig(limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.stream.run)
        yield rig
        rig.stream.reset("test is over")


@asynccontextmanager
async def connected(
    limits: FrameLimits | None = None,
) -> AsyncGenerator[tuple[FrameStream, FrameStream]]:
    """Two streams that talk to each other."""
    one, two = Rig(limits), Rig(limits)
    one.pipe.other, two.pipe.other = two.pipe, one.pipe
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.stream.run)
        nursery.start_soon(two.stream.run)
        yield one.stream, two.stream
        one.stream.reset("test is over")
        two.stream.reset("test is over")


def framed(*frames: bytes) -> bytes:
    """The bytes of some frames on the wire, written independently of the code under test."""
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
