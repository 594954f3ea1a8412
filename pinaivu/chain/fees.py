"""What a transaction may cost: gas limits by estimate, fees by the latest block (EIP-1559)."""

from dataclasses import dataclass
from typing import Final

from pinaivu.chain.calls import Call
from pinaivu.chain.errors import CallTooLarge, RpcRefused
from pinaivu.chain.refusals import meaning
from pinaivu.chain.rpc import JsonRpc
from pinaivu.chain.words import quantity

TX_GAS_CAP: Final = 1 << 24  # EIP-7825


@dataclass(frozen=True, slots=True)
class Fees:
    """Priority fee and fee ceiling, wei per gas."""

    tip: int
    ceiling: int


@dataclass(frozen=True, slots=True)
class FeePolicy:
    """Limits on fees in wei per gas; `gas_margin_permille` is added to each estimate.

    A replacement raises both fees by `bump_permille`; pools take none below 100.
    """

    min_tip: int = 1
    max_ceiling: int = 500 * 10**9
    gas_margin_permille: int = 150
    bump_permille: int = 125

    def initial(self, base_fee: int, suggested_tip: int) -> Fees:
        """Fees that stay valid while the base fee doubles, within the limit."""
        tip = max(self.min_tip, suggested_tip)
        ceiling = min(self.max_ceiling, 2 * base_fee + tip)
        return Fees(min(tip, ceiling), ceiling)

    def bumped(self, fees: Fees, base_fee: int) -> Fees | None:
        """Fees of a replacement, or nothing where the limit forbids one."""
        tip, ceiling = (self._raised(fee) for fee in (fees.tip, fees.ceiling))
        ceiling = max(ceiling, 2 * base_fee + tip)
        if self._raised(fees.ceiling) > self.max_ceiling:
            return None
        return Fees(tip, min(ceiling, self.max_ceiling))

    def _raised(self, fee: int) -> int:
        return fee + (fee * self.bump_permille + 999) // 1000


def gas_limit(rpc: JsonRpc, sender: bytes, call: Call, policy: FeePolicy) -> int:
    """Estimate plus margin, within the cap of one transaction; see `Transactor.submit`'s errors."""
    try:
        # On top of what is pending, so that calls which build on each other can be submitted.
        estimate = quantity(rpc.call("eth_estimateGas", call.request(sender), "pending"))
    except RpcRefused as refused:
        raise meaning(call.what, refused) from refused
    if estimate > TX_GAS_CAP:
        raise CallTooLarge(f"{call.what} needs {estimate} gas, one transaction holds {TX_GAS_CAP}")
    return min(TX_GAS_CAP, estimate + estimate * policy.gas_margin_permille // 1000)
