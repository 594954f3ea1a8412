"""`open_host`: one identity on the network, its connections and their liveness.

    async with open_host(secret, listen=["/ip4/0.0.0.0/tcp/4001"]) as host:
        host.serve("/pinaivu/echo/1", echo)
        peer = await host.connect("/ip4/198.51.100.7/tcp/4001/p2p/16Uiu2HA…")
        stream = await host.open_stream(peer, "/pinaivu/echo/1")

The key is an identity key and nothing else, never one that owns money or signs receipts. Only
noise is spoken, so a peer id that a handler sees is proven. A host that cannot be reached simply
doesn't listen. Connections are watched: a peer whose process dies is noticed as its socket ends,
one that freezes or disappears without an answer to a ping, in `Liveness.bound` seconds together.

The host doesn't reconnect (`pinaivu.p2p.links` does) and never dials on its own.
"""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from pinaivu.errors import PinaivuError
from pinaivu.p2p import PeerId
from pinaivu.p2p.connections import Connection, StreamPipe
from pinaivu.p2p.errors import ConnectFailed, NotConnected, StreamBroken, StreamEnded, is_expected
from pinaivu.p2p.frames import FrameLimits, FrameStream
from pinaivu.p2p.library import Library

if TYPE_CHECKING:
    from trio_typing import TaskStatus  # the stubs that mypy finds lack trio.TaskStatus

StreamHandler = Callable[[PeerId, FrameStream], Awaitable[None]]
"""Owns a stream a peer has opened, until it returns; the stream is closed then."""

_SHUTDOWN_SECONDS: Final = 5.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Liveness:
    """When a silent peer is asked, and when it is given up; seconds."""

    ping_after: float = 1.0  # of silence
    answer_within: float = 2.0
    grace: float = 0.5  # once more, where our own process was too busy to hear

    @property
    def bound(self) -> float:
        """The longest a frozen peer goes unnoticed, our own scheduling apart."""
        return self.ping_after + self.answer_within + self.grace


@asynccontextmanager
async def open_host(
    secret: bytes,
    listen: Sequence[str] = (),
    *,
    announce: Sequence[str] = (),
    liveness: Liveness | None = None,
    handshake_timeout: float = 10.0,
    patched: bool = True,
) -> AsyncGenerator["Host"]:
    """Run a host with the identity of a 32-byte secp256k1 `secret` while the block runs.

    `listen`: multiaddrs without a peer id, TCP port 0 for any. `announce`: what `addresses` shows
    instead, where the own view of them is no use to others. `patched`: whether `p2p.patches`
    come into force in this process; a bench compares. Raises `Misconfigured` for an address that
    can't be listened on, `InvalidEncoding` for no valid secret. Blocks for seconds the first time,
    importing the library.
    """
    library = Library(secret, handshake_timeout, patched=patched)
    running = library.run(listen)
    problem: Exception | None = None
    async with trio.open_nursery() as nursery:
        host = Host(library, nursery, announce, liveness or Liveness(), handshake_timeout)
        try:
            await nursery.start(host._run, running, listen)  # noqa: SLF001 - the other half of this
            yield host
        except Exception as error:  # noqa: BLE001 - raised again below, outside the nursery's group
            problem = error
        nursery.cancel_scope.cancel()
    if problem is not None:
        raise problem


