"""Running totals: what follows is posted, what doesn't is refused and changes nothing."""

import copy
from typing import Any

import pytest
from msgspec.structs import replace

from pinaivu.books import DAY_MS, Books, OutOfSequence, Running
from pinaivu.messages import Job, Receipt
from pinaivu.receipts import PassedOver, compose
from tests.unit.ledger_support import (
    NODES,
    NOW,
    ORIGIN,
    PAYER,
    attempt,
    award,
    case,
    completion,
    delivery,
    job,
    part,
)

ACCOUNT = b"\x0a" * 32


def _receipt(books: Books, number: int = 1, of: Job | None = None, **more: Any) -> Receipt:
    a = award(1, number)
    c = completion(a)
    d = part(a, c)
    return compose(
        case([attempt(a, c, said=d)], delivery(d), of or job(number), **more), ORIGIN, books
    )


def test_totals_follow_receipt_by_receipt() -> None:
    """Counters are gapless; totals are sums: 85 a receipt, 83 of it the node's."""
    books = Books()
    for number in (1, 2, 3):
        books.post(_receipt(books, number))
    assert books.payer(PAYER.address) == Running(3, 255)
    assert books.node(NODES[0].address) == Running(3, 249)


@pytest.mark.parametrize(
    "change",
    [
        {"payer_counter": 3},
        {"payer_counter": 1},
        {"payer_total": 86},
        {"total": 84},
        {"grant_spent": 86},
        {"grant_spent_day": 0},
        {"account_counter": 1},
        {"account_total": 85},
    ],
)
def test_a_receipt_that_does_not_follow_is_refused(change: dict[str, int]) -> None:
    """And nothing has changed: the right one is still taken."""
    books = Books()
    books.post(_receipt(books, 1))
    right = _receipt(books, 2)
    before = copy.deepcopy(books.__dict__)
    with pytest.raises(OutOfSequence):
        books.post(replace(right, **change))
    assert books.__dict__ == before
    books.post(right)


@pytest.mark.parametrize("change", [{"node_counter": 2}, {"node_total": 1}, {"amount": 84}])
def test_a_segment_that_does_not_follow_is_refused(change: dict[str, int]) -> None:
    books = Books()
    right = _receipt(books)
    wrong = replace(right, segments=(replace(right.segments[0], **change),))
    with pytest.raises(OutOfSequence, match="segment 0"):
        books.post(wrong)


def test_a_passed_over_node_has_no_counter() -> None:
    """Its segment carries zeros, its books don't move."""
    books = Books()
    receipt = compose(case([PassedOver(NODES[1].address)], None), ORIGIN, books)
    books.post(receipt)
    assert books.node(NODES[1].address) == Running()
    counted = replace(receipt.segments[0], node_counter=1)
    with pytest.raises(OutOfSequence):
        Books().post(replace(receipt, segments=(counted,)))


def test_one_node_twice_on_a_receipt_counts_twice() -> None:
    """Two awards to one node: two counters, one after the other."""
    first, second = award(1), award(2, node=NODES[0].address)
    c1, c2 = completion(first), completion(second)
    d1, d2 = part(first, c1), part(second, c2)
    books = Books()
    receipt = compose(
        case([attempt(first, c1, said=d1), attempt(second, c2, said=d2)], delivery(d1, d2)),
        ORIGIN,
        books,
    )
    books.post(receipt)
    assert [s.node_counter for s in receipt.segments] == [1, 2]
    assert books.node(NODES[0].address).counter == 2


def test_a_day_ends_and_the_grant_goes_on() -> None:
    """The day's sum begins again with the day of `received_ms`; the grant's doesn't."""
    books = Books()
    books.post(_receipt(books, 1))
    later = _receipt(books, 2, received_ms=NOW + DAY_MS)
    assert (later.grant_spent, later.grant_spent_day) == (170, 85)
    books.post(later)
    assert books.spent_on_day(later.grant_digest, NOW) == 85


def test_a_sub_account_has_its_own_sequence() -> None:
    """Receipts without the account leave it alone."""
    books = Books()
    of = job(1, account=ACCOUNT, account_limit=1000)
    first = _receipt(books, 1, of)
    assert (first.account_counter, first.account_total, first.account_limit) == (1, 85, 1000)
    books.post(first)
    books.post(_receipt(books, 2))
    assert books.account(PAYER.address, ACCOUNT) == Running(1, 85)
