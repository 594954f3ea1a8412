"""`FrameStream`: whole frames over one stream, with a queue and a writer of its own.

On the wire a frame is its length in 4 bytes, big-endian, then that many bytes. Length zero is the
end mark: it is written by `aclose`, and a stream that stops without it is broken, never short.

Sending never waits: `send` puts the frame into a bounded queue and returns, a writer task joins
what is queued into few writes. A peer that doesn't take its bytes (queue full, or no progress
within the write timeout) is dropped, so it can't delay anybody else. Producers that may outrun
the peer wait with `flush`.

A frame that has begun to arrive must be whole in a time that follows from its size, or the peer is
dropped: bytes of it can't be held for ever by sending none. How long a peer may say nothing between
frames is the caller's business.

Receiving can be cancelled anywhere: a reader task cuts the bytes into frames, `receive` only takes
what is there. When nobody receives, the reader stops at `inbox_bytes` and the muxer's flow control
holds the peer back.

Neither task is ever cancelled inside the library: an interrupted write would leave the encrypted
connection, which all streams of the peer share, out of step. One task may receive at a time. What
the frames mean is the caller's business.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from pinaivu.errors import InvalidEncoding, PinaivuError
from pinaivu.p2p import PeerId
from pinaivu.p2p.errors import FrameTooLarge, SlowPeer, StreamBroken, StreamEnded

_HEADER: Final = 4
_END_MARK: Final = bytes(_HEADER)
_SLICE: Final = 64 * 1024 - 12  # what the muxer puts into one of its own frames


class BytePipe(Protocol):
    """One stream of a muxed connection, as the library gives it; both directions ordered.

    All but `reset` raise `StreamBroken`. None may be cancelled, except to drop the connection next.
    """

    async def read(self, limit: int) -> bytes:
        """At least one byte, or nothing at the end of the stream."""

    async def write(self, data: bytes) -> None:
        """Hand over all of `data`; waits while the peer takes nothing."""

    async def close(self) -> None:
        """End our direction."""

    async def reset(self) -> None:
        """End both directions and wake a blocked `read` and `write`; never raises."""


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """Hard limits of one stream; sizes in bytes, times in seconds."""

    max_frame: int = 1 << 20
    outbox_bytes: int = 2 << 20  # queued and not yet written; must hold the largest frame
    outbox_frames: int = 4096
    inbox_bytes: int = 1 << 20  # received and not yet taken; the largest frame always fits
    write_timeout: float = 4.0  # without progress; below the muxer's own 5 s
    frame_timeout: float = 10.0  # from a frame's first byte on, and
    frame_rate: int = 32 << 10  # bytes of it per second beyond that
    linger: float = 2.0  # after our end mark, for the peer's

    @classmethod
    def of(cls, max_frame: int) -> "FrameLimits":
        """Limits for frames of up to `max_frame` bytes, with a queue that holds one and more."""
        return cls(max_frame=max_frame, outbox_bytes=max_frame + (1 << 20))


class FrameStream:
    """Frames to and from one peer. Made by `Host`, which also runs it."""

    def __init__(
        self,
        pipe: BytePipe,
        peer: PeerId,
        limits: FrameLimits,
        drop_peer: Callable[[str], None],
    ) -> None:
        """`drop_peer(reason)` closes the connection to the peer; it must not block."""
        self.peer = peer
        self._pipe = pipe
        self._limits = limits
        self._drop_peer = drop_peer
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._inbox: deque[bytes] = deque()
        self._inbox_bytes = 0
        self._error: PinaivuError | None = None  # why nothing more can be sent
        self._end: PinaivuError | None = None  # why nothing more will arrive
        self._closing = False
        self._frame_due: float | None = None  # when the frame that has begun must be whole
        self._frame_watched = False
        self._lost = False  # whether frames were still queued when the stream broke
        self._idle_writer = trio.lowlevel.ParkingLot()
        self._waiting_receiver = trio.lowlevel.ParkingLot()
        self._full_inbox = trio.lowlevel.ParkingLot()
        self._waiting_flush = trio.lowlevel.ParkingLot()
        self._failed = trio.Event()
        self._read_over = trio.Event()
        self._write_over = trio.Event()
        self._over = trio.Event()

    # Sending

    def send(self, frame: bytes) -> None:
        """Queue one frame of 1 to `max_frame` bytes; it is written soon, in order.

        Raises `SlowPeer` when the queue is full (the peer is dropped), `StreamBroken` when the
        stream is closed or broken, `InvalidEncoding` for a frame of a forbidden size.
        """
        if not 0 < len(frame) <= self._limits.max_frame:
            msg = f"a frame here has 1 to {self._limits.max_frame} bytes, not {len(frame)}"
            raise InvalidEncoding(msg)
        if self._error is not None:
            raise _again(self._error)
        if self._closing:
            raise StreamBroken("the stream has been closed on this side")
        size = self._outbox_bytes + _HEADER + len(frame)
        if size > self._limits.outbox_bytes or len(self._outbox) >= 2 * self._limits.outbox_frames:
            raise self._overflow("queue full")
        self._outbox_bytes = size
        self._outbox.append(len(frame).to_bytes(_HEADER))
        self._outbox.append(frame)
        self._idle_writer.unpark()

    async def flush(self) -> None:
        """Wait until everything queued has been handed to the connection.

        Raises what broke the stream if that happens first. Bytes handed over may still be lost.
        """
        while self._outbox_bytes:
            if self._error is not None:
                raise _again(self._error)
            await self._waiting_flush.park()

    # Receiving

    async def receive(self) -> bytes:
        """The next frame. Cancelling loses nothing.

        Raises `StreamEnded` after the peer's end mark, `StreamBroken` when the stream stopped
        without one, `FrameTooLarge` when the peer announced too much; each time it is called.
        """
        await self._wait_for_frame()
        frame = self._inbox.popleft()
        self._take_out(len(frame))
        return frame

    async def receive_many(self) -> list[bytes]:
        """All frames that are there, at least one; otherwise as `receive`."""
        await self._wait_for_frame()
        frames = list(self._inbox)
        self._inbox.clear()
        self._take_out(self._inbox_bytes)
        return frames

    async def _wait_for_frame(self) -> None:
        while not self._inbox:
            if self._end is not None:
                raise _again(self._end)
            await self._waiting_receiver.park()

    def _take_out(self, size: int) -> None:
        self._inbox_bytes -= size
        self._full_inbox.unpark()

    # Ending

    async def aclose(self) -> None:
        """Write everything queued and the end mark, then end our direction.

        What arrives from now on is thrown away. Raises what broke the stream if frames queued
        before were not written. Closing again does nothing more. Cancelling only stops waiting:
        the writing goes on.
        """
        if not self._closing and self._error is None:
            self._closing = True
            self._outbox.append(_END_MARK)
            self._outbox_bytes += _HEADER
            self._idle_writer.unpark()
        await self._write_over.wait()
        if self._lost and self._error is not None:
            raise _again(self._error)

    def reset(self, reason: str = "reset on this side") -> None:
        """End both directions at once; queued and unreceived frames are gone."""
        self._inbox.clear()
        self._inbox_bytes = 0
        self._fail(StreamBroken(reason))

    def drop_peer(self, reason: str) -> None:
        """End this stream and the connection to the peer with all its other streams, at once."""
        self.reset(reason)
        self._drop_peer(reason)

    async def wait_over(self) -> None:
        """Wait until nothing can arrive any more: ended, broken or reset."""
        await self._read_over.wait()

    async def wait_gone(self) -> None:
        """Wait until both directions are over: closed here and there, broken or reset."""
        await self._over.wait()

    @property
    def over(self) -> bool:
        """Whether `wait_over` would return at once."""
        return self._end is not None

    def _overflow(self, why: str) -> SlowPeer:
        error = SlowPeer(f"{self.peer} does not take what is sent to it: {why}")
        self._fail(error)
        self._drop_peer(f"slow: {why}")
        return error

    def _fail(self, error: PinaivuError) -> None:
        if self._over.is_set() or self._error is not None:
            return
        self._error = error
        self._lost = self._outbox_bytes > (_HEADER if self._closing else 0)
        self._finish_reading(error)
        self._outbox.clear()
        self._failed.set()
        self._idle_writer.unpark_all()
        self._waiting_flush.unpark_all()

    def _finish_reading(self, end: PinaivuError) -> None:
        if self._end is None:
            self._end = end
        self._read_over.set()
        self._waiting_receiver.unpark_all()
        self._full_inbox.unpark_all()

    # The tasks behind it

    async def run(self) -> None:
        """Read and write until the stream is over. Never raises; must not be cancelled alone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_failure)
            nursery.start_soon(self._write_loop)
            await self._read_loop(nursery)
            await self._write_over.wait()
            self._over.set()
            self._failed.set()

    async def _watch_failure(self) -> None:
        await self._failed.wait()
        if self._error is not None:
            await self._reset_pipe()

    async def _reset_pipe(self) -> None:
        """Reset the stream; where even that can't be written, only dropping the peer helps."""
        with trio.move_on_after(self._limits.write_timeout) as scope:
            await self._pipe.reset()
        if scope.cancelled_caught:
            self._drop_peer("slow: reset not taken")

    async def _write_loop(self) -> None:
        try:
            while self._error is None:
                if self._outbox:
                    await self._write_some()
                elif self._closing:
                    await self._in_time(self._pipe.close())
                    break
                else:
                    await self._idle_writer.park()
        except StreamBroken as error:
            self._fail(error)
        finally:
            self._write_over.set()
        if self._error is None:
            await self._linger()

    async def _write_some(self) -> None:
        batch = self._next_batch()
        for start in range(0, len(batch), _SLICE):
            await self._in_time(self._pipe.write(batch[start : start + _SLICE]))
            if self._error is not None:
                return
        self._outbox_bytes -= len(batch)
        if not self._outbox_bytes:
            self._waiting_flush.unpark_all()

    async def _in_time(self, step: Awaitable[None]) -> None:
        """Do one write; without progress in time the connection is given up, so may be cut."""
        with trio.move_on_after(self._limits.write_timeout) as scope:
            await step
        if scope.cancelled_caught:
            self._overflow("write timeout")

    def _next_batch(self) -> bytes:
        """What is queued, joined, up to the first frame that reaches a slice's size."""
        parts = []
        size = 0
        while self._outbox and size < _SLICE:
            part = self._outbox.popleft()
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    async def _linger(self) -> None:
        with trio.move_on_after(self._limits.linger):
            await self._read_over.wait()
        if not self._read_over.is_set():
            self._fail(StreamBroken("the peer did not end its direction after ours"))

    async def _read_loop(self, nursery: trio.Nursery) -> None:
        buffer = bytearray()
        try:
            while self._end is None:
                chunk = await self._pipe.read(_SLICE)
                if not chunk:
                    self._fail(StreamBroken("the stream stopped without its end mark"))
                    return
                buffer += chunk
                if self._cut(buffer):
                    self._frame_due = None
                while self._inbox_bytes >= self._limits.inbox_bytes and self._end is None:
                    await self._full_inbox.park()
                if buffer and self._frame_due is None:
                    self._frame_due = trio.current_time() + self._time_for(buffer)
                    if not self._frame_watched:
                        self._frame_watched = True
                        nursery.start_soon(self._watch_frames)
        except StreamBroken as error:
            self._fail(error)

    def _time_for(self, begun: bytearray) -> float:
        """Seconds for the frame that these bytes begin; by half a header it may be the largest."""
        whole = len(begun) >= _HEADER
        size = int.from_bytes(begun[:_HEADER]) if whole else self._limits.max_frame
        return self._limits.frame_timeout + size / self._limits.frame_rate

    async def _watch_frames(self) -> None:
        """Drop the peer if a frame isn't whole when it is due; one watcher, while any is due."""
        while (due := self._frame_due) is not None:
            with trio.move_on_at(due):
                await self._read_over.wait()
                return
            if self._frame_due == due:
                self._fail(SlowPeer(f"{self.peer} began a frame and does not end it"))
                self._drop_peer("slow: unfinished frame")
                return
        self._frame_watched = False

    def _cut(self, buffer: bytearray) -> int:
        """Move whole frames from `buffer` to the inbox; see the end mark and forbidden lengths.

        How many bytes were moved is the result.
        """
        at = 0
        while len(buffer) - at >= _HEADER:
            size = int.from_bytes(buffer[at : at + _HEADER])
            if size > self._limits.max_frame:
                self._too_large(size)
                return at
            if size == 0:
                self._finish_reading(StreamEnded("the peer has ended the stream"))
                return at
            if len(buffer) - at < _HEADER + size:
                break
            if not self._closing:  # after our own end mark nobody receives any more
                self._inbox.append(bytes(memoryview(buffer)[at + _HEADER : at + _HEADER + size]))
                self._inbox_bytes += size
            at += _HEADER + size
        del buffer[:at]
        if self._inbox:
            self._waiting_receiver.unpark()
        return at

    def _too_large(self, size: int) -> None:
        limit = self._limits.max_frame
        self._fail(FrameTooLarge(f"{self.peer} announced {size} bytes, the limit is {limit}"))
        self._drop_peer("oversize frame")


def _again(error: PinaivuError) -> PinaivuError:
    """The same error, fresh: one instance raised twice would drag its old traceback along."""
    return type(error)(*error.args)
