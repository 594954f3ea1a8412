"""Whether the standings in a published transcript are what the log's receipts give.

    match = find_standings(receipts, replay, job.model, parameters)
    comparison = compare(receipts, replay, job.model, parameters)   # row by row, for people

A transcript doesn't say how long the log was when the coordinator read its standings, so every
length is tried that it can have been: no receipt that was closed after the auction, and at most
`MOST_BEHIND` of those closed before it, which were still on their way to the disk. Rows must agree
with one such length, all of them, and M with one.

Not checked: that the receipts are all of the log's, in its order. Hand in what hashes to a
checkpoint (`pinaivu.merkle`), with the parameters of the transcript's epoch. `pinaivu standings`
does both.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from pinaivu.auction.replay import Replay
from pinaivu.errors import PeerFault
from pinaivu.manifest import Parameters
from pinaivu.messages import Receipt
from pinaivu.reputation.standing import Reputation, Standing

MOST_BEHIND: Final = 512
"""Receipts that may be signed and not yet learnt: two commits of 256."""


class StandingsDiffer(PeerFault):
    """A transcript's rows or its M don't follow from the log's receipts."""


class Match(Struct, frozen=True):
    """After how many of the receipts the transcript's rows, and its M, are right."""

    rows_after: int
    output_after: int


class Line(Struct, frozen=True):
    """A node's standing as its row says, and as the receipts give it."""

    node: bytes
    said: Standing
    due: Standing


class Comparison(Struct, frozen=True, kw_only=True):
    """A transcript beside what receipts give: the `earliest` to the `latest` that can have counted.

    `lines` are by the number of receipts with the fewest differences, `rows_after`. M agrees after
    `output_after` of them, or with none: then `expected_due` is what all of them give.
    """

    earliest: int
    latest: int
    rows_after: int
    lines: list[Line]
    output_after: int | None
    expected_said: int
    expected_due: int

    @property
    def different(self) -> list[Line]:
        """The rows that the receipts don't give."""
        return [line for line in self.lines if line.said != line.due]


def compare(
    receipts: Sequence[Receipt], replay: Replay, model: str, parameters: Parameters
) -> Comparison:
    """Every row of a transcript and its M, beside what receipts before the auction give."""
    header = replay.header
    latest = _closed_by(receipts, header.close_ms)
    earliest = max(0, latest - MOST_BEHIND)
    reputation = Reputation(parameters)
    for receipt in receipts[:earliest]:
        reputation.learn(receipt)
    rows_after, lines = earliest, _lines(reputation, replay)
    wrong, output_after, expected = _wrong(lines), None, 0
    for known in range(earliest, latest + 1):
        if known > earliest:
            reputation.learn(receipts[known - 1])
            if wrong and (found := _wrong(now := _lines(reputation, replay))) < wrong:
                rows_after, lines, wrong = known, now, found
        expected = reputation.expected_output(model, header.max_output_tokens)
        if expected == header.expected_tokens:
            output_after = known
    return Comparison(
        earliest=earliest,
        latest=latest,
        rows_after=rows_after,
        lines=lines,
        output_after=output_after,
        expected_said=header.expected_tokens,
        expected_due=expected if output_after is None else header.expected_tokens,
    )


def find_standings(
    receipts: Sequence[Receipt], replay: Replay, model: str, parameters: Parameters
) -> Match:
    """Where in the log the transcript's standings were read; `StandingsDiffer` for nowhere."""
    found = compare(receipts, replay, model, parameters)
    if found.different:
        line = found.different[0]
        raise StandingsDiffer(
            f"no length of the log from {found.earliest} to {found.latest} gives the row of "
            f"0x{line.node.hex()}: {line.said}, by the receipts {line.due}"
        )
    if found.output_after is None:
        raise StandingsDiffer(
            f"receipts give M = {found.expected_due}, the header {found.expected_said}"
        )
    return Match(found.rows_after, found.output_after)


def _closed_by(receipts: Sequence[Receipt], close_ms: int) -> int:
    """How many receipts the coordinator can have known when the auction closed."""
    closed = (n for n in range(len(receipts), 0, -1) if receipts[n - 1].closed_ms <= close_ms)
    return next(closed, 0)


def _lines(reputation: Reputation, replay: Replay) -> list[Line]:
    return [
        Line(
            entrant.row.node,
            Standing(
                entrant.row.success_ppm,
                entrant.row.cal_t,
                entrant.row.cal_s,
                entrant.row.newcomer,
            ),
            reputation.standing(entrant.offer),
        )
        for entrant in replay.entrants
    ]


def _wrong(lines: Sequence[Line]) -> int:
    return sum(line.said != line.due for line in lines)
