"""A stranger's replay of a log finds the standings of its published transcripts, or says it can't.

The log and the transcripts are a real coordinator's; chain and nodes are doubles.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlmodel import col, select

from coordinator.archive import published_transcript
from pinaivu.auction.replay import Replay, read_transcript
from pinaivu.messages import Job, Receipt
from pinaivu.reputation.replay import Match, StandingsDiffer, compare, find_standings
from pinaivu.store.coordinator import JobRow, LeafRow, TranscriptRow
from pinaivu.store.database import Database, open_database
from pinaivu.typed_data import signed_from_bytes
from tests.faults.standing_child import serve_one
from tests.unit.coordinator_world import open_world, with_rules
from tests.unit.ledger_support import DOMAIN, MODEL, grant

JOBS = 9
RULES = with_rules(prior_a=1, prior_b=1)  # little is believed beforehand: standings move at once


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path}/c.db", "coordinator")
    yield opened
    opened.close()


async def served(database: Database, *, forgetful: bool = False) -> None:
    """A coordinator serves jobs, one by one; a forgetful one doesn't learn from the first."""
    async with open_world(database, rules=RULES) as world:
        for number in range(1, JOBS + 1):
            await serve_one(world, number)
            world.now += 1_000  # an auction opens after the receipt before it was closed
            if forgetful and number == 1:
                world.reputation.__init__(RULES)  # type: ignore[misc]


def published(database: Database) -> tuple[list[Receipt], list[Replay]]:
    """The log's receipts, and the transcripts in the order of their auctions."""
    with database.read() as session:
        leaves = session.exec(select(LeafRow).order_by(col(LeafRow.position))).all()
        receipts = [
            signed_from_bytes(Receipt, row.signed).message
            for row in leaves
            if row.kind == "Receipt"
        ]
        replays = []
        for receipt in receipts:
            row = session.get_one(JobRow, (receipt.gateway, receipt.job_id))
            stored = session.get_one(TranscriptRow, receipt.bids_root)
            document = published_transcript(session, stored)
            job = signed_from_bytes(Job, row.job).message
            replays.append(read_transcript(document, DOMAIN, job, grant(), RULES)[0])
    return receipts, replays


async def test_each_transcript_shows_the_standings_after_the_receipts_before_it(
    database: Database,
) -> None:
    await served(database)
    receipts, replays = published(database)
    assert len(receipts) == JOBS
    for number, replay in enumerate(replays):
        match = find_standings(receipts, replay, MODEL, RULES)
        assert match.rows_after == number
    rows = {entrant.row.success_ppm for replay in replays for entrant in replay.entrants}
    assert len(rows) > 3  # they did move


async def test_receipts_after_the_auction_change_nothing(database: Database) -> None:
    await served(database)
    receipts, replays = published(database)
    assert find_standings(receipts[:4], replays[4], MODEL, RULES).rows_after == 4
    with pytest.raises(StandingsDiffer, match="no length of the log"):
        find_standings(receipts[:3], replays[4], MODEL, RULES)


@pytest.mark.parametrize("figure", ["success_ppm", "cal_t", "cal_s", "newcomer"])
async def test_a_row_that_no_receipts_give_is_found(database: Database, figure: str) -> None:
    await served(database)
    receipts, replays = published(database)
    replay = replays[-1]
    honest = replay.entrants[1]
    value = getattr(honest.row, figure)
    other = not value if figure == "newcomer" else value + 1
    entrants = list(replay.entrants)
    entrants[1] = replace(honest, row=replace(honest.row, **{figure: other}))
    forged = replace(replay, entrants=entrants)
    with pytest.raises(StandingsDiffer, match="0x" + honest.row.node.hex()):
        find_standings(receipts, forged, MODEL, RULES)
    (line,) = compare(receipts, forged, MODEL, RULES).different
    assert (line.node, getattr(line.said, figure)) == (honest.row.node, other)
    assert getattr(line.due, figure) == value


async def test_an_m_that_no_receipts_give_is_found(database: Database) -> None:
    await served(database)
    receipts, replays = published(database)
    header = replace(replays[-1].header, expected_tokens=replays[-1].header.expected_tokens - 1)
    with pytest.raises(StandingsDiffer, match="M = "):
        find_standings(receipts, replace(replays[-1], header=header), MODEL, RULES)


async def test_a_coordinator_that_leaves_a_receipt_out_is_found(database: Database) -> None:
    await served(database, forgetful=True)
    receipts, replays = published(database)
    assert find_standings(receipts, replays[0], MODEL, RULES) == Match(0, 0)
    with pytest.raises(StandingsDiffer):
        find_standings(receipts, replays[-1], MODEL, RULES)
