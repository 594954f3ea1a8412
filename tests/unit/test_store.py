"""Stores: migrations equal tables, on SQLite and PostgreSQL; what is committed stays committed."""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, event, text
from sqlmodel import Session, col, select

from pinaivu.errors import Misconfigured
from pinaivu.store.coordinator import EvidenceRow, JobRow, LeafRow, TranscriptRow
from pinaivu.store.database import SERVICES, Database, StorageFailed, open_database
from pinaivu.store.node import UsedAwardRow
from pinaivu.store.rows import RowExists, Rows

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
    with database.begin_rows() as rows:
        rows.insert(TranscriptRow, **row(1).model_dump())
        for number in (2, 1):
            with suppress(RowExists), rows.savepoint():
                rows.insert(TranscriptRow, **row(number + 10).model_dump())
                rows.insert(TranscriptRow, **row(number).model_dump())
        with pytest.raises(RowExists, match="transcript"), rows.savepoint():
            rows.insert(TranscriptRow, **row(2).model_dump())
    with database.read() as session:
        found = session.exec(select(TranscriptRow.document).order_by(TranscriptRow.document))
        assert found.all() == ["1", "12", "2"]
    database.close()


def test_columns_that_are_not_named_have_their_defaults(url_of: Callable[[str], str]) -> None:
    """And a row whose key is of two columns is found by both."""
    database = open_database(url_of("coordinator"), "coordinator")
    named = {"job": b"", "grant": b"", "nonce": b"", "bids_root": b"", "received_ms": 1}
    with database.begin_rows() as rows:
        for job_id in (b"1", b"2"):
            rows.insert(JobRow, gateway=b"g", job_id=job_id, **named)
        assert rows.change(JobRow, (b"g", b"2"), closed=True) == 1
        assert rows.change(JobRow, (b"g", b"3"), closed=True) == 0
        rows.insert(EvidenceRow, kind="Failure", about=b"a", signed=b"", arrived_ms=1)
    with database.read() as session:
        found = session.exec(select(JobRow).order_by(col(JobRow.job_id))).all()
        assert [(row.closed, row.unserved_reason, row.passed_over) for row in found] == [
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


def used(award: bytes) -> dict[str, object]:
    return {"digest": b"d", "log_id": b"l", "award": award, "used_ms": 1 << 40}


def test_rows_written_by_single_statements(url_of: Callable[[str], str]) -> None:
    """The first of a key stands, a change says how many rows it met; both databases agree."""
    database = open_database(url_of("node"), "node")
    with database.begin_rows() as rows:
        assert rows.add_once(UsedAwardRow, **used(b"1"))
        assert not rows.add_once(UsedAwardRow, **used(b"2"))
        assert rows.find(UsedAwardRow, b"d", "award", "used_ms") == (b"1", 1 << 40)
    with database.begin_rows() as rows:
        assert rows.change(UsedAwardRow, b"d", used_ms=2) == 1
        assert rows.change(UsedAwardRow, b"none", used_ms=2) == 0
        assert rows.find(UsedAwardRow, b"none", "used_ms") is None
    with database.read() as session:
        assert session.get_one(UsedAwardRow, b"d").used_ms == 2
    with database.begin_rows() as rows:
        assert (rows.remove(UsedAwardRow, b"d"), rows.remove(UsedAwardRow, b"d")) == (1, 0)
        assert rows.run(select(UsedAwardRow.award)) == []
    database.close()


def test_rows_of_a_block_that_raises_are_undone(url_of: Callable[[str], str]) -> None:
    """What the database refuses is a storage failure; our own errors stay what they are."""
    database = open_database(url_of("node"), "node")

    def half(rows: Rows) -> None:
        rows.insert(UsedAwardRow, **used(b"1"))
        raise RuntimeError("on purpose")

    def refused(rows: Rows) -> None:
        rows.insert(UsedAwardRow, **used(b"1"))
        rows.change(UsedAwardRow, b"d", award=None)

    with pytest.raises(RuntimeError, match="on purpose"), database.begin_rows() as rows:
        half(rows)
    with pytest.raises(StorageFailed), database.begin_rows() as rows:
        refused(rows)
    with database.begin_rows() as rows:
        assert rows.run(select(UsedAwardRow.award)) == []
    database.close()


def test_rows_and_objects_of_one_transaction(url_of: Callable[[str], str]) -> None:
    """They see each other, and are committed together."""
    database = open_database(url_of("node"), "node")
    with database.begin() as session:
        session.add(UsedAwardRow(digest=b"d", log_id=b"l", award=b"1", used_ms=1))
        session.flush()
        database.rows_of(session).change(UsedAwardRow, b"d", award=b"3")
    with database.read() as session:
        assert session.get_one(UsedAwardRow, b"d").award == b"3"
    database.close()


def test_sqlite_is_durable_before_rows_are_committed(tmp_path: Path) -> None:
    """The same settings, and the write lock at once."""
    database = open_database(f"sqlite:///{tmp_path}/x.db", "node")
    with database.begin_rows() as rows:
        assert rows.run(text("PRAGMA synchronous")) == [(2,)]
        with pytest.raises(sqlite3.OperationalError, match="within a transaction"):
            rows.run(text("BEGIN"))
    database.close()
