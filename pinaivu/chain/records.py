"""What the contracts hold, as values. Times are ms since 1970 UTC, 0 where the chain says never.

Each record is true of the one block it was read at, and only as trustworthy as the endpoint.
"""

from dataclasses import dataclass
from typing import Final

from pinaivu.keccak import keccak
from pinaivu.keys import peer_id_of_point
from pinaivu.merkle.hashing import EMPTY_ROOT

NO_LOG: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Block:
    """A block's header, as far as it is used here."""

    number: int
    hash: bytes
    parent_hash: bytes
    time_ms: int


@dataclass(frozen=True, slots=True)
class PayerState:
    """A payer's money in the ledger of the log it is assigned to, and what it has asked for."""

    payer: bytes
    log_id: bytes
    balance: int
    requested: int
    withdrawable_at_ms: int
    debt: int
    next_log_id: bytes
    movable_at_ms: int
    grant_epoch: int

    @property
    def leaving(self) -> int:
        """Base units asked away: everything while a move is pending, else what is asked back.

        A request counts in full, however old: one made before the money came may be paid at once.
        """
        return max(self.balance, self.requested) if self.movable_at_ms else self.requested

    @property
    def spendable(self) -> int:
        """Base units left when what is leaving is taken out."""
        return max(0, self.balance - self.leaving)


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A registered node; `next_payout` takes over at `payout_changes_at_ms`, if that is not 0."""

    node: bytes
    payout: bytes
    next_payout: bytes
    payout_changes_at_ms: int
    registered_at_ms: int
    peer_point: bytes

    @property
    def peer_id(self) -> str:
        """The libp2p peer id that follows from the registered point."""
        return peer_id_of_point(self.peer_point)


@dataclass(frozen=True, slots=True)
class NodeBond:
    """What a node loses for an objective fault; zeros without a bond.

    `unbonding_at_ms` is when the funder may take it back, 0 if it didn't ask. `allowed_funder` may
    start the next bond, beside the node and its payout wallet; zero: nobody.
    """

    node: bytes
    amount: int
    funder: bytes
    unbonding_at_ms: int
    allowed_funder: bytes


@dataclass(frozen=True, slots=True)
class GatewayRecord:
    """A registered gateway; `endpoints` are URLs and multiaddrs as it gave them, unchecked."""

    gateway: bytes
    peer_point: bytes
    registered_at_ms: int
    endpoints: tuple[str, ...]

    @property
    def peer_id(self) -> str:
        """The libp2p peer id that follows from the registered point."""
        return peer_id_of_point(self.peer_point)


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """What a model id means: weights, tokenizer, price ratio, longest prompt and output."""

    fingerprint: bytes
    tokenizer_digest: bytes
    ratio_ppm: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class PairRecord:
    """Code that may run logs: allowed from `allowed_from_ms`, unless revoked."""

    index: int
    measurement: bytes
    parameters_digest: bytes
    allowed_from_ms: int
    revoked_at_ms: int


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One boot of a log; also ended by the activation of the next one."""

    log_id: bytes
    number: int
    key: bytes
    activated_at_ms: int
    expires_at_ms: int
    pair: int
    revoked_at_ms: int
    block_number: int
    document_ms: int
    manifest_digest: bytes
    payload_digest: bytes


@dataclass(frozen=True, slots=True)
class LogState:
    """A log's ledger: last batch, deposits, when the limiter is empty, the operator's money."""

    sequence: int
    assigned: int
    drained_at_ms: int
    reserve: int
    fees: int


@dataclass(frozen=True, slots=True)
class Anchor:
    """Header of a settled batch: the six words whose hash the contract holds."""

    log_id: bytes
    sequence: int
    prev_size: int
    new_size: int
    new_root: bytes
    batch_digest: bytes

    @classmethod
    def none(cls, log_id: bytes) -> "Anchor":
        """What the first batch of a log builds on: the empty tree."""
        return cls(log_id, 0, 0, 0, EMPTY_ROOT, bytes(32))

    @property
    def word(self) -> bytes:
        """What the contract's slot holds for this anchor (types.md, section 2, Batch)."""
        numbers = (n.to_bytes(32) for n in (self.sequence, self.prev_size, self.new_size))
        return keccak(self.log_id + b"".join(numbers) + self.new_root + self.batch_digest)


@dataclass(frozen=True, slots=True)
class NodeCredit:
    """A node's credit now, and all it was ever credited, in base units."""

    credit: int
    lifetime: int


@dataclass(frozen=True, slots=True)
class Times:
    """A deployment's durations in ms; strictly ascending up to the admin delay."""

    unsettled_max_ms: int
    pause_max_ms: int
    withdrawal_delay_ms: int
    admin_delay_ms: int
    pause_interval_ms: int
    limiter_window_ms: int
