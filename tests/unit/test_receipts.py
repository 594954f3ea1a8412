"""What a receipt says, from evidence alone: each row of the failure table of types.md section 8."""

import pytest

from pinaivu.books import Books
from pinaivu.codes import Outcome, Reason, Status
from pinaivu.messages import Receipt
from pinaivu.metering import Attempt
from pinaivu.receipts import Case, PassedOver, compose
from tests.unit.ledger_support import (
    NODES,
    NOW,
    ORIGIN,
    ZERO,
    attempt,
    award,
    case,
    completion,
    delivery,
    failure,
    part,
)


def _compose(evidence: Case) -> Receipt:
    return compose(evidence, ORIGIN, Books())


def _served() -> Case:
    a = award()
    c = completion(a)
    d = part(a, c)
    return case([attempt(a, c, said=d)], delivery(d))


def test_whole_answer() -> None:
    """Completed; the evidence is named by digest, times are the gateway's."""
    evidence = _served()
    found = _compose(evidence)
    (segment,) = found.segments
    assert (found.status, found.reason) == (Status.COMPLETED, Reason.NONE)
    assert found.total == segment.amount == 85
    assert found.delivery_digest == evidence.delivery_digest != ZERO
    assert segment.award_digest == evidence.award_digests[0]
    assert segment.completion_digest == evidence.attempts[0].completion_digest
    assert (segment.start_byte, segment.end_byte) == (0, 400)
    assert (found.first_token_ms, found.finished_ms) == (NOW + 30, NOW + 950)
    assert (found.received_ms, found.awarded_ms, found.closed_ms) == (NOW, NOW, NOW + 2_000)
    assert found.response_commitment == b"\x99" * 32


@pytest.mark.parametrize("reason", [Reason.NO_NODES_AVAILABLE, Reason.NO_NODES_WITHIN_LIMITS])
def test_nobody_can_serve(reason: Reason) -> None:
    found = _compose(case([], None, unserved_reason=reason))
    assert (found.status, found.reason, found.total) == (Status.UNSERVED, reason, 0)
    assert found.segments == ()
    assert (found.awarded_ms, found.first_token_ms, found.finished_ms) == (0, 0, 0)


def test_only_passed_over() -> None:
    """Nodes that were gone before an award stay on the line, with zeros."""
    line: list[PassedOver] = [PassedOver(node.address) for node in NODES[:2]]
    found = _compose(case([*line], None, unserved_reason=Reason.NO_NODE_LEFT))
    assert (found.status, found.reason) == (Status.UNSERVED, Reason.NO_NODE_LEFT)
    assert [s.result for s in found.segments] == [Reason.PASSED_OVER] * 2
    assert {s.rank for s in found.segments} == {0}


def test_a_node_refuses_and_the_next_serves() -> None:
    a1, a2 = award(1), award(2)
    f, c = failure(a1, Reason.REFUSED), completion(a2)
    d1, d2 = part(a1, result=Reason.REFUSED), part(a2, c)
    line: list[Attempt | PassedOver] = [
        attempt(a1, failed=f, said=d1),
        PassedOver(NODES[3].address),
        attempt(a2, c, said=d2),
    ]
    found = _compose(case(line, delivery(d1, d2)))
    assert (found.status, found.reason) == (Status.COMPLETED, Reason.NONE)
    assert [s.result for s in found.segments] == [Reason.REFUSED, Reason.PASSED_OVER, Reason.NONE]
    assert [s.rank for s in found.segments] == [1, 0, 2]
    assert [s.amount for s in found.segments] == [0, 0, 85]


def test_none_left_after_a_failure() -> None:
    a = award()
    d = part(a, result=Reason.SILENT)
    evidence = [attempt(a, failed=failure(a, Reason.SILENT), said=d)]
    found = _compose(case(evidence, delivery(d, outcome=Outcome.FAILED)))
    assert (found.status, found.reason, found.total) == (Status.FAILED, Reason.SILENT, 0)


def test_a_node_dies_in_mid_stream() -> None:
    """Its range and the gateway's commitment to it; the next starts where it ended."""
    a1, a2 = award(1), award(2, start_byte=200)
    f = failure(a1, acks=2, output_tokens=40, end_byte=200)
    c = completion(a2)
    d1 = part(
        a1, result=Reason.STREAM_BROKEN, end_byte=200, segment_commitment=b"\x05" * 32, acks=2
    )
    d2 = part(a2, c)
    found = _compose(
        case([attempt(a1, failed=f, said=d1), attempt(a2, c, said=d2)], delivery(d1, d2))
    )
    first, second = found.segments
    assert (first.start_byte, first.end_byte, first.amount) == (0, 200, 0)
    assert first.segment_commitment == b"\x05" * 32
    assert second.start_byte == first.end_byte
    assert found.status == Status.COMPLETED


def test_client_goes_away() -> None:
    a = award()
    c = completion(a, acks=2, response_commitment=ZERO)
    d = part(a, c, result=Reason.CLIENT_GONE)
    found = _compose(case([attempt(a, c, said=d)], delivery(d, outcome=Outcome.CLIENT_GONE)))
    assert (found.status, found.reason) == (Status.CANCELLED, Reason.CLIENT_GONE)
    assert found.total == 5 + 32


def test_gateway_never_reports() -> None:
    """Undelivered; range, response and times as the node says."""
    a = award()
    c = completion(a)
    found = _compose(case([attempt(a, c)], None))
    (segment,) = found.segments
    assert (found.status, found.reason) == (Status.UNDELIVERED, Reason.NOT_REPORTED)
    assert segment.segment_commitment == c.segment_commitment
    assert found.response_commitment == c.response_commitment
    assert (found.first_token_ms, found.finished_ms) == (NOW + 20, NOW + 900)
    assert found.delivery_digest == ZERO
    assert found.total == 5 + 64


def test_gateway_reports_a_failure_and_never_delivers() -> None:
    """The node's range is cut where the gateway says the text ended; nobody commits to it."""
    a = award()
    f = failure(a, acks=2, end_byte=150, output_tokens=40)
    found = _compose(case([attempt(a, completion(a, acks=2), f)], None))
    (segment,) = found.segments
    assert (segment.end_byte, segment.segment_commitment) == (150, ZERO)
    assert (segment.result, segment.amount) == (Reason.STREAM_BROKEN, 5 + 32)


def test_a_dispute_goes_before_any_other_status() -> None:
    a = award()
    c = completion(a, acks=2)
    d = part(a, c, segment_commitment=b"\x01" * 32)
    found = _compose(case([attempt(a, c, said=d)], delivery(d)))
    assert (found.status, found.reason) == (Status.DISPUTED, Reason.COMMITMENT_MISMATCH)


def test_no_completion_although_delivered() -> None:
    a = award()
    d = part(a, output_tokens=80, acks=3, end_byte=400)
    found = _compose(case([attempt(a, said=d)], delivery(d)))
    assert (found.status, found.reason, found.total) == (
        Status.COMPLETED,
        Reason.NO_COMPLETION,
        0,
    )


def test_compose_changes_no_books() -> None:
    """Composing twice gives the same: only `post` advances."""
    books = Books()
    evidence = _served()
    assert compose(evidence, ORIGIN, books) == compose(evidence, ORIGIN, books)
    assert not books.payers
