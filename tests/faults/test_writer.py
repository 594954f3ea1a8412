"""One writer: writes share a commit, fail alone, and are durable before they are answered."""

import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from sqlalchemy import event
from sqlmodel import Session, select

from pinaivu.store.coordinator import TranscriptRow
from pinaivu.store.database import StorageFailed, open_database
from pinaivu.store.rows import RowExists, Rows
from pinaivu.store.writer import Writer, open_writer
from tests.faults.storage import Fault, FaultyDatabase


@pytest.fixture
def database(tmp_path: Path) -> Iterator[FaultyDatabase]:
    opened = open_database(f"sqlite:///{tmp_path}/x.db", "coordinator")
    yield FaultyDatabase(opened)
    opened.close()


def add(number: int, size: int = 0) -> Callable[[Session], int]:
    def action(session: Session) -> int:
        session.add(
            TranscriptRow(bids_root=bytes((number,)) * 32, document=str(number).ljust(size))
        )
        return number

    return action


def insert(number: int, size: int = 0) -> Callable[[Rows], int]:
    def action(rows: Rows) -> int:
        rows.insert(
            TranscriptRow, bids_root=bytes((number,)) * 32, document=str(number).ljust(size)
        )
        return number

    return action


def stored(database: FaultyDatabase) -> list[str]:
    with database.read() as session:
        return [row.document for row in session.exec(select(TranscriptRow))]


Write = Callable[[], Awaitable[object]]


async def together(*writes: Write) -> list[object]:
    """The outcome of each, value or exception, handed over before the first is committed."""
    outcomes: list[object] = [None] * len(writes)

    async def one(place: int, write: Write) -> None:
        try:
            outcomes[place] = await write()
        except Exception as error:  # noqa: BLE001 - an outcome
            outcomes[place] = error

    async with trio.open_nursery() as nursery:
        for place, write in enumerate(writes):
            nursery.start_soon(one, place, write)
    return outcomes


Adding = Callable[..., Write]


def by_objects(writer: Writer, number: int, size: int = 0) -> Write:
    return lambda: writer.write(add(number, size))


def by_rows(writer: Writer, number: int, size: int = 0) -> Write:
    return lambda: writer.write_rows(insert(number, size))


def by_turns(writer: Writer, number: int, size: int = 0) -> Write:
    return (by_objects, by_rows)[number % 2](writer, number, size)


in_each_way = pytest.mark.parametrize("adding", [by_objects, by_rows, by_turns])


async def test_a_write_is_durable_when_it_returns(database: FaultyDatabase) -> None:
    async with open_writer(database) as writer:
        assert await writer.write(add(1)) == 1
        assert stored(database) == ["1"]


@in_each_way
async def test_writes_that_wait_share_a_commit(database: FaultyDatabase, adding: Adding) -> None:
    """A hundred writes at once are far fewer commits; each gets its own value."""
    async with open_writer(database) as writer:
        outcomes = await together(*(adding(writer, number) for number in range(100)))
    assert sorted(map(str, outcomes)) == sorted(map(str, range(100)))
    assert len(stored(database)) == 100
    assert database.commits <= 2


@in_each_way
async def test_a_shared_commit_is_one_in_the_database_too(
    database: FaultyDatabase, adding: Adding
) -> None:
    """When the commit fails, none of its writes is there: no savepoint committed by itself."""
    database.next_commit = Fault.NOT_PERSISTED
    async with open_writer(database) as writer:
        outcomes = await together(adding(writer, 1), adding(writer, 2))
    assert all(isinstance(outcome, StorageFailed) for outcome in outcomes)
    assert stored(database) == []


@in_each_way
async def test_a_write_that_raises_is_undone_alone(
    database: FaultyDatabase, adding: Adding
) -> None:
    """Its half is gone, its neighbours of the same commit stay."""

    def half(session: Session) -> None:
        add(9)(session)
        session.flush()
        raise ValueError("on purpose")

    def half_of_rows(rows: Rows) -> None:
        insert(9)(rows)
        raise ValueError("on purpose")

    async with open_writer(database) as writer:
        halves = (
            lambda: writer.write(half),
            lambda: writer.write_rows(half_of_rows),
        )
        first, second, third = await together(
            adding(writer, 1), halves[adding == by_rows], adding(writer, 3)
        )
    assert (first, third) == (1, 3)
    assert isinstance(second, ValueError)
    assert sorted(stored(database)) == ["1", "3"]


async def test_what_the_database_refuses_fails_alone(database: FaultyDatabase) -> None:
    """The same key twice: the second is a `StorageFailed`, the third is written."""
    async with open_writer(database) as writer:
        outcomes = await together(*(by_objects(writer, number) for number in (1, 1, 3)))
    assert sum(isinstance(outcome, StorageFailed) for outcome in outcomes) == 1
    assert sorted(stored(database)) == ["1", "3"]


