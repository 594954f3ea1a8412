"""Rows, fees and statements of a range of receipts."""

import pytest

from pinaivu.books import Books
from pinaivu.codes import Role
from pinaivu.commitments import party_of_account
from pinaivu.errors import InvalidEncoding
from pinaivu.merkle.hashing import EMPTY_ROOT, root_of
from pinaivu.messages import Receipt
from pinaivu.receipts import PassedOver, compose
from pinaivu.settlement import ROW_BYTES, Statement, net, unpack_rows
from tests.unit.ledger_support import (
    NODES,
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


def _receipts(*nodes: int, account: bytes = bytes(32)) -> list[Receipt]:
    """Receipts in log order, one served by each node number; -1: nobody served."""
    books, found = Books(), []
    for number, node in enumerate(nodes, start=1):
        terms = job(number, account=account)
        if node < 0:
            evidence = case([PassedOver(NODES[0].address)], None, terms, unserved_reason=3)
        else:
            a = award(1, number, node=NODES[node].address)
            c = completion(a)
            d = part(a, c)
            evidence = case([attempt(a, c, said=d)], delivery(d), terms)
        receipt = compose(evidence, ORIGIN, books)
        books.post(receipt)
        found.append(receipt)
    return found


def test_sums_are_the_receipts() -> None:
    """Σ debits = Σ credits + fees, each the sums of the receipts' own figures."""
    receipts = _receipts(0, 1, 0)
    found = net(receipts)
    segments = [segment for receipt in receipts for segment in receipt.segments]
    assert unpack_rows(found.debits) == {PAYER.address: sum(r.total for r in receipts)}
    assert unpack_rows(found.credits) == {
        NODES[0].address: 2 * (85 - 2),
        NODES[1].address: 85 - 2,
    }
    assert found.fees == sum(s.fee for s in segments) == 6
    credited = sum(unpack_rows(found.credits).values())
    assert sum(unpack_rows(found.debits).values()) == credited + found.fees


def test_rows_ascend_and_hold_no_zeros() -> None:
    """Nobody who neither pays nor earns has a row, but everybody has a statement."""
    found = net(_receipts(3, 2, 1, 0, -1))
    rows = [found.credits[i : i + ROW_BYTES] for i in range(0, len(found.credits), ROW_BYTES)]
    assert rows == sorted(rows)
    assert len(rows) == 4
    free = net(_receipts(-1))
    assert (free.debits, free.credits, free.fees) == (b"", b"", 0)
    assert [(s.role, s.counter_from, s.counter_to) for s in free.statements] == [(Role.PAYER, 0, 1)]


def test_statements_of_adjacent_ranges_join() -> None:
    """What one ends with, the next begins with; together they are the whole."""
    receipts = _receipts(0, 0, 1, 0)
    first, second, whole = net(receipts[:2]), net(receipts[2:]), net(receipts)
    payer = [next(s for s in n.statements if s.role == Role.PAYER) for n in (first, second, whole)]
    assert (payer[0].counter_to, payer[0].total_to) == (payer[1].counter_from, payer[1].total_from)
    assert (payer[2].counter_from, payer[2].counter_to) == (0, 4)
    assert payer[2].total_to == payer[1].total_to


def test_statements_are_in_order_and_give_the_root() -> None:
    """Ascending by role and party; an account's party is its hash."""
    found = net(_receipts(1, 0, account=ACCOUNT))
    keys = [s.to_bytes()[:33] for s in found.statements]
    assert keys == sorted(keys)
    assert [s.role for s in found.statements] == [Role.PAYER, Role.NODE, Role.NODE, Role.ACCOUNT]
    assert found.statements[-1].party == party_of_account(PAYER.address, ACCOUNT)
    assert found.statement_root == root_of([s.to_bytes() for s in found.statements])
    assert net([]).statement_root == EMPTY_ROOT


def test_a_statement_reads_back() -> None:
    (statement, *_) = net(_receipts(0)).statements
    assert Statement.from_bytes(statement.to_bytes()) == statement
    assert len(statement.to_bytes()) == 81


@pytest.mark.parametrize("raw", [b"", bytes(80), bytes(82), bytes(81), b"\x04" + bytes(80)])
def test_no_statement(raw: bytes) -> None:
    with pytest.raises(InvalidEncoding):
        Statement.from_bytes(raw)


A, B = b"\x01" * 20, b"\x02" * 20
ONE, NOTHING = (1).to_bytes(12), bytes(12)


@pytest.mark.parametrize(
    "packed", [A + ONE + b"\0", B + ONE + A + ONE, A + ONE + A + ONE, A + NOTHING]
)
def test_rows_out_of_form(packed: bytes) -> None:
    """Half rows, descending or repeated addresses, and zeros are refused."""
    with pytest.raises(InvalidEncoding):
        unpack_rows(packed)
