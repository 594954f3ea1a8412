"""Running totals between database and `pinaivu.books`, and what a receipt does to them.

A receipt that does not follow from those before it is told apart once: its own numbers are taken
over, so that the next ones are judged by themselves.
"""

from collections.abc import Iterable
from typing import Final

from sqlmodel import Session, select

from pinaivu.books import DAY_MS, Books, OutOfSequence, Running
from pinaivu.messages import Receipt
from pinaivu.store.explorer import RunningRow

Key = tuple[str, bytes]
PAYER: Final = "payer"
ACCOUNT: Final = "account"
NODE: Final = "node"
GRANT: Final = "grant"
DAY: Final = "day"
_ADDRESS: Final = 20
_DIGEST: Final = 32


def load_books(session: Session) -> Books:
    """The books after all leaves in the database."""
    books = Books()
    for row in session.exec(select(RunningRow)):
        _put(books, (row.kind, row.key), Running(row.counter, int(row.total)))
    return books


def follow(books: Books, receipt: Receipt) -> str:
    """Post a receipt; what doesn't follow, in words, or nothing."""
    try:
        books.post(receipt)
    except OutOfSequence as error:
        for key, value in _claims(receipt).items():
            _put(books, key, value)
        return f"counters or totals don't follow: {error}"
    return ""


def keys_of(receipt: Receipt) -> list[Key]:
    """Every running total that a receipt moves."""
    return list(_claims(receipt))


def save(session: Session, books: Books, keys: Iterable[Key], troubles: dict[Key, int]) -> None:
    """Write the totals of `keys`; `troubles` are added to those counted so far."""
    for kind, key in keys:
        value = _get(books, (kind, key))
        row = session.get(RunningRow, (kind, key)) or RunningRow(kind=kind, key=key)
        row.counter, row.total = value.counter, str(value.total)
        row.troubles += troubles.get((kind, key), 0)
        session.add(row)


def _claims(receipt: Receipt) -> dict[Key, Running]:
    """The totals as the receipt states them."""
    day = (receipt.received_ms // DAY_MS).to_bytes(8)
    claims = {
        (PAYER, receipt.payer): Running(receipt.payer_counter, receipt.payer_total),
        (GRANT, receipt.grant_digest): Running(0, receipt.grant_spent),
        (DAY, receipt.grant_digest + day): Running(0, receipt.grant_spent_day),
    }
    if any(receipt.account):
        account = Running(receipt.account_counter, receipt.account_total)
        claims[ACCOUNT, receipt.payer + receipt.account] = account
    for segment in receipt.segments:
        if segment.rank:
            claims[NODE, segment.node] = Running(segment.node_counter, segment.node_total)
    return claims


def _put(books: Books, key: Key, value: Running) -> None:
    kind, raw = key
    if kind == PAYER:
        books.payers[raw] = value
    elif kind == ACCOUNT:
        books.accounts[raw[:_ADDRESS], raw[_ADDRESS:]] = value
    elif kind == NODE:
        books.nodes[raw] = value
    elif kind == GRANT:
        books.grant_spent[raw] = value.total
    else:
        books.grant_spent_day[raw[:_DIGEST], int.from_bytes(raw[_DIGEST:])] = value.total


def _get(books: Books, key: Key) -> Running:
    kind, raw = key
    if kind == PAYER:
        return books.payer(raw)
    if kind == ACCOUNT:
        return books.account(raw[:_ADDRESS], raw[_ADDRESS:])
    if kind == NODE:
        return books.node(raw)
    if kind == GRANT:
        return Running(0, books.spent(raw))
    day = int.from_bytes(raw[_DIGEST:])
    return Running(0, books.grant_spent_day.get((raw[:_DIGEST], day), 0))
