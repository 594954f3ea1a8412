"""Auctions whose book stands apart, books that are not theirs, and how a node finds its place."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from pinaivu.auction.omitted import left_out, require_withdrawal
from pinaivu.auction.replay import MOST_ROWS_INSIDE, Replay, TranscriptFault
from pinaivu.auction.transcript import Header
from pinaivu.bundles import pack
from pinaivu.cli.placed import Placed, placed
from pinaivu.encoding import from_hex
from pinaivu.keys import BadSignature, SecretKey
from pinaivu.messages import Offer
from pinaivu.testing.bundles import BundleFactory, Json, Made
from pinaivu.testing.lies import TRUTH, Book, Lies
from pinaivu.testing.scenarios import SCENARIOS, Scenario, Turn
from pinaivu.typed_data import Signed
from pinaivu.verify import Outcome, Report, Step, Verifier, development
from pinaivu.verify.contents import read_contents
from pinaivu.verify.rerun import book_beside, rerun
from tests.unit.verify_support import attest, network

CROWD = MOST_ROWS_INSIDE + 4


class Place(NamedTuple):
    """A network of many nodes, and one bundle of it."""

    factory: BundleFactory
    made: Made

    def verify(self, book: object, document: Json | None = None) -> Report:
        """The report with a book beside the bundle."""
        verifier = Verifier(development(self.factory.domain), self.factory.chain)
        copies = replace(self.made.copies, book=book)
        return verifier.verify(pack(document or self.made.document), copies)

    def v7(self, book: object, document: Json | None = None) -> Step:
        """Its seventh step."""
        return self.verify(book, document).step("V7")

    def book(self) -> Any:
        """What the log serves, to be changed."""
        book: Any = copy.deepcopy(self.made.copies.book)
        return book

    def find(self, node: bytes, book: object = None) -> Placed:
        """How a node did."""
        contents = read_contents(self.made.document)
        return placed(contents, self.factory.domain, book or self.made.copies.book, node)


@cache
def crowd() -> Place:
    """One live job among 260 nodes, settled."""
    factory = BundleFactory(attest=attest, nodes=CROWD)
    served = factory.serve(Scenario(nodes=CROWD))
    factory.settle()
    return Place(factory, factory.bundle(served))


def few(scenario: Scenario, lies: Lies = TRUTH) -> Place:
    factory = network()
    return Place(factory, factory.make(scenario, lies))


def test_a_large_auction_is_proven_with_its_book() -> None:
    """Nothing but the rows is missing without them, and the step says where they are."""
    place = crowd()
    root = book_beside(place.made.document["transcript"])
    alone, whole = place.verify(None), place.verify(place.book())
    assert alone.step("V7").outcome == Outcome.LACKING
    assert root is not None
    assert f"/books/0x{root.hex()}" in alone.step("V7").evidence
    assert (alone.exit_code, whole.exit_code) == (2, 0)
    assert whole.step("V7").facts["eligible"] == CROWD


def test_up_to_256_rows_stand_in_the_bundle() -> None:
    place = few(Scenario())
    assert book_beside(place.made.document["transcript"]) is None
    assert place.v7(None).outcome == Outcome.PASSED


def _swap(book: Json) -> None:
    rows = book["rows"]
    rows[0]["row"], rows[1]["row"] = rows[1]["row"], rows[0]["row"]


def _cut_signature(book: Json) -> None:
    book["rows"][5]["offer"]["signature"] = book["rows"][6]["offer"]["signature"]


OTHER_BOOKS: dict[str, Callable[[Json], object]] = {
    "truncated": lambda b: b["rows"].pop(),
    "one left out": lambda b: b["rows"].pop(7),
    "one twice": lambda b: b["rows"].insert(3, b["rows"][3]),
    "in another order": lambda b: b["rows"].reverse(),
    "two rows swapped": _swap,
    "a score input changed": lambda b: b["rows"][0].update(
        row=b["rows"][0]["row"].replace(f"{900_000:08x}", f"{900_001:08x}")
    ),
    "a busier node": lambda b: b["rows"][0].update(row=b["rows"][0]["row"][:-4] + "0100"),
    "a cheaper offer": lambda b: b["rows"][9]["offer"]["message"].update(priceOut="1"),
    "another's signature": _cut_signature,
    "another slot": lambda b: b["rows"][-1].update(slot=CROWD),
    "beyond the slots": lambda b: b["rows"][-1].update(slot=CROWD + 900),
    "empty": lambda b: b["rows"].clear(),
    "no rows": lambda b: b.pop("rows"),
    "more than rows": lambda b: b.update(more=1),
    "a row of another length": lambda b: b["rows"][0].update(row="0x00"),
    "rows of another kind": lambda b: b.update(rows="0x"),
}


@pytest.mark.parametrize("name", OTHER_BOOKS)
def test_another_book_proves_nothing_and_refutes_nothing(name: str) -> None:
    """Whoever served it may have erred; the receipt is as good as it was."""
    place = crowd()
    book = place.book()
    OTHER_BOOKS[name](book)
    assert book != place.book()
    found = place.v7(book)
    assert (found.outcome, "needs the book's rows" in found.evidence) == (Outcome.LACKING, True)


@pytest.mark.parametrize(
    "name", [name for name in OTHER_BOOKS if name not in ("no rows", "more than rows")]
)
def test_other_rows_inside_the_bundle_contradict_it(name: str) -> None:
    place = crowd()
    book, document = place.book(), copy.deepcopy(place.made.document)
    OTHER_BOOKS[name](book)
    document["transcript"] |= book
    assert place.v7(None, document).outcome == Outcome.FAILED


def test_the_book_of_another_auction_is_another_book() -> None:
    place = crowd()
    other = place.factory.copies(place.factory.serve(Scenario(nodes=CROWD - 1))).book
    assert place.v7(other).outcome == Outcome.LACKING


def _first_twice(book: Book) -> Book:
    return [*book, book[0]]


def _of_another(book: Book) -> Book:
    (row, _), (_, offer) = book[:2]
    stolen = replace(row, offer_digest=book[1][0].offer_digest)
    return [(stolen, offer), *book[1:]]


def _other_wallet(book: Book) -> Book:
    (row, offer), *rest = book
    return [(replace(row, payout=b"\x66" * 20), offer), *rest]


BOOK_LIES = {
    "a node twice": (_first_twice, "at most once"),
    "another's offer": (_of_another, "with its own offer"),
    "another wallet": (_other_wallet, "the wallets of"),
}


@pytest.mark.parametrize("name", BOOK_LIES)
@pytest.mark.parametrize("nodes", [3, CROWD])
def test_a_false_book_under_its_own_root_is_refuted(name: str, nodes: int) -> None:
    """The coordinator signed its root: the book is the one, and it is no book."""
    lie, evidence = BOOK_LIES[name]
    factory = BundleFactory(attest=attest, nodes=nodes)
    served = factory.serve(Scenario(nodes=nodes), Lies(book=lie))
    place = Place(factory, factory.bundle(served))
    found = place.v7(place.book())
    assert (found.outcome, evidence in found.evidence) == (Outcome.FAILED, True), found.evidence


def test_the_winner_and_the_last_find_their_places() -> None:
    """In a book that stands apart as well."""
    place = crowd()
    nodes = [party.key.address for party in place.factory.parties.nodes]
    first, last = place.find(nodes[0]), place.find(nodes[-1])
    text = first.to_text().splitlines()
    (segment,) = place.made.served.receipt.message.segments
    assert text[0].endswith(
        f"place 1 of {CROWD}, awarded as rank 1, price {segment.price_out} by the runner-up's score"
    )
    assert "  call      called, answered with a bid" in text
    assert (
        "  price     90000 out, 22500 in, per million tokens, its bid below the offer of 100000"
        in text
    )
    said = last.to_json()
    assert (said["place"], said["called"], said["awarded_rank"]) == (CROWD, None, None)
    assert int(said["price_to_lead"]) < int(said["offer_price_out"])
    assert f"place {CROWD} of {CROWD}, not awarded" in last.to_text()
    assert "to lead   at most" in last.to_text()


def test_a_node_without_an_offer_is_told_so() -> None:
    place = few(Scenario())
    stranger = place.find(SecretKey(b"\x07" * 32).address)
    assert "not in the book of this auction (3 offers" in stranger.to_text()
    assert stranger.to_json()["in_book"] is False


def test_an_ineligible_node_is_told_why() -> None:
    place = few(SCENARIOS["beyond limits"])
    node = place.factory.parties.nodes[0].key.address
    said = place.find(node)
    assert "not eligible, not awarded" in said.to_text()
    names = [condition["name"] for condition in said.to_json()["unmet"]]
    assert names
    assert all(name in said.to_text() for name in names)
    assert said.to_json()["place"] is None


def test_ranks_and_passing_over_are_said() -> None:
    place = few(Scenario(turns=(Turn.PASSED_OVER, Turn.REFUSED, Turn.SERVED)))
    segments = place.made.served.receipt.message.segments
    texts = [place.find(segment.node).to_text() for segment in segments]
    assert "passed over: gone or full" in texts[0]
    assert "awarded as rank 1" in texts[1]
    assert "awarded as rank 2" in texts[2]


class Pair(NamedTuple):
    """Two auctions of one log, of which the later one lacks a node of the earlier one."""

    factory: BundleFactory
    earlier: Replay
    later: Replay

    @property
    def offer(self) -> Offer:
        """The offer that was left out."""
        (found,) = left_out(self.earlier, self.later)
        return found


def pair(lie: Callable[[Book], Book] = lambda book: book[1:]) -> Pair:
    factory = network()
    replays = []
    for lies in (TRUTH, Lies(book=lie)):
        made = factory.bundle(factory.serve(Scenario(), lies))
        replays.append(rerun(read_contents(made.document), factory.domain)[0])
    return Pair(factory, *replays)


def test_an_omission_passes_v7_and_shows_between_two_books() -> None:
    """The rule was kept among those who stand there; an older transcript shows who doesn't."""
    two = pair()
    served = two.factory.served[-1]
    two.factory.settle()
    place = Place(two.factory, two.factory.bundle(served))
    assert place.v7(None).outcome == Outcome.PASSED
    node = two.factory.parties.nodes[0].key.address
    assert place.find(node).placing is None
    assert two.offer.node == node


