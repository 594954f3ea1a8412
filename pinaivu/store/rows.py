"""Writes without the object layer, for rows on a path that is timed: one statement each.

    insert(session, row)                              # `RowExists` where there is one of its key
    add_once(session, row)                            # whether it wasn't there already
    change(session, Row, digest, state="delivered")   # how many rows had that key

They run in the session's transaction and are seen by what follows in it. Objects that the session
has loaded before don't notice; write a row either this way or that way within one transaction.
"""

from typing import Any, Final

from sqlalchemy import inspect, update
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
    bind = session.get_bind()
    once = _ONCE[bind.dialect.name](type(row)).on_conflict_do_nothing()
    counted = once.values(row.model_dump()).execution_options(preserve_rowcount=True)
    return session.connection().execute(counted).rowcount == 1


def change(session: Session, kind: type[SQLModel], key: Any, **values: Any) -> int:
    """Set columns of the row with a primary key; how many rows there were: one, or none."""
    (primary,) = inspect(kind).primary_key
    done = session.connection().execute(update(kind).where(primary == key).values(values))
    return int(done.rowcount)
