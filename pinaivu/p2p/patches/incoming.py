"""Taking the muxer's frames as they come.

What the library does: for each frame it asks the session for a header of 12 bytes and then for a
body, through five layers each time, sets a timer for the body though it came in the same message,
and formats four lines for a log that is off. It has three copies of what a frame with data or
credit does: for one that opens a stream, one that accepts it, and any other.

Why it costs: together about as much as decrypting the message and waking its reader.

What the patch does: it takes what a message of noise held, whole, and cuts frames from it. The
timer is set only while the body of a frame is outstanding. One function says what a frame does.

Why that is right: the same bytes in the same order lead to the same calls on streams, buffers and
events, under the same lock. Three things differ. An end or a reset on a frame that also accepts a
stream is heeded, as the specification of yamux has it; the library overlooks it. A peer that sends
beyond its window is cut off, where the library takes and keeps whatever comes. And any failure
ends the connection, where the library goes on reading after some of them, out of step. Cutting
frames from what is there gives nobody else a turn, so that one is given after every `AT_ONCE`: a
message may hold five thousand.
"""

import logging
import struct
from typing import Any, Final

import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.stream_muxer.yamux.yamux import (
    FLAG_ACK,
    FLAG_FIN,
    FLAG_RST,
    FLAG_SYN,
    HEADER_SIZE,
    MAX_WINDOW_SIZE,
    TYPE_DATA,
    TYPE_GO_AWAY,
    TYPE_PING,
    TYPE_WINDOW_UPDATE,
    YAMUX_HEADER_FORMAT,
    Yamux,
    YamuxStream,
    _yamux_data_read_timeout,
)

from pinaivu.p2p.patches.pins import Patch

AT_ONCE: Final = 64
_header: Final = struct.Struct(YAMUX_HEADER_FORMAT)
_logger = logging.getLogger(__name__)


async def handle_incoming(self: Any) -> None:
    """Take frames until the connection is closed on this side, ends or fails."""
    try:
        await _take_frames(self)
    except Exception as error:  # noqa: BLE001 - whatever it is, the connection is of no more use
        _logger.debug("connection to %s: %r", self.peer_id, error)
        self.event_shutting_down.set()
        await self._cleanup_on_error()


async def _take_frames(muxer: Any) -> None:
    ahead = bytearray()
    taken = 0
    while not muxer.event_shutting_down.is_set():
        await _fill(muxer, ahead, HEADER_SIZE)
        _, kind, flags, stream_id, length = _header.unpack_from(ahead)
        body = b""
        del ahead[:HEADER_SIZE]
        if kind == TYPE_DATA and length:
            if length > MAX_WINDOW_SIZE:
                raise ConnectionClosedError(f"a frame of {length} bytes was announced")
            if len(ahead) < length:
                with trio.fail_after(_yamux_data_read_timeout()):
                    await _fill(muxer, ahead, length)
            body = bytes(memoryview(ahead)[:length])
            del ahead[:length]
        if kind in (TYPE_DATA, TYPE_WINDOW_UPDATE):
            await _take_for_stream(muxer, kind, flags, stream_id, length, body)
        else:
            await _take_for_connection(muxer, kind, flags, length)
        taken += 1
        if taken % AT_ONCE == 0:
            await trio.lowlevel.checkpoint()


async def _fill(muxer: Any, ahead: bytearray, size: int) -> None:
    """Have at least `size` bytes; the session raises where there are no more."""
    while len(ahead) < size:
        some = await muxer.secured_conn.read()
        if not some:
            raise ConnectionClosedError("the connection has ended")
        ahead += some


async def _take_for_connection(muxer: Any, kind: int, flags: int, value: int) -> None:
    if kind == TYPE_GO_AWAY:
        raise ConnectionClosedError(f"the peer goes away, code {value}")
    if kind != TYPE_PING:
        return
    if flags & FLAG_SYN:
        await muxer._write_frame(_header.pack(0, TYPE_PING, FLAG_ACK, 0, value))  # noqa: SLF001
    elif flags & FLAG_ACK:
        took = trio.current_time() - muxer._ping_sent_time  # noqa: SLF001
        muxer._rtt = (muxer._rtt + took) / 2 if muxer._rtt else took  # noqa: SLF001
        muxer._ping_event.set()  # noqa: SLF001


async def _take_for_stream(
    muxer: Any, kind: int, flags: int, stream_id: int, length: int, body: bytes
) -> None:
    async with muxer.streams_lock:
        stream = muxer.streams.get(stream_id)
        opened = stream is None and bool(flags & FLAG_SYN)
        refused = stream is not None and bool(flags & FLAG_SYN)
        if opened:
            stream = muxer.streams[stream_id] = YamuxStream(stream_id, muxer, False)
            muxer.stream_buffers[stream_id] = bytearray()
            muxer.stream_events[stream_id] = trio.Event()
        if stream is not None and not refused:
            _apply(muxer, stream, kind, flags, length, body)
    if refused:
        await _answer(muxer, FLAG_RST, stream_id)
    elif opened:
        if not flags & FLAG_RST:
            await _answer(muxer, FLAG_ACK, stream_id)
        await muxer.new_stream_send_channel.send(stream)


def _apply(muxer: Any, stream: Any, kind: int, flags: int, length: int, body: bytes) -> None:
    """What a frame does to its stream; whoever holds the lock calls this."""
    event = muxer.stream_events[stream.stream_id]
    if kind == TYPE_WINDOW_UPDATE:
        stream.send_window += length
    else:
        if len(body) > stream.recv_window:
            raise ConnectionClosedError("the peer sends more than it has credit for")
        muxer.stream_buffers[stream.stream_id] += body
        stream.recv_window -= len(body)
    if flags & FLAG_FIN:
        stream.recv_closed = True
        stream.closed = stream.closed or stream.send_closed
    if flags & FLAG_RST:
        stream.closed = stream.reset_received = True
    if kind == TYPE_DATA or flags & (FLAG_FIN | FLAG_RST):
        event.set()
    if stream.closed:
        muxer._finalize_stream_locked(stream, fully_closed=True)  # noqa: SLF001


async def _answer(muxer: Any, flag: int, stream_id: int) -> None:
    frame = _header.pack(0, TYPE_WINDOW_UPDATE, flag, stream_id, 0)
    await muxer._write_frame(frame)  # noqa: SLF001


PATCHES = (Patch(Yamux, "handle_incoming", "ad15ff6943feac20", handle_incoming),)
