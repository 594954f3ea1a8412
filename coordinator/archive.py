"""The books that auctions were held over, kept so that anybody can ask for one by its root.

A book changes a little with every renewed offer, so each one is written as what changed since the
one before it; a whole one begins a new *series* as soon as the changes since the last whole one
outnumber the book's rows. Writing costs what changed, twice at most over time; reading one book
costs at most two books. A series stands alone: nothing outside it is needed to read it.

`Archive.file` runs in the writer's thread, inside the transaction that writes the transcript: no
award is ever durable without its book. Nothing here is removed: a book is served as long as the
receipts that name it. Whether rows and offers are true is for whoever reads them: they hash to the
root, or they don't.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from threading import Lock
from typing import Any, Final, Protocol

import msgspec
from sqlmodel import Session, col, func, select

from coordinator.field import Slot
from pinaivu.auction.replay import MOST_ROWS_INSIDE, rows_document, transcript_document
from pinaivu.auction.transcript import CallEntry, Header, Row
from pinaivu.encoding import from_hex
from pinaivu.messages import Bid, Offer
from pinaivu.store.coordinator import BookRow, TranscriptRow
from pinaivu.store.database import Database
from pinaivu.store.rows import Rows
from pinaivu.typed_data import Signed, signed_from_bytes, signed_from_json

Json = dict[str, Any]
Filed = tuple[int, bytes, bytes]
"""(slot, 109-byte row, `Signed[Offer].to_bytes()`); within a change an empty row empties the slot
and an empty offer is the slot's offer as it was."""

_NEWEST: Final = select(func.max(BookRow.position))
_MOST_LATEST: Final = 4
_FEWEST: Final = 64
"""So many changes are read at once whatever the book's size: small books are rarely whole."""


class Book(Protocol):
    """A book's slots in their order; it never changes."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Slot | None]: ...


class _Series(msgspec.Struct):
    """A model's series under way: its last book, as held and as filed, and how much was written."""

    base: int
    root: bytes
    slots: Book
    filed: dict[int, Filed]
    written: int  # changes since the whole book


class Archive:
    """Files the books of one process; the database must be a crash-only writer's.

    What is written follows from what was written before it: after a failed write nothing more may
    be filed. A new process begins new series.
    """

    def __init__(self) -> None:
        self._series: dict[str, _Series] = {}
        self._next: int | None = None

    def file(self, rows: Rows, model: str, root: bytes, slots: Book) -> None:
        """Write a model's book unless it is the one written last."""
        series = self._series.get(model)
        if series is not None and series.root == root:
            return
        position = self._position(rows)
        series = series or _Series(position, root, (), {}, 0)
        changes = list(_changes(series.slots, slots))
        _apply(series.filed, changes)
        series.written += len(changes)
        if series.written > max(len(slots), _FEWEST) or series.base == position:
            series.base, series.written = position, 0
            changes = list(series.filed.values())
        raw = msgspec.msgpack.encode(changes)
        rows.insert(BookRow, position=position, base=series.base, root=root, changes=raw)
        self._next = position + 1
        series.root, series.slots = root, slots
        self._series[model] = series

    def _position(self, rows: Rows) -> int:
        if self._next is None:
            ((newest,),) = rows.run(_NEWEST)
            self._next = 0 if newest is None else newest + 1
        return self._next


def _changes(before: Book, after: Book) -> Iterator[Filed]:
    """What to write of `after` for whoever has `before`; rows name their offers, so they decide."""
    for number, (old, new) in enumerate(zip_longest(before, after)):
        if old is new:
            continue
        if new is None:
            yield number, b"", b""
            continue
        row = new.entrant.row
        if old is None or row.offer_digest != old.entrant.row.offer_digest:
            yield number, row.to_bytes(), new.signed.to_bytes()
        elif row != old.entrant.row:
            yield number, row.to_bytes(), b""


def read_book(session: Session, root: bytes) -> list[Filed] | None:
    """The occupied slots of a filed book in their order; None where none of this root is filed."""
    found = session.exec(select(BookRow).where(BookRow.root == root).limit(1)).first()
    if found is None:
        return None
    parts = session.exec(
        select(BookRow.changes)
        .where(BookRow.base == found.base, col(BookRow.position) <= found.position)
        .order_by(col(BookRow.position))
    )
    filed: dict[int, Filed] = {}
    for part in parts:
        _apply(filed, msgspec.msgpack.decode(part, type=list[Filed]))
    return [filed[number] for number in sorted(filed)]


def _apply(filed: dict[int, Filed], changes: Iterable[Filed]) -> None:
    for number, row, offer in changes:
        if not row:
            filed.pop(number, None)
        else:
            filed[number] = (number, row, offer or filed[number][2])


def published_rows(book: Sequence[Filed]) -> list[Json]:
    """A book in the JSON form of a transcript's `rows`."""
    return rows_document(
        (number, Row.from_bytes(row), signed_from_bytes(Offer, offer))
        for number, row, offer in book
    )


class Books:
    """Published books, for strangers. Writing a large one out takes a while: one is at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = Lock()
        self._latest: OrderedDict[bytes, bytes] = OrderedDict()

    def published(self, root: bytes) -> bytes | None:
        """``{"rows": […]}`` as JSON; None where no book of this root is filed."""
        with self._turn:
            known = self._latest.get(root)
            return known if known is not None else self._write_out(root)

    def _write_out(self, root: bytes) -> bytes | None:
        with self._database.read() as session:
            book = read_book(session, root)
        if book is None:
            return None
        written = msgspec.json.encode({"rows": published_rows(book)})
        self._latest[root] = written
        if len(self._latest) > _MOST_LATEST:
            self._latest.popitem(last=False)
        return written


def written_out(document: str) -> Json:
    """A stored transcript's header and calls in the JSON form of a transcript."""
    stored: Json = msgspec.json.decode(document)
    calls = [
        (CallEntry.from_bytes(from_hex(call["entry"])), _bid(call.get("bid")))
        for call in stored["calls"]
    ]
    return transcript_document(Header.from_bytes(from_hex(stored["header"])), calls)


def _bid(stored: object) -> Signed[Bid] | None:
    """A call's bid as it travelled, or as versions before 0.2 wrote it."""
    if stored is None:
        return None
    if isinstance(stored, str):
        return signed_from_bytes(Bid, from_hex(stored))
    return signed_from_json(Bid, stored)


def published_transcript(session: Session, stored: TranscriptRow) -> Json:
    """A stored transcript as it is published: with its rows where they are few enough."""
    document = written_out(stored.document)
    header = Header.from_bytes(from_hex(document["header"]))
    if header.eligible <= MOST_ROWS_INSIDE:  # else there are more rows than that
        book = read_book(session, header.book_root)
        if book is not None and len(book) <= MOST_ROWS_INSIDE:
            document["rows"] = published_rows(book)
    return document
