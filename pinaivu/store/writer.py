"""One writer per database, for trio: concurrent writes share a commit, each waits until durable.

    async with open_writer(database) as writer:
        await writer.write(lambda session: session.add(row))
        await writer.write_rows(lambda rows: rows.insert(Row, …))    # where time counts

Writes are carried out in the order of their calls. A write that raises is undone alone; the others
of its commit are carried out. When `write` returns, the transaction has been committed; when it
raises `StorageFailed`, it may or may not have been: the caller must be able to repeat it or to
stop. A writer opened with `crash_only` stops for it: the first failure of the database ends
everything inside its block, and whoever opens the database again reads what is there.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from math import inf
from typing import Any, Final, TypeVar

import trio
from sqlmodel import Session

from pinaivu.store.database import Database, StorageFailed
from pinaivu.store.rows import Rows

S = TypeVar("S")
T = TypeVar("T")
_MOST_AT_ONCE: Final = 256


class _Write:
    def __init__(self, action: Callable[[Any], Any], *, plain: bool = False) -> None:
        self.action = action
        self.plain = plain  # takes `Rows`, not a `Session`
        self.done = trio.Event()
        self.value: Any = None
        self.error: Exception | None = None


class Writer:
    """Runs writes in order in a worker thread."""

    def __init__(self, database: Database, send: "trio.MemorySendChannel[_Write]") -> None:
        self._database = database
        self._send = send

    async def write(self, action: Callable[[Session], T]) -> T:
        """Run `action` in a transaction and return its value once that is durable."""
        value: T = await self._written(_Write(action))
        return value

    async def write_rows(self, action: Callable[[Rows], T]) -> T:
        """As `write`, in turn with it, for an action that needs no object layer."""
        value: T = await self._written(_Write(action, plain=True))
        return value

    async def _written(self, job: _Write) -> Any:
        self._send.send_nowait(job)
        await job.done.wait()
        if job.error:
            raise job.error
        return job.value

    async def settled(self) -> None:
        """Return once everything handed over before is durable."""
        await self.write(lambda _session: None)

    async def write_apart(self, action: Callable[[Session], T]) -> T:
        """As `write_rows_apart`, for an action that needs the object layer."""
        return await trio.to_thread.run_sync(_within, self._database.begin_unsynced, action)

    async def write_rows_apart(self, action: Callable[[Rows], T], *, synced: bool = False) -> T:
        """Run `action` in a transaction of its own, beside the others, and return its value.

        For short transactions whose locks must not be held together with other writes' locks, and
        that need not be durable before they return, unless `synced`. It is never cancelled: when
        this ends, the transaction has been carried out or has failed.
        """
        begin = partial(self._database.begin_rows, synced=synced)
        return await trio.to_thread.run_sync(_within, begin, action)

    async def forget_deleted(self) -> bool:
        """`Database.forget_deleted`, behind what was handed over before."""
        await self.settled()
        return await trio.to_thread.run_sync(self._database.forget_deleted)

    async def in_thread(self, action: Callable[[Database], T]) -> T:
        """Have `action` use the database in a worker thread, with transactions of its own."""
        return await trio.to_thread.run_sync(action, self._database)

    async def read(self, action: Callable[[Session], T]) -> T:
        """Run a read in a worker thread, beside the writes."""
        return await trio.to_thread.run_sync(_within, self._database.read, action)


def _within(begin: Callable[[], AbstractContextManager[S]], action: Callable[[S], T]) -> T:
    with begin() as transaction:
        return action(transaction)


@asynccontextmanager
async def open_writer(database: Database, *, crash_only: bool = False) -> AsyncIterator[Writer]:
    """Start the writing task; on leaving in any way, all accepted writes are finished first."""
    send, receive = trio.open_memory_channel[_Write](inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_run, database, receive, crash_only)
        async with send:
            yield Writer(database, send)


async def _run(
    database: Database,
    receive: "trio.MemoryReceiveChannel[_Write]",
    crash_only: bool,  # noqa: FBT001 - a task's argument
) -> None:
    with trio.CancelScope(shield=True):  # ends with the channel
        async for first in receive:
            jobs = [first]
            while len(jobs) < _MOST_AT_ONCE:
                try:
                    jobs.append(receive.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
            await trio.to_thread.run_sync(_commit, database, jobs)
            for job in jobs:
                job.done.set()
            failures = [job.error for job in jobs if isinstance(job.error, StorageFailed)]
            if failures and crash_only:
                raise failures[0]


def _commit(database: Database, jobs: list[_Write]) -> None:
    try:
        if all(job.plain for job in jobs):
            _commit_rows(database, jobs)
        else:
            _commit_objects(database, jobs)
    except StorageFailed as error:
        for job in jobs:
            job.error = job.error or error
    except Exception as error:  # noqa: BLE001 - handed to whoever waits: nothing was committed
        for job in jobs:
            job.error = job.error or error


def _commit_rows(database: Database, jobs: list[_Write]) -> None:
    with database.begin_rows() as rows:
        if len(jobs) == 1:  # what fails is undone with its transaction, without a savepoint
            jobs[0].value = jobs[0].action(rows)
            return
        for job in jobs:
            _apply(database, job, rows.savepoint, rows)
            _require_whole(rows, job)


def _commit_objects(database: Database, jobs: list[_Write]) -> None:
    with database.begin() as session:
        if len(jobs) == 1:
            jobs[0].value = jobs[0].action(session)
            return
        rows = database.rows_of(session)
        for job in jobs:
            if job.plain:
                _apply(database, job, rows.savepoint, rows)
            else:
                _apply(database, job, session.begin_nested, session)
            _require_whole(rows, job)


def _apply(
    database: Database,
    job: _Write,
    savepoint: Callable[[], AbstractContextManager[Any]],
    given: Session | Rows,
) -> None:
    """Run one write inside a savepoint, so that its failure is its own."""
    try:
        with savepoint():
            job.value = job.action(given)
    except database.refusals as error:
        job.error = StorageFailed(f"the database refused the write: {error}")
    except Exception as error:  # noqa: BLE001 - handed to the caller, whatever it is
        job.error = error


def _require_whole(rows: Rows, job: _Write) -> None:
    """`StorageFailed`, for all of a commit, where one write's failure undid the others too."""
    if job.error and not rows.stand:
        raise StorageFailed(f"the database undid the whole transaction: {job.error}")
