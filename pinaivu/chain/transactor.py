"""One sender per key: nonces, fees, gas, and waiting until a transaction is mined.

Exactly-once is the promise: a `Call` handed to `submit` becomes transactions of one nonce only, so
however often it is sent again or replaced with higher fees, at most one of them is mined. Keep the
`Pending` and wait for it again after `TransactionPending`; submitting the same `Call` anew is a
second transaction.

Several threads may share a `Transactor`. Two processes should not send with one key: they take
each other's nonces, which is noticed (`NonceTaken`) but not prevented. Finality is not decided
here: a `TxOutcome` can be reorganised away unless enough confirmations were asked for.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from pinaivu.chain.access_lists import AccessList, access_list
from pinaivu.chain.calls import Call
from pinaivu.chain.errors import (
    ChainUnavailable,
    NonceTaken,
    Reverted,
    RpcRefused,
    TransactionPending,
)
from pinaivu.chain.fees import FeePolicy, Fees, gas_limit
from pinaivu.chain.refusals import is_known, is_nonce_taken, meaning
from pinaivu.chain.rpc import JsonRpc, require_chain
from pinaivu.chain.transactions import DynamicFeeTransaction
from pinaivu.chain.words import from_hex, quantity, to_hex
from pinaivu.keys import SecretKey

_TRANSFER_GAS: Final = 21_000
_NONCE_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between looks for a receipt, between re-broadcasts, and before fees are raised."""

    poll_s: float = 0.05
    resend_s: float = 3.0
    bump_s: float = 30.0


@dataclass(slots=True)
class Pending:
    """A call on its way: one nonce, the latest raw bytes, and every hash it may be mined under."""

    call: Call
    nonce: int
    gas: int
    fees: Fees
    slots: AccessList = ()
    raw: bytes = b""
    hashes: list[bytes] = field(default_factory=list)
    nonce_gone: bool = False


@dataclass(frozen=True, slots=True)
class TxOutcome:
    """A mined transaction that succeeded; fees in wei per gas, logs as the endpoint gave them."""

    tx_hash: bytes
    block_number: int
    block_hash: bytes
    gas_used: int
    gas_price: int
    contract: bytes | None
    logs: tuple[Mapping[str, Any], ...]


