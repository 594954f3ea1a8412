"""The gateway's tables: keys and what they used, grants, requests with attempts, outbox, receipts.

Signed messages are kept as they travelled (`typed_data.Signed.to_bytes`); the columns beside them
are for finding rows and adding up. A key is stored as its hash only. `request.body`,
`request.response` and `claim.answer` are the places of the system where prompt and answer lie on
disk: sealed to the API key (`gateway.seals`), for as long as the gateway is configured to keep
them, then they are emptied.
"""

from sqlalchemy import BigInteger, Index, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class _Table(SQLModel, registry=registry(metadata=MetaData())):
    """Base of this service's tables: a metadata of its own."""


METADATA = _Table.metadata


class GrantRow(_Table, table=True):
    """A payer's signed permission to spend; checked before it was stored."""

    __tablename__ = "grant"

    digest: bytes = Field(primary_key=True)
    payer: bytes = Field(index=True)
    signed: bytes
    added_ms: int = Field(sa_type=BigInteger)


class KeyRow(_Table, table=True):
    """An API key: who pays for it, and what it may do (`gateway_policy.Policy`, as JSON)."""

    __tablename__ = "key"

    key_id: str = Field(primary_key=True)
    key_hash: bytes = Field(unique=True)
    shown: str  # the first characters, for telling keys apart
    label: str
    payer: bytes
    policy: str = "{}"
    created_ms: int = Field(sa_type=BigInteger)
    revoked_ms: int | None = Field(default=None, sa_type=BigInteger)


class PayerRow(_Table, table=True):
    """A further payer of a key, asked in order of `place` where those before can't pay."""

    __tablename__ = "key_payer"

    key_id: str = Field(primary_key=True)
    place: int = Field(primary_key=True)
    payer: bytes


class AccountRow(_Table, table=True):
    """A hosted key's sub-account: what blinds it (32 bytes), and all it may ever spend.

    The secret is shown to nobody but the key's holder: with it, receipts are known as the key's.
    """

    __tablename__ = "key_account"

    key_id: str = Field(primary_key=True)
    secret: bytes
    limit_units: int = Field(sa_type=BigInteger)
    settled_units: int = Field(default=0, sa_type=BigInteger)  # of requests before the time below
    settled_before_ms: int = Field(default=0, sa_type=BigInteger)


class MeterRow(_Table, table=True):
    """What a key has used and reserved in the clock's minute, day and month (UTC), and right now.

    A cache of `request` and `reservation` rows, changed under its own lock only. A number of -1
    for a window means that it has to be counted from those rows.
    """

    __tablename__ = "meter"

    key_id: str = Field(primary_key=True)
    minute: int = -1  # since 1970
    minute_requests: int = Field(default=0, sa_type=BigInteger)
    minute_tokens: int = Field(default=0, sa_type=BigInteger)
    day: int = -1  # since 1970
    day_tokens: int = Field(default=0, sa_type=BigInteger)
    day_units: int = Field(default=0, sa_type=BigInteger)
    month: int = -1  # since the year 0
    month_tokens: int = Field(default=0, sa_type=BigInteger)
    month_units: int = Field(default=0, sa_type=BigInteger)
    streams: int = 0


class ReservationRow(_Table, table=True):
    """The most that a request under way may use of its key's limits.

    `job_id` is set in the transaction that stores the request, before anything is dispatched.
    `streams` is 1 until the process that serves it has ended.
    """

    __tablename__ = "reservation"

    reservation_id: bytes = Field(primary_key=True)
    key_id: str = Field(index=True)
    process_id: bytes
    job_id: bytes | None = None
    begun_ms: int = Field(sa_type=BigInteger)
    tokens: int = Field(sa_type=BigInteger)
    units: int = Field(sa_type=BigInteger)
    streams: int = 1


