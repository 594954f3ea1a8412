"""The gateway's durable state: what is written, when it has to be, and what a restart finds.

Each method is one transaction through the database's one writer; when it returns, it is durable.
It raises `StorageFailed` when it may not be: every write here can be repeated, and repeating one
that did happen changes nothing. What hangs on what:

- a request row stands before anything is dispatched to a node;
- an attempt row stands before its first acknowledgement is released, and its `acks_ceiling` is
  raised before an acknowledgement above it is: a restart never reports fewer than were released;
- a failure stands before it is reported;
- an outbox row stands before the client sees the end of its answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from sqlalchemy import func, update
from sqlmodel import Session, col, select

from pinaivu.messages import Grant, Receipt
from pinaivu.store import gateway_accounts as accounts
from pinaivu.store.database import Database
from pinaivu.store.gateway import (
    AccountRow,
    AttemptRow,
    CountDifferenceRow,
    GrantRow,
    KeyRow,
    OutboxRow,
    PayerRow,
    ReceiptRow,
    RequestRow,
    ReservationRow,
)
from pinaivu.store.rows import Rows
from pinaivu.store.writer import Writer
from pinaivu.typed_data import Signed, signed_from_bytes

T = TypeVar("T")
ACKS_AHEAD: Final = 32
"""By how many acknowledgements (of 32 tokens) the durable ceiling runs ahead of those released."""

DAY_MS: Final = 86_400_000
_MOST_UNITS: Final = (1 << 63) - 1
_Differed = tuple[str, CountDifferenceRow]
OPEN, DELIVERED, UNSERVED, RECEIPTED, REFUSED = (
    "open",
    "delivered",
    "unserved",
    "receipted",
    "refused",
)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a key has used up on one day: tokens of prompt and answer, and base units."""

    tokens: int = 0
    units: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """How a request ended, as far as the gateway can tell without a receipt."""

    job_id: bytes
    frame: bytes
    output_tokens: int
    units: int
    completions: dict[bytes, bytes]
    response: bytes | None
    now_ms: int
    differences: Sequence[CountDifferenceRow] = ()


