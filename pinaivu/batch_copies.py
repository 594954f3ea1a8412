"""A signed batch with the proof that it only adds to the log: all that anybody needs to settle it.

    copy = BatchCopy.from_bytes(batch, consistency)  # as it came from a coordinator
    copy.check(domain, log_id, signer)  # the key that the chain has for `copy.batch.epoch`
    copy.to_json()  # as log servers show it and `pinaivu submit` reads it

`check` says that the log's key signed it and that the proof leads from its old root to its new one.
It does not say that the chain will take it, nor that its rows are what receipts sum up to.
"""

from collections.abc import Sequence
from typing import Any, Final, Self

from msgspec import Struct

from pinaivu.encoding import from_hex, to_hex
from pinaivu.errors import InvalidEncoding, PeerFault
from pinaivu.merkle.hashing import HASH_BYTES
from pinaivu.merkle.proofs import InvalidProof, verify_consistency
from pinaivu.messages import Batch
from pinaivu.typed_data import Domain, Signed, signed_from_bytes, signed_from_json

MAX_BATCH_BYTES: Final = 1 << 18
"""Of the wire form: 8,000 rows, far more than the gas of one transaction pays for."""


class WrongCopy(PeerFault):
    """What was given as a copy of a log's batch is none; nothing of it was kept."""


class BatchCopy(Struct, frozen=True):
    """A signed batch and its consistency proof (RFC 9162) from `prev_size` to `new_size`.

    Holding one proves nothing; `check` does.
    """

    signed: Signed[Batch]
    consistency: tuple[bytes, ...]

    @property
    def batch(self) -> Batch:
        """What was signed."""
        return self.signed.message

    @classmethod
    def from_bytes(cls, batch: bytes, consistency: Sequence[bytes]) -> Self:
        """Read the wire form (`Signed.to_bytes`); `InvalidEncoding` for what is none."""
        if len(batch) > MAX_BATCH_BYTES:
            raise InvalidEncoding(
                f"a batch has {MAX_BATCH_BYTES} bytes at most, this one {len(batch)}"
            )
        return cls(signed_from_bytes(Batch, batch), tuple(consistency))

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Read `to_json`, other members ignored; `InvalidEncoding` for what is none."""
        if not isinstance(document, dict):
            raise InvalidEncoding("a copy of a batch is an object with batch and consistency")
        if not isinstance(document.get("consistency"), list):
            raise InvalidEncoding("a consistency proof is a list of hashes")
        hashes = tuple(from_hex(value, HASH_BYTES) for value in document["consistency"])
        return cls(signed_from_json(Batch, document.get("batch")), hashes)

    def to_json(self) -> dict[str, object]:
        """``{"batch": {message, signature}, "consistency": [hash, …]}``."""
        return {
            "batch": self.signed.to_json(),
            "consistency": [to_hex(value) for value in self.consistency],
        }

    def check(self, domain: Domain, log_id: bytes, signer: bytes) -> None:
        """Raise `WrongCopy` or `BadSignature` unless it is a batch of this log, signed and proved.

        `signer` is the key that the chain has for the batch's epoch of this log.
        """
        batch = self.batch
        if batch.log_id != log_id:
            raise WrongCopy(f"a batch of log 0x{batch.log_id.hex()}, not of 0x{log_id.hex()}")
        if not batch.sequence or (batch.sequence == 1) != (batch.prev_size == 0):
            raise WrongCopy(f"batch {batch.sequence} can't begin at leaf {batch.prev_size}")
        if batch.new_size <= batch.prev_size:
            raise WrongCopy(f"batch {batch.sequence} adds no leaf")
        self.signed.require(domain, signer)
        try:
            verify_consistency(
                batch.prev_size, batch.prev_root, batch.new_size, batch.new_root, self.consistency
            )
        except InvalidProof as error:
            raise WrongCopy(f"the proof beside batch {batch.sequence} fails: {error}") from error
