"""Writes without the object layer, for rows on a path that is timed: one statement each.

    insert(session, row)                              # `RowExists` where there is one of its key
    add_once(session, row)                            # whether it wasn't there already
    change(session, Row, digest, state="delivered")   # how many rows had that key

They run in the session's transaction and are seen by what follows in it. Objects that the session
has loaded before don't notice; write a row either this way or that way within one transaction.
"""

from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Executable, bindparam, inspect, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel

from pinaivu.errors import PinaivuError

_ONCE: Final[dict[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class RowExists(PinaivuError):
    """There is a row of this key already; the transaction is to be left with this error."""


def insert(session: Session, row: SQLModel) -> None:
    """Insert a new row at once. Half the cost of `session.add`.

    Raises `RowExists` where there is one of its key, or of another unique column.
    """
    table = inspect(type(row), raiseerr=True).local_table
    try:
        session.connection().execute(table.insert(), row.model_dump())
    except IntegrityError as error:
        raise RowExists(f"there is such a row in {table.name!r} already") from error


def add_once(session: Session, row: SQLModel) -> bool:
    """Insert a row, unless there is one with its key or a unique value; whether it was inserted."""
    once = _once(type(row), session.get_bind().dialect.name)
    return session.connection().execute(once, row.model_dump()).rowcount == 1


def change(session: Session, kind: type[SQLModel], key: Any, **values: Any) -> int:
    """Set columns of the row with a primary key; how many rows there were: one, or none."""
    named = {f"new_{name}": value for name, value in values.items()}
    done = session.connection().execute(_change(kind, *values), {"key": key} | named)
    return int(done.rowcount)


@lru_cache
def _once(kind: type[SQLModel], dialect: str) -> Executable:
    """The statement; making it costs as much as carrying it out."""
    once: Executable = _ONCE[dialect](kind).on_conflict_do_nothing()
    return once.execution_options(preserve_rowcount=True)


@lru_cache
def _change(kind: type[SQLModel], *names: str) -> Executable:
    (primary,) = inspect(kind).primary_key
    new: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names}
    return update(kind).where(primary == bindparam("key")).values(new)
