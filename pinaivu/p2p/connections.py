"""Connections and streams of py-libp2p, as the host uses them: pinged, opened, ended, dropped.

`Connection` is one connection to an authenticated peer, `StreamPipe` a `BytePipe` over one of its
streams. What is promised beyond the library: a peer can be dropped and a reader woken at once,
whatever is being written, and a ping costs a header. Foreign exceptions end here.

Written for version 0.8.1, as `pinaivu.p2p.library`, which makes the connections. Nothing outside
`pinaivu.p2p` should import this module.
"""

import logging
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from pinaivu.p2p import PeerId
from pinaivu.p2p.errors import NotConnected, StreamBroken

_YAMUX_PING: Final = struct.pack("!BBHII", 0, 2, 1, 0, 0x7069)  # type 2 ping, flag SYN
_YAMUX_STREAMS: Final = 256


class Connection:
    """One connection to an authenticated peer."""

    def __init__(self, peer: PeerId, conn: Any) -> None:
        self.peer = peer
        self.heard_at = trio.current_time()
        self._conn = conn
        self._muxer = conn.muxed_conn
        self._answered: trio.Event | None = None  # of the ping under way

    @property
    def open(self) -> bool:
        """Whether the connection still carries data."""
        return not self._muxer.event_shutting_down.is_set()

    async def wait_closed(self) -> None:
        """Wait until the connection is known to be dead."""
        await self._muxer.event_shutting_down.wait()

    async def wait_answer(self) -> None:
        """Ping the peer's muxer and return when it has answered; once answered, the next one pings.

        Cancelling may cut the ping short half-written: then no answer comes, and all that is left
        is to `abort`. The library's own probe opens a stream and negotiates a protocol, some 20 ms
        of CPU on both sides each time; the muxer's ping is one header. Its reader sets
        `_ping_event` for any answer and takes the round-trip time, by which it sizes its windows.

        Raises `NotConnected` where the connection turns out to be gone: who was frozen for a while
        pings peers that gave it up, before its reader has seen that they did.
        """
        if self._answered is None:
            self._answered = self._muxer._ping_event = trio.Event()  # noqa: SLF001
            self._muxer._ping_sent_time = trio.current_time()  # noqa: SLF001
            try:
                await self._muxer._write_frame(_YAMUX_PING)  # noqa: SLF001
            except Exception as error:
                raise NotConnected(f"{self.peer} can't be pinged: {error!r}") from error
        await self._answered.wait()
        self._answered = None
        self.heard_at = trio.current_time()

    async def abort(self) -> None:
        """Close the socket first, whatever is being written, then let the library clean up.

        The other way round its farewell would wait behind a peer that takes nothing.
        """
        await quietly(self._muxer.secured_conn.close)
        await quietly(self._conn.close)

    async def open_pipe(self, protocol: str, negotiate_timeout: float) -> "StreamPipe":
        """Open a stream and agree on `protocol`. Must not be cancelled: it writes.

        Raises `NotConnected` where no stream can be had, `StreamBroken` when it fails half-way.
        """
        from libp2p.protocol_muxer.multiselect_client import MultiselectClient  # noqa: PLC0415
        from libp2p.protocol_muxer.multiselect_communicator import (  # noqa: PLC0415
            MultiselectCommunicator,
        )

        if not self.open:
            raise NotConnected(f"the connection to {self.peer} is closed")
        if self._muxer.stream_backlog_semaphore.value == 0:  # the library would wait, for ever
            raise NotConnected(f"{_YAMUX_STREAMS} streams to {self.peer} are open already")
        stream = None
        try:
            stream = await self._conn.new_stream()
            await MultiselectClient().select_one_of(
                [protocol], MultiselectCommunicator(stream), negotiate_timeout
            )
        except Exception as error:
            if stream is not None:
                await StreamPipe(self, stream).reset()
            raise StreamBroken(f"{self.peer} gave no stream for {protocol}: {error!r}") from error
        return StreamPipe(self, stream)


class StreamPipe:
    """A `BytePipe` over one of the library's streams."""

    def __init__(self, connection: Connection, stream: Any) -> None:
        self._connection = connection
        self._stream = stream
        self._muxed = stream.muxed_stream

    async def read(self, limit: int) -> bytes:
        """At least one byte, or nothing at the end."""
        from libp2p.network.stream.exceptions import StreamEOF  # noqa: PLC0415

        try:
            data = await self._stream.read(limit)
        except StreamEOF:
            return b""
        except Exception as error:
            raise StreamBroken(f"reading from {self._connection.peer}: {error!r}") from error
        self._connection.heard_at = trio.current_time()
        return bytes(data)

    async def write(self, data: bytes) -> None:
        """Hand `data` to the connection."""
        try:
            await self._stream.write(data)
        except Exception as error:
            raise StreamBroken(f"writing to {self._connection.peer}: {error!r}") from error

    async def close(self) -> None:
        """End our direction; the library forgets the stream when the other one ends."""
        try:
            await self._stream.close()
        except Exception as error:
            raise StreamBroken(f"closing to {self._connection.peer}: {error!r}") from error

    async def reset(self) -> None:
        """End both directions.

        The muxer forgets a reset stream together with the event its reader waits for, so the
        reader is woken here; it then puts a new event back, which has to go as well.
        """
        events = self._muxed.conn.stream_events
        waiting = events.get(self._muxed.stream_id)
        await quietly(self._stream.reset)
        if waiting is not None:
            waiting.set()
            await trio.lowlevel.checkpoint()
        if self._muxed.stream_id not in self._muxed.conn.streams:
            events.pop(self._muxed.stream_id, None)


async def quietly(ending: Callable[[], Awaitable[Any]]) -> None:
    """Run a clean-up of the library; there is nobody who could act on its failure."""
    try:
        await ending()
    except Exception:
        logging.getLogger(__name__).debug("clean-up failed", exc_info=True)
