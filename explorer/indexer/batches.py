"""Recomputes each signed batch from the receipts of its leaves.

Rows are the receipts' sums, statements follow from their counters, roots are those of the tree kept
here. A batch that is not settled yet may be signed anew by a later epoch; it is looked at again
until the chain has settled its sequence.
"""

from typing import Any

from sqlmodel import col, select

from explorer.indexer.history import History
from explorer.sources import LogSource
from pinaivu.errors import PeerFault
from pinaivu.keys import BadSignature
from pinaivu.merkle.hashing import EMPTY_ROOT
from pinaivu.messages import Batch
from pinaivu.settlement import net
from pinaivu.store.database import Database
from pinaivu.store.explorer import BatchRow, SettlementRow
from pinaivu.typed_data import Signed, signed_from_json


class BatchRefuted(PeerFault):
    """The log's list of batches is not a list of its batches."""


class BatchFollower:
    """Takes in the log's batches, as far as their leaves are known."""

    def __init__(self, source: LogSource, database: Database) -> None:
        self._source = source
        self._database = database

    def step(self, history: History) -> int:
        """Take in what is new; the highest sequence known."""
        sequence = self._settled_sequence()
        while entries := self._source.batches(sequence):
            for entry in entries:
                signed = _read(entry)
                if signed.message.sequence != sequence + 1:
                    raise BatchRefuted(
                        f"batch {signed.message.sequence} is listed after batch {sequence}"
                    )
                if signed.message.new_size > history.size:
                    return sequence
                self._take(history, signed)
                sequence += 1
        return sequence

    def _settled_sequence(self) -> int:
        """The last batch that is both here and settled on chain: it changes no more."""
        statement = (
            select(BatchRow.sequence)
            .join(SettlementRow, col(SettlementRow.sequence) == col(BatchRow.sequence))
            .where(col(SettlementRow.batch_digest) == col(BatchRow.digest))
            .order_by(col(BatchRow.sequence).desc())
        )
        with self._database.read() as session:
            return session.exec(statement).first() or 0

    def _take(self, history: History, signed: Signed[Batch]) -> None:
        batch, digest = signed.message, signed.digest(history.domain)
        with self._database.read() as session:
            known = session.get(BatchRow, batch.sequence)
            before = session.get(BatchRow, batch.sequence - 1)
        if known is not None and known.digest == digest:
            return
        troubles = [*_signature(history, signed), *_leaves(history, batch, before)]
        row = BatchRow(
            sequence=batch.sequence,
            prev_size=batch.prev_size,
            new_size=batch.new_size,
            digest=digest,
            time_ms=batch.time_ms,
            signed=signed.to_bytes(),
            trouble="; ".join(troubles),
        )
        with self._database.begin() as session:
            session.merge(row)


def _read(entry: dict[str, Any]) -> Signed[Batch]:
    return signed_from_json(Batch, entry.get("batch"))


def _signature(history: History, signed: Signed[Batch]) -> list[str]:
    batch = signed.message
    epoch = history.epochs.get(batch.epoch)
    if epoch is None or epoch.trouble:
        return [f"epoch {batch.epoch} does not hold"]
    if batch.log_id != history.log_id:
        return ["it names another log"]
    try:
        signed.require(history.domain, epoch.keys.signer)
    except BadSignature as error:
        return [str(error)]
    return []


def _leaves(history: History, batch: Batch, before: BatchRow | None) -> list[str]:
    prev_size = before.new_size if before else 0
    if batch.prev_size != prev_size or batch.new_size <= prev_size:
        return [f"it does not begin at leaf {prev_size}, where the batch before it ends"]
    prev_root = history.root_at(prev_size) if prev_size else EMPTY_ROOT
    netting = net(history.receipts(batch.prev_size, batch.new_size))
    claims = {
        "the root before it": (batch.prev_root, prev_root),
        "its root": (batch.new_root, history.root_at(batch.new_size)),
        "the payers' debits": (batch.debits, netting.debits),
        "the nodes' credits": (batch.credits, netting.credits),
        "the fees": (batch.fees, netting.fees),
        "the statements": (batch.statement_root, netting.statement_root),
        "the number of parties": (batch.parties, len(netting.statements)),
    }
    wrong = [what for what, (said, due) in claims.items() if said != due]
    return [f"{', '.join(wrong)}: not what the receipts give"] if wrong else []
