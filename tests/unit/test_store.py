"""Stores: migrations equal tables, on SQLite and PostgreSQL; what is committed stays committed."""

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, event
from sqlmodel import Session, col, select

from pinaivu.errors import Misconfigured
from pinaivu.store.coordinator import EvidenceRow, JobRow, LeafRow, TranscriptRow
from pinaivu.store.database import SERVICES, Database, StorageFailed, open_database
from pinaivu.store.node import UsedAwardRow
from pinaivu.store.rows import RowExists, add_once, change, insert

MIGRATED = SERVICES


def row(number: int) -> TranscriptRow:
    return TranscriptRow(bids_root=bytes((number,)) * 32, document=str(number))


def engine_of(database: Database) -> Engine:
    return database._engine


@pytest.mark.parametrize("service", MIGRATED)
def test_migrations_give_the_tables(service: str, url_of: Callable[[str], str]) -> None:
    """No difference is left: `python -m pinaivu.store.revise SERVICE` writes what is missing."""
    database = open_database(url_of(service), service)
    tables = import_module(f"pinaivu.store.{service}").METADATA
    try:
        with engine_of(database).connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, tables) == []
    finally:
        database.close()


def test_opening_again_changes_nothing(url_of: Callable[[str], str]) -> None:
    """What was committed is there; migrations run once."""
    url = url_of("coordinator")
    first = open_database(url, "coordinator")
    with first.begin() as session:
        session.add(row(1))
    first.close()
    second = open_database(url, "coordinator")
    with second.read() as session:
        assert [found.document for found in session.exec(select(TranscriptRow))] == ["1"]
    second.close()


def test_a_raising_transaction_leaves_nothing(url_of: Callable[[str], str]) -> None:
    database = open_database(url_of("coordinator"), "coordinator")

    def half(session: Session) -> None:
        session.add(row(1))
        session.flush()
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"), database.begin() as session:
        half(session)
    with database.read() as session:
        assert session.exec(select(TranscriptRow)).all() == []
    database.close()


def test_a_row_that_exists_undoes_its_write_and_no_other(url_of: Callable[[str], str]) -> None:
    """On every database: whoever inserted first stands, and so does what else was committed."""
    database = open_database(url_of("coordinator"), "coordinator")
    with database.begin() as session:
        insert(session, TranscriptRow, **row(1).model_dump())
        for number in (2, 1):
            with suppress(RowExists), session.begin_nested():
                insert(session, TranscriptRow, **row(number + 10).model_dump())
                insert(session, TranscriptRow, **row(number).model_dump())
        with pytest.raises(RowExists, match="transcript"), session.begin_nested():
            insert(session, TranscriptRow, **row(2).model_dump())
    with database.read() as session:
        found = session.exec(select(TranscriptRow.document).order_by(TranscriptRow.document))
        assert found.all() == ["1", "12", "2"]
    database.close()


def test_columns_that_are_not_named_have_their_defaults(url_of: Callable[[str], str]) -> None:
    """And a row whose key is of two columns is found by both."""
    database = open_database(url_of("coordinator"), "coordinator")
    named = {"job": b"", "grant": b"", "nonce": b"", "bids_root": b"", "received_ms": 1}
    with database.begin() as session:
        for job_id in (b"1", b"2"):
            insert(session, JobRow, gateway=b"g", job_id=job_id, **named)
        assert change(session, JobRow, (b"g", b"2"), closed=True) == 1
        assert change(session, JobRow, (b"g", b"3"), closed=True) == 0
        insert(session, EvidenceRow, kind="Failure", about=b"a", signed=b"", arrived_ms=1)
    with database.read() as session:
        rows = session.exec(select(JobRow).order_by(col(JobRow.job_id))).all()
        assert [(row.closed, row.unserved_reason, row.passed_over) for row in rows] == [
            (False, 0, b""),
            (True, 0, b""),
        ]
    database.close()


def test_what_the_database_refuses_is_a_storage_failure(url_of: Callable[[str], str]) -> None:
    """A second receipt of one job is refused by the table itself."""
    database = open_database(url_of("coordinator"), "coordinator")

    def leaf(position: int) -> LeafRow:
        return LeafRow(
            position=position,
            kind="Receipt",
            digest=bytes((position,)) * 32,
            signed=b"",
            gateway=b"g" * 20,
            job_id=b"j" * 16,
        )

    with database.begin() as session:
        session.add(leaf(0))
    with pytest.raises(StorageFailed), database.begin() as session:
        session.add(leaf(1))
    database.close()


def test_sqlite_is_durable_before_a_commit_returns(tmp_path: Path) -> None:
    """Write-ahead log, synced at each commit: the settings that survive power loss."""
    database = open_database(f"sqlite:///{tmp_path}/x.db", "coordinator")
    with database.begin() as session:
        connection = session.connection()
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    database.close()


def test_sqlite_writers_take_turns_and_readers_dont_wait(tmp_path: Path) -> None:
    """A transaction takes the write lock at once; a reader sees what was committed before."""
    url = f"sqlite:///{tmp_path}/x.db"
    one, other = open_database(url, "coordinator"), open_database(url, "coordinator")
    statements: list[str] = []
    event.listen(
        engine_of(one), "before_cursor_execute", lambda *event: statements.append(event[2])
    )
    with one.begin() as session, other.read() as reading:
        session.add(row(1))
        session.flush()
        assert reading.exec(select(TranscriptRow)).all() == []
    assert statements[0] == "BEGIN IMMEDIATE"
    with other.read() as reading:
        assert len(reading.exec(select(TranscriptRow)).all()) == 1
    one.close()
    other.close()


@pytest.mark.parametrize(
    "url", ["not a url", "nosuchdialect://x", "sqlite:////proc/nowhere/x.db", "mysql://x/y"]
)
def test_a_wrong_url_says_what_to_write(url: str) -> None:
    with pytest.raises(Misconfigured):
        open_database(url, "coordinator")


def test_an_unknown_service_is_a_mistake_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no service"):
        open_database(f"sqlite:///{tmp_path}/x.db", "nobody")


def test_rows_written_by_single_statements(url_of: Callable[[str], str]) -> None:
    """The first of a key stands, a change says how many rows it met; both databases agree."""
    database = open_database(url_of("node"), "node")
    first, second = (
        UsedAwardRow(digest=b"d", log_id=b"l", award=award, used_ms=1 << 40)
        for award in (b"1", b"2")
    )
    with database.begin() as session:
        assert add_once(session, first)
        assert not add_once(session, second)
        assert session.get_one(UsedAwardRow, b"d").award == b"1"
    with database.begin() as session:
        assert change(session, UsedAwardRow, b"d", used_ms=2) == 1
        assert change(session, UsedAwardRow, b"none", used_ms=2) == 0
    with database.read() as session:
        assert session.get_one(UsedAwardRow, b"d").used_ms == 2
    database.close()
