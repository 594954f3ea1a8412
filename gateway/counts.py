"""Two counts of the same text that lie too far apart: found here, stored, and shown on a receipt.

Node and gateway count with the same tokenizer and template, so honest counts of the same bytes are
equal. A difference says that one of them counts wrongly or lies, or, where a client went away, that
not all the node sent has arrived: `result` tells. What is billed is the metering rule's business.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from gateway.deliveries import Leg
from pinaivu.messages import Receipt
from pinaivu.metering import Tolerance
from pinaivu.store.gateway import CountDifferenceRow

KEPT: Final = Tolerance(tokens=2, ppm=10_000)
"""Counts that differ by more are stored, whatever tolerance the log itself bills by."""

_ZERO: Final = bytes(32)


def differences(
    job_id: bytes, legs: Sequence[Leg], prompt_tokens: int, now_ms: int
) -> list[CountDifferenceRow]:
    """Where the nodes' completions count otherwise than this gateway does."""
    return [
        CountDifferenceRow(
            award_digest=leg.award_digest,
            what=what,
            job_id=job_id,
            rank=leg.award.message.rank,
            node=leg.award.message.node,
            by_node=by_node,
            by_gateway=by_gateway,
            result=leg.result,
            noticed_ms=now_ms,
        )
        for leg in legs
        for what, by_node, by_gateway in _counts(leg, prompt_tokens)
        if KEPT.exceeded(by_node, by_gateway)
    ]


def receipted_differences(receipt: Receipt, now_ms: int) -> list[CountDifferenceRow]:
    """The same of a receipt, which also knows the completions that reached the log alone."""
    return [
        CountDifferenceRow(
            award_digest=segment.award_digest,
            what="output",
            job_id=receipt.job_id,
            rank=segment.rank,
            node=segment.node,
            by_node=segment.output_node,
            by_gateway=segment.output_gateway,
            result=segment.result,
            noticed_ms=now_ms,
        )
        for segment in receipt.segments
        if segment.completion_digest != _ZERO
        and KEPT.exceeded(segment.output_node, segment.output_gateway)
    ]


def _counts(leg: Leg, prompt_tokens: int) -> Iterator[tuple[str, int, int]]:
    if leg.completion is not None:
        said = leg.completion.message
        yield "prompt", said.prompt_tokens, prompt_tokens
        yield "output", said.output_tokens, leg.output_tokens
