"""What of an answer waits for its client: whole events in, as many of them out as are there.

    outlet.write(events)            # never waits
    await outlet.drained()          # before more is fetched
    async for part in outlet.parts():

The first event leaves at once, since nothing is being sent yet. While the client's socket is busy
the later ones gather here and leave together: so chunks are joined under load and never delayed
without it. What may gather is bounded by whoever writes: it waits with `drained` before it fetches
more, so at most `MOST_WAITING` bytes and what came of one read of the network are held.
"""

from collections import deque
from collections.abc import AsyncGenerator
from typing import Final

import trio

from pinaivu.errors import TransportFailure

MOST_WAITING: Final = 256 << 10
"""Bytes that may wait for a client before nothing more is fetched for it."""

STALL_S: Final = 15
"""How long a client may keep its node waiting.

Less than the 20 s after which a node gives up on acknowledgements: who stalls is the client, and
it is not the node that shall be blamed for it.
"""

_FIRST_S: Final = 0.02
"""How long whoever writes gives way to the first part, once."""

_PART_BYTES: Final = 64 << 10  # so that a slow client is seen to take something


class ClientStalled(TransportFailure):
    """The client is there and takes nothing; it counts as gone."""


class Outlet:
    """The way to one client; written by one task, read by one other."""

    def __init__(self) -> None:
        self._held: deque[bytes] = deque()
        self._closed = False
        self._forsaken = False
        self._news = trio.Event()
        self._taken = trio.Event()
        self._begun = trio.Event()
        self.waiting = 0
        """Bytes that the client has not been handed yet."""

    def write(self, events: bytes) -> None:
        """Hand over whole events."""
        if self._forsaken:
            return
        self._held.append(events)
        self.waiting += len(events)
        self._news.set()

    def close(self) -> None:
        """Nothing more will come, and nobody waits for the client any longer."""
        self._closed = True
        self._news.set()
        self._taken.set()

    def forsake(self) -> None:
        """Nobody reads any more: from now on nothing waits."""
        self._forsaken = True
        self._held.clear()
        self.waiting = 0
        self._taken.set()

    async def drained(self) -> None:
        """Wait until more may be written; `ClientStalled` if the client takes too long for that."""
        if self.waiting <= MOST_WAITING:
            return
        with trio.move_on_after(STALL_S) as patience:
            while self.waiting > MOST_WAITING and not self._closed:
                self._taken = trio.Event()
                await self._taken.wait()
        if patience.cancelled_caught:
            raise ClientStalled(f"the client took too little for {STALL_S} s")

    async def begun(self) -> None:
        """Give way until the client's task has the first part in hand, a moment at most, once."""
        if not self._begun.is_set():
            with trio.move_on_after(_FIRST_S):
                await self._begun.wait()
            self._begun.set()

    async def parts(self) -> AsyncGenerator[bytes]:
        """What waits, each time the client can take some; ends after `close`."""
        while True:
            if self._held:
                yield self._next_part()
            elif self._closed:
                return
            else:
                self._news = trio.Event()
                await self._news.wait()

    def _next_part(self) -> bytes:
        """Whole events: something else may be sent between two parts, but not within an event."""
        part, size = [], 0
        while self._held and size < _PART_BYTES:
            events = self._held.popleft()
            part.append(events)
            size += len(events)
        self.waiting -= size
        self._taken.set()
        self._begun.set()
        return b"".join(part)
