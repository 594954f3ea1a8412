"""What a node must not forget: awards it has used, completions it owes, receipts it was given.

    journal = Journal(writer)
    await journal.use(digest, award, now_ms)          # before the work begins
    stands = await journal.complete(completion, …)    # before it is sent

`use` succeeds once per award, ever, in whatever process; `complete` keeps the first completion of
an award and returns the one that stands. Both are durable when they return. When the database
fails they raise `StorageFailed` and may or may not have happened: the caller treats the award as
used and sends no completion that it has not got back from here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlmodel import Session, col

from node.errors import AwardUsed
from pinaivu.messages import Award, Completion, Receipt
from pinaivu.store.node import CompletionRow, EarningRow, ReceiptRow, UsedAwardRow
from pinaivu.store.rows import Rows
from pinaivu.store.writer import Writer
from pinaivu.typed_data import Signed, signed_from_bytes

MOST_REFUSALS: Final = 40
"""After so many refusals a completion is no longer offered to its coordinator."""


@dataclass(frozen=True, slots=True)
class Owed:
    """A completion its coordinator has not taken yet."""

    award_digest: bytes
    signed: bytes


@dataclass(frozen=True, slots=True)
class LogEarnings:
    """What one log's receipts grant this node; base units, fees taken off.

    `running_total` is the log's own sum on the latest receipt. It exceeds `known_total`, the sum of
    the receipts kept here, exactly if `missing` receipts were never received.
    """

    log_id: bytes
    receipts: int
    missing: int
    known_total: int
    running_total: int


class Journal:
    """The node's durable state, through its database's one writer."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def use(self, digest: bytes, log_id: bytes, award: bytes, now_ms: int) -> None:
        """Take an award for work; `AwardUsed` if any process of this node did so before."""

        def insert(rows: Rows) -> None:
            row = {"digest": digest, "log_id": log_id, "award": award, "used_ms": now_ms}
            if not rows.add_once(UsedAwardRow, **row):
                raise AwardUsed(digest)

        await self._writer.write_rows(insert)

    async def used_since(self, ms: int) -> list[Signed[Award]]:
        """The awards taken for work since then."""
        wanted = select(col(UsedAwardRow.award)).where(col(UsedAwardRow.used_ms) >= ms)
        rows = await self._writer.read(lambda session: session.scalars(wanted).all())
        return [signed_from_bytes(Award, raw) for raw in rows]

    async def complete(
        self, completion: Signed[Completion], log_id: bytes, now_ms: int
    ) -> Signed[Completion]:
        """Keep an award's completion, unless it has one; the completion that stands."""
        digest, raw = completion.message.award_digest, completion.to_bytes()
        row = {"award_digest": digest, "log_id": log_id, "signed": raw, "signed_ms": now_ms}

        def insert(rows: Rows) -> bytes:
            if rows.add_once(CompletionRow, **row):
                return raw
            return bytes(_completion(rows, digest, "signed")[0])

        standing = await self._writer.write_rows(insert)
        return completion if standing == raw else signed_from_bytes(Completion, standing)

    async def owed(self, log_id: bytes) -> list[Owed]:
        """Completions that a log's coordinator has not taken, oldest first."""
        wanted = (
            select(CompletionRow)
            .where(col(CompletionRow.log_id) == log_id, col(CompletionRow.state) == "waiting")
            .order_by(col(CompletionRow.signed_ms))
        )

        def read(session: Session) -> list[Owed]:
            return [Owed(row.award_digest, row.signed) for row in session.scalars(wanted)]

        return await self._writer.read(read)

    async def taken(self, award_digest: bytes) -> None:
        """The coordinator has the completion."""

        def mark(rows: Rows) -> None:
            if not rows.change(CompletionRow, award_digest, state="taken"):
                raise _unknown(award_digest)

        await self._writer.write_rows(mark)

    async def refused(self, award_digest: bytes) -> bool:
        """The coordinator refused the completion; whether it will be offered again."""

        def mark(rows: Rows) -> bool:
            refusals, state = _completion(rows, award_digest, "refusals", "state")
            state = "given_up" if refusals + 1 >= MOST_REFUSALS else state
            rows.change(CompletionRow, award_digest, refusals=refusals + 1, state=state)
            return bool(state == "waiting")

        return await self._writer.write_rows(mark)

    async def keep_receipt(
        self, receipt: Signed[Receipt], digest: bytes, node: bytes, position: int, now_ms: int
    ) -> None:
        """Keep a receipt and what it grants `node`; again is no change."""
        message = receipt.message
        row = {
            "digest": digest,
            "log_id": message.log_id,
            "gateway": message.gateway,
            "job_id": message.job_id,
            "position": position,
            "signed": receipt.to_bytes(),
            "kept_ms": now_ms,
        }

        def insert(rows: Rows) -> None:
            if not rows.add_once(ReceiptRow, **row):
                return
            for counter, earning in _earnings(message, digest, node):
                key = (message.log_id, counter)
                # A receipt that supersedes another may repeat its counters.
                if not rows.change(EarningRow, key, **earning):
                    rows.insert(EarningRow, log_id=message.log_id, counter=counter, **earning)

        await self._writer.write_rows(insert)

    async def earnings(self) -> list[LogEarnings]:
        """What each log's receipts grant this node."""
        return await self._writer.read(read_earnings)


def read_earnings(session: Session) -> list[LogEarnings]:
    """`Journal.earnings` on an open session, for tools that run beside the node."""
    by_log: dict[bytes, list[EarningRow]] = {}
    ordered = select(EarningRow).order_by(col(EarningRow.log_id), col(EarningRow.counter))
    for row in session.scalars(ordered):
        by_log.setdefault(row.log_id, []).append(row)
    return [
        LogEarnings(
            log_id=log_id,
            receipts=len(rows),
            missing=rows[-1].counter - len(rows),
            known_total=sum(int(row.amount) - int(row.fee) for row in rows),
            running_total=int(rows[-1].running_total),
        )
        for log_id, rows in by_log.items()
    ]


def _completion(rows: Rows, award_digest: bytes, *names: str) -> tuple[Any, ...]:
    found = rows.find(CompletionRow, award_digest, *names)
    if found is None:
        raise _unknown(award_digest)
    return found


def _unknown(award_digest: bytes) -> LookupError:
    return LookupError(f"no completion for award 0x{award_digest.hex()}")


def _earnings(receipt: Receipt, digest: bytes, node: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Counter and columns of each segment that this node served."""
    for segment in receipt.segments:
        if segment.node == node and segment.rank:
            yield (
                segment.node_counter,
                {
                    "receipt_digest": digest,
                    "award_digest": segment.award_digest,
                    "amount": str(segment.amount),
                    "fee": str(segment.fee),
                    "running_total": str(segment.node_total),
                },
            )
