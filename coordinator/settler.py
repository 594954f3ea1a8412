"""Closes batches, signs them, and follows them on chain until they are final.

One batch is on its way at a time: the next is signed once the one before is mined. A batch that a
reorganisation drops is offered again as it is; one of an ended epoch that the chain doesn't have is
signed anew by this epoch under the same sequence. Who submits is anybody's business: the signed
batch is published, and owed to everybody in it until it is final (`coordinator.courier`).
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio
from msgspec.structs import replace
from sqlmodel import Session, col, delete, select

from coordinator.courier import Party, forget_copies, owe_copies, parties_in
from coordinator.log import Log
from coordinator.ports import ChainView
from pinaivu.errors import TransportFailure
from pinaivu.keys import SecretKey
from pinaivu.manifest import Parameters
from pinaivu.merkle.hashing import EMPTY_ROOT
from pinaivu.messages import Batch
from pinaivu.store.coordinator import BatchRow
from pinaivu.store.writer import Writer
from pinaivu.typed_data import Signed, signed_from_bytes

_LOOK_EVERY_S: Final = 0.25
_GONE_AFTER_MS: Final = 10_000
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Open:
    """A signed batch that is not final yet."""

    batch: Batch
    state: str  # batched, mined, reverted
    missing_since_ms: int = 0


class Settler:
    """Batches of one log under one epoch's key."""

    def __init__(
        self,
        log: Log,
        view: ChainView,
        writer: Writer,
        *,
        key: SecretKey,
        epoch: int,
        parameters: Parameters,
        now_ms: Callable[[], int],
        on_final: Callable[[], None] = lambda: None,
        on_owed: Callable[[Party], None] = lambda _: None,
    ) -> None:
        self._log = log
        self._view = view
        self._writer = writer
        self._key = key
        self._epoch = epoch
        self._rules = parameters
        self._now_ms = now_ms
        self._on_final = on_final
        self._on_owed = on_owed
        self._last: Batch | None = None
        self._open: list[_Open] = []  # not final yet, ascending by sequence

    async def resume(self) -> None:
        """Take up where the store and the chain stand; unsubmitted foreign batches are redone."""
        anchor = await trio.to_thread.run_sync(self._view.newest_anchor, self._log.log_id)
        self._log.check_against(anchor)
        rows = await self._writer.read(
            lambda session: list(session.exec(select(BatchRow).order_by(BatchRow.sequence)))  # type: ignore[arg-type]
        )
        for row in rows:
            batch = signed_from_bytes(Batch, row.batch)
            submitted = batch.message.sequence <= anchor.sequence
            if not submitted and batch.message.epoch != self._epoch:
                # Nobody can submit it any more: its leaves are batched again, by this epoch.
                await self._writer.write(partial(_forget_from, batch.message.sequence))
                break
            self._log.mark_batched(batch.message.new_size)
            self._last = batch.message
            if row.state == "final":
                self._log.mark_final(batch.message)
            else:
                self._open.append(_Open(batch.message, row.state, self._now_ms()))

    async def run(self) -> None:
        """For ever: look at chain and log, batch what is due."""
        while True:
            try:
                await self._look()
            except TransportFailure as error:
                _logger.warning("settlement waits: %s", error)
            await trio.sleep(_LOOK_EVERY_S)

    async def _look(self) -> None:
        if self._open:
            await self._follow()
        in_flight = any(entry.state != "mined" for entry in self._open)
        if not in_flight and self._due():
            await self._close_batch()

    async def _follow(self) -> None:
        """Where the open batches stand: mined, final, or dropped again."""
        newest = await trio.to_thread.run_sync(self._view.newest_anchor, self._log.log_id)
        final = await trio.to_thread.run_sync(self._view.anchor, self._log.log_id)
        for entry in list(self._open):
            sequence = entry.batch.sequence
            if sequence <= final.sequence:
                await self._set_state(entry, "final")
                self._log.mark_final(entry.batch)
                self._open.remove(entry)
                self._on_final()
            elif sequence <= newest.sequence:
                await self._set_state(entry, "mined")
            elif entry.state == "mined":
                entry.missing_since_ms = self._now_ms()
                await self._set_state(entry, "reverted")
            elif entry.batch.epoch != self._epoch and self._is_gone(entry):
                await self._sign_again(entry)

    def _is_gone(self, entry: "_Open") -> bool:
        """Whether a batch was dropped, and not only asked for where the chain lags behind."""
        return self._now_ms() - entry.missing_since_ms >= _GONE_AFTER_MS

    async def _set_state(self, entry: "_Open", state: str) -> None:
        if state == entry.state:
            return
        entry.state = state

        def write(session: Session) -> None:
            session.get_one(BatchRow, entry.batch.sequence).state = state
            if state == "final":
                forget_copies(session, entry.batch.sequence, entry.batch.sequence)

        await self._writer.write(write)

    def _due(self) -> bool:
        pending = self._log.pending()
        if not any(leaf.receipt for leaf in pending):
            return False
        value = sum(leaf.receipt.total for leaf in pending if leaf.receipt)
        age = self._now_ms() - next(leaf.closed_ms for leaf in pending if leaf.receipt)
        return (
            len(pending) >= self._rules.batch_count
            or age >= self._rules.batch_age_ms
            or value >= self._rules.batch_value
        )

    async def _close_batch(self) -> None:
        prev_size = self._log.batched_size
        new_size = min(self._log.size, prev_size + self._rules.batch_count)
        netting = self._log.netting(new_size)
        leaves = self._log.pending()[: new_size - prev_size]
        batch = Batch(
            log_id=self._log.log_id,
            epoch=self._epoch,
            sequence=self._last.sequence + 1 if self._last else 1,
            prev_size=prev_size,
            new_size=new_size,
            prev_root=self._log.tree.root(prev_size) if prev_size else EMPTY_ROOT,
            new_root=self._log.tree.root(new_size),
            parties=len(netting.statements),
            statement_root=netting.statement_root,
            fees=netting.fees,
            time_ms=self._now_ms(),
            debits=netting.debits,
            credits=netting.credits,
        )
        await self._publish(batch, parties_in(leaf.receipt for leaf in leaves if leaf.receipt))
        self._log.mark_batched(new_size)
        self._last = batch
        self._open.append(_Open(batch, "batched"))

    async def _sign_again(self, entry: "_Open") -> None:
        """The same batch by this epoch's key: the chain refuses the ended epoch's."""
        entry.batch = replace(entry.batch, epoch=self._epoch, time_ms=self._now_ms())
        entry.state = "batched"
        await self._publish(entry.batch)

    async def _publish(self, batch: Batch, parties: Iterable[Party] = ()) -> None:
        """Sign a batch and make it durable, in place of an earlier one of its sequence.

        It is owed to `parties`, and to those that the earlier one was owed to.
        """
        row = BatchRow(
            sequence=batch.sequence,
            batch=Signed.by(self._key, self._log.domain, batch).to_bytes(),
            new_size=batch.new_size,
            state="batched",
        )
        for party in await self._writer.write(partial(_write, row, parties)):
            self._on_owed(party)


def _write(row: BatchRow, parties: Iterable[Party], session: Session) -> list[Party]:
    session.merge(row)
    return owe_copies(session, row.sequence, parties)


def _forget_from(sequence: int, session: Session) -> None:
    forget_copies(session, sequence)
    session.exec(delete(BatchRow).where(col(BatchRow.sequence) >= sequence))
