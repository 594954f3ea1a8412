"""Which pairs of counts are stored: those more than max(2 tokens, 1 %) apart."""

from typing import Any

import msgspec
import pytest

from gateway.conclusions import output_tokens_of
from gateway.counts import differences, receipted_differences
from gateway.deliveries import Leg
from pinaivu.testing.receipts import attempted, receipt_of
from tests.unit.gateway_facts import GATEWAY, NODE, NOW, PAYER, completion_for, draft, order_for

JOB = b"j" * 16


def leg(output: int = 100, **said: Any) -> Leg:
    """A whole segment of which we count `output` tokens, and the node's word on it."""
    order = order_for(draft())
    return Leg(
        award=order.award,
        award_digest=order.award_digest,
        result=0,
        output_tokens=output,
        completion=completion_for(order, b"It is lit.", 1, **said) if said else None,
    )


def test_all_nodes_together_are_counted_no_more_than_the_job_asked_for() -> None:
    """Who goes on may be awarded again what the one before said and nobody accepted."""
    assert output_tokens_of(draft(max_tokens=100), [leg(60), leg(30)]) == 90
    assert output_tokens_of(draft(max_tokens=100), [leg(60), leg(68)]) == 100


CASES = [
    (100, 102, False),
    (100, 103, True),
    (100, 97, True),
    (1000, 1010, False),
    (1000, 1011, True),
    (0, 2, False),
    (0, 3, True),
]


@pytest.mark.parametrize(("ours", "theirs", "kept"), CASES)
def test_output_counts_that_lie_too_far_apart(ours: int, theirs: int, kept: bool) -> None:  # noqa: FBT001
    found = differences(JOB, [leg(ours, output_tokens=theirs, prompt_tokens=50)], 50, NOW)
    assert [(row.what, row.by_node, row.by_gateway) for row in found] == (
        [("output", theirs, ours)] if kept else []
    )


@pytest.mark.parametrize(("ours", "theirs", "kept"), CASES)
def test_prompt_counts_that_lie_too_far_apart(ours: int, theirs: int, kept: bool) -> None:  # noqa: FBT001
    found = differences(JOB, [leg(9, output_tokens=9, prompt_tokens=theirs)], ours, NOW)
    assert [(row.what, row.by_node, row.by_gateway) for row in found] == (
        [("prompt", theirs, ours)] if kept else []
    )


def test_each_segment_is_compared_for_itself() -> None:
    """Also one that failed; where a node signed nothing there is nothing to compare."""
    failed = leg(10, output_tokens=60, prompt_tokens=5)
    failed.result = 17
    found = differences(JOB, [failed, leg(5), leg(7, output_tokens=7, prompt_tokens=90)], 5, NOW)
    assert [(row.what, row.by_node, row.by_gateway, row.result) for row in found] == [
        ("output", 60, 10, 17),
        ("prompt", 90, 5, 0),
    ]


def test_receipt_tells_of_completions_that_went_to_the_log_alone() -> None:
    honest = attempted(NODE.address)
    claims = {"output_node": 150, "completion_digest": b"c" * 32}
    silent = msgspec.structs.replace(honest, output_node=0, rank=1)
    padded = msgspec.structs.replace(honest, rank=2, **claims)
    signed = msgspec.structs.replace(honest, rank=3, completion_digest=b"d" * 32)
    receipt = receipt_of(silent, padded, signed, gateway=GATEWAY.address, payer=PAYER.address)
    found = receipted_differences(receipt, NOW)
    assert [(row.rank, row.by_node, row.by_gateway) for row in found] == [(2, 150, 100)]
