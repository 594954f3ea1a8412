"""What the pages ask of the explorer's database: lists by index, a page at a time."""

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import func
from sqlmodel import Session, col, select

from pinaivu.messages import Batch, Receipt
from pinaivu.store.database import Database
from pinaivu.store.explorer import (
    BatchRow,
    EpochRow,
    EventRow,
    LeafRow,
    ProgressRow,
    ReceiptRow,
    RunningRow,
    SegmentRow,
    SettlementRow,
    TotalsRow,
)
from pinaivu.typed_data import Signed, signed_from_bytes

PAGE: Final = 25


class Listed(Struct, frozen=True):
    """A receipt in a list, with the signed batch over it and the block that settled it, if any."""

    row: ReceiptRow
    batch: BatchRow | None
    settlement: SettlementRow | None


class Settling(Struct, frozen=True):
    """How far the log is settled: leaves below `size`; receipts above it, and since when."""

    size: int
    waiting: int
    oldest_ms: int


class Reader:
    """Reads of one explorer database; each is a snapshot of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def progress(self) -> dict[str, ProgressRow]:
        """Each task of the indexer."""
        with self._database.read() as session:
            return {row.task: row for row in session.exec(select(ProgressRow))}

    def totals(self) -> TotalsRow:
        """All receipts, added up."""
        with self._database.read() as session:
            return session.get(TotalsRow, 1) or TotalsRow()

    def settling(self) -> Settling:
        """What the chain has settled of what the log holds."""
        with self._database.read() as session:
            size = session.exec(select(func.max(SettlementRow.new_size))).one() or 0
            waiting, oldest = session.exec(
                select(func.count(), func.min(ReceiptRow.closed_ms)).where(
                    col(ReceiptRow.position) >= size
                )
            ).one()
        return Settling(size, waiting, oldest or 0)

    def epochs(self) -> Sequence[EpochRow]:
        """All epochs."""
        with self._database.read() as session:
            return session.exec(select(EpochRow).order_by(col(EpochRow.number))).all()

    def receipts(
        self,
        *,
        before: int | None = None,
        limit: int = PAGE,
        payer: bytes | None = None,
        gateway: bytes | None = None,
        node: bytes | None = None,
        within: tuple[int, int] | None = None,
    ) -> list[Listed]:
        """Receipts below a position, newest first; `within` gives first leaf and the one after."""
        statement: Any = select(ReceiptRow).order_by(col(ReceiptRow.position).desc()).limit(limit)
        if node is not None:
            own = select(SegmentRow.position).where(SegmentRow.node == node).distinct()
            if before is not None:
                own = own.where(col(SegmentRow.position) < before)
            own = own.order_by(col(SegmentRow.position).desc()).limit(limit)
            statement = statement.where(col(ReceiptRow.position).in_(own))
        if before is not None:
            statement = statement.where(col(ReceiptRow.position) < before)
        if payer is not None:
            statement = statement.where(ReceiptRow.payer == payer)
        if gateway is not None:
            statement = statement.where(ReceiptRow.gateway == gateway)
        if within is not None:
            statement = statement.where(col(ReceiptRow.position) >= within[0])
            statement = statement.where(col(ReceiptRow.position) < within[1])
        with self._database.read() as session:
            return [_listed(session, row) for row in session.exec(statement)]

    def request(self, job_id: bytes) -> list[Listed]:
        """The receipts of a request id, one per gateway that used it."""
        with self._database.read() as session:
            rows = session.exec(select(ReceiptRow).where(ReceiptRow.job_id == job_id))
            return [_listed(session, row) for row in rows.all()]

    def receipt(self, position: int) -> tuple[Signed[Receipt], LeafRow]:
        """A receipt as it was signed, and its leaf."""
        with self._database.read() as session:
            row = session.get_one(LeafRow, position)
        return signed_from_bytes(Receipt, row.signed), row

    def batches(self, *, before: int | None = None, limit: int = PAGE) -> list[BatchRow]:
        """Signed batches below a sequence, newest first."""
        statement = select(BatchRow).order_by(col(BatchRow.sequence).desc()).limit(limit)
        if before is not None:
            statement = statement.where(col(BatchRow.sequence) < before)
        with self._database.read() as session:
            return list(session.exec(statement))

    def batch(self, sequence: int) -> tuple[BatchRow | None, SettlementRow | None]:
        """A batch as signed and as settled."""
        with self._database.read() as session:
            return session.get(BatchRow, sequence), session.get(SettlementRow, sequence)

    def settlements(self, sequences: Sequence[int]) -> dict[int, SettlementRow]:
        """The settlements of these batches, as far as they are settled."""
        statement = select(SettlementRow).where(col(SettlementRow.sequence).in_(sequences))
        with self._database.read() as session:
            return {row.sequence: row for row in session.exec(statement)}

    def running(self, kind: str, key: bytes) -> RunningRow | None:
        """A party's running totals."""
        with self._database.read() as session:
            return session.get(RunningRow, (kind, key))

    def busiest(self, kind: str, limit: int = PAGE) -> list[RunningRow]:
        """The parties of a kind with the most receipts."""
        statement = (
            select(RunningRow)
            .where(RunningRow.kind == kind)
            .order_by(col(RunningRow.counter).desc())
            .limit(limit)
        )
        with self._database.read() as session:
            return list(session.exec(statement))

    def settled_total(self, kind: str, key: bytes, size: int) -> int:
        """A node's or payer's running total after the leaves below `size`, base units."""
        statement: Any
        if kind == "node":
            statement = (
                select(SegmentRow.running_total)
                .where(SegmentRow.node == key, SegmentRow.rank > 0)
                .where(col(SegmentRow.position) < size)
                .order_by(col(SegmentRow.position).desc(), col(SegmentRow.number).desc())
            )
        else:
            statement = (
                select(ReceiptRow.payer_total)
                .where(ReceiptRow.payer == key, col(ReceiptRow.position) < size)
                .order_by(col(ReceiptRow.position).desc())
            )
        with self._database.read() as session:
            return int(session.exec(statement.limit(1)).first() or 0)

    def knows_gateway(self, gateway: bytes) -> bool:
        """Whether any receipt names this gateway."""
        statement = select(ReceiptRow.position).where(ReceiptRow.gateway == gateway).limit(1)
        with self._database.read() as session:
            return session.exec(statement).first() is not None

    def events(
        self, *, party: bytes | None = None, names: Sequence[str] = (), limit: int = 200
    ) -> list[EventRow]:
        """Events about a party or of these names, newest first."""
        order = (col(EventRow.block_number).desc(), col(EventRow.log_index).desc())
        statement = select(EventRow).order_by(*order).limit(limit)
        if party is not None:
            statement = statement.where(EventRow.party == party)
        if names:
            statement = statement.where(col(EventRow.name).in_(names))
        with self._database.read() as session:
            return list(session.exec(statement))

    def transaction(self, digest: bytes) -> list[EventRow]:
        """The events of a transaction, in order."""
        statement = select(EventRow).where(EventRow.transaction == digest)
        with self._database.read() as session:
            return list(session.exec(statement.order_by(col(EventRow.log_index))))

    def find_digest(self, digest: bytes) -> LeafRow | BatchRow | None:
        """The leaf or batch with this EIP-712 digest."""
        with self._database.read() as session:
            leaf = session.exec(select(LeafRow).where(LeafRow.digest == digest)).first()
            return leaf or session.exec(select(BatchRow).where(BatchRow.digest == digest)).first()


def batch_message(row: BatchRow) -> Batch:
    """The batch of a row."""
    return signed_from_bytes(Batch, row.signed).message


def _listed(session: Session, row: ReceiptRow) -> Listed:
    def over(table: Any) -> Any:
        return session.exec(
            select(table)
            .where(col(table.new_size) > row.position)
            .order_by(col(table.new_size))
            .limit(1)
        ).first()

    return Listed(row, over(BatchRow), over(SettlementRow))
