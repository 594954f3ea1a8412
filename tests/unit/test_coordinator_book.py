"""The order book: what it refuses, each with a counted reason, and what an auction sees of it."""

from typing import Any

import pytest

from coordinator import book as books
from coordinator.book import OrderBook
from coordinator.errors import JobRefused
from coordinator.field import Slot
from coordinator.standing import standing
from node.offers import RENEW_S
from pinaivu.auction.transcript import book_root
from pinaivu.codes import Feature
from pinaivu.typed_data import Signed
from tests.unit.auction_support import STANDING, market
from tests.unit.coordinator_world import MODEL_RECORD, node_record, signed_offer
from tests.unit.ledger_support import DOMAIN, LOG, MODEL, NODES, NOW, offer

RECORD = node_record(NODES[0])


def _book(busy: int = 0) -> OrderBook:
    return OrderBook(DOMAIN, LOG, ttl_ms=15_000, standing=lambda _: STANDING, busy=lambda _: busy)


def _slots(book: OrderBook, now: int = NOW) -> list[Slot | None]:
    view = book.field(market(close_ms=now)).view
    assert view.root == book_root([slot.entrant.row if slot else None for slot in view])
    return list(view)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"log_id": bytes(32)}, "foreign_log"),
        ({"fingerprint": bytes(32)}, "wrong_fingerprint"),
        ({"tps_milli": 0}, "no_speed"),
        ({"ttft_ms": 0}, "beyond_measure"),
        ({"tps_milli": 10**9 + 1}, "beyond_measure"),
        ({"expires_ms": NOW + 15_001}, "bad_validity"),
        ({"expires_ms": NOW}, "bad_validity"),
        ({"issued_ms": NOW - 10, "expires_ms": NOW}, "expired"),
        ({"issued_ms": NOW + 1_001, "expires_ms": NOW + 6_000}, "from_the_future"),
        ({"sequence": 0}, "stale_sequence"),
        ({"node": NODES[1].address}, "foreign_node"),
    ],
)
def test_each_refusal_is_counted(change: dict[str, Any], code: str) -> None:
    """The offer that stands is untouched."""
    book = _book()
    book.put(signed_offer(NODES[0]), RECORD, MODEL_RECORD, NOW)
    standing = book.held(MODEL, NODES[0].address)
    later = signed_offer(NODES[0], **({"sequence": 2} | change))
    with pytest.raises(JobRefused) as caught:
        book.put(later, RECORD, MODEL_RECORD, NOW)
    assert caught.value.code == code
    assert book.refused == {code: 1}
    assert book.held(MODEL, NODES[0].address) is standing


