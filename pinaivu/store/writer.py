"""One writer per database, for trio: concurrent writes share a commit, each waits until durable.

    async with open_writer(database) as writer:
        await writer.write(lambda session: session.add(row))

Writes are carried out in the order of their calls. A write that raises is undone alone; the others
of its commit are carried out. When `write` returns, the transaction has been committed; when it
raises `StorageFailed`, it may or may not have been: the caller must be able to repeat it or to
stop. A writer opened with `crash_only` stops for it: the first failure of the database ends
everything inside its block, and whoever opens the database again reads what is there.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Any, Final, TypeVar

import trio
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from pinaivu.store.database import Database, StorageFailed

T = TypeVar("T")
_MOST_AT_ONCE: Final = 256


class _Write:
    def __init__(self, action: Callable[[Session], Any]) -> None:
        self.action = action
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
        job = _Write(action)
        self._send.send_nowait(job)
        await job.done.wait()
        if job.error:
            raise job.error
        value: T = job.value
        return value

    async def settled(self) -> None:
        """Return once everything handed over before is durable."""
        await self.write(lambda _session: None)

    async def write_apart(self, action: Callable[[Session], T], *, synced: bool = False) -> T:
        """Run `action` in a transaction of its own, beside the others, and return its value.

        For short transactions whose locks must not be held together with other writes' locks, and
        that need not be durable before they return, unless `synced`. It is never cancelled: when
        this ends, the transaction has been carried out or has failed.
        """
        begin = self._database.begin if synced else self._database.begin_unsynced

        def run() -> T:
            with begin() as session:
                return action(session)

        return await trio.to_thread.run_sync(run)

    async def forget_deleted(self) -> bool:
        """`Database.forget_deleted`, behind what was handed over before."""
        await self.settled()
        return await trio.to_thread.run_sync(self._database.forget_deleted)

    async def in_thread(self, action: Callable[[Database], T]) -> T:
        """Have `action` use the database in a worker thread, with transactions of its own."""
        return await trio.to_thread.run_sync(action, self._database)

    async def read(self, action: Callable[[Session], T]) -> T:
        """Run a read in a worker thread, beside the writes."""

        def run() -> T:
            with self._database.read() as session:
                return action(session)

        return await trio.to_thread.run_sync(run)


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
        with database.begin() as session:
            if len(jobs) == 1:  # what fails is undone with its transaction, without a savepoint
                jobs[0].value = jobs[0].action(session)
                return
            for job in jobs:
                _apply(session, job)
    except StorageFailed as error:
        for job in jobs:
            job.error = job.error or error
    except Exception as error:  # noqa: BLE001 - one write's own, handed to its caller
        jobs[0].error = error


def _apply(session: Session, job: _Write) -> None:
    """Run one write inside a savepoint, so that its failure is its own."""
    try:
        with session.begin_nested():
            job.value = job.action(session)
    except SQLAlchemyError as error:
        job.error = StorageFailed(f"the database refused the write: {error}")
    except Exception as error:  # noqa: BLE001 - handed to the caller, whatever it is
        job.error = error
