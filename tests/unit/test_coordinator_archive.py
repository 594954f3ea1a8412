"""Filed books: what is read back is what was held, for what changed and no more."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace
from sqlmodel import select

from coordinator.archive import Archive, Books, read_book
from coordinator.field import Slot
from pinaivu.auction.rule import Entrant
from pinaivu.auction.transcript import Row, book_root
from pinaivu.store.coordinator import BookRow
from pinaivu.store.database import Database, open_database
from pinaivu.typed_data import Signed
from tests.unit.coordinator_world import signed_offer
from tests.unit.ledger_support import MODEL, NODES

OFFER = signed_offer(NODES[0])
Book = Sequence[Slot | None]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path}/c.db", "coordinator")
    yield opened
    opened.close()


def slot(number: int, sequence: int = 1, busy: int = 0) -> Slot:
    """A made-up node's slot; a archive checks no signature."""
    node = number.to_bytes(20)
    signed = Signed(replace(OFFER.message, node=node, sequence=sequence), OFFER.signature)
    row = Row(
        offer_digest=number.to_bytes(16) + sequence.to_bytes(16),
        node=node,
        payout=node,
        bond_funder=bytes(20),
        success_ppm=900_000,
        cal_t=1000,
        cal_s=1000,
        busy=busy,
    )
    return Slot(Entrant(row, signed.message), signed)


def root_of(slots: Book) -> bytes:
    return book_root([held.entrant.row if held else None for held in slots])


def file(archive: Archive, database: Database, slots: Book, model: str = MODEL) -> bytes:
    root = root_of(slots)
    with database.begin_rows() as rows:
        archive.file(rows, model, root, slots)
    return root


def read(database: Database, root: bytes) -> list[tuple[int, bytes, bytes]] | None:
    with database.read() as session:
        return read_book(session, root)


def held(slots: Book) -> list[tuple[int, bytes, bytes]]:
    """What a reader must get for a book."""
    return [
        (number, held.entrant.row.to_bytes(), held.signed.to_bytes())
        for number, held in enumerate(slots)
        if held
    ]


def parts(database: Database) -> list[BookRow]:
    with database.read() as session:
        return list(session.exec(select(BookRow)).all())


def changed(slots: Book, random: Random) -> list[Slot | None]:
    """A book some time later: offers renewed, withdrawn, come back, nodes busy, new ones."""
    after = list(slots)
    for _ in range(random.randrange(1, 9)):
        number = random.randrange(len(after) + 1)
        made = slot(number, random.randrange(1, 4), random.randrange(2))
        if number == len(after):
            after.append(made)
        else:
            after[number] = random.choice([made, made, None])
    return after


@pytest.mark.parametrize("seed", range(8))
def test_every_book_is_read_back_as_it_was_held(database: Database, seed: int) -> None:
    """Of two models at once, across new boots, and where a slow auction's older book comes late."""
    random = Random(seed)  # noqa: S311 - repeatable, not secret
    archive = Archive()
    books: dict[bytes, Book] = {}
    latest: dict[str, list[Book]] = {"a": [[]], "b": [[slot(900)]]}
    for _ in range(120):
        model = random.choice("ab")
        latest[model].append(changed(latest[model][-1], random))
        chosen = random.choice(latest[model][-3:])
        if random.random() < 0.03:
            archive = Archive()
        books[file(archive, database, chosen, model)] = chosen
    for root, slots in books.items():
        assert read(database, root) == held(slots)


def test_an_empty_book_is_filed_too(database: Database) -> None:
    root = file(Archive(), database, [])
    assert read(database, root) == []
    assert read(database, bytes(32)) is None


def test_the_same_book_is_written_once(database: Database) -> None:
    archive, slots = Archive(), [slot(1), None, slot(2)]
    assert file(archive, database, slots) == file(archive, database, list(slots))
    assert len(parts(database)) == 1


def test_writing_costs_what_changed(database: Database) -> None:
    """A busy node is a row; a renewed offer is a row and the offer; the other rows cost nothing."""
    archive, slots = Archive(), [slot(number) for number in range(1000)]
    file(archive, database, slots)
    file(archive, database, [slot(0, busy=1), *slots[1:]])
    file(archive, database, [slot(0, busy=1), slot(1, sequence=2), *slots[2:]])
    whole, busy, renewed = (len(part.changes) for part in parts(database))
    row, offer = len(slots[0].entrant.row.to_bytes()), len(slots[0].signed.to_bytes())
    assert whole > 1000 * (row + offer)
    assert busy < row + 16
    assert renewed < row + offer + 16


def test_no_book_takes_more_than_two_books_to_read(database: Database) -> None:
    """A series ends when its changes outnumber the book's rows, and so does what is written."""
    archive, slots = Archive(), [slot(number) for number in range(100)]
    for turn in range(1, 500):
        slots = list(slots)
        slots[turn % 100] = slot(turn % 100, sequence=turn + 1)
        root = file(archive, database, slots)
    assert read(database, root) == held(slots)
    found = parts(database)
    for base in {part.base for part in found}:
        series = [part for part in found if part.base == base]
        whole, later = series[0], series[1:]
        assert whole.position == base
        assert sum(len(part.changes) for part in later) <= 1.01 * len(whole.changes)
    assert sum(part.base == part.position for part in found) <= 1 + 500 // 100


def test_a_series_needs_nothing_outside_it(database: Database) -> None:
    """Older ones may be removed as a whole, once nothing that names their books is served."""
    archive, slots = Archive(), [slot(number) for number in range(70)]
    for turn in range(200):
        slots = [slot(turn % 70, sequence=turn + 2), *slots[:-1]]
        root = file(archive, database, slots)
    newest = parts(database)[-1].base
    with database.begin() as session:
        for part in session.exec(select(BookRow).where(BookRow.base != newest)):
            session.delete(part)
    assert newest > 0
    assert read(database, root) == held(slots)


def test_a_published_book_is_kept_at_hand_until_others_were_asked_for(database: Database) -> None:
    """Its bytes are the same whether it was written out now or before."""
    archive, books = Archive(), Books(database)
    roots = [file(archive, database, [slot(number)]) for number in range(9)]
    first = books.published(roots[0])
    assert first is not None
    assert books.published(roots[0]) is first
    for root in roots[1:]:
        books.published(root)
    again = books.published(roots[0])
    assert again == first
    assert again is not first
    assert books.published(bytes(32)) is None
