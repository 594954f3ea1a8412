"""EIP-1559 transactions: what is signed, and the raw bytes an endpoint takes.

The key signs a digest and never leaves `SecretKey`. Only type 2 transactions without an access
list are made.
"""

from dataclasses import dataclass
from typing import Final

import rlp  # type: ignore[import-untyped]

from pinaivu.keccak import keccak
from pinaivu.keys import SecretKey

DYNAMIC_FEE_TYPE: Final = b"\x02"
_V_OFFSET: Final = 27


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """Raw bytes for ``eth_sendRawTransaction``, and the hash they will be known by."""

    raw: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class DynamicFeeTransaction:
    """One type 2 transaction (EIP-1559); fees and value in wei, empty `to` creates a contract.

    `access_list` holds addresses with slots of 32 bytes (EIP-2930).
    """

    chain_id: int
    nonce: int
    tip: int
    max_fee: int
    gas: int
    to: bytes
    value: int
    data: bytes
    access_list: tuple[tuple[bytes, tuple[bytes, ...]], ...] = ()

    def sign(self, key: SecretKey) -> SignedTransaction:
        """Sign with `key`; the same transaction and key give the same bytes."""
        signature = key.sign(keccak(DYNAMIC_FEE_TYPE + rlp.encode(self._fields())))
        r, s = (int.from_bytes(signature[i : i + 32]) for i in (0, 32))
        fields = [*self._fields(), signature[64] - _V_OFFSET, r, s]
        raw = DYNAMIC_FEE_TYPE + rlp.encode(fields)
        return SignedTransaction(raw, keccak(raw))

    def _fields(self) -> list[object]:
        return [
            self.chain_id,
            self.nonce,
            self.tip,
            self.max_fee,
            self.gas,
            self.to,
            self.value,
            self.data,
            [[address, list(slots)] for address, slots in self.access_list],
        ]
