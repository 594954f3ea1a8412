"""Opening a service's database: durable by default, migrated at once, one writer.

SQLite runs in WAL mode with `synchronous=FULL`: a committed transaction survives `kill -9` and
power loss. Calls are synchronous; services make them from worker threads, with one writer each.

    database = open_database("sqlite:///state/node.db", "node")
    with database.begin() as session:  # commits at the end, rolls back on any error
        session.add(...)

Writers of one process take turns; those of several wait for each other in the database. Where time
counts, `begin_rows` is the same transaction without the object layer (`pinaivu.store.rows`).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any, Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import (
    ArgumentError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlmodel import Session, create_engine

from pinaivu.errors import Misconfigured, TransportFailure
from pinaivu.store.rows import Rows

_PRAGMAS: Final = (
    "journal_mode=WAL",
    "foreign_keys=ON",
    "secure_delete=ON",  # what is deleted is overwritten
)
_BEGIN: Final = "BEGIN IMMEDIATE"
SERVICES: Final = ("coordinator", "gateway", "node", "explorer")


class StorageFailed(TransportFailure):
    """The database refused or lost the operation; nothing of the transaction was kept."""


class Database:
    """An opened, migrated database of one service."""

    def __init__(self, engine: Engine, unsynced: Engine | None = None) -> None:
        self._engine = engine
        self._unsynced = unsynced or engine
        self._reading = engine.execution_options(reads_only=True)
        # SQLite has one writer at a time and lets the others poll: a queue of our own is faster.
        self._sqlite = engine.dialect.name == "sqlite"
        self._turn: AbstractContextManager[Any] = Lock() if self._sqlite else nullcontext()
        self.refusals = (SQLAlchemyError, engine.dialect.loaded_dbapi.Error)
        """What a statement raises where the database refuses it."""

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A read-write transaction: durable when the block ends, undone when it raises."""
        with self._transaction(self._engine) as session:
            yield session

    @contextmanager
    def begin_rows(self, *, synced: bool = True) -> Iterator[Rows]:
        """As `begin`, or else `begin_unsynced`, for statements without the object layer."""
        engine = self._engine if synced else self._unsynced
        try:
            with self._turn, closing(engine.raw_connection()) as connection:
                cursor = connection.cursor()
                if self._sqlite:  # other drivers begin by themselves
                    cursor.execute(_BEGIN)
                yield Rows(self._engine.dialect, cursor)
                connection.commit()  # what isn't committed is undone where the connection goes back
        except self.refusals as error:
            raise StorageFailed(f"the database refused the write: {error}") from error

    def rows_of(self, session: Session) -> Rows:
        """The rows of an open session's transaction."""
        return Rows(self._engine.dialect, session.connection().connection.cursor())

    @contextmanager
    def begin_unsynced(self) -> Iterator[Session]:
        """A read-write transaction that is durable with the next durable one, or soon after.

        It survives the end of the process. A loss of power may undo it, together with everything
        that was committed after it and nothing that was committed durably.
        """
        with self._transaction(self._unsynced) as session:
            yield session

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Session]:
        try:
            with self._turn, Session(engine, expire_on_commit=False) as session, session.begin():
                yield session
        except self.refusals as error:
            raise StorageFailed(f"the database refused the write: {error}") from error

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A read-only view."""
        try:
            with Session(self._reading, expire_on_commit=False) as session:
                yield session
        except SQLAlchemyError as error:
            raise StorageFailed(f"the database refused the read: {error}") from error

    def forget_deleted(self) -> bool:
        """Leave nothing of what was deleted in SQLite's write-ahead log; whether that is so.

        False while somebody reads or writes: try again later. Elsewhere deleted rows are the
        server's business (PostgreSQL's vacuum), and this does nothing.
        """
        if not self._sqlite:
            return True
        try:
            connection = self._engine.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                (busy, *_) = cursor.fetchone() or (1,)
            finally:
                connection.close()
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise StorageFailed(f"the database refused a checkpoint: {error}") from error
        return not busy

    def close(self) -> None:
        """Release all connections."""
        self._engine.dispose()
        self._unsynced.dispose()


def open_database(url: str, service: str) -> Database:
    """Open and migrate; `Misconfigured` where the URL, the path or the server is wrong."""
    if service not in SERVICES:
        raise ValueError(f"no service {service!r}")
    try:
        engine = create_engine(url, **_options(url))
        unsynced = create_engine(url, **_options(url, synced=False))
        if engine.dialect.name == "sqlite":
            _prepare_sqlite(engine, "FULL")
            _prepare_sqlite(unsynced, "NORMAL")
        _migrate(engine, service)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise Misconfigured(
            f"{url!r} is no database URL: use sqlite:///PATH or postgresql+psycopg://…"
        ) from error
    except (OperationalError, OSError) as error:
        why = error.orig if isinstance(error, OperationalError) else error
        raise Misconfigured(f"the {service} database can't be opened: {why}") from error
    return Database(engine, unsynced)


def _options(url: str, *, synced: bool = True) -> dict[str, Any]:
    # Errors quote statements and end in logs: they must not quote what is written.
    if url.startswith("sqlite"):
        timeouts = {"check_same_thread": False, "timeout": 30}
        return {"connect_args": timeouts, "hide_parameters": True}
    unsynced = {} if synced else {"connect_args": {"options": "-c synchronous_commit=off"}}
    return {"pool_pre_ping": True, "hide_parameters": True} | unsynced


def _prepare_sqlite(engine: Engine, synchronous: str) -> None:
    if engine.url.database:
        Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)

    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver leaves transactions to us
        for pragma in (*_PRAGMAS, f"synchronous={synchronous}"):
            connection.execute(f"PRAGMA {pragma}")

    def begin(connection: Connection) -> None:
        reads_only = connection.get_execution_options().get("reads_only")
        # Without it a savepoint would be a transaction of its own. A writer waits for its turn
        # at once: a reader that turns into one would be refused.
        connection.exec_driver_sql("BEGIN" if reads_only else _BEGIN)

    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", begin)


def _migrate(engine: Engine, service: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(files("pinaivu.store") / "migrations"))
    versions = str(files("pinaivu.store") / "migrations" / "versions" / service)
    config.set_main_option("version_locations", versions)
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        config.attributes["service"] = service
        command.upgrade(config, "head")
