"""Chain records as the coordinator uses them: read in worker threads, kept for a few seconds.

While the chain can't be read, what was read within the last hour still serves: a chain that is down
delays settlement and nothing else. What was never read can't be answered.
"""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import trio
from msgspec import Struct
from msgspec.structs import replace

from coordinator.ports import ChainView, ModelRecord, NodeRecord, PayerRecord
from pinaivu.errors import TransportFailure

T = TypeVar("T")
_FRESH_S = 3.0
_USABLE_S = 3600.0
_logger = logging.getLogger(__name__)


class _Kept(Struct, frozen=True):
    """A record, until when it is taken as it is, and until when if the chain can't be read."""

    value: Any
    fresh_until: float
    usable_until: float


class Directory:
    """An async, caching face of a `ChainView`."""

    def __init__(self, view: ChainView) -> None:
        self._view = view
        self._kept: dict[tuple[str, Any], _Kept] = {}

    async def node(self, node: bytes) -> NodeRecord | None:
        """A node's registration."""
        return await self._read("node", node, lambda: self._view.node(node))

    async def gateway_peer(self, gateway: bytes) -> bytes | None:
        """A gateway's peer point."""
        return await self._read("gateway", gateway, lambda: self._view.gateway_peer(gateway))

    async def model(self, model: str) -> ModelRecord | None:
        """A model's registration."""
        return await self._read("model", model, lambda: self._view.model(model))

    async def payer(self, payer: bytes) -> PayerRecord:
        """A payer's account."""
        return await self._read("payer", payer, lambda: self._view.payer(payer))

    async def debitable(self, log_id: bytes) -> int:
        """What a log's batches may take from deposits."""
        return await self._read("debitable", log_id, lambda: self._view.debitable(log_id))

    async def block_number(self) -> int:
        """The newest final block."""
        return await self._read("block", None, self._view.block_number)

    def expire(self) -> None:
        """Read everything anew, also what is being read at this moment."""
        self._kept = {key: replace(kept, fresh_until=0.0) for key, kept in self._kept.items()}

    async def _read(self, kind: str, key: object, read: Callable[[], T]) -> T:
        table, now = self._kept, trio.current_time()
        kept = table.get((kind, key))
        if kept is not None and now < kept.fresh_until:
            return kept.value  # type: ignore[no-any-return]
        try:
            value = await trio.to_thread.run_sync(read)
        except TransportFailure as error:
            if kept is None or now >= kept.usable_until:
                raise
            _logger.warning("going on with what was last read of the chain: %s", error)
            return kept.value  # type: ignore[no-any-return]
        if value is not None:
            table[kind, key] = _Kept(value, now + _FRESH_S, now + _USABLE_S)
        return value