class Ledger:
    """Reads and writes of one gateway."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.differed: list[Callable[[str, CountDifferenceRow], None]] = []
        """Who hears of each count difference once it is stored, with the request's model."""
        self._untidy = True  # whether emptied contents may still stand in the write-ahead log

    # Keys and grants

    async def manage(self, action: Callable[[Database], T]) -> T:
        """Have an administrator's function change keys or grants (`store.gateway_keys`)."""
        return await self._writer.in_thread(action)

    async def key(self, key_hash: bytes) -> KeyRow | None:
        """The key of a hash, revoked or not."""
        query = select(KeyRow).where(KeyRow.key_hash == key_hash)
        return await self._writer.read(lambda session: session.exec(query).first())

    async def further_payers(self, key_id: str) -> list[bytes]:
        """Who pays for a key where its first payer can't, in order."""
        query = (
            select(PayerRow.payer).where(PayerRow.key_id == key_id).order_by(col(PayerRow.place))
        )
        return await self._writer.read(lambda session: list(session.exec(query).all()))

    async def account(self, key_id: str) -> AccountRow | None:
        """A hosted key's sub-account; None for other keys."""
        return await self._writer.read(lambda session: session.get(AccountRow, key_id))

    async def account_spent(self, key_id: str, now_ms: int) -> int:
        """Base units that a hosted key has spent, ever; at most the last requests are added up."""
        units, line_ms = await self._writer.read(lambda session: accounts.spent(session, key_id))
        if line_ms < now_ms - 2 * accounts.APART_MS:
            await self._writer.write_apart(lambda session: accounts.settle(session, key_id, now_ms))
        return units

    async def grants(self, payer: bytes) -> list[Signed[Grant]]:
        """A payer's grants, newest first."""
        query = (
            select(GrantRow).where(GrantRow.payer == payer).order_by(col(GrantRow.added_ms).desc())
        )
        rows = await self._writer.read(lambda session: session.exec(query).all())
        return [signed_from_bytes(Grant, row.signed) for row in rows]

    async def reserved(self, key_id: str) -> Spent:
        """What the key's requests under way could still use, in all processes."""
        query = select(
            func.coalesce(func.sum(col(ReservationRow.tokens)), 0),
            func.coalesce(func.sum(col(ReservationRow.units)), 0),
            func.count(),
        ).where(ReservationRow.key_id == key_id)
        tokens, units, requests = await self._writer.read(lambda session: session.exec(query).one())
        return Spent(int(tokens), int(units), int(requests))

    async def spent(self, key_id: str, day: int | None = None) -> Spent:
        """What a key used on a day (days since 1970, UTC), or ever."""
        query = select(
            func.coalesce(func.sum(col(RequestRow.prompt_tokens)), 0),
            func.coalesce(func.sum(col(RequestRow.output_tokens)), 0),
            func.coalesce(func.sum(col(RequestRow.units)), 0),
            func.count(),
        ).where(RequestRow.key_id == key_id)
        if day is not None:
            query = query.where(
                col(RequestRow.created_ms) >= day * DAY_MS,
                col(RequestRow.created_ms) < (day + 1) * DAY_MS,
            )
        prompt, output, units, requests = await self._writer.read(
            lambda session: session.exec(query).one()
        )
        return Spent(int(prompt) + int(output), int(units), int(requests))

    # A request's life

    async def open(
        self, row: RequestRow, bind: Callable[[Rows, bytes], None] | None = None
    ) -> None:
        """A job has been signed; `bind` ties to it, at once, what was set aside for it."""
        values = row.model_dump()

        def write(rows: Rows) -> None:
            if bind is not None:
                bind(rows, row.job_id)
            rows.add_once(RequestRow, **values)

        await self._writer.write_rows(write)

    async def award(self, row: AttemptRow) -> None:
        """An award has been accepted."""
        values = row.model_dump()
        await self._writer.write_rows(lambda rows: rows.add_once(AttemptRow, **values))

    async def raise_ceiling(self, award_digest: bytes, acks: int) -> None:
        """Acknowledgements up to `acks` may be released from now on."""
        await self._writer.write_rows(
            lambda rows: _require_one(rows.change(AttemptRow, award_digest, acks_ceiling=acks))
        )

    async def fail(self, row: AttemptRow, failure: bytes) -> None:
        """A failure has been signed; it is reported next. The first one stands."""
        values = row.model_dump()

        def write(rows: Rows) -> None:
            rows.add_once(AttemptRow, **values)
            if rows.find(AttemptRow, row.award_digest, "failure") == (None,):
                rows.change(AttemptRow, row.award_digest, failure=failure)

        await self._writer.write_rows(write)

    async def conclude(self, end: Conclusion) -> None:
        """A delivery has been signed; the first one stands."""
        row = {"job_id": end.job_id, "frame": end.frame, "queued_ms": end.now_ms}

        def write(rows: Rows) -> list[_Differed]:
            if _state(rows, end.job_id) != OPEN:
                return []
            rows.change(
                RequestRow,
                end.job_id,
                state=DELIVERED,
                output_tokens=end.output_tokens,
                units=min(end.units, _MOST_UNITS),
                response=end.response,
            )
            rows.add_once(OutboxRow, **row)
            for digest, completion in end.completions.items():
                _require_one(rows.change(AttemptRow, digest, completion=completion))
            return _added(rows, end.differences)

        self._tell(await self._writer.write_rows(write))

    async def amend(self, job_id: bytes, refused: bytes, frame: bytes) -> None:
        """Another delivery is sent in the place of one that was refused; doing it twice is once."""
        sent = (
            update(OutboxRow)
            .where(col(OutboxRow.job_id) == job_id, col(OutboxRow.frame) == refused)
            .values(frame=frame)
        )
        await self._writer.write(lambda session: session.connection().execute(sent))

    async def mark(self, job_id: bytes, state: str) -> None:
        """A request came to nothing (`UNSERVED`, `REFUSED`): it is charged nothing."""

        def write(rows: Rows) -> None:
            if _state(rows, job_id) in (OPEN, UNSERVED):
                rows.change(RequestRow, job_id, state=state, prompt_tokens=0)

        await self._writer.write_rows(write)

    async def receipt(
        self,
        row: ReceiptRow,
        tokens: tuple[int, int],
        units: int,
        differences: Sequence[CountDifferenceRow] = (),
    ) -> None:
        """The receipt has come: it replaces the gateway's own figures and ends the sending."""
        values = row.model_dump()

        def write(rows: Rows) -> list[_Differed]:
            rows.add_once(ReceiptRow, **values)
            prompt, output = tokens
            done = rows.change(
                RequestRow,
                row.job_id,
                state=RECEIPTED,
                prompt_tokens=prompt,
                output_tokens=output,
                units=min(units, _MOST_UNITS),
            )
            _require_one(done)
            rows.remove(OutboxRow, row.job_id)
            return _added(rows, differences)

        self._tell(await self._writer.write_rows(write))

    def _tell(self, stored: list[_Differed]) -> None:
        for model, row in stored:
            for hear in self.differed:
                hear(model, row)

    # What is found again

    async def unfinished(self) -> list[RequestRow]:
        """Requests without their receipt, oldest first."""
        query = (
            select(RequestRow)
            .where(col(RequestRow.state).in_((OPEN, DELIVERED, UNSERVED)))
            .order_by(col(RequestRow.created_ms))
        )
        return await self._writer.read(lambda session: list(session.exec(query).all()))

    async def request(self, job_id: bytes) -> RequestRow | None:
        """A request by its job id."""
        return await self._writer.read(lambda session: session.get(RequestRow, job_id))

    async def attempts(self, job_id: bytes) -> list[AttemptRow]:
        """A job's awards in rank order."""
        query = select(AttemptRow).where(AttemptRow.job_id == job_id).order_by(col(AttemptRow.rank))
        return await self._writer.read(lambda session: list(session.exec(query).all()))

    async def queued(self, job_id: bytes) -> tuple[RequestRow | None, bytes | None]:
        """A request, and its delivery where that waits for its receipt: a `wire.Deliver` frame."""

        def read(session: Session) -> tuple[RequestRow | None, bytes | None]:
            sent = session.get(OutboxRow, job_id)
            return session.get(RequestRow, job_id), sent.frame if sent else None

        return await self._writer.read(read)

    async def found_receipt(self, job_id: bytes) -> ReceiptRow | None:
        """A job's receipt."""
        return await self._writer.read(lambda session: session.get(ReceiptRow, job_id))

    async def differences(self, job_id: bytes) -> list[CountDifferenceRow]:
        """Where node and gateway counted a job's tokens differently, in rank order."""
        query = (
            select(CountDifferenceRow)
            .where(CountDifferenceRow.job_id == job_id)
            .order_by(col(CountDifferenceRow.rank), col(CountDifferenceRow.what))
        )
        return await self._writer.read(lambda session: list(session.exec(query).all()))

    async def requests_after(self, key_id: str, after: bytes, most: int) -> list[RequestRow]:
        """A key's requests whose job id is above `after`, which is the order they were made in."""
        query = (
            select(RequestRow)
            .where(RequestRow.key_id == key_id, col(RequestRow.job_id) > after)
            .order_by(col(RequestRow.job_id))
            .limit(most)
        )
        return await self._writer.read(lambda session: list(session.exec(query).all()))

    async def receipts_from(self, position: int) -> list[Receipt]:
        """Receipts at this index of their log or above."""
        query = select(ReceiptRow.signed).where(col(ReceiptRow.position) >= position)
        rows = await self._writer.read(lambda session: session.exec(query).all())
        return [signed_from_bytes(Receipt, raw).message for raw in rows]

    async def forget_contents(self, before_ms: int) -> None:
        """Empty prompts and answers of requests made before `before_ms`, and leave no trace."""

        def write(session: Session) -> int:
            old = (
                update(RequestRow)
                .where(col(RequestRow.created_ms) < before_ms)
                .where(col(RequestRow.body).is_not(None) | col(RequestRow.response).is_not(None))
                .values(body=None, response=None)
            )
            return int(session.connection().execute(old).rowcount)

        self._untidy = bool(await self._writer.write(write)) or self._untidy
        if self._untidy:
            self._untidy = not await self._writer.forget_deleted()


def _added(rows: Rows, found: Sequence[CountDifferenceRow]) -> list[_Differed]:
    """Store differences; those that were not there yet, each with its request's model."""
    return [
        (_column(rows, row.job_id, "model"), row)
        for row in found
        if rows.add_once(CountDifferenceRow, **row.model_dump())
    ]


def _state(rows: Rows, job_id: bytes) -> str:
    """A request's state; every request that is concluded has been opened."""
    return _column(rows, job_id, "state")


def _column(rows: Rows, job_id: bytes, name: str) -> str:
    found = rows.find(RequestRow, job_id, name)
    if found is None:
        raise LookupError(f"no request {job_id.hex()}")
    return str(found[0])


def _require_one(rows: int) -> None:
    """A bug of ours where the row to be changed was never written."""
    if rows != 1:
        raise LookupError(f"{rows} rows instead of one")
