"""Chain records as the coordinator uses them: read in worker threads, kept for a few seconds."""

from collections.abc import Callable
from typing import Any, TypeVar

import trio

from coordinator.ports import ChainView, ModelRecord, NodeRecord, PayerRecord

T = TypeVar("T")
_FRESH_S = 3.0


class Directory:
    """An async, caching face of a `ChainView`. Records are at most a few seconds old."""

    def __init__(self, view: ChainView) -> None:
        self._view = view
        self._kept: dict[tuple[str, Any], tuple[float, Any]] = {}

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

    async def block_number(self) -> int:
        """The newest final block."""
        return await self._read("block", None, self._view.block_number)

    def forget(self, kind: str, key: object) -> None:
        """Read this record anew next time."""
        self._kept.pop((kind, key), None)

    async def _read(self, kind: str, key: object, read: Callable[[], T]) -> T:
        kept = self._kept.get((kind, key))
        now = trio.current_time()
        if kept is not None and now - kept[0] < _FRESH_S and kept[1] is not None:
            return kept[1]  # type: ignore[no-any-return]
        value = await trio.to_thread.run_sync(read)
        self._kept[kind, key] = (now, value)
        return value
