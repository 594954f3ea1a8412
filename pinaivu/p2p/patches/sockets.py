"""Reading ahead from a socket.

What the library does: it reads exactly what it needs next, so a message of noise takes two `recv`,
one for its length in two bytes and one for the rest.

Why it costs: a `recv` is a system call and, in trio, a checkpoint.

What the patch does: it reads what has arrived, up to 64 KiB, and serves the next reads from that.

Why that is right: `read(n)` promises up to `n` bytes in order, and all reading of the socket goes
through it. Up to 64 KiB lie in the process instead of the kernel; the kernel holds the peer back as
before once nobody reads. A close by this side drops them, as it did when the kernel held them. What
is served from the buffer is no checkpoint, so one is made after every `AT_ONCE` such reads: a peer
that sends many small messages at once can't keep the event loop from others.
"""

import logging
from typing import Any, Final

import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream

from pinaivu.p2p.patches.locks import PromptLock
from pinaivu.p2p.patches.pins import Patch

AHEAD: Final = 64 * 1024
AT_ONCE: Final = 64
_logger = logging.getLogger(__name__)


def __init__(self: Any, stream: trio.SocketStream) -> None:  # noqa: N807 - takes its place
    """The library's, with nothing read ahead."""
    self.stream = stream
    self.read_lock = PromptLock()
    self.write_lock = PromptLock()
    self._cached_remote_address = None
    self._ahead = b""
    self._taken = 0  # of `_ahead`
    self._served = 0  # reads since the last checkpoint


async def read(self: Any, n: int | None = None) -> bytes:
    """Up to `n` bytes, all that are there without `n`; nothing at the end."""
    if n == 0:
        return b""
    async with self.read_lock:
        if self._taken == len(self._ahead):
            self._ahead, self._taken = await _receive(self.stream), 0
            self._served = 0
        elif self._served >= AT_ONCE:
            self._served = 0
            await trio.lowlevel.checkpoint()
        self._served += 1
        start = self._taken
        some: bytes = self._ahead[start:] if n is None else self._ahead[start : start + n]
        self._taken += len(some)
        return some


async def close(self: Any) -> None:
    """Close, and forget what was read ahead."""
    self._ahead, self._taken = b"", 0
    await self.stream.aclose()


async def _receive(stream: trio.SocketStream) -> bytes:
    try:
        return bytes(await stream.receive_some(AHEAD))
    except trio.BrokenResourceError as error:
        raise ConnectionClosedError(
            f"TCP connection reset by remote peer: {error}", transport="tcp"
        ) from error
    except trio.ClosedResourceError:  # closed on this side: the library's way to say so
        return b""


PATCHES = (
    Patch(TrioTCPStream, "__init__", "4222fa993846189e", __init__),
    Patch(TrioTCPStream, "read", "c606ac89ec9d0eae", read),
    Patch(TrioTCPStream, "close", "27c43b2aa5d43c74", close),
)
