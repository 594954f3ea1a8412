"""Locks that are free are taken without giving way.

What the library does: it guards every few lines of state with a `trio.Lock`, some of them around
code that waits for nothing. Moving one message up or down its layers takes about ten of them.

Why it costs: taking a `trio.Lock` is a checkpoint even where nobody holds it. The task goes to the
end of the run queue, often for a whole turn of the event loop with its system call, ten times a
message.

What the patch does: the same attributes hold a `PromptLock`, which is a `trio.Lock` that is taken
at once where it is free, and waited for as before where it isn't.

Why that is right: a lock orders those who hold it, and does so still, first come, first served:
`trio.Lock` hands itself to whoever waits longest and is never free in between, so nobody gets in
ahead. That taking one gave way was a side effect nothing here needs. Whoever moves a byte still
gives way at the socket, where every `send` and `recv` of trio's is a checkpoint, and those that
wait for the peer wait at an event; both can be cancelled there. Loops that run on what is buffered
give way on their own account: see `sockets` and `yamux`.
"""

from types import TracebackType
from typing import Any

import trio
from libp2p.network.stream.net_stream import NetStream
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

from pinaivu.p2p.patches.pins import Patch


class PromptLock:
    """A `trio.Lock` for `async with` that is taken without a checkpoint where it is free."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def __aenter__(self) -> None:
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return self._lock.locked()


def _with_prompt(owner: type, source: str, *names: str) -> Patch:
    """A patch of the constructor of `owner` that puts a `PromptLock` under each name."""
    construct = owner.__init__  # type: ignore[misc]

    def __init__(self: Any, *args: Any, **more: Any) -> None:  # noqa: N807
        construct(self, *args, **more)
        for name in names:
            setattr(self, name, PromptLock())

    return Patch(owner, "__init__", source, __init__)


PATCHES = (
    _with_prompt(YamuxStream, "ab24c0709285d573", "window_lock", "close_lock"),
    _with_prompt(Yamux, "3b11a2a71ca444ca", "streams_lock", "_write_lock"),
    _with_prompt(NetStream, "c1bafd9d5782acb4", "_state_lock"),
)