class Transactor:
    """Sends calls as transactions of one key; the module says what it promises."""

    def __init__(
        self,
        rpc: JsonRpc,
        chain_id: int,
        key: SecretKey,
        *,
        policy: FeePolicy | None = None,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.address = key.address
        self._rpc = rpc
        self._chain_id = chain_id
        self._key = key
        self._policy = policy or FeePolicy()
        self._pace = pace or Pace()
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._in_flight: dict[int, Pending] = {}
        self._chain_seen = False

    def send(self, call: Call, *, deadline_s: float = 120.0, confirmations: int = 0) -> TxOutcome:
        """Submit a call and wait for it; raises what `submit` and `wait` raise."""
        return self.wait(self.submit(call), deadline_s=deadline_s, confirmations=confirmations)

    def submit(self, call: Call) -> Pending:
        """Sign a call, broadcast it and return.

        Nothing is sent when this raises: `Reverted` when the call would fail now, `CallTooLarge`,
        `NoGasMoney`, `WrongChain`, `ChainUnavailable`. An endpoint that goes away during the
        broadcast is no error: `wait` sends the same bytes again.
        """
        if not self._chain_seen:
            require_chain(self._rpc, self._chain_id)
            self._chain_seen = True
        gas = gas_limit(self._rpc, self.address, call, self._policy)
        slots = access_list(self._rpc, self.address, call)
        with self._lock:
            for _ in range(_NONCE_TRIES):
                nonce, fees = self._next()
                pending = self._sign(Pending(call, nonce, gas, fees, slots))
                if self._first_broadcast(pending):
                    self._in_flight[nonce] = pending
                    return pending
        raise ChainUnavailable(f"{call.what}: another sender of this key takes every nonce")

    def wait(
        self, pending: Pending, *, deadline_s: float = 120.0, confirmations: int = 0
    ) -> TxOutcome:
        """Wait until a submitted call is mined with `confirmations` blocks on top of it.

        Sends it again, later with higher fees, while it isn't. `Reverted` when it was mined and
        failed, `NonceTaken` when it never can be, `TransactionPending` at the deadline. While the
        endpoint is away this waits.
        """
        start = resend_from = bump_from = self._clock()
        trouble: ChainUnavailable | None = None
        while True:
            try:
                receipt, depth = self._receipt(pending)
                if receipt is not None and depth >= confirmations:
                    return self._close(pending, receipt)
                now = self._clock()
                if receipt is None and now - resend_from >= self._pace.resend_s:
                    bump = now - bump_from >= self._pace.bump_s
                    self._push(pending, bump=bump)
                    resend_from, bump_from = now, now if bump else bump_from
                trouble = None
            except ChainUnavailable as error:
                trouble = error  # it may come back before the deadline
            if self._clock() - start >= deadline_s:
                raise TransactionPending(pending) from trouble
            self._sleep(self._pace.poll_s)

    def _next(self) -> tuple[int, Fees]:
        """The nonce after everything we or the endpoint know to be under way, and today's fees."""
        mined, queued, block, tip = self._rpc.batch(
            [
                ("eth_getTransactionCount", [to_hex(self.address), "latest"]),
                ("eth_getTransactionCount", [to_hex(self.address), "pending"]),
                ("eth_getBlockByNumber", ["latest", False]),
                ("eth_maxPriorityFeePerGas", []),
            ]
        )
        for nonce in [n for n in self._in_flight if n < quantity(mined)]:
            del self._in_flight[nonce]
        ours = max(self._in_flight, default=-1) + 1
        fees = self._policy.initial(quantity(block["baseFeePerGas"]), quantity(tip))
        return max(ours, quantity(queued)), fees

    def _sign(self, pending: Pending) -> Pending:
        signed = DynamicFeeTransaction(
            chain_id=self._chain_id,
            nonce=pending.nonce,
            tip=pending.fees.tip,
            max_fee=pending.fees.ceiling,
            gas=pending.gas,
            to=pending.call.to,
            value=pending.call.value,
            data=pending.call.data,
            access_list=pending.slots,
        ).sign(self._key)
        pending.raw = signed.raw
        pending.hashes.append(signed.hash)
        return pending

    def _first_broadcast(self, pending: Pending) -> bool:
        """Whether the nonce was still free. These bytes were never sent before."""
        try:
            self._rpc.call("eth_sendRawTransaction", to_hex(pending.raw))
        except RpcRefused as refused:
            if is_nonce_taken(refused):
                return False
            if not is_known(refused):
                raise meaning(pending.call.what, refused) from refused
        except ChainUnavailable:
            pass  # unknown whether it arrived; only the same bytes may follow
        return True

    def _receipt(self, pending: Pending) -> tuple[Mapping[str, Any] | None, int]:
        """The receipt, if it is mined under any of its hashes, and the blocks on top of it."""
        lookups = [("eth_getTransactionReceipt", [to_hex(h)]) for h in pending.hashes]
        head, *receipts = self._rpc.batch([("eth_blockNumber", []), *lookups])
        for receipt in receipts:
            if receipt and receipt.get("blockNumber"):
                return receipt, quantity(head) - quantity(receipt["blockNumber"])
        return None, 0

    def _push(self, pending: Pending, *, bump: bool) -> None:
        """Send a stuck transaction again, and whatever must be mined before it."""
        with self._lock:
            mined, queued, block = self._rpc.batch(
                [
                    ("eth_getTransactionCount", [to_hex(self.address), "latest"]),
                    ("eth_getTransactionCount", [to_hex(self.address), "pending"]),
                    ("eth_getBlockByNumber", ["latest", False]),
                ]
            )
            if quantity(mined) > pending.nonce:
                self._suspect(pending)
                return
            pending.nonce_gone = False
            base_fee = quantity(block["baseFeePerGas"])
            for nonce in range(quantity(queued), pending.nonce):
                self._fill(nonce, pending.fees)
            fees = self._policy.bumped(pending.fees, base_fee) if bump else None
            if fees is not None:
                pending.fees = fees
                self._sign(pending)
            self._rebroadcast(pending.raw)

    def _suspect(self, pending: Pending) -> None:
        """Give up only when receipts were missing twice: pooled endpoints lag behind each other."""
        if pending.nonce_gone:
            self._in_flight.pop(pending.nonce, None)
            raise NonceTaken(pending.call.what, pending.nonce)
        pending.nonce_gone = True

    def _fill(self, nonce: int, fees: Fees) -> None:
        """Put something under a missing nonce: our own lost transaction, else an empty one.

        Nonces go missing when a chain rolls back or a pool forgets. Signing the stuck call anew
        under the lower nonce could run it twice; an empty transaction to oneself can't.
        """
        lost = self._in_flight.get(nonce)
        empty = Call("filling a lost nonce", self.address, b"")
        filler = lost or self._sign(Pending(empty, nonce, _TRANSFER_GAS, fees))
        self._rebroadcast(filler.raw)

    def _rebroadcast(self, raw: bytes) -> None:
        with suppress(RpcRefused):  # known, mined meanwhile, too cheap: the receipt will tell
            self._rpc.call("eth_sendRawTransaction", to_hex(raw))

    def _close(self, pending: Pending, receipt: Mapping[str, Any]) -> TxOutcome:
        with self._lock:
            if self._in_flight.get(pending.nonce) is pending:
                del self._in_flight[pending.nonce]
        created = receipt.get("contractAddress")
        outcome = TxOutcome(
            tx_hash=from_hex(receipt["transactionHash"]),
            block_number=quantity(receipt["blockNumber"]),
            block_hash=from_hex(receipt["blockHash"]),
            gas_used=quantity(receipt["gasUsed"]),
            gas_price=quantity(receipt["effectiveGasPrice"]),
            contract=from_hex(created) if created else None,
            logs=tuple(receipt["logs"]),
        )
        if quantity(receipt["status"]) != 1:
            raise self._why(pending.call, outcome)
        return outcome

    def _why(self, call: Call, outcome: TxOutcome) -> Reverted:
        """Replay a failed call on the state before its block; the reason may have changed."""
        request = call.request(self.address)
        try:
            self._rpc.call("eth_call", request, hex(outcome.block_number - 1))
        except RpcRefused as refused:
            found = meaning(call.what, refused)
            if isinstance(found, Reverted):
                return Reverted(
                    call.what, found.name, found.arguments, data=found.data, tx_hash=outcome.tx_hash
                )
        except ChainUnavailable:
            pass
        return Reverted(call.what, tx_hash=outcome.tx_hash)
