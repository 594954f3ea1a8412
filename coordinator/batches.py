"""Signed batches in the store: the one that stands under each sequence, and those it replaced.

Two signed batches of one sequence are both good for the chain; which one it takes is its choice.
So a replaced one is kept until a batch of its sequence is final. Rows above a batch that do not
join on to it are replaced with it: the chain would refuse them. Copies of what stands are owed to
its parties, and of nothing else.
"""

from collections.abc import Iterable

from sqlmodel import Session, col, delete, select

from coordinator.courier import Party, forget_copies, owe_copies
from pinaivu.messages import Batch
from pinaivu.store.coordinator import BatchRow, ReplacedBatchRow
from pinaivu.typed_data import Domain, Signed, signed_from_bytes


def standing(session: Session) -> list[tuple[Signed[Batch], str]]:
    """The batches that stand, ascending, each with its state."""
    rows = session.exec(select(BatchRow).order_by(col(BatchRow.sequence)))
    return [(signed_from_bytes(Batch, row.batch), row.state) for row in rows]


def put(
    domain: Domain, signed: Signed[Batch], state: str, parties: Iterable[Party], session: Session
) -> list[Party]:
    """Let a batch stand under its sequence, with those above it that join on; who is owed it."""
    batch = signed.message
    rows = session.exec(
        select(BatchRow)
        .where(col(BatchRow.sequence) >= batch.sequence)
        .order_by(col(BatchRow.sequence))
    ).all()
    above = [row for row in rows if row.sequence > batch.sequence]
    if above and signed_from_bytes(Batch, above[0].batch).message.prev_size == batch.new_size:
        above = []
    for row in [*(row for row in rows if row.sequence == batch.sequence), *above]:
        _set_aside(domain, row, session)
    session.flush()
    forget_copies(session, batch.sequence, None if above else batch.sequence)
    session.add(
        BatchRow(
            sequence=batch.sequence, batch=signed.to_bytes(), new_size=batch.new_size, state=state
        )
    )
    return owe_copies(session, batch.sequence, parties)


def set_aside_from(domain: Domain, sequence: int, session: Session) -> None:
    """Let nothing stand from a sequence on."""
    forget_copies(session, sequence)
    for row in session.exec(select(BatchRow).where(col(BatchRow.sequence) >= sequence)):
        _set_aside(domain, row, session)


def set_state(sequence: int, state: str, session: Session) -> None:
    """How far the batch that stands under a sequence has come; final ones replace for good."""
    session.get_one(BatchRow, sequence).state = state
    if state == "final":
        forget_copies(session, sequence, sequence)
        session.exec(delete(ReplacedBatchRow).where(col(ReplacedBatchRow.sequence) <= sequence))


def replaced(domain: Domain, digest: bytes, session: Session) -> Signed[Batch] | None:
    """A batch that was replaced, by its digest; None where there is none that has it."""
    row = session.get(ReplacedBatchRow, digest)
    signed = signed_from_bytes(Batch, row.batch) if row else None
    return signed if signed and signed.digest(domain) == digest else None


def _set_aside(domain: Domain, row: BatchRow, session: Session) -> None:
    digest = signed_from_bytes(Batch, row.batch).digest(domain)
    session.merge(ReplacedBatchRow(digest=digest, sequence=row.sequence, batch=row.batch))
    session.delete(row)
