"""Links that outlive a connection: dialing out again and again, and streams opened ahead of need.

The side that can't be reached dials and opens streams; the side that listens uses them:

- `connect_any` connects to a peer that may be at several addresses.
- `keep_connected` holds one control stream to such a peer for ever, by reconnecting.
- `keep_ready` (the dialing side) keeps a number of idle streams open to a connected peer. A
  stream is idle until its first frame arrives; then another one is opened in its place.
- `ReadyPool` (the listening side) collects them and hands them out.

Delays and randomness are arguments, so that tests decide them. What is said on the streams is the
callers' business.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import trio

from pinaivu.errors import Misconfigured, PinaivuError
from pinaivu.p2p import PeerId
from pinaivu.p2p.errors import (
    ConnectFailed,
    NoReadyStream,
    StreamBroken,
    TooManyStreams,
    WrongPeer,
    is_expected,
)
from pinaivu.p2p.frames import FrameLimits, FrameStream
from pinaivu.p2p.host import Host, run_on

Session = Callable[[FrameStream], Awaitable[None]]
Job = Callable[[FrameStream, bytes], Awaitable[None]]
"""Gets a ready stream together with the first frame that came on it."""

_GIVE_WAY_S = 0.02  # opening a stream costs both sides a millisecond, before a first token
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt; seconds.

    The ceiling doubles from `first` to `most` with each failure in a row; the wait is drawn from
    its upper half, so that peers of a restarted listener don't come back all at once. A session
    that lasted `healthy_after` starts the series anew.
    """

    first: float = 0.2
    most: float = 10.0
    healthy_after: float = 5.0

    def delay(self, failures: int, random: Callable[[], float]) -> float:
        """The wait after this many failures in a row, at least one; `random` is in [0, 1)."""
        ceiling: float = min(self.first * 2.0 ** min(failures - 1, 32), self.most)
        return ceiling * (1 + random()) / 2


async def connect_any(host: Host, addresses: Sequence[str]) -> PeerId:
    """Connect to a peer at the first of its addresses that answers under its key.

    One after the other, each with the host's own patience. Raises what the last one failed with:
    `ConnectFailed` or `WrongPeer`, and `Misconfigured` only where none of them is an address.
    """
    if not addresses:
        raise ConnectFailed("there is no address to dial")
    failures = list[PinaivuError]()
    for address in addresses:
        try:
            return await host.connect(address)
        except (ConnectFailed, WrongPeer, Misconfigured) as error:
            failures.append(error)
            if len(addresses) > 1:
                _logger.info("%s", error)
    raise next((e for e in reversed(failures) if _is_passing(e)), failures[-1])


async def keep_connected(
    host: Host,
    addresses: tuple[str, ...],
    protocol: str,
    session: Session,
    *,
    random: Callable[[], float],
    backoff: Backoff | None = None,
    limits: FrameLimits | None = None,
    sleep: Callable[[float], Awaitable[None]] = trio.sleep,
) -> NoReturn:
    """Connect to a peer, run `session` on a stream for `protocol`, and so again, for ever.

    The session ends when its stream does, at the latest when it receives; it may return or raise
    one of our errors, which is logged. Any other exception is a bug and goes to the caller, and so
    does `Misconfigured` where no address can be parsed. `random` returns numbers in [0, 1).
    """
    policy = backoff or Backoff()
    failures = 0
    while True:
        started = trio.current_time()
        try:
            peer = await connect_any(host, addresses)
            stream = await host.open_stream(peer, protocol, limits)
            await _run_session(session, stream)
        except BaseExceptionGroup as group:
            ours, rest = group.split(_is_passing)
            if rest is not None:  # perhaps a cancellation, which a lost stream must not break
                raise rest from None
            _logger.info("link to %s: %s", " or ".join(addresses), ours)
        except Exception as error:
            if not _is_passing(error):
                raise
            _logger.info("link to %s: %s", " or ".join(addresses), error)
        lasted = trio.current_time() - started
        failures = 1 if lasted >= policy.healthy_after else failures + 1
        await sleep(policy.delay(failures, random))


def _is_passing(error: BaseException) -> bool:
    return is_expected(error) and not isinstance(error, Misconfigured)


async def _run_session(session: Session, stream: FrameStream) -> None:
    try:
        await session(stream)
        await stream.aclose()
    except BaseException:
        stream.reset("the session failed")
        raise


