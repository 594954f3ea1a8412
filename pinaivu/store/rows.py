"""Writes without the object layer, for rows on a path that is timed: one statement each.

    insert(session, Row, digest=…, state="new")       # `RowExists` where there is one of its key
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


def insert(session: Session, kind: type[SQLModel], /, **values: Any) -> None:
    """Insert a new row at once, without making an object of it. A third of `session.add`'s cost.

    What is not named has its default. Raises `RowExists` where there is a row of this key, or of
    another unique column.
    """
    statement, defaults = _new(kind)
    try:
        session.connection().execute(statement, defaults | values)
    except IntegrityError as error:
        raise RowExists(f"there is such a row in {kind.__tablename__!r} already") from error


def add_once(session: Session, row: SQLModel) -> bool:
    """Insert a row, unless there is one with its key or a unique value; whether it was inserted."""
    once = _once(type(row), session.get_bind().dialect.name)
    return session.connection().execute(once, row.model_dump()).rowcount == 1


def change(session: Session, kind: type[SQLModel], key: Any, /, **values: Any) -> int:
    """Set columns of the row with a primary key, a tuple where it is of several columns.

    How many rows there were: one, or none.
    """
    keys = key if isinstance(key, tuple) else (key,)
    named = {f"new_{name}": value for name, value in values.items()}
    named |= {f"key_{place}": value for place, value in enumerate(keys)}
    return int(session.connection().execute(_change(kind, *values), named).rowcount)


@lru_cache
def _new(kind: type[SQLModel]) -> tuple[Executable, dict[str, Any]]:
    fields = kind.model_fields.items()
    defaults = {name: field.default for name, field in fields if not field.is_required()}
    return inspect(kind, raiseerr=True).local_table.insert(), defaults


@lru_cache
def _once(kind: type[SQLModel], dialect: str) -> Executable:
    """The statement; making it costs as much as carrying it out."""
    once: Executable = _ONCE[dialect](kind).on_conflict_do_nothing()
    return once.execution_options(preserve_rowcount=True)


@lru_cache
def _change(kind: type[SQLModel], *names: str) -> Executable:
    new: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names}
    primary = enumerate(inspect(kind, raiseerr=True).primary_key)
    return update(kind).where(*(c == bindparam(f"key_{n}") for n, c in primary)).values(new)