class Host:
    """Connections and streams of one identity; made by `open_host`."""

    def __init__(
        self,
        library: Library,
        nursery: trio.Nursery,
        announce: Sequence[str],
        liveness: Liveness,
        open_timeout: float,
    ) -> None:
        self._library = library
        self._nursery = nursery
        self._announce = announce
        self._liveness = liveness
        self._open_timeout = open_timeout
        self._connections: dict[PeerId, list[Connection]] = {}
        self.peer_id = library.peer_id
        self.drops: Counter[str] = Counter()
        """How many peers were dropped, by reason."""
        library.on_connected(self._connected)

    def addresses(self) -> list[str]:
        """Multiaddrs with peer id at which this host can be dialed; empty if it doesn't listen."""
        if self._announce:
            return [f"{address}/p2p/{self.peer_id}" for address in self._announce]
        return self._library.addresses()

    def peers(self) -> list[PeerId]:
        """The peers there is a live connection to."""
        return [peer for peer in self._connections if self._live(peer) is not None]

    async def connect(self, address: str) -> PeerId:
        """Connect to a multiaddr with peer id, unless there is a connection to that peer.

        Raises `ConnectFailed`; `WrongPeer` when another key answers; `Misconfigured` when the
        text is no such address.
        """
        peer = PeerId(address.rpartition("/p2p/")[2])
        if self._live(peer) is None:
            await self._library.dial(address)
        if self._live(peer) is None:
            raise ConnectFailed(f"the connection to {address} ended as soon as it was made")
        return peer

    def drop(self, peer: PeerId, reason: str) -> None:
        """Close every connection to `peer` soon, count the reason; streams to it break."""
        doomed = self._connections.pop(peer, [])
        if doomed:
            self.drops[reason] += 1
            _logger.info("dropping %s: %s", peer, reason)
        for connection in doomed:
            self._nursery.start_soon(connection.abort)

    async def open_stream(
        self, peer: PeerId, protocol: str, limits: FrameLimits | None = None
    ) -> FrameStream:
        """Open a stream over the present connection; costs round trips, so open it ahead of need.

        Raises `NotConnected`, or `StreamBroken` when the peer doesn't agree in time. Cancelling
        is safe: a stream that comes too late is reset.
        """
        connection = self._live(peer)
        if connection is None:
            raise NotConnected(f"there is no connection to {peer}")
        opening = _Opening(connection, protocol, limits or FrameLimits())
        self._nursery.start_soon(self._open, opening)
        try:
            with trio.move_on_after(self._open_timeout + 1):
                await opening.done.wait()
        finally:
            opening.wanted = False
        if opening.error is not None:
            raise opening.error
        if opening.stream is None:
            raise StreamBroken(f"{peer} opened no stream for {protocol} in time")
        return opening.stream

    async def _open(self, opening: "_Opening") -> None:
        """Open outside the caller's cancel scope: an interrupted write ruins the connection."""
        try:
            pipe = await opening.connection.open_pipe(opening.protocol, self._open_timeout)
        except PinaivuError as error:
            opening.error = error
        else:
            if opening.wanted:
                opening.stream = self._frames(opening.connection.peer, pipe, opening.limits)
                self._nursery.start_soon(opening.stream.run)
            else:
                await pipe.reset()
        opening.done.set()

    def serve(
        self, protocol: str, handler: StreamHandler, limits: FrameLimits | None = None
    ) -> None:
        """Let `handler` have every stream that a peer opens for `protocol`.

        It runs in a task of its own and owns the stream until it returns; then the stream is
        closed, or reset if the handler raised. Its exceptions are logged and go no further.
        """
        chosen = limits or FrameLimits()

        async def on_pipe(peer: PeerId, pipe: StreamPipe) -> None:
            stream = self._frames(peer, pipe, chosen)
            self._nursery.start_soon(stream.run)
            await run_on(stream, partial(handler, peer, stream))

        self._library.serve(protocol, on_pipe)

    def _frames(self, peer: PeerId, pipe: StreamPipe, limits: FrameLimits) -> FrameStream:
        return FrameStream(pipe, peer, limits, lambda reason: self.drop(peer, reason))

    def _live(self, peer: PeerId) -> Connection | None:
        """The newest live connection: after a reconnection the older may be a corpse."""
        live = [connection for connection in self._connections.get(peer, ()) if connection.open]
        return live[-1] if live else None

    def _connected(self, connection: Connection) -> None:
        self._connections.setdefault(connection.peer, []).append(connection)
        self._nursery.start_soon(self._watch, connection)

    async def _watch(self, connection: Connection) -> None:
        """Ping when it is silent; give it up without an answer; clean up when it is dead."""
        while connection.open:
            silence = trio.current_time() - connection.heard_at
            if silence < self._liveness.ping_after:
                with trio.move_on_after(self._liveness.ping_after - silence):
                    await connection.wait_closed()
            elif not await self._answers(connection):
                self.drops["silent"] += 1
                _logger.info("dropping %s: silent", connection.peer)
                break
        known = self._connections.get(connection.peer, [])
        if connection in known:
            known.remove(connection)
        if not known:
            self._connections.pop(connection.peer, None)
        await connection.abort()

    async def _answers(self, connection: Connection) -> bool:
        """Whether a ping is answered in time.

        The grace is for us: when this process was stalled the deadline fires before it has read
        what lies in its socket.
        """
        with suppress(NotConnected):
            for patience in (self._liveness.answer_within, self._liveness.grace):
                with trio.move_on_after(patience):
                    await connection.wait_answer()
                    return True
        return False

    async def _run(
        self,
        library: AbstractAsyncContextManager[None],
        listen: Sequence[str],
        *,
        task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run the library in a task of its own: its nurseries shall not be around our callers."""
        async with library:
            try:
                await self._library.start(listen)
                task_status.started()
                await trio.sleep_forever()
            finally:
                deadline = trio.current_time() + _SHUTDOWN_SECONDS
                with trio.CancelScope(shield=True, deadline=deadline):
                    await self._close()

    async def _close(self) -> None:
        async with trio.open_nursery() as nursery:
            for peer in list(self._connections):
                for connection in self._connections.pop(peer):
                    nursery.start_soon(connection.abort)
        await self._library.stop()


@dataclass(slots=True)
class _Opening:
    """A stream being opened, and whether anybody still waits for it."""

    connection: Connection
    protocol: str
    limits: FrameLimits
    done: trio.Event = field(default_factory=trio.Event)
    stream: FrameStream | None = None
    error: PinaivuError | None = None
    wanted: bool = True


async def run_on(stream: FrameStream, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` as the owner of `stream`: close it afterwards, reset it if the work raised.

    Its exceptions are logged and go no further: they end this stream, not the host.
    """
    try:
        with suppress(StreamEnded):  # who reads to the end is done
            await work()
        await stream.aclose()
    except trio.Cancelled:
        stream.reset("shutting down")
        raise
    except Exception as error:
        stream.reset(f"handler failed: {error}")
        if is_expected(error):
            _logger.info("stream of %s: %s", stream.peer, error)
        else:
            _logger.exception("handler failed on a stream of %s", stream.peer)
