"""What hosted keys have spent, ever: a kept sum of what is over, and the requests since.

    a key's units = `settled_units` + those of its requests made at `settled_before_ms` or later

`settle` moves the line up to the oldest request that is still without its receipt, and no nearer
to now than `APART_MS`, by when no process can store a request of before: its reservation would be
gone (`gateway_meters.bind`). What lies below the line never changes again. Each move is one
transaction under the account's lock, so it happens wholly or not at all, once, whoever makes it.
"""

from typing import Final

from sqlmodel import Session, col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from pinaivu.store.gateway import AccountRow, RequestRow

APART_MS: Final = 600_000
_CLOSED: Final = ("receipted", "refused")


def spent(session: Session, key_id: str) -> tuple[int, int]:
    """Base units that the key's requests have cost so far, and where the line is."""
    row = session.get(AccountRow, key_id)
    kept, line_ms = (row.settled_units, row.settled_before_ms) if row else (0, 0)
    query = _units(key_id).where(col(RequestRow.created_ms) >= line_ms)
    return kept + int(session.exec(query).one()), line_ms


def settle(session: Session, key_id: str, now_ms: int) -> None:
    """Add what is over by now to the kept sum."""
    row = session.get(AccountRow, key_id, with_for_update=True)
    if row is None:
        return
    since = (RequestRow.key_id == key_id, col(RequestRow.created_ms) >= row.settled_before_ms)
    unclosed = select(func.min(RequestRow.created_ms)).where(
        *since, col(RequestRow.state).not_in(_CLOSED)
    )
    oldest = session.exec(unclosed).one()
    line_ms = min(now_ms - APART_MS, now_ms if oldest is None else oldest)
    if line_ms <= row.settled_before_ms:
        return
    over = _units(key_id).where(*since, col(RequestRow.created_ms) < line_ms)
    row.settled_units += int(session.exec(over).one())
    row.settled_before_ms = line_ms


def _units(key_id: str) -> SelectOfScalar[int]:
    return select(func.coalesce(func.sum(col(RequestRow.units)), 0)).where(
        RequestRow.key_id == key_id
    )