@pytest.mark.parametrize("last", [by_rows, by_objects])
async def test_rows_that_the_database_refuses_fail_alone(
    database: FaultyDatabase, last: Adding
) -> None:
    """A key twice is `RowExists`, a missing value a `StorageFailed`; the others are written."""

    def empty(rows: Rows) -> None:
        rows.insert(TranscriptRow, bids_root=b"4", document="4")
        rows.change(TranscriptRow, b"4", document=None)

    async with open_writer(database) as writer:
        outcomes = await together(
            by_rows(writer, 1),
            by_rows(writer, 1),
            lambda: writer.write_rows(empty),
            last(writer, 3),
        )
    assert {type(outcome) for outcome in outcomes[:2]} == {int, RowExists}
    assert [type(outcome) for outcome in outcomes[2:]] == [StorageFailed, int]
    assert sorted(stored(database)) == ["1", "3"]


@pytest.mark.parametrize(("fault", "kept"), [(Fault.NOT_PERSISTED, []), (Fault.PERSISTED, ["1"])])
async def test_a_failed_commit_may_or_may_not_have_happened(
    database: FaultyDatabase, fault: Fault, kept: list[str]
) -> None:
    """The caller is told in both cases; the writer goes on."""
    async with open_writer(database) as writer:
        database.next_commit = fault
        with pytest.raises(StorageFailed):
            await writer.write(add(1))
        assert stored(database) == kept
        await writer.write(add(2))
    assert stored(database) == [*kept, "2"]


@pytest.mark.parametrize("fault", Fault)
async def test_a_crash_only_writer_ends_everything(database: FaultyDatabase, fault: Fault) -> None:
    """Nothing goes on in its block: whoever opens the store again reads what is there."""
    went_on = False
    with pytest.RaisesGroup(StorageFailed, flatten_subgroups=True, allow_unwrapped=True):
        async with open_writer(database, crash_only=True) as writer:
            database.next_commit = fault
            with pytest.raises(StorageFailed):
                await writer.write(add(1))
            await trio.sleep_forever()
            went_on = True
    assert not went_on


async def test_a_callers_own_error_does_not_end_a_crash_only_writer(
    database: FaultyDatabase,
) -> None:
    def refuse(_session: Session) -> None:
        raise ValueError("on purpose")

    async with open_writer(database, crash_only=True) as writer:
        with pytest.raises(ValueError, match="on purpose"):
            await writer.write(refuse)
        assert await writer.write(add(1)) == 1


async def test_leaving_finishes_what_was_accepted(database: FaultyDatabase) -> None:
    """A caller that is cancelled doesn't take its write with it."""
    async with open_writer(database) as writer:
        with trio.CancelScope() as scope:
            scope.cancel()
            await writer.write(add(1))
    assert stored(database) == ["1"]


async def test_a_block_that_is_cancelled_or_fails_finishes_too(database: FaultyDatabase) -> None:
    """A receipt is never durable without what was written before it, so nothing is dropped."""
    disk = threading.Event()
    with trio.CancelScope() as scope:
        async with open_writer(database) as writer, trio.open_nursery() as nursery:
            nursery.start_soon(writer.write, lambda _session: disk.wait(20))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(writer.write, add(1))
            nursery.start_soon(writer.write, add(2))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            disk.set()
    assert sorted(stored(database)) == ["1", "2"]


async def test_settled_waits_for_everything_before(database: FaultyDatabase) -> None:
    async with open_writer(database) as writer, trio.open_nursery() as nursery:
        nursery.start_soon(writer.write, add(1))
        await trio.testing.wait_all_tasks_blocked(0.0)
        await writer.settled()
        assert stored(database) == ["1"]


@in_each_way
async def test_a_full_disk_takes_nothing_back_that_was_durable(
    database: FaultyDatabase, adding: Adding
) -> None:
    """SQLite then undoes the whole transaction: every write of the commit has failed."""
    leave_room(database, pages=20)
    async with open_writer(database) as writer:
        outcomes = await together(
            adding(writer, 1), adding(writer, 2, size=1 << 20), adding(writer, 3)
        )
        assert stored(database) == []
        await adding(writer, 4)()
    assert all(isinstance(outcome, StorageFailed) for outcome in outcomes)
    assert stored(database) == ["4"]


def leave_room(database: FaultyDatabase, pages: int) -> None:
    """Let the file grow by so many pages and no more, as a full disk would."""
    with database.begin() as session:
        (used,) = session.connection().exec_driver_sql("PRAGMA page_count").one()
    database.close()
    limit = f"PRAGMA max_page_count = {used + pages}"
    event.listen(database._engine, "connect", lambda made, _: made.execute(limit))
