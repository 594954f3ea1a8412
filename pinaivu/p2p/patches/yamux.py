"""Frames of yamux without what nobody reads.

`_write_frame`. The library takes every frame apart again and formats it for a log that is off, then
makes a checkpoint beside the one that the socket makes. The patch writes the frame. Who writes
gives way in `send`; what `send` refuses ends the writer.

`write`. The library takes two locks to look at one number, nothing in between waiting. The patch
looks. No frame exceeds the window as it was at that moment, and the window is taken before anybody
else can look; that several writers' frames of one stream mix was so before, and still is.

`read_stream`. The library formats what it sees, four times a read. The patch has the same cases in
the same order. A read that leaves something in the buffer gives way, so that emptying a large
buffer can't keep the event loop from others.

`_auto_tune_and_send_window_update`. The library, by its docstring, follows go-yamux: it gives
credit back once half a window is to be given. Two further branches give it back with nearly every
small read, so that half of all frames are window updates, each encrypted, sent and read; one of
them gives back `delta + bytes_read` where `delta` contains `bytes_read`, which lets the peer send
more than the window. It also asks the environment, at each read, whether half is to be another
part. The patch has the first branch alone, and half is half. A peer is never stuck: what is neither
credit nor in the buffer has been read and is `delta`, so once the credit is used up and the buffer
is read, `delta` is the whole window, and it was given back when it passed the half.
"""

import struct
from typing import Any, Final

import trio
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux.yamux import (
    HEADER_SIZE,
    MAX_MESSAGE_SIZE,
    TYPE_DATA,
    YAMUX_HEADER_FORMAT,
    Yamux,
    YamuxStream,
)

from pinaivu.p2p.patches.pins import Patch

_LARGEST: Final = MAX_MESSAGE_SIZE - HEADER_SIZE
_WINDOW_WITHIN_S: Final = 5.0
_POLL_S: Final = 0.01
_header: Final = struct.Struct(YAMUX_HEADER_FORMAT).pack


async def write_frame(self: Any, data: bytes) -> None:
    """Write one whole frame, after those that came before."""
    async with self._write_lock:
        await self.secured_conn.write(data)


async def write(self: Any, data: bytes) -> None:
    """Send `data` as the window allows; waits up to 5 s for it to open."""
    if self.send_closed:
        raise MuxedStreamError("Stream is closed for sending")
    sent = 0
    while sent < len(data):
        if self.send_closed:
            raise MuxedStreamError("Stream is closed for sending")
        if self.closed:
            raise MuxedStreamError("Stream is closed")
        size = min(self.send_window, _LARGEST, len(data) - sent)
        if size <= 0:
            await _wait_for_window(self)
            continue
        self.send_window -= size
        header = _header(0, TYPE_DATA, 0, self.stream_id, size)
        await self.conn._write_frame(header + data[sent : sent + size])  # noqa: SLF001
        sent += size


async def _wait_for_window(stream: Any) -> None:
    stream._zero_window_waits += 1  # noqa: SLF001
    with trio.move_on_after(_WINDOW_WITHIN_S) as scope:
        while stream.send_window <= 0 and not stream.closed:  # noqa: ASYNC110 - as the library does
            await trio.sleep(_POLL_S)
    if scope.cancelled_caught:
        raise MuxedStreamError("Timed out waiting for window update after 5 seconds.")


async def read_stream(self: Any, stream_id: int, n: int | None = -1) -> bytes:
    """What has arrived for a stream, up to `n` bytes where `n` is not negative or None."""
    while True:
        async with self.streams_lock:
            some = _take(self, stream_id, n)
            left = bool(some and self.stream_buffers.get(stream_id))
        if left:
            await trio.lowlevel.checkpoint()
        if some is not None:
            return some
        try:
            await self.stream_events[stream_id].wait()
            self.stream_events[stream_id] = trio.Event()
        except KeyError:
            raise MuxedStreamEOF("Stream was removed") from None


def _take(muxer: Any, stream_id: int, n: int | None) -> bytes | None:
    """Bytes out of a stream's buffer; None where some may still come, an error where not."""
    stream = muxer.streams.get(stream_id)
    if stream is None:
        raise MuxedStreamEOF("Stream closed")
    if muxer.event_shutting_down.is_set():
        raise MuxedStreamEOF("Connection shut down")
    buffer = muxer.stream_buffers.get(stream_id)
    if buffer and (stream.recv_closed or not stream.reset_received):
        size = len(buffer) if n is None or n < 0 else min(n, len(buffer))
        some = bytes(memoryview(buffer)[:size])
        del buffer[:size]
        if stream.closed:
            muxer._finalize_stream_locked(stream, fully_closed=True)  # noqa: SLF001
        return some
    if stream.reset_received:
        raise MuxedStreamReset("Stream was reset")
    if buffer is None or stream.recv_closed:
        raise MuxedStreamEOF("Stream is closed for receiving")
    if stream.closed:
        raise MuxedStreamReset("Stream is reset or closed")
    return None


async def send_credit(self: Any, *, bytes_read: int = 0) -> None:  # noqa: ARG001 - takes its place
    """Give the peer credit for what was read, once it is half a window."""
    buffered = len(self.conn.stream_buffers.get(self.stream_id, b""))
    delta = self.target_recv_window - (self.recv_window + buffered)
    if delta <= 0 or delta < self.target_recv_window // 2:
        return
    credit = self._grow_to_delta(buffered) + self._apply_autotune_epoch(buffered)
    await self.send_window_update(credit, skip_lock=True)


PATCHES = (
    Patch(Yamux, "_write_frame", "16ff969cdd0d2b1b", write_frame),
    Patch(Yamux, "read_stream", "d07c99299384666d", read_stream),
    Patch(YamuxStream, "write", "d87f74dfb53ab194", write),
    Patch(YamuxStream, "_auto_tune_and_send_window_update", "6ebcbd822fe7f996", send_credit),
)
