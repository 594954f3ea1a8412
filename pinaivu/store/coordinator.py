"""The coordinator's tables: jobs in flight, evidence, the log, checkpoints, epochs and batches.

Signed messages are kept as they travelled (`typed_data.Signed.to_bytes`); the columns beside them
are for finding rows, never for deciding anything that a signature covers.
"""

from sqlalchemy import BigInteger, MetaData, UniqueConstraint
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class _Table(SQLModel, registry=registry(metadata=MetaData())):
    """Base of this service's tables: a metadata of its own."""


METADATA = _Table.metadata


class EpochRow(_Table, table=True):
    """An epoch this log has had: what its key was and what ran."""

    __tablename__ = "epoch"

    number: int = Field(primary_key=True, sa_type=BigInteger)
    signer: bytes
    manifest: str
    parameters: str
    document: bytes


class JobRow(_Table, table=True):
    """A job accepted by this coordinator; `closed` once its receipt is in the log."""

    __tablename__ = "job"

    gateway: bytes = Field(primary_key=True)
    job_id: bytes = Field(primary_key=True)
    job: bytes
    grant: bytes
    nonce: bytes
    bids_root: bytes
    received_ms: int = Field(sa_type=BigInteger)
    unserved_reason: int = 0
    passed_over: bytes = b""  # node20 ‖ u8 position in the line, repeated
    closed: bool = Field(default=False, index=True)


class AwardRow(_Table, table=True):
    """A signed award."""

    __tablename__ = "award"

    digest: bytes = Field(primary_key=True)
    gateway: bytes = Field(index=True)
    job_id: bytes = Field(index=True)
    rank: int
    award: bytes


class EvidenceRow(_Table, table=True):
    """A completion, failure (by award digest) or delivery (by job digest): first one wins."""

    __tablename__ = "evidence"

    kind: str = Field(primary_key=True)  # Completion, Failure, Delivery
    about: bytes = Field(primary_key=True)
    signed: bytes
    arrived_ms: int = Field(sa_type=BigInteger)


class TranscriptRow(_Table, table=True):
    """An auction's transcript: the JSON form that bundles carry, but signed bids as they travelled.

    Without the book's rows.
    """

    __tablename__ = "transcript"

    bids_root: bytes = Field(primary_key=True)
    document: str
    book_root: bytes | None = Field(default=None, index=True)  # None: written before it was kept


class BookRow(_Table, table=True):
    """A book that an auction was held over.

    Whole where `base` is its own position, else what changed since the row before it of one base.
    """

    __tablename__ = "book"

    position: int = Field(primary_key=True, sa_type=BigInteger)
    base: int = Field(sa_type=BigInteger, index=True)
    root: bytes = Field(index=True)
    changes: bytes  # MessagePack: [slot, row, signed offer], see `coordinator.archive`


class LeafRow(_Table, table=True):
    """One entry of the log, in order; never changed, never removed."""

    __tablename__ = "leaf"
    __table_args__ = (UniqueConstraint("gateway", "job_id"),)

    position: int = Field(primary_key=True, sa_type=BigInteger)
    kind: str  # Receipt, EpochStart, Lost
    digest: bytes = Field(unique=True)
    signed: bytes
    gateway: bytes | None = None
    job_id: bytes | None = Field(default=None, index=True)


class CheckpointRow(_Table, table=True):
    """A released checkpoint, by size: the whole note, and the typed checkpoint in it."""

    __tablename__ = "checkpoint"

    size: int = Field(primary_key=True, sa_type=BigInteger)
    note: str
    checkpoint: bytes  # Signed[Checkpoint]
    time_ms: int = Field(sa_type=BigInteger)


class BatchRow(_Table, table=True):
    """A signed batch and how far its settlement has come."""

    __tablename__ = "batch"

    sequence: int = Field(primary_key=True, sa_type=BigInteger)
    batch: bytes
    new_size: int = Field(sa_type=BigInteger, index=True)
    state: str  # batched, submitted, mined, final, reverted
    transaction: bytes | None = None
    block_number: int | None = Field(default=None, sa_type=BigInteger)


class BatchCopyRow(_Table, table=True):
    """A party of a batch that is not final, and whether it has the batch as it stands."""

    __tablename__ = "batch_copy"

    role: str = Field(primary_key=True)  # node, gateway
    party: bytes = Field(primary_key=True)
    sequence: int = Field(primary_key=True, sa_type=BigInteger, index=True)
    kept: bool = False


class ReplacedBatchRow(_Table, table=True):
    """A signed batch that another one has replaced; until one is final the chain may take it."""

    __tablename__ = "replaced_batch"

    digest: bytes = Field(primary_key=True)
    sequence: int = Field(sa_type=BigInteger, index=True)
    batch: bytes
