"""Chain records as the coordinator uses them: read in worker threads, kept while they are in use.

A record is taken as it is for 3 s. One that is in use, every 3 s at least, is read anew meanwhile
and still taken up to 10 s, so that its users never wait for the chain. Any other is waited for.
While the chain can't be read, what was read within the last hour serves: a chain that is down
delays settlement and nothing else. What was never read can't be answered.

Nothing is read ahead unless `run` is running; without it, what is older than 3 s is waited for.

Jobs name payers as they like, so of each kind only the records used last are kept, as many as a
book has places. Who is not on chain as a node, gateway or model takes no place. Nor do strangers
hold up others: reads have threads of their own, those of the unknown apart from those of the known.
"""

import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from math import inf
from threading import Lock
from typing import Any, Final, Generic, TypeVar

import trio
from msgspec import Struct

from coordinator.ports import ChainView, ModelRecord, NodeRecord, PayerRecord
from pinaivu.auction.replay import MOST_SLOTS
from pinaivu.errors import PinaivuError, TransportFailure

T = TypeVar("T")
FRESH_S: Final = 3.0
BOUND_S: Final = 10.0
"""The age up to which a record is used although a newer one could be had by waiting."""
MOST: Final = MOST_SLOTS
_USABLE_S: Final = 3600.0
_READS_AHEAD: Final = 8  # at once: a slow chain must not take the threads that others need
_READS_WAITED: Final = 8  # at once of each kind, of the known and again of the unknown
_logger = logging.getLogger(__name__)
_Key = tuple[str, Any]


class Seen(Struct, Generic[T], frozen=True, kw_only=True):
    """A record as it was read. `noted` is what its reader noted right before it asked the chain."""

    value: T
    noted: int
    asked_at: float  # trio's clock
    call: int  # how often all was called for anew before that


class Directory:
    """An async, caching face of a `ChainView`."""

    def __init__(self, view: ChainView, most: int = MOST) -> None:
        """At most `most` records of each kind are kept."""
        self._view = view
        self._most = most
        self._kept: dict[_Key, Seen[Any]] = {}
        # Those kept, by kind, the one unused longest first; when last, by trio's clock.
        self._used = defaultdict[str, OrderedDict[_Key, float]](OrderedDict)
        self._ahead: set[_Key] = set()
        self._waited = defaultdict[tuple[str, bool], trio.CapacityLimiter](
            lambda: trio.CapacityLimiter(_READS_WAITED)
        )
        self._nursery: trio.Nursery | None = None
        self._calls = 0
        self._block = 0
        self._block_lock = Lock()  # threads that read registrations raise it

    async def run(self) -> None:
        """For ever: read ahead what is in use."""
        limiter = trio.CapacityLimiter(_READS_AHEAD)
        async with trio.open_nursery() as nursery:
            self._nursery, self._limiter = nursery, limiter
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def node(self, node: bytes) -> NodeRecord | None:
        """A node's registration; from then on `block_number` is not before it."""

        def read() -> NodeRecord | None:
            found = self._view.node(node)
            self._not_before(self._view.block_number())
            return found

        return (await self._seen("node", node, read)).value

    async def gateway_peer(self, gateway: bytes) -> bytes | None:
        """A gateway's peer point."""
        found = await self._seen("gateway", gateway, lambda: self._view.gateway_peer(gateway))
        return found.value

    async def model(self, model: str) -> ModelRecord | None:
        """A model's registration."""
        return (await self._seen("model", model, lambda: self._view.model(model))).value

    async def payer(
        self, payer: bytes, noting: Callable[[], int] = int, *, fresh: bool = False
    ) -> Seen[PayerRecord]:
        """A payer's account, with what `noting` says; `fresh`: never older than 3 s."""
        return await self._seen("payer", payer, lambda: self._view.payer(payer), noting, fresh)

    async def debitable(
        self, log_id: bytes, noting: Callable[[], int] = int, *, fresh: bool = False
    ) -> Seen[int]:
        """What a log's batches may take from deposits, likewise."""
        return await self._seen(
            "debitable", log_id, lambda: self._view.debitable(log_id), noting, fresh
        )

    async def block_number(self) -> int:
        """A final block, none before one at which any registration in use was read.

        A transcript names it: who verifies compares the wallets in its book with the chain there,
        or shortly before (docs/adr/0008-wallets-as-last-read.md), and never later.
        """
        found = await self._seen("block", None, self._view.block_number)
        return self._not_before(found.value)

    def renew(self) -> None:
        """The chain has moved: read everything anew at its next use, without waiting for it."""
        self._calls += 1

    def _not_before(self, block: int) -> int:
        """Raise the block that is given out."""
        with self._block_lock:
            self._block = max(self._block, block)
            return self._block

    async def _seen(
        self,
        kind: str,
        about: object,
        read: Callable[[], T],
        noting: Callable[[], int] = int,
        fresh: bool = False,  # noqa: FBT001, FBT002 - passed on
    ) -> Seen[T]:
        key, now = (kind, about), trio.current_time()
        kept, in_use = self._kept.get(key), now - self._used[kind].get(key, -inf) <= FRESH_S
        if kept is not None:
            self._use(key, now)
            age = now - kept.asked_at
            if age < FRESH_S and kept.call == self._calls:
                return kept
            if self._nursery and in_use and age < BOUND_S and not fresh:
                if key not in self._ahead:
                    self._ahead.add(key)
                    self._nursery.start_soon(self._read_ahead, key, read, noting)
                return kept
        try:
            limiter = self._waited[kind, kept is not None]
            return await self._read(key, read, noting, limiter)
        except TransportFailure as error:
            kept = self._kept.get(key)
            if kept is None or trio.current_time() - kept.asked_at >= _USABLE_S:
                raise
            _logger.warning("going on with what was last read of the chain: %s", error)
            return kept

    async def _read_ahead(
        self, key: _Key, read: Callable[[], object], noting: Callable[[], int]
    ) -> None:
        try:
            await self._read(key, read, noting, self._limiter)
        except PinaivuError as error:
            _logger.warning("not read ahead: %s", error)
        finally:
            self._ahead.discard(key)

    async def _read(
        self,
        key: _Key,
        read: Callable[[], T],
        noting: Callable[[], int],
        limiter: trio.CapacityLimiter,
    ) -> Seen[T]:
        """Ask the chain; what was asked for later is kept, whichever comes first."""
        noted, asked_at = noting(), trio.current_time()
        call = self._calls
        value = await trio.to_thread.run_sync(read, limiter=limiter)
        seen = Seen(value=value, noted=noted, asked_at=asked_at, call=call)
        before = self._kept.get(key)
        if value is not None and (before is None or before.asked_at <= asked_at):
            self._kept[key] = seen
            self._use(key, asked_at)
        return seen

    def _use(self, key: _Key, now: float) -> None:
        """A kept record is in use; the one of its kind that was not for longest may have to go."""
        used = self._used[key[0]]
        used[key] = max(now, used.get(key, -inf))
        used.move_to_end(key)
        if len(used) > self._most:
            unused, _ = used.popitem(last=False)
            del self._kept[unused]
