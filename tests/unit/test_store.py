"""Stores: migrations equal tables, on SQLite and PostgreSQL; what is committed stays committed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, event
from sqlmodel import Session, select

from pinaivu.chain.anvil import free_port
from pinaivu.errors import Misconfigured
from pinaivu.store.coordinator import LeafRow, TranscriptRow
from pinaivu.store.database import SERVICES, Database, StorageFailed, open_database
from pinaivu.store.node import UsedAwardRow
from pinaivu.store.once import add_once, change

MIGRATED = SERVICES


def row(number: int) -> TranscriptRow:
    return TranscriptRow(bids_root=bytes((number,)) * 32, document=str(number))


def engine_of(database: Database) -> Engine:
    return database._engine


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server of our own, run as a user who isn't root."""
    initdb, pg_ctl = _server_program("initdb"), _server_program("pg_ctl")
    # Not under pytest's own folder: a second pytest would close that to other users again.
    with tempfile.TemporaryDirectory(prefix="pinaivu-postgres-") as name:
        folder = Path(name)
        as_user = _unprivileged(folder)
        port = free_port()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"
        _run([*as_user, initdb, "-D", f"{folder}/data", "-A", "trust", "-U", "pinaivu"], folder)
        control = [*as_user, pg_ctl, "-D", f"{folder}/data", "-w"]
        _run([*control, "-l", f"{folder}/log", "-o", options, "start"], folder)
        try:
            yield f"postgresql+psycopg://pinaivu@127.0.0.1:{port}/postgres"
        finally:
            _run([*control, "-m", "immediate", "stop"], folder)


def _server_program(name: str) -> str:
    """One of the server's programs: from PATH, or where Debian keeps them."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(debian[-1]) if debian else None)
    if found is None:
        pytest.skip(f"PostgreSQL's {name} is missing: sudo apt-get install postgresql")
    return found


def _unprivileged(folder: Path) -> list[str]:
    """How to run a program that refuses root: as `nobody`, who then owns the folder."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]


def _run(command: list[str], folder: Path) -> None:
    with (folder / "output").open("ab") as output:  # a pipe would stay open in the server
        done = subprocess.run(
            command, cwd=folder, stdout=output, stderr=output, timeout=60, check=False
        )
    assert done.returncode == 0, (folder / "output").read_text()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.database)])
def url_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """The URL of an empty database for a service."""
    if request.param == "sqlite":
        return lambda service: f"sqlite:///{tmp_path}/{service}.db"
    server: str = request.getfixturevalue("postgres")

    def create(service: str) -> str:
        name = f"{service}_{os.urandom(4).hex()}"
        admin = _connect(server)
        try:
            with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql(f"CREATE DATABASE {name}")
        finally:
            admin.dispose()
        return server.removesuffix("postgres") + name

    return create


def _connect(url: str) -> Engine:
    return import_module("sqlalchemy").create_engine(url)  # type: ignore[no-any-return]


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
