"""Writes without the object layer, for rows on a path that is timed: one statement each.

    add_once(session, row)                            # whether it wasn't there already
    change(session, Row, digest, state="delivered")   # how many rows had that key

They run in the session's transaction and are seen by what follows in it. Objects that the session
has loaded before don't notice; write a row either this way or that way within one transaction.
"""

from typing import Any, Final

from sqlalchemy import inspect, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel

_INSERTS: Final[dict[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def add_once(session: Session, row: SQLModel) -> bool:
    """Insert a row, unless there is one with its key or a unique value; whether it was inserted."""
    bind = session.get_bind()
    insert = _INSERTS[bind.dialect.name](type(row)).on_conflict_do_nothing()
    counted = insert.values(row.model_dump()).execution_options(preserve_rowcount=True)
    return session.connection().execute(counted).rowcount == 1


def change(session: Session, kind: type[SQLModel], key: Any, **values: Any) -> int:
    """Set columns of the row with a primary key; how many rows there were: one, or none."""
    (primary,) = inspect(kind).primary_key
    done = session.connection().execute(update(kind).where(primary == key).values(values))
    return int(done.rowcount)
