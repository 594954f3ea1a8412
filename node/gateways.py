"""Which gateway a peer is: the registry's answer, remembered for a while.

A gateway that moved to another peer key is found on the first mismatch; looking again is limited,
so that a stranger can't make the node flood its chain endpoint.
"""

from dataclasses import dataclass
from typing import Final

import trio

from node.errors import JobRefused
from node.ports import Chain, NowMs
from pinaivu.codes import Reason
from pinaivu.keys import checksum
from pinaivu.p2p import PeerId

_BELIEVED_MS: Final = 600_000
_LOOK_AGAIN_MS: Final = 5_000


@dataclass(frozen=True, slots=True)
class _Seen:
    peer: str | None
    at_ms: int


class Gateways:
    """Checks that a peer is the registered peer of a gateway."""

    def __init__(self, chain: Chain, now_ms: NowMs) -> None:
        self._chain = chain
        self._now_ms = now_ms
        self._seen: dict[bytes, _Seen] = {}

    async def require(self, gateway: bytes, peer: PeerId) -> None:
        """Raise `JobRefused` unless `peer` is the gateway's; `TransportFailure` without a chain."""
        seen = self._seen.get(gateway)
        age = self._now_ms() - seen.at_ms if seen else _BELIEVED_MS
        if seen is None or age >= (_BELIEVED_MS if seen.peer == peer else _LOOK_AGAIN_MS):
            seen = await self._look(gateway)
        if seen.peer != peer:
            registered = seen.peer or "not registered"
            raise JobRefused(
                Reason.REFUSED,
                f"this stream is of peer {peer}, gateway {checksum(gateway)} is {registered}",
            )

    async def _look(self, gateway: bytes) -> _Seen:
        record = await trio.to_thread.run_sync(self._chain.gateway, gateway)
        seen = _Seen(record.peer_id if record else None, self._now_ms())
        self._seen[gateway] = seen
        return seen
