"""The order book: what it refuses, each with a counted reason, and what an auction sees of it."""

from typing import Any

import pytest

from coordinator.book import OrderBook
from coordinator.errors import JobRefused
from coordinator.reputation import Standing
from pinaivu.typed_data import Signed
from tests.unit.coordinator_world import MODEL_RECORD, node_record, signed_offer
from tests.unit.ledger_support import DOMAIN, LOG, MODEL, NODES, NOW, offer

STANDING = Standing(success_ppm=900_000, cal_t=1000, cal_s=1000, newcomer=False)
RECORD = node_record(NODES[0])


def _book() -> OrderBook:
    return OrderBook(DOMAIN, LOG, ttl_ms=15_000)


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
        ({"issued_ms": NOW + 5_001, "expires_ms": NOW + 6_000}, "from_the_future"),
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
    slots = book.slots(MODEL, NOW, lambda _: STANDING, lambda _: 0)
    assert [slot.entrant.offer.price_out for slot in slots if slot] == [900_000, 10**6]


@pytest.mark.parametrize(
    ("change", "now"), [({"slots": 0}, NOW), ({}, NOW + 15_000)], ids=["withdrawn", "run out"]
)
def test_what_is_over_leaves_an_empty_slot(change: dict[str, int], now: int) -> None:
    book = _book()
    book.put(signed_offer(NODES[0], sequence=2, **change), RECORD, MODEL_RECORD, NOW)
    assert book.slots(MODEL, now, lambda _: STANDING, lambda _: 0) == [None]
    assert book.models(now) == {}


def test_a_row_says_what_is_known() -> None:
    """Offer by digest, payout wallet, standing and load."""
    book = _book()
    signed = signed_offer(NODES[0])
    book.put(signed, RECORD, MODEL_RECORD, NOW)
    (slot,) = book.slots(MODEL, NOW, lambda _: STANDING, lambda _: 3)
    assert slot
    row = slot.entrant.row
    assert (row.offer_digest, row.payout) == (signed.digest(DOMAIN), RECORD.payout)
    assert (row.success_ppm, row.busy) == (900_000, 3)
    assert book.models(NOW) == {MODEL: 1}
