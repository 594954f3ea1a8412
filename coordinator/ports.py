"""What the coordinator needs of the chain, as a port.

Reads are of finalised state, `finality_blocks` behind the head, synchronous, made from worker
threads. `TransportFailure` means the chain can't be reached: admission then refuses, and what is
already running goes on.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from pinaivu.typed_data import Domain


class NodeRecord(Struct, frozen=True):
    """A registered node: where its money goes, its peer key, who bonds it (zero: nobody)."""

    node: bytes
    payout: bytes
    peer: bytes
    bond_funder: bytes


class ModelRecord(Struct, frozen=True):
    """A registered model."""

    fingerprint: bytes
    ratio_ppm: int
    tokenizer_digest: bytes
    context_tokens: int


class PayerRecord(Struct, frozen=True):
    """A payer's finalised money and permissions."""

    log_id: bytes
    balance: int
    leaving: int  # asked to withdraw or to move to another log
    grant_epoch: int


class LogFunds(Struct, frozen=True):
    """What a log's batches may take from deposits, and from whom; all at one block.

    `balances` holds 0 for a payer whose money stands in another log.
    """

    debitable: int
    balances: dict[bytes, int]


class AnchorRecord(Struct, frozen=True):
    """The last batch a log has on chain; zeros before the first."""

    sequence: int
    size: int
    root: bytes
    batch_digest: bytes


class EpochRecord(Struct, frozen=True):
    """An epoch of a log, as the chain has activated it."""

    number: int
    key: bytes
    expires_ms: int
    manifest_digest: bytes = bytes(32)


class ChainView(Protocol):
    """Finalised chain state, read synchronously."""

    def domain(self) -> Domain:
        """Chain id and `Settlement`, compared with the chain once."""
        ...

    def block_number(self) -> int:
        """The newest final block."""
        ...

    def node(self, node: bytes) -> NodeRecord | None:
        """A node's registration, or None."""
        ...

    def gateway_peer(self, gateway: bytes) -> bytes | None:
        """A gateway's registered peer point (64 bytes), or None."""
        ...

    def model(self, model: str) -> ModelRecord | None:
        """A model's registration, or None."""
        ...

    def payer(self, payer: bytes) -> PayerRecord:
        """A payer's account; zeros where it has none."""
        ...

    def anchor(self, log_id: bytes) -> AnchorRecord:
        """The log's last anchor in final blocks."""
        ...

    def newest_anchor(self, log_id: bytes) -> AnchorRecord:
        """The log's last anchor at the head, not yet final."""
        ...

    def anchor_of(self, log_id: bytes, sequence: int) -> AnchorRecord:
        """The log's anchor of a batch that is on chain at the head."""
        ...

    def debitable(self, log_id: bytes) -> int:
        """Base units that the debit limiter lets the log's batches take, in final blocks."""
        ...

    def newest_funds(self, log_id: bytes, payers: Sequence[bytes]) -> LogFunds:
        """What the log's batches may take at the head, and the balances of some payers."""
        ...

    def active_epoch(self, log_id: bytes) -> EpochRecord | None:
        """The log's active epoch at the head, or None."""
        ...

    def epoch(self, log_id: bytes, number: int) -> EpochRecord | None:
        """Any epoch the log has had at the head, or None."""
        ...