def test_two_honest_books_lack_nobody() -> None:
    assert left_out(pair(lambda book: book).earlier, pair(lambda book: book).later) == []


def later_header(two: Pair, **more: Any) -> Replay:
    return replace(two.later, header=replace(two.later.header, **more))


@pytest.mark.parametrize(
    "more",
    [{"log_id": bytes(32)}, {"epoch": 2}, {"model_key": bytes(32)}, {"open_ms": 1}],
    ids=lambda more: next(iter(more)),
)
def test_auctions_that_have_nothing_to_do_with_each_other_show_nothing(more: Any) -> None:
    two = pair()
    assert left_out(two.earlier, later_header(two, **more)) == []


def test_an_offer_that_ran_out_is_not_missed() -> None:
    two = pair()
    over = later_header(two, open_ms=two.offer.expires_ms)
    assert left_out(two.earlier, over) == []


def test_only_the_nodes_own_withdrawal_in_time_excuses() -> None:
    two = pair()
    offer, key = two.offer, two.factory.parties.nodes[0].key
    made = replace(offer, slots=0, sequence=offer.sequence + 1)
    cases = {
        True: [made, replace(made, slots=1, expires_ms=two.later.header.open_ms)],
        False: [
            offer,
            replace(made, sequence=offer.sequence),
            replace(made, slots=1),
            replace(made, issued_ms=two.later.header.open_ms + 1),
            replace(made, model="other"),
            replace(made, log_id=bytes(32)),
        ],
    }
    domain = two.factory.domain
    for word in cases[True]:
        require_withdrawal(Signed.by(key, domain, word), offer, two.later, domain)
    for word in cases[False]:
        with pytest.raises(TranscriptFault):
            require_withdrawal(Signed.by(key, domain, word), offer, two.later, domain)
    foreign = Signed.by(SecretKey(b"\x07" * 32), domain, made)
    with pytest.raises(BadSignature):
        require_withdrawal(foreign, offer, two.later, domain)


def test_the_header_names_the_book() -> None:
    """It is what explorer and command line ask the log for."""
    transcript = crowd().made.document["transcript"]
    header = Header.from_bytes(from_hex(transcript["header"]))
    assert book_beside(transcript) == header.book_root
    assert book_beside(None) is None
