"""What the chain holds for the wallets that pay: deposit, what is leaving, how far it has settled.

Each answer is one block's, at most two seconds old. The deposit is what batches have left; receipts
newer than the last settled batch are not taken from it yet.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import trio
from msgspec import Struct

from pinaivu.chain.client import ChainClient
from pinaivu.chain.records import NO_LOG, Anchor

_BELIEVED_S: Final = 2.0
_MOST: Final = 1_000
T = TypeVar("T")


class Wallet(Struct, frozen=True, kw_only=True):
    """One payer at one block; amounts in base units.

    `settled_size`: leaves of its log below this index are settled.
    """

    payer: bytes
    log_id: bytes
    deposit: int
    leaving: int
    debt: int
    settled_size: int
    block: int


class Wallets:
    """Reads payers' state from the chain, in worker threads; raises `ChainUnavailable`."""

    def __init__(self, client: ChainClient) -> None:
        self._client = client
        self._known: dict[bytes, tuple[float, Wallet]] = {}
        self._anchors: dict[bytes, Anchor] = {}

    async def of(self, payer: bytes) -> Wallet:
        """The payer's state, at most two seconds old."""
        known = self._known.get(payer)
        if known and trio.current_time() - known[0] < _BELIEVED_S:
            return known[1]
        found = await _in_thread(lambda: self._read(payer))
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[payer] = (trio.current_time(), found)
        return found

    def _read(self, payer: bytes) -> Wallet:
        block = self._client.head()
        state = self._client.payer(payer, block)
        return Wallet(
            payer=payer,
            log_id=state.log_id,
            deposit=state.balance,
            leaving=state.leaving,
            debt=state.debt,
            settled_size=self._settled(state.log_id, block),
            block=block,
        )

    def _settled(self, log_id: bytes, block: int) -> int:
        """The log's settled size; its event is looked for only when there is a new batch."""
        if log_id == NO_LOG:
            return 0
        sequence = self._client.log_state(log_id, block).sequence
        known = self._anchors.get(log_id)
        if known is None or known.sequence != sequence:
            known = self._anchors[log_id] = self._client.anchor(log_id, sequence or None, block)
        return known.new_size


async def _in_thread(read: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(read)
