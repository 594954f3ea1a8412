"""Closes batches, signs them, and follows them on chain until they are final.

One batch is on its way at a time: the next is signed once the one before is mined. A batch takes
no more from deposits than the chain's debit limiter lets it; where not even one receipt fits, it
waits and says so. A batch that a reorganisation drops is offered again as it is. Under the same
sequence are signed anew: by this epoch, a batch of an ended one that the chain doesn't have; with
fewer leaves, one that the chain doesn't take because payers left since. Whichever of two the chain
settles then stands, also after it has been replaced. Who submits is anybody's business: the signed
batch is published, and owed to everybody in it until it is final (`coordinator.courier`).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio
from msgspec.structs import replace

from coordinator import batches
from coordinator.courier import Party, parties_in
from coordinator.errors import LogDiverged
from coordinator.limit import charged, fitting
from coordinator.log import Log
from coordinator.ports import AnchorRecord, ChainView
from pinaivu.errors import TransportFailure
from pinaivu.keys import SecretKey
from pinaivu.manifest import Parameters
from pinaivu.merkle.hashing import EMPTY_ROOT
from pinaivu.messages import Batch
from pinaivu.store.writer import Writer
from pinaivu.typed_data import Signed

_LOOK_EVERY_S: Final = 0.25
_PATIENCE_MS: Final = 10_000
_RETRY_MS: Final = 2_000
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Open:
    """A signed batch that is not final yet."""

    batch: Batch
    digest: bytes
    state: str  # batched, mined, reverted
    since_ms: int  # from when on it has been on its way


class Settler:
    """Batches of one log under one epoch's key.

    `waits_because` says why nothing is signed although a batch is due; empty where nothing waits.
    """

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
        self._next_try_ms = 0
        self.waits_because = ""

    async def resume(self) -> None:
        """Take up where the store and the chain stand; unsubmitted foreign batches are redone."""
        anchor = await trio.to_thread.run_sync(self._view.newest_anchor, self._log.log_id)
        self._log.check_against(anchor)
        for signed, state in await self._writer.read(batches.standing):
            batch = signed.message
            if batch.sequence > anchor.sequence and batch.epoch != self._epoch:
                # Nobody can submit it any more: its leaves are batched again, by this epoch.
                await self._writer.write(
                    partial(batches.set_aside_from, self._log.domain, batch.sequence)
                )
                break
            self._log.mark_batched(batch.new_size)
            self._last = batch
            if state == "final":
                self._log.mark_final(batch)
            else:
                self._open.append(self._entry(signed, state))
        await self._adopt(anchor)

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
        if not in_flight and self._due() and self._now_ms() >= self._next_try_ms:
            await self._close_batch()

    async def _follow(self) -> None:
        """Where the open batches stand: mined, final, dropped again, or not taken."""
        newest = await trio.to_thread.run_sync(self._view.newest_anchor, self._log.log_id)
        final = await trio.to_thread.run_sync(self._view.anchor, self._log.log_id)
        await self._adopt(newest)
        for sequence in [entry.batch.sequence for entry in self._open]:
            if sequence <= final.sequence:
                await self._finish(sequence)
                continue
            entry = self._open_at(sequence)
            if entry is None:
                break  # it was built on one that has been replaced
            if sequence <= newest.sequence:
                await self._set_state(entry, "mined")
            elif entry.state == "mined":
                entry.since_ms = self._now_ms()
                await self._set_state(entry, "reverted")
            elif self._now_ms() - entry.since_ms >= _PATIENCE_MS:
                await self._sign_again(entry, is_next=sequence == newest.sequence + 1)

    async def _finish(self, sequence: int) -> None:
        """A batch of this sequence is final: the one that the chain has settled."""
        await self._adopt_at(sequence)
        entry = self._open.pop(0)
        await self._set_state(entry, "final")
        self._log.mark_final(entry.batch)
        self._on_final()

    async def _adopt(self, newest: AnchorRecord) -> None:
        """Go on from what the chain has settled, where another batch stands here."""
        entry = self._open_at(newest.sequence)
        if entry is not None and entry.digest == newest.batch_digest:
            return
        last = self._last.sequence if self._last else 0
        first = self._open[0].batch.sequence if self._open else last + 1
        for sequence in range(first, newest.sequence + 1):
            await self._adopt_at(sequence)

    async def _adopt_at(self, sequence: int) -> None:
        view, log = self._view, self._log
        anchor = await trio.to_thread.run_sync(view.anchor_of, log.log_id, sequence)
        entry = self._open_at(sequence)
        if entry is not None and entry.digest == anchor.batch_digest:
            return
        signed = await self._writer.read(partial(batches.replaced, log.domain, anchor.batch_digest))
        if signed is None:
            raise LogDiverged(
                f"the chain has settled another batch {sequence} than any of the database: "
                "restore a newer copy of the database"
            )
        _logger.warning(
            "the chain has settled another form of batch %d: going on from it", sequence
        )
        await self._put(signed, "mined")

    def _open_at(self, sequence: int) -> _Open | None:
        return next((entry for entry in self._open if entry.batch.sequence == sequence), None)

    def _entry(self, signed: Signed[Batch], state: str) -> _Open:
        return _Open(signed.message, signed.digest(self._log.domain), state, self._now_ms())

    async def _set_state(self, entry: _Open, state: str) -> None:
        if state == "mined":
            self.waits_because = ""
        if state != entry.state:
            entry.state = state
            await self._writer.write(partial(batches.set_state, entry.batch.sequence, state))

    def _due(self) -> bool:
        pending = self._log.pending()
        if not any(leaf.receipt for leaf in pending):
            return False
        age = self._now_ms() - next(leaf.closed_ms for leaf in pending if leaf.receipt)
        return (
            len(pending) >= self._rules.batch_count
            or age >= self._rules.batch_age_ms
            or charged(pending) >= self._rules.batch_value
        )

    async def _close_batch(self) -> None:
        prev_size = self._log.batched_size
        most = min(self._log.size, prev_size + self._rules.batch_count)
        new_size = await self._fitting(prev_size, most)
        if new_size:
            sequence = self._last.sequence + 1 if self._last else 1
            await self._sign(self._batch(sequence, prev_size, new_size))

    async def _sign_again(self, entry: _Open, *, is_next: bool) -> None:
        """A batch that is not taken, under its sequence: by this epoch's key, or shorter.

        Its old form can still be settled if it is of this epoch, whoever has it; see `_adopt`.
        """
        batch = entry.batch
        if batch.epoch != self._epoch:
            await self._sign(replace(batch, epoch=self._epoch, time_ms=self._now_ms()))
        elif is_next:
            entry.since_ms = self._now_ms()
            new_size = await self._fitting(batch.prev_size, batch.new_size)
            if new_size not in (0, batch.new_size):
                _logger.warning("batch %d is over the debit limit: cut", batch.sequence)
                await self._sign(self._batch(batch.sequence, batch.prev_size, new_size))

    async def _fitting(self, prev_size: int, most: int) -> int:
        """The largest size to which a batch with a receipt fits the limiter now; 0 for none."""
        view, log_id = self._view, self._log.log_id
        leaves = self._log.leaves(prev_size, most)
        funds = await trio.to_thread.run_sync(view.newest_funds, log_id, ())
        if charged(leaves) > funds.debitable:
            payers = sorted({leaf.receipt.payer for leaf in leaves if leaf.receipt})
            funds = await trio.to_thread.run_sync(view.newest_funds, log_id, payers)
            leaves = leaves[: fitting(leaves, funds)]
        if any(leaf.receipt for leaf in leaves):
            self.waits_because = ""
            return prev_size + len(leaves)
        self._next_try_ms = self._now_ms() + _RETRY_MS
        self._wait(
            f"the log's batches may take {funds.debitable} base units from deposits now, the next "
            "receipt needs more; the debit limit refills with time, and deposits raise it"
        )
        return 0

    def _wait(self, reason: str) -> None:
        if not self.waits_because:
            _logger.warning("settlement waits: %s", reason)
        self.waits_because = reason

    def _batch(self, sequence: int, prev_size: int, new_size: int) -> Batch:
        """The batch over a range of leaves."""
        netting = self._log.netting(prev_size, new_size)
        return Batch(
            log_id=self._log.log_id,
            epoch=self._epoch,
            sequence=sequence,
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

    async def _sign(self, batch: Batch) -> None:
        await self._put(Signed.by(self._key, self._log.domain, batch), "batched")

    async def _put(self, signed: Signed[Batch], state: str) -> None:
        """Let a batch stand, durably, in place of those that it excludes; it is owed anew."""
        batch = signed.message
        leaves = self._log.leaves(batch.prev_size, batch.new_size)
        parties = parties_in(leaf.receipt for leaf in leaves if leaf.receipt)
        owed = await self._writer.write(
            partial(batches.put, self._log.domain, signed, state, parties)
        )
        before = [entry for entry in self._open if entry.batch.sequence < batch.sequence]
        after = [entry for entry in self._open if entry.batch.sequence > batch.sequence]
        if after and after[0].batch.prev_size != batch.new_size:
            after = []
        self._open = [*before, self._entry(signed, state), *after]
        self._last = self._open[-1].batch
        self._log.mark_batched(self._last.new_size)
        for party in owed:
            self._on_owed(party)
