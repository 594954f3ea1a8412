"""The log of what administrators did: who, what, when. Rows are added with the act itself.

The tables refuse to change or remove a row (a trigger of the migration); whoever can alter the
database's schema still can. No secret is ever written: the caller hands over ids and limits.
"""

from typing import Any

import msgspec
from msgspec import Struct
from sqlmodel import Session, col, select

from pinaivu.store.gateway import ActRow


class Act(Struct, frozen=True, kw_only=True):
    """Something that was done; `subject` is a key's id or a grant's digest."""

    number: int
    at_ms: int
    who: str
    what: str
    subject: str
    detail: dict[str, Any]


def record(
    session: Session, who: str, what: str, subject: str, now_ms: int, detail: dict[str, Any]
) -> None:
    """Note an act, in the transaction that carries it out."""
    said = msgspec.json.encode(detail).decode()
    session.add(ActRow(at_ms=now_ms, who=who, what=what, subject=subject, detail=said))


def list_acts(
    session: Session, *, subject: str | None = None, after: int = 0, most: int = 1000
) -> list[Act]:
    """Acts with a number above `after`, oldest first, `most` at most."""
    query = select(ActRow).where(col(ActRow.number) > after)
    if subject is not None:
        query = query.where(ActRow.subject == subject)
    rows = session.exec(query.order_by(col(ActRow.number)).limit(most)).all()
    return [
        Act(
            number=row.number or 0,
            at_ms=row.at_ms,
            who=row.who,
            what=row.what,
            subject=row.subject,
            detail=msgspec.json.decode(row.detail),
        )
        for row in rows
    ]