class ProcessRow(_Table, table=True):
    """A running gateway process; taken for ended once `until_ms` is past."""

    __tablename__ = "process"

    process_id: bytes = Field(primary_key=True)
    until_ms: int = Field(sa_type=BigInteger)


class ClaimRow(_Table, table=True):
    """An `Idempotency-Key` that a request was made with: its one answer, or who works on it.

    `name` is the header's SHA-256, `body_digest` that of the request. `ended_ms` is set once the
    request is over; `answer` is the whole answer as JSON, sealed; emptied as prompts are.
    """

    __tablename__ = "claim"

    key_id: str = Field(primary_key=True)
    name: bytes = Field(primary_key=True)
    body_digest: bytes
    process_id: bytes
    job_id: bytes | None = None
    begun_ms: int = Field(sa_type=BigInteger, index=True)
    ended_ms: int | None = Field(default=None, sa_type=BigInteger)
    answer: bytes | None = None


class ActRow(_Table, table=True):
    """Something an administrator did: who, what, when. Rows are only ever added."""

    __tablename__ = "act"

    number: int | None = Field(default=None, primary_key=True)
    at_ms: int = Field(sa_type=BigInteger)
    who: str
    what: str
    subject: str = Field(index=True)  # a key's id, a grant's digest
    detail: str  # JSON; never a secret


class RequestRow(_Table, table=True):
    """A job this gateway has signed.

    `state`: open (no delivery signed yet), delivered (in the outbox), unserved (refused by the
    auction, its receipt still to be fetched), receipted, or refused (there is no receipt).
    `tokens` and `units` are what the key's quota is charged: the gateway's own figures, replaced
    by the receipt's.
    """

    __tablename__ = "request"
    __table_args__ = (Index("ix_request_key_created", "key_id", "created_ms"),)

    job_id: bytes = Field(primary_key=True)
    key_id: str = Field(index=True)
    model: str
    job: bytes
    grant: bytes
    salt_root: bytes
    state: str = Field(index=True)
    created_ms: int = Field(sa_type=BigInteger, index=True)
    prompt_tokens: int = Field(default=0, sa_type=BigInteger)
    output_tokens: int = Field(default=0, sa_type=BigInteger)
    units: int = Field(default=0, sa_type=BigInteger)
    body: bytes | None = None
    response: bytes | None = None


class AttemptRow(_Table, table=True):
    """An award of a job, with what was said of it; `acks_ceiling` is never below those released."""

    __tablename__ = "attempt"

    award_digest: bytes = Field(primary_key=True)
    job_id: bytes = Field(index=True)
    rank: int
    award: bytes
    acks_ceiling: int = 0
    failure: bytes | None = None
    completion: bytes | None = None


class CountDifferenceRow(_Table, table=True):
    """Two counts of one segment's tokens that lie more than max(2, 1 %) apart.

    `what`: prompt or output. `result`: what became of the attempt, as on the receipt.
    """

    __tablename__ = "count_difference"

    award_digest: bytes = Field(primary_key=True)
    what: str = Field(primary_key=True)
    job_id: bytes = Field(index=True)
    rank: int
    node: bytes
    by_node: int = Field(sa_type=BigInteger)
    by_gateway: int = Field(sa_type=BigInteger)
    result: int
    noticed_ms: int = Field(sa_type=BigInteger)


class OutboxRow(_Table, table=True):
    """A whole `wire.Deliver` frame, sent until the receipt comes back."""

    __tablename__ = "outbox"

    job_id: bytes = Field(primary_key=True)
    frame: bytes
    queued_ms: int = Field(sa_type=BigInteger)


class ReceiptRow(_Table, table=True):
    """A job's one receipt; `problem` says what in it contradicts this gateway's own evidence."""

    __tablename__ = "receipt"

    job_id: bytes = Field(primary_key=True)
    signed: bytes
    position: int = Field(sa_type=BigInteger, index=True)  # its index in the log
    arrived_ms: int = Field(sa_type=BigInteger)
    problem: str | None = None
