"""A database that fails on demand: a commit that didn't happen, and one that did but wasn't said.

Everything else is the real thing. A fault is used up by one commit: `next_commit` by one that is
synced, `next_unsynced` by one of rows that isn't.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum, auto
from typing import TypeVar

from sqlmodel import Session

from pinaivu.store.database import Database, StorageFailed
from pinaivu.store.rows import Rows

T = TypeVar("T")


class Fault(Enum):
    """What becomes of a commit whose caller is told that it failed."""

    NOT_PERSISTED = auto()
    PERSISTED = auto()


class FaultyDatabase(Database):
    """`database` with a fault in its next commit, if one is set."""

    def __init__(self, database: Database) -> None:
        super().__init__(database._engine)
        self.next_commit: Fault | None = None
        self.next_unsynced: Fault | None = None
        self.commits = 0

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """As the real one, until the commit."""
        fault, self.next_commit = self.next_commit, None
        with self._faulty(super().begin(), fault) as session:
            yield session

    @contextmanager
    def begin_rows(self, *, synced: bool = True) -> Iterator[Rows]:
        """As the real one, until the commit; what isn't synced has a fault of its own."""
        if synced:
            fault, self.next_commit = self.next_commit, None
        else:
            fault, self.next_unsynced = self.next_unsynced, None
        with self._faulty(super().begin_rows(synced=synced), fault) as rows:
            yield rows

    @contextmanager
    def _faulty(self, transaction: AbstractContextManager[T], fault: Fault | None) -> Iterator[T]:
        with transaction as given:
            yield given
            if fault == Fault.NOT_PERSISTED:
                raise StorageFailed("the disk is full, on purpose")
        self.commits += 1
        if fault == Fault.PERSISTED:
            raise StorageFailed("the connection broke after the commit, on purpose")
