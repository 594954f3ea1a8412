"""The indexer's loop: each task in turn, its progress and its faults written for the pages to show.

A fault never ends the loop. What it was doing is loaded anew from the database at the next look.
"""

import logging
from collections.abc import Callable
from typing import Final

from sqlmodel import Session

from explorer.indexer.batches import BatchFollower
from explorer.indexer.chain_follower import TASK as CHAIN
from explorer.indexer.chain_follower import ChainFollower
from explorer.indexer.history import History
from explorer.indexer.log_follower import LogFollower
from pinaivu.errors import InvalidEncoding, PeerFault, PinaivuError
from pinaivu.store.database import Database
from pinaivu.store.explorer import ProgressRow

LOG: Final = "log"
BATCHES: Final = "batches"
_HEARTBEAT_MS: Final = 5_000
_logger = logging.getLogger(__name__)


class Indexer:
    """Log, batches and chain, one after the other, in one thread."""

    def __init__(
        self,
        *,
        database: Database,
        log: LogFollower,
        batches: BatchFollower,
        load_history: Callable[[], History],
        follow_chain: Callable[[], ChainFollower],
        now_ms: Callable[[], int],
    ) -> None:
        self._database = database
        self._log = log
        self._batches = batches
        self._load_history = load_history
        self._follow_chain = follow_chain
        self._now_ms = now_ms
        self._history: History | None = None
        self._chain: ChainFollower | None = None
        self._faults: dict[str, str] = {}
        self._looked_ms: dict[str, int] = {}

    def run(self, wait: Callable[[], None]) -> None:
        """For ever; calls `wait` when there is nothing to do at once."""
        while True:
            if not self.step():
                wait()

    def step(self) -> bool:
        """Look at everything once; whether there is more to do at once."""
        busy = [
            self._guarded(CHAIN, self._chain_step),
            self._guarded(LOG, self._log_step),
            self._guarded(BATCHES, self._batch_step),
        ]
        return any(busy)

    def _chain_step(self) -> bool:
        chain = self._chain or self._follow_chain()
        self._chain = None  # until the step has ended well
        more = chain.step()
        self._chain = chain
        self._beat(CHAIN)
        return more

    def _log_step(self) -> bool:
        history = self._history or self._load_history()
        self._history = None
        before = history.size
        checkpoint, more = self._log.step(history)
        self._history = history
        grown = history.size != before

        def write(row: ProgressRow) -> None:
            row.position, row.hash = history.size, history.prefix.root()
            row.time_ms = checkpoint.time_ms if checkpoint else 0

        self._beat(LOG, write, at_once=grown)
        return more

    def _batch_step(self) -> bool:
        if self._history is None:
            return False
        sequence = self._batches.step(self._history)

        def write(row: ProgressRow) -> None:
            row.position = sequence

        self._beat(BATCHES, write)
        return False

    def _guarded(self, task: str, step: Callable[[], bool]) -> bool:
        """Run one step; a fault is written down, and is over as soon as a step ends well."""
        try:
            return step()
        except PinaivuError as error:
            fault = str(error)
            if self._faults.get(task) != fault:
                self._faults[task] = fault
                _logger.warning("%s: %s", task, fault)
                self._write_fault(task, fault, refuted=isinstance(error, _REFUTING))
            return False

    def _beat(
        self,
        task: str,
        write: Callable[[ProgressRow], None] | None = None,
        *,
        at_once: bool = False,
    ) -> None:
        """Write down that a step ended well: at once if that is news, else now and then."""
        now = self._now_ms()
        recent = now - self._looked_ms.get(task, 0) < _HEARTBEAT_MS
        if recent and not at_once and not self._faults.get(task):
            return
        with self._database.begin() as session:
            row = _row(session, task)
            if write:
                write(row)
            row.looked_ms, row.fault, row.refuted, row.fault_ms = now, "", False, 0
        self._faults[task], self._looked_ms[task] = "", now

    def _write_fault(self, task: str, fault: str, *, refuted: bool) -> None:
        try:
            with self._database.begin() as session:
                row = _row(session, task)
                row.fault_ms = row.fault_ms or self._now_ms()
                row.fault, row.refuted = fault, refuted
        except PinaivuError as error:
            _logger.warning("%s: its fault can't be written down: %s", task, error)


_REFUTING: Final = (PeerFault, InvalidEncoding)


def _row(session: Session, task: str) -> ProgressRow:
    row = session.get(ProgressRow, task) or ProgressRow(task=task)
    session.add(row)
    return row
