"""The one writer: closes jobs, composes and signs receipts, appends them, releases them.

A receipt leaves this process only after its transaction is durable. If storage fails, or fails to
say whether it succeeded, the coordinator ends: the next boot reads what is there. So it does where
a job to be receipted is not stored. Checkpoints cover durable leaves only.
"""

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, Final

import trio
from sqlmodel import Session

from coordinator.docket import Docket, OpenJob
from coordinator.errors import LogDiverged
from coordinator.log import Leaf, Log
from coordinator.reputation import Changed, Reputation
from pinaivu.checkpoints import CheckpointSigner, verify_note
from pinaivu.keys import SecretKey
from pinaivu.manifest import Parameters
from pinaivu.messages import Checkpoint, EpochStart
from pinaivu.receipts import Origin, compose
from pinaivu.store.coordinator import CheckpointRow, JobRow, LeafRow
from pinaivu.store.rows import Rows
from pinaivu.store.writer import Writer
from pinaivu.typed_data import Signed

_MOST_AT_ONCE: Final = 256
_CHECKPOINT_EVERY_S: Final = 0.5


class Sequencer:
    """Appends to one log under one epoch."""

    def __init__(
        self,
        log: Log,
        docket: Docket,
        reputation: Reputation,
        writer: Writer,
        *,
        key: SecretKey,
        note_secret: bytes,
        origin: Origin,
        epochs: dict[int, Parameters],
        now_ms: Callable[[], int],
    ) -> None:
        self._log = log
        self._docket = docket
        self._reputation = reputation
        self._writer = writer
        self._key = key
        self._checkpoints = CheckpointSigner(log.domain, log.log_id, key, note_secret)
        self._origin = origin
        self._epochs = epochs
        self._now_ms = now_ms
        self._send, self._receive = trio.open_memory_channel[OpenJob](inf)
        self.on_receipt: list[Callable[[OpenJob], None]] = []
        self.on_learnt: list[Callable[[Changed], None]] = []

    async def start_epoch(self, manifest_digest: bytes) -> None:
        """Write the epoch's first leaf; nothing else of this epoch comes before it."""
        start = EpochStart(
            log_id=self._log.log_id,
            epoch=self._origin.epoch,
            size=self._log.size,
            root=self._log.tree.root(),
            manifest_digest=manifest_digest,
            time_ms=self._now_ms(),
        )
        signed = Signed.by(self._key, self._log.domain, start)
        leaf = Leaf(signed, signed.digest(self._log.domain), start.time_ms)
        row = _leaf_values(self._log.size, "EpochStart", leaf, None)
        await self._writer.write_rows(lambda rows: rows.insert(LeafRow, **row))
        self._log.commit(leaf)

    def close(self, job: OpenJob) -> None:
        """Have the job receipted; closing it twice is once. It takes no more evidence."""
        if not job.closing:
            job.closing = True
            self._send.send_nowait(job)

    async def close_due(self) -> None:
        """For ever: close jobs whose time has come, free nodes whose award's time is over."""
        while True:
            now, rules = self._now_ms(), self._epochs[self._origin.epoch]
            self._docket.release_expired(now)
            for job in list(self._docket.jobs.values()):
                if job.decided and job.closes_at_ms(rules) <= now:
                    self.close(job)
            await trio.sleep(0.1)

    async def run(self) -> None:
        """For ever: receipt what `close` hands over, many to a commit where many wait."""
        async for first in self._receive:
            jobs = [first]
            while len(jobs) < _MOST_AT_ONCE:
                try:
                    jobs.append(self._receive.receive_nowait())
                except trio.WouldBlock:
                    break
            await self._receipt(jobs)

    async def _receipt(self, jobs: list[OpenJob]) -> None:
        leaves = [self._compose(job) for job in jobs]
        start = self._log.size
        values = [
            _leaf_values(start + offset, "Receipt", leaf, job)
            for offset, (job, leaf) in enumerate(zip(jobs, leaves, strict=True))
        ]

        def write(rows: Rows) -> None:
            for row in values:
                rows.insert(LeafRow, **row)
            for job in jobs:
                if not rows.change(JobRow, job.key, closed=True):
                    raise LogDiverged(f"the job {job.key[1].hex()} to be receipted is not stored")

        await self._writer.write_rows(write)
        for job, leaf in zip(jobs, leaves, strict=True):
            index = self._log.commit(leaf, posted=True)
            assert leaf.receipt
            changed = self._reputation.learn(leaf.receipt)
            for heed in self.on_learnt:
                heed(changed)
            self._docket.close(job)
            job.receipt = (leaf.signed, index)  # type: ignore[assignment]
            job.receipted.set()
            for notify in self.on_receipt:
                notify(job)

    def _compose(self, job: OpenJob) -> Leaf:
        """Sign the receipt and post it, so that the next one follows from it."""
        closed_ms = self._now_ms()
        case = job.case(self._log.domain, closed_ms, self._epochs)
        receipt = compose(case, self._origin, self._log.books)
        self._log.books.post(receipt)
        signed = Signed.by(self._key, self._log.domain, receipt)
        return Leaf(signed, signed.digest(self._log.domain), closed_ms)

    async def checkpoint(self) -> None:
        """For ever: a signed checkpoint of what is durable, within half a second of growth."""
        last = -1
        while True:
            size = self._log.size
            if size > last:
                row = self._sign_checkpoint(size)
                await self._writer.write(partial(_merge, row))
                last = size
            await trio.sleep(_CHECKPOINT_EVERY_S)

    def _sign_checkpoint(self, size: int) -> CheckpointRow:
        """The doubly signed note for a size, read back as a stranger would."""
        checkpoint = Checkpoint(
            log_id=self._log.log_id,
            epoch=self._origin.epoch,
            size=size,
            root=self._log.tree.root(size),
            time_ms=self._now_ms(),
        )
        note = self._checkpoints.sign(checkpoint)
        signed = verify_note(note, self._log.domain, self._log.log_id, self._checkpoints.keys)
        return CheckpointRow(
            size=size, note=note, checkpoint=signed.to_bytes(), time_ms=checkpoint.time_ms
        )


def _merge(row: CheckpointRow, session: Session) -> None:
    session.merge(row)


def _leaf_values(index: int, kind: str, leaf: Leaf, job: OpenJob | None) -> dict[str, Any]:
    return {
        "position": index,
        "kind": kind,
        "digest": leaf.digest,
        "signed": leaf.signed.to_bytes(),
        "gateway": job.key[0] if job else None,
        "job_id": job.key[1] if job else None,
    }