def test_a_node_whose_clock_is_ahead_takes_part_or_hears_of_it() -> None:
    """Where its offer is taken, it is in the market for most of the time until the next."""
    book = _book()
    ahead = NOW + books._CLOCK_SKEW_MS
    made = signed_offer(NODES[0], issued_ms=ahead, expires_ms=ahead + 15_000)
    book.put(made, RECORD, MODEL_RECORD, NOW)
    for since_ms, eligible in ((0, 0), (RENEW_S * 1_000 // 4, 1), (RENEW_S * 1_000, 1)):
        then = market(close_ms=NOW + int(since_ms))
        assert book.field(then).close(then, []).eligible == eligible


def test_an_unregistered_model_is_refused() -> None:
    book = _book()
    with pytest.raises(JobRefused, match="not registered"):
        book.put(signed_offer(NODES[0]), RECORD, None, NOW)
    assert book.refused == {"unknown_model": 1}


def test_a_strangers_signature_is_refused() -> None:
    """Also on an offer that a stranger copied and outbid."""
    book = _book()
    forged = Signed.by(NODES[1], DOMAIN, offer(NODES[0]))
    with pytest.raises(JobRefused):
        book.put(forged, RECORD, MODEL_RECORD, NOW)
    assert book.refused == {"bad_signature": 1}
    assert book.held(MODEL, NODES[0].address) is None


def test_a_newer_offer_takes_the_olds_place() -> None:
    """The slot stays, so the book's root changes in one leaf only."""
    book = _book()
    for node in NODES[:2]:
        book.put(signed_offer(node), node_record(node), MODEL_RECORD, NOW)
    book.put(signed_offer(NODES[0], 900_000, sequence=2), RECORD, MODEL_RECORD, NOW)
    assert [slot.entrant.offer.price_out for slot in _slots(book) if slot] == [900_000, 10**6]


@pytest.mark.parametrize(
    ("change", "now"), [({"slots": 0}, NOW), ({}, NOW + 15_000)], ids=["withdrawn", "run out"]
)
def test_what_is_over_leaves_an_empty_slot(change: dict[str, int], now: int) -> None:
    book = _book()
    book.put(signed_offer(NODES[0], sequence=2, **change), RECORD, MODEL_RECORD, NOW)
    assert _slots(book, now) == [None]
    assert book.models(now) == {}


def test_a_row_says_what_is_known() -> None:
    """Offer by digest, payout wallet, standing and load."""
    book = _book(busy=3)
    signed = signed_offer(NODES[0])
    book.put(signed, RECORD, MODEL_RECORD, NOW)
    (slot,) = _slots(book)
    assert slot
    row = slot.entrant.row
    assert (row.offer_digest, row.payout) == (signed.digest(DOMAIN), RECORD.payout)
    assert (row.success_ppm, row.busy) == (900_000, 3)
    assert book.models(NOW) == {MODEL: 1}


def test_a_nodes_load_is_read_again_when_told() -> None:
    """Not before: nobody asks 10,000 nodes for each job."""
    load = {NODES[0].address: 0}
    book = OrderBook(DOMAIN, LOG, ttl_ms=15_000, standing=lambda _: STANDING, busy=load.__getitem__)
    book.put(signed_offer(NODES[0]), RECORD, MODEL_RECORD, NOW)
    assert _busy(book) == 0
    load[NODES[0].address] = 1
    book.touch(NODES[0].address)
    book.touch(NODES[1].address)
    assert _busy(book) == 1
    assert book.field(market()).close(market(), []).eligible == 0


def _busy(book: OrderBook) -> int:
    (slot,) = _slots(book)
    assert slot
    return slot.entrant.row.busy


def test_who_left_gives_up_its_slot() -> None:
    """Once nothing that it ever signed is valid any more."""
    book = _book()
    book.put(signed_offer(NODES[0]), RECORD, MODEL_RECORD, NOW)
    short = signed_offer(NODES[0], sequence=2, slots=0, expires_ms=NOW + 10)
    book.put(short, RECORD, MODEL_RECORD, NOW)
    assert _slots(book, NOW + 10) == [None]
    with pytest.raises(JobRefused) as caught:  # withdrawn, and not to be put again
        book.put(signed_offer(NODES[0]), RECORD, MODEL_RECORD, NOW + 14_999)
    assert caught.value.code == "stale_sequence"
    _put(book, 1, NOW + 30_000)
    assert book.held(MODEL, NODES[0].address) is None
    (slot,) = _slots(book, NOW + 30_000)
    assert slot
    assert slot.entrant.row.node == NODES[1].address


def test_a_model_that_nobody_offers_any_more_is_forgotten() -> None:
    book = _book()
    other = signed_offer(NODES[0], model="other/model")
    book.put(other, RECORD, MODEL_RECORD, NOW)
    _put(book, 1, NOW + 30_000)
    assert list(book._models) == [MODEL]


def test_a_book_that_has_become_sparse_is_laid_out_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a book is not as long for ever as it was once."""
    monkeypatch.setattr("coordinator.book.CHUNK", 1)
    monkeypatch.setattr("coordinator.book._SPARSE", 2)
    book = _book()
    for number in range(4):
        _put(book, number, NOW)
    assert len(_slots(book)) == 4
    _put(book, 3, NOW + 14_000)
    _put(book, 3, NOW + 28_000)
    assert [slot.entrant.row.node for slot in _slots(book, NOW + 28_000) if slot] == [
        NODES[3].address
    ]
    assert len(_slots(book, NOW + 28_000)) == 1


def _put(book: OrderBook, number: int, now: int) -> None:
    node = NODES[number]
    fresh = signed_offer(node, issued_ms=now, expires_ms=now + 15_000, sequence=now - NOW + 3)
    book.put(fresh, node_record(node), MODEL_RECORD, now)


def test_a_full_book_takes_nobody_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stands in it may renew; a transcript of more could not be read."""
    monkeypatch.setattr("coordinator.book.MOST_SLOTS", 1)
    book = _book()
    _put(book, 0, NOW)
    with pytest.raises(JobRefused):
        _put(book, 1, NOW)
    assert book.refused == {"book_full": 1}
    _put(book, 0, NOW + 1)


def test_what_stands_on_offer_is_told_in_a_few_figures() -> None:
    """Of live offers only; the median is the lower one, features are counted as they are."""
    book = _book()
    assert standing(book.live(MODEL, NOW)) is None
    for number, price in enumerate((500_000, 400_000, 900_000, 600_000)):
        features = int(Feature.KIND_CHAT | (Feature.TOOLS if number == 0 else Feature(0)))
        made = signed_offer(NODES[number], price, slots=2, features=features)
        book.put(made, node_record(NODES[number]), MODEL_RECORD, NOW)
    found = standing(book.live(MODEL, NOW))
    assert found is not None
    assert (found["nodes"], found["slots"]) == (4, 8)
    assert found["price_out"] == {"cheapest": 400_000, "median": 500_000}
    assert found["features"] == [
        {"bits": int(Feature.KIND_CHAT), "nodes": 3},
        {"bits": int(Feature.KIND_CHAT | Feature.TOOLS), "nodes": 1},
    ]
    assert standing(book.live(MODEL, NOW + 10**6)) is None
    assert standing(book.live("other", NOW)) is None
