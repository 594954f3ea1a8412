"""The explorer's tables: one log and the chain's events, as its indexer found and checked them.

A copy for finding and counting; whatever decides something is checked again from the bundle. No
leaf is here before its tile was proven under a signed checkpoint. `trouble` says in words what does
not hold about a row, and is empty where every check passed. Amounts are decimal text, since they
are wider than a database's integers.
"""

from sqlalchemy import BigInteger, Index, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class _Table(SQLModel, registry=registry(metadata=MetaData())):
    """Base of this service's tables: a metadata of its own."""


METADATA = _Table.metadata


class ProgressRow(_Table, table=True):
    """How far one task of the indexer is, and what stops it; `refuted`: somebody's claim failed."""

    __tablename__ = "progress"

    task: str = Field(primary_key=True)  # log, batches, chain
    position: int = Field(default=0, sa_type=BigInteger)  # leaves, sequence, or block
    hash: bytes = b""  # root, or block hash
    time_ms: int = Field(default=0, sa_type=BigInteger)  # of the checkpoint or block
    looked_ms: int = Field(default=0, sa_type=BigInteger)  # last time without a fault
    fault: str = ""
    refuted: bool = False
    fault_ms: int = Field(default=0, sa_type=BigInteger)  # when the fault began


class TileRow(_Table, table=True):
    """The root of 256 leaves, proven under a checkpoint; all full tiles from number 0 on."""

    __tablename__ = "tile"

    number: int = Field(primary_key=True, sa_type=BigInteger)
    root: bytes


class LeafRow(_Table, table=True):
    """One entry of the log, as it was signed (`typed_data.Signed.to_bytes`)."""

    __tablename__ = "leaf"

    position: int = Field(primary_key=True, sa_type=BigInteger)
    kind: str  # Receipt, EpochStart
    digest: bytes = Field(index=True)
    signed: bytes
    trouble: str = ""


class ReceiptRow(_Table, table=True):
    """What a receipt is found and listed by. `node` served last, and is empty if nobody did."""

    __tablename__ = "receipt"
    __table_args__ = (
        Index("ix_receipt_payer_position", "payer", "position"),
        Index("ix_receipt_gateway_position", "gateway", "position"),
    )

    position: int = Field(primary_key=True, sa_type=BigInteger)
    gateway: bytes
    job_id: bytes = Field(index=True)
    payer: bytes
    node: bytes
    model: str
    status: int
    reason: int
    prompt_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    total: str
    payer_total: str
    closed_ms: int = Field(sa_type=BigInteger)
    trouble: str = ""


class SegmentRow(_Table, table=True):
    """One node's line on a receipt; `running_total` is all it earned up to here, net of fees."""

    __tablename__ = "segment"
    __table_args__ = (Index("ix_segment_node_position", "node", "position"),)

    position: int = Field(primary_key=True, sa_type=BigInteger)
    number: int = Field(primary_key=True)
    node: bytes
    rank: int
    result: int
    amount: str
    fee: str
    running_total: str


class RunningRow(_Table, table=True):
    """A party's or grant's running total after all leaves here, as `pinaivu.books` keeps it.

    `kind` is payer, account (payer ‖ account), node, grant, or day (grant ‖ u64 day). Grants have
    no counter. `troubles` counts the receipts of this party that don't hold.
    """

    __tablename__ = "running"
    __table_args__ = (Index("ix_running_kind_counter", "kind", "counter"),)

    kind: str = Field(primary_key=True)
    key: bytes = Field(primary_key=True)
    counter: int = Field(default=0, sa_type=BigInteger)
    total: str = "0"
    troubles: int = Field(default=0, sa_type=BigInteger)


class TotalsRow(_Table, table=True):
    """All receipts here, added up; a single row."""

    __tablename__ = "totals"

    id: int = Field(default=1, primary_key=True)
    receipts: int = Field(default=0, sa_type=BigInteger)
    troubles: int = Field(default=0, sa_type=BigInteger)
    prompt_tokens: int = Field(default=0, sa_type=BigInteger)
    output_tokens: int = Field(default=0, sa_type=BigInteger)
    charged: str = "0"


class EpochRow(_Table, table=True):
    """An epoch as the log shows it, compared with its registration on chain."""

    __tablename__ = "epoch"

    number: int = Field(primary_key=True, sa_type=BigInteger)
    signer: bytes
    manifest: str
    first_position: int | None = Field(default=None, sa_type=BigInteger)
    trouble: str = ""


class BatchRow(_Table, table=True):
    """A signed batch, recomputed from the receipts of its leaves."""

    __tablename__ = "batch"

    sequence: int = Field(primary_key=True, sa_type=BigInteger)
    prev_size: int = Field(sa_type=BigInteger)
    new_size: int = Field(sa_type=BigInteger, index=True)
    digest: bytes = Field(index=True)
    time_ms: int = Field(sa_type=BigInteger)
    signed: bytes
    trouble: str = ""


class SettlementRow(_Table, table=True):
    """A batch that the chain settled, by its event."""

    __tablename__ = "settlement"

    sequence: int = Field(primary_key=True, sa_type=BigInteger)
    prev_size: int = Field(sa_type=BigInteger)
    new_size: int = Field(sa_type=BigInteger, index=True)
    new_root: bytes
    batch_digest: bytes
    debited: str
    fees: str
    block_number: int = Field(sa_type=BigInteger, index=True)
    block_ms: int = Field(sa_type=BigInteger)
    transaction: bytes


class EventRow(_Table, table=True):
    """A contract's event; `party` is the payer, node or gateway it is about, if it is about one."""

    __tablename__ = "event"
    __table_args__ = (Index("ix_event_party_block", "party", "block_number"),)

    block_number: int = Field(primary_key=True, sa_type=BigInteger)
    log_index: int = Field(primary_key=True, sa_type=BigInteger)
    block_ms: int = Field(sa_type=BigInteger)
    transaction: bytes = Field(index=True)
    contract: str
    name: str = Field(index=True)
    party: bytes
    arguments: str  # JSON, bytes as 0x hex, integers as decimal text
