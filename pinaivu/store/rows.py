"""Writes without the object layer, for rows on a path that is timed: the driver's own statements.

    with database.begin_rows() as rows:
        rows.insert(Row, digest=…, state="new")         # `RowExists` where there is one of its key
        rows.add_once(Row, digest=…, state="new")       # whether it wasn't there already
        rows.change(Row, digest, state="delivered")     # how many rows had that key
        rows.find(Row, digest, "state", "created_ms")   # the columns of that row, or None

SQLAlchemy writes each statement once, from the tables; from then on it is not in the way. What it
does for a transaction and its statements costs several times what SQLite does.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import ClauseElement, Dialect, bindparam, delete, inspect, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql.compiler import SQLCompiler
from sqlmodel import SQLModel

from pinaivu.errors import PinaivuError

_ONCE: Final[dict[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
Kind = type[SQLModel]


class RowExists(PinaivuError):
    """There is a row of this key already; the transaction is to be left with this error."""


class Rows:
    """One transaction's rows; used while it is open, by whoever opened it.

    Values go to the driver and come from it as they are: keys and contents are numbers, text,
    bytes and None; a truth value may come back as a number. A key is a tuple where it is of several
    columns. What the driver raises is a `StorageFailed` where the transaction ends.
    """

    def __init__(self, dialect: Dialect, cursor: DBAPICursor) -> None:
        self._dialect = dialect
        self._cursor = cursor

    def insert(self, kind: Kind, /, **values: Any) -> None:
        """Insert a new row. What is not named has its default.

        Raises `RowExists` where there is a row of this key, or of another unique column.
        """
        statement, defaults = _new(kind)
        try:
            self._execute(statement, defaults | values)
        except self._dialect.loaded_dbapi.IntegrityError as error:
            raise RowExists(f"there is such a row in {kind.__tablename__!r} already") from error

    def add_once(self, kind: Kind, /, **values: Any) -> bool:
        """Insert a row, unless there is one with its key or a unique value; whether it was."""
        once, defaults = _once(kind, self._dialect.name)
        self._execute(once, defaults | values)
        return self._cursor.rowcount == 1

    def change(self, kind: Kind, key: Any, /, **values: Any) -> int:
        """Set columns of the row with a primary key. How many rows there were: one, or none."""
        new = {f"new_{name}": value for name, value in values.items()}
        self._execute(_change(kind, *values), new | _keys(key))
        return self._cursor.rowcount

    def remove(self, kind: Kind, key: Any, /) -> int:
        """Delete the row with a primary key. How many rows there were: one, or none."""
        self._execute(_remove(kind), _keys(key))
        return self._cursor.rowcount

    def find(self, kind: Kind, key: Any, /, *names: str) -> tuple[Any, ...] | None:
        """These columns of the row with a primary key, or None."""
        found = self.run(_find(kind, *names), **_keys(key))
        return found[0] if found else None

    def run(self, statement: ClauseElement, /, **values: Any) -> Sequence[tuple[Any, ...]]:
        """What any statement of SQLAlchemy's gives; made once, with a `bindparam` for each value.

        Statements are remembered by identity: one that is made anew for each call is slow.
        """
        self._execute(statement, values)
        if self._cursor.description is None:
            return []
        return [tuple(row) for row in self._cursor.fetchall()]

    @property
    def stand(self) -> bool:
        """Whether the transaction is still open: where a disk is full, SQLite undoes all of it."""
        return bool(getattr(self._cursor.connection, "in_transaction", True))

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Where the block raises, what it did is undone and nothing else. Not to be nested."""
        self._cursor.execute("SAVEPOINT here")
        try:
            yield
        except BaseException:
            self._cursor.execute("ROLLBACK TO SAVEPOINT here")
            raise
        self._cursor.execute("RELEASE SAVEPOINT here")

    def _execute(self, statement: ClauseElement, values: dict[str, Any]) -> None:
        text, places, constants = _written(statement, self._dialect)
        named = constants | values
        self._cursor.execute(text, named if places is None else [named[name] for name in places])


@lru_cache(maxsize=256)
def _written(
    statement: ClauseElement, dialect: Dialect
) -> tuple[str, tuple[str, ...] | None, dict[str, Any]]:
    """A statement in the database's language.

    With it its values' names in order, where they have one, and those values that never change.
    """
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)
    places = compiled.positiontup
    constants = {n: bind.value for n, bind in compiled.binds.items() if not bind.required}
    return str(compiled), None if places is None else tuple(places), constants


def _keys(key: Any) -> dict[str, Any]:
    parts = key if isinstance(key, tuple) else (key,)
    return {f"key_{place}": part for place, part in enumerate(parts)}


def _of_key(kind: Kind) -> list[Any]:
    primary = inspect(kind, raiseerr=True).primary_key
    return [column == bindparam(f"key_{place}") for place, column in enumerate(primary)]


@lru_cache
def _defaults(kind: Kind) -> dict[str, Any]:
    fields = kind.model_fields.items()
    return {name: field.default for name, field in fields if not field.is_required()}


@lru_cache
def _new(kind: Kind) -> tuple[ClauseElement, dict[str, Any]]:
    return inspect(kind, raiseerr=True).local_table.insert(), _defaults(kind)


@lru_cache
def _once(kind: Kind, dialect: str) -> tuple[ClauseElement, dict[str, Any]]:
    return _ONCE[dialect](kind).on_conflict_do_nothing(), _defaults(kind)


@lru_cache
def _change(kind: Kind, *names: str) -> ClauseElement:
    new: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names}
    return update(kind).where(*_of_key(kind)).values(new)


@lru_cache
def _remove(kind: Kind) -> ClauseElement:
    return delete(kind).where(*_of_key(kind))


@lru_cache
def _find(kind: Kind, *names: str) -> ClauseElement:
    return select(*(getattr(kind, name) for name in names)).where(*_of_key(kind))
