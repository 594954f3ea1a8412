"""What one receipt says of the nodes that it paid, or didn't: findings and measured times.

A receipt's `result` is already made of completion and delivery together. Times are differences of
one clock each: the stream's length by the gateway's, the whole attempt by the coordinator's. Two
clocks are never subtracted from each other, so a clock that is off is no advantage.

    streamed = finishedMs − firstTokenMs                    gateway's clock
    spent    = closedMs − awardedMs                         coordinator's clock
    time to first token = spent − streamed                  with the way there, and the reporting
    time per token      = streamed / (output − 1)

What a receipt doesn't carry, and so isn't used: the node's own times (on the completion), when the
gateway sent the request, and times per segment. Hence only jobs with one attempt are timed.
"""

from enum import Enum, auto
from typing import Final

from msgspec import Struct

from pinaivu.codes import Reason, Status
from pinaivu.messages import Receipt, Segment

MOST_FIRST_MS: Final = 600_000
"""Ten minutes: longer than an award lives. What is measured above counts as this much."""
MOST_TOKEN_US: Final = 10_000_000
_FAULTS: Final = range(Reason.REFUSED, Reason.PASSED_OVER)
_CONTRADICTIONS: Final = frozenset(
    (
        Reason.NOT_REPORTED,
        Reason.BELOW_ACKNOWLEDGED,
        Reason.COMMITMENT_MISMATCH,
        Reason.COUNTS_DIFFER,
        Reason.NO_COMPLETION,
    )
)
_ROUNDING_MS: Final = 2  # each of two times is cut to whole milliseconds
_RATES: Final = 100  # two clocks may run apart by one part in this many


class Finding(Enum):
    """What an attempt says."""

    WELL = auto()  # served: node and gateway agree
    FAULT = auto()  # the gateway reports the node's failure
    CONTRADICTION = auto()  # node and gateway, or their clocks, don't agree: counts for nobody
    NOTHING = auto()  # the client left, or the job's budget was used up


class Times(Struct, frozen=True):
    """Measured: milliseconds to the first token, microseconds for each further one."""

    first_ms: int
    token_us: int


class Sample(Struct, frozen=True):
    """One attempt of one node."""

    node: bytes
    finding: Finding
    times: Times | None


def samples_of(receipt: Receipt) -> list[Sample]:
    """The attempts on a receipt, in rank order; nodes that were passed over are not among them."""
    attempts = [segment for segment in receipt.segments if segment.rank]
    if len(attempts) == 1 and _finding(attempts[0]) == Finding.WELL:
        return [_timed(receipt, attempts[0])]
    return [Sample(segment.node, _finding(segment), None) for segment in attempts]


def whole_output(receipt: Receipt) -> int | None:
    """Output tokens of a whole answer that nobody disputes; None for all others.

    None, too, for an answer without any: an embedding has no length that an answer could be like,
    and a receipt doesn't say what kind of request it was for.
    """
    findings = [_finding(segment) for segment in receipt.segments if segment.rank]
    undisputed = findings and findings[-1] == Finding.WELL and Finding.CONTRADICTION not in findings
    if receipt.status != Status.COMPLETED or not undisputed:
        return None
    return sum(segment.output_billed for segment in receipt.segments) or None


def _finding(segment: Segment) -> Finding:
    if segment.result == Reason.NONE:
        return Finding.WELL
    if _refuted(segment):
        return Finding.CONTRADICTION
    if segment.result in _FAULTS:
        return Finding.FAULT
    if segment.result in _CONTRADICTIONS:
        return Finding.CONTRADICTION
    return Finding.NOTHING


def _refuted(segment: Segment) -> bool:
    """Whether the gateway says that nothing came, and the node holds what only a frame buys."""
    completed = any(segment.completion_digest)
    return segment.result == Reason.SILENT and completed and segment.acks > 0


def _timed(receipt: Receipt, segment: Segment) -> Sample:
    """The only attempt's times; a stream longer than the whole attempt contradicts the clock."""
    if not receipt.first_token_ms or not receipt.finished_ms:
        return Sample(segment.node, Finding.WELL, None)
    streamed = receipt.finished_ms - receipt.first_token_ms
    spent = receipt.closed_ms - receipt.awarded_ms
    if not 0 <= streamed <= spent + _ROUNDING_MS + spent // _RATES:
        return Sample(segment.node, Finding.CONTRADICTION, None)
    output = min(segment.output_node, segment.output_gateway)
    if output < 2:  # noqa: PLR2004 - one token has no time between tokens
        return Sample(segment.node, Finding.WELL, None)
    first_ms = min(max(1, spent - streamed), MOST_FIRST_MS)
    token_us = min(max(1, streamed * 1000 // (output - 1)), MOST_TOKEN_US)
    return Sample(segment.node, Finding.WELL, Times(first_ms, token_us))
