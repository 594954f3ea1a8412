"""The node's tables: awards it has used, completions it has signed, receipts it was given.

Signed messages are kept as they travelled (`typed_data.Signed.to_bytes`). Amounts are decimal text,
since they are wider than a database's integers; they are copies, for adding up and showing.
"""

from sqlalchemy import BigInteger, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class _Table(SQLModel, registry=registry(metadata=MetaData())):
    """Base of this service's tables: a metadata of its own."""


METADATA = _Table.metadata


class UsedAwardRow(_Table, table=True):
    """An award this node began to work on; inserted before the work, never changed."""

    __tablename__ = "used_award"

    digest: bytes = Field(primary_key=True)
    log_id: bytes = Field(index=True)
    award: bytes
    used_ms: int = Field(sa_type=BigInteger)


class CompletionRow(_Table, table=True):
    """The one completion of an award; only `state` and `refusals` ever change."""

    __tablename__ = "completion"

    award_digest: bytes = Field(primary_key=True)
    log_id: bytes
    signed: bytes
    signed_ms: int = Field(sa_type=BigInteger)
    state: str = Field(default="waiting", index=True)  # waiting, taken, given_up
    refusals: int = 0


class ReceiptRow(_Table, table=True):
    """A receipt that names this node, with its place in the log."""

    __tablename__ = "receipt"

    digest: bytes = Field(primary_key=True)
    log_id: bytes = Field(index=True)
    gateway: bytes
    job_id: bytes = Field(index=True)
    position: int = Field(sa_type=BigInteger)
    signed: bytes
    kept_ms: int = Field(sa_type=BigInteger)


class EarningRow(_Table, table=True):
    """One segment of this node on a receipt; `counter` is gapless per log."""

    __tablename__ = "earning"

    log_id: bytes = Field(primary_key=True)
    counter: int = Field(primary_key=True, sa_type=BigInteger)
    receipt_digest: bytes = Field(index=True)
    award_digest: bytes
    amount: str
    fee: str
    running_total: str
