"""Whether the standings in a published transcript are what the log's receipts give.

    match = find_standings(receipts, replay, job.model, parameters)

A transcript doesn't say how long the log was when the coordinator read its standings, so every
length is tried that it can have been: no receipt that was closed after the auction, and at most
`MOST_BEHIND` of those closed before it, which were still on their way to the disk. Rows must agree
with one such length, all of them, and M with one.

Not checked: that the receipts are all of the log's, in its order. Hand in what hashes to a
checkpoint (`pinaivu.merkle`), with the parameters of the transcript's epoch.
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


def find_standings(
    receipts: Sequence[Receipt], replay: Replay, model: str, parameters: Parameters
) -> Match:
    """Where in the log the transcript's standings were read; `StandingsDiffer` for nowhere."""
    header = replay.header
    latest = _closed_by(receipts, header.close_ms)
    earliest = max(0, latest - MOST_BEHIND)
    reputation = Reputation(parameters)
    for receipt in receipts[:earliest]:
        reputation.learn(receipt)
    rows_after = output_after = None
    wrong = ""
    for known in range(earliest, latest + 1):
        if known > earliest:
            reputation.learn(receipts[known - 1])
        expected = reputation.expected_output(model, header.max_output_tokens)
        if expected == header.expected_tokens:
            output_after = known
        wrong = _first_wrong(reputation, replay) if rows_after is None else ""
        if not wrong and rows_after is None:
            rows_after = known
    if rows_after is None:
        raise StandingsDiffer(f"no length of the log from {earliest} to {latest} gives {wrong}")
    if output_after is None:
        raise StandingsDiffer(f"receipts give M = {expected}, the header {header.expected_tokens}")
    return Match(rows_after, output_after)


def _closed_by(receipts: Sequence[Receipt], close_ms: int) -> int:
    """How many receipts the coordinator can have known when the auction closed."""
    closed = (n for n in range(len(receipts), 0, -1) if receipts[n - 1].closed_ms <= close_ms)
    return next(closed, 0)


def _first_wrong(reputation: Reputation, replay: Replay) -> str:
    """The first row that differs; empty where none does."""
    for entrant in replay.entrants:
        row = entrant.row
        said = Standing(row.success_ppm, row.cal_t, row.cal_s, row.newcomer)
        due = reputation.standing(entrant.offer)
        if said != due:
            return f"the row of 0x{row.node.hex()}: {said}, by the receipts {due}"
    return ""