async def keep_ready(
    host: Host,
    peer: PeerId,
    protocol: str,
    job: Job,
    *,
    jobs: trio.Nursery,
    idle: int = 4,
    limits: FrameLimits | None = None,
    pause: float = 1.0,
) -> NoReturn:
    """Keep `idle` unused streams open to a connected peer; run `job` on each that is used.

    Jobs run in the nursery `jobs`, which should outlive the connection: they see it break on
    their own streams, and their exceptions are logged and go no further. A stream that breaks
    unused, or can't be opened, is tried again after `pause` seconds. While more than half of them
    are left, the next one gives way for a moment to the job that begins. Runs until cancelled;
    raises `NotConnected` when the connection is gone. Unused streams are reset in the end.
    """
    unused: set[FrameStream] = set()
    places = trio.Semaphore(idle)
    try:
        while True:
            await places.acquire()
            if len(unused) > idle // 2:
                await trio.sleep(_GIVE_WAY_S)
            try:
                stream = await host.open_stream(peer, protocol, limits)
            except StreamBroken as error:
                _logger.info("no ready stream to %s: %s", peer, error)
                places.release()
                await trio.sleep(pause)
            else:
                unused.add(stream)
                jobs.start_soon(_await_job, stream, job, unused, places, pause)
    finally:
        for stream in unused:
            stream.reset("no longer kept ready")


async def _await_job(
    stream: FrameStream,
    job: Job,
    unused: set[FrameStream],
    places: trio.Semaphore,
    pause: float,
) -> None:
    try:
        first = await stream.receive()
    except PinaivuError as error:
        _logger.debug("ready stream of %s: %s", stream.peer, error)
        stream.reset("ended unused")
        await trio.sleep(pause)
        return
    finally:
        unused.discard(stream)
        places.release()
    await run_on(stream, partial(job, stream, first))


class ReadyPool:
    """The unused streams of each peer, oldest first; `accept` is the handler to serve them with."""

    def __init__(self, most_per_peer: int = 64) -> None:
        """A peer may lay up to `most_per_peer` streams ready; more are refused."""
        self._most = most_per_peer
        self._unused: dict[PeerId, deque[FrameStream]] = {}
        self._taken: set[FrameStream] = set()
        self._arrival = trio.Event()

    async def accept(self, peer: PeerId, stream: FrameStream) -> None:
        """Hold a stream a peer has opened: unused until it is over, used until it is gone.

        Whoever serves it closes it when this returns, and one that was handed out is its taker's
        to close: a peer that has said its last may still be listening.
        """
        waiting = self._unused.setdefault(peer, deque())
        if len(waiting) >= self._most:
            raise TooManyStreams(f"{peer} holds {self._most} unused streams already")
        waiting.append(stream)
        self._arrival.set()
        self._arrival = trio.Event()
        try:
            await stream.wait_over()
            if stream in self._taken:
                await stream.wait_gone()
        finally:
            self._taken.discard(stream)
            self._forget(peer, stream)

    def count(self, peer: PeerId) -> int:
        """How many unused streams `peer` has here."""
        return len(self._unused.get(peer, ()))

    def peers(self) -> list[PeerId]:
        """The peers with at least one unused stream."""
        return list(self._unused)

    async def take(self, peer: PeerId, within: float = 0.0) -> FrameStream:
        """An unused stream of `peer`, waiting up to `within` seconds for one to be opened.

        The caller owns it now and closes or resets it. Raises `NoReadyStream`. That the stream
        looked alive is no promise: a peer may have died since.
        """
        with trio.move_on_after(within):
            while (stream := self._pop(peer)) is None:
                await self._arrival.wait()
            return stream
        raise NoReadyStream(f"{peer} has no unused stream open")

    def _pop(self, peer: PeerId) -> FrameStream | None:
        waiting = self._unused.get(peer)
        while waiting:
            stream = waiting.popleft()
            if not waiting:
                del self._unused[peer]
            if not stream.over:
                self._taken.add(stream)
                return stream
        return None

    def _forget(self, peer: PeerId, stream: FrameStream) -> None:
        waiting = self._unused.get(peer)
        if waiting is not None and stream in waiting:
            waiting.remove(stream)
            if not waiting:
                del self._unused[peer]
