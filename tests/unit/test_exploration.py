"""Exploration jobs: which jobs, to whom, at which price; and that transcript and receipt say so.

A real desk, log and store; the drawing is computed here from the page's text (types.md, 6).
"""

from collections.abc import AsyncGenerator
from hashlib import sha256
from pathlib import Path

import pytest
from sqlmodel import Session

from coordinator.archive import published_transcript
from pinaivu.auction import rule
from pinaivu.auction.replay import Replay, read_transcript
from pinaivu.auction.rule import Market
from pinaivu.codes import Clearing, Feature
from pinaivu.messages import Award, Job, Receipt
from pinaivu.store.coordinator import TranscriptRow
from pinaivu.store.database import open_database
from pinaivu.typed_data import Signed
from tests.unit.coordinator_world import World, open_world, with_rules
from tests.unit.ledger_support import DOMAIN, GATEWAY, NODES, delivery, grant, part

CHAT, TAKES = int(Feature.KIND_CHAT), int(Feature.KIND_CHAT | Feature.EXPLORATION)
CHEAP, NEW, NEWER = NODES[:3]
HALF = with_rules(explore_ppm=500_000)
PRICES = {CHEAP.address: 1_000_000, NEW.address: 1_900_000, NEWER.address: 2_000_000}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World, None]:
    database = open_database(f"sqlite:///{tmp_path}/c.db", "coordinator")
    async with open_world(database, rules=HALF) as made:
        yield made
    database.close()


def offers(world: World, *, explore: bool = True) -> None:
    """The cheapest takes no exploration jobs, the two others do."""
    takes = TAKES if explore else CHAT
    for node, features in ((CHEAP, CHAT), (NEW, takes), (NEWER, takes)):
        world.put_offer(node, PRICES[node.address], features=features)


def is_drawn(nonce: bytes, share_ppm: int) -> bool:
    """The first 8 bytes of H("explore" ‖ nonce), times 10⁶, are below the share times 2⁶⁴."""
    return int.from_bytes(sha256(b"explore" + nonce).digest()[:8]) * 10**6 < share_ppm * 2**64


def lot(nonce: bytes, node: bytes) -> bytes:
    """The lowest wins among newcomers."""
    return sha256(b"explore" + nonce + node).digest()


async def served(world: World, number: int) -> tuple[Award, Receipt, Job]:
    """A job served well, in the two seconds that the gateway says it took."""
    award = await world.awarded(number)
    world.now += 2_000
    job, _ = world.docket.find_award(award.digest(DOMAIN)) or (None, None)
    assert job
    done = world.completion_of(award.message, number)
    await world.evidence.completion(done)
    said = delivery(part(award.message, done.message), of=job.job.message)
    await world.evidence.delivery(GATEWAY.address, Signed.by(GATEWAY, DOMAIN, said))
    await job.receipted.wait()
    assert job.receipt
    return job.awards[0].signed.message, job.receipt[0].message, job.job.message


async def rerun(world: World, receipt: Receipt, job: Job) -> tuple[Replay, Market]:
    """What anybody reads from the published transcript."""

    def published(session: Session) -> object:
        row = session.get_one(TranscriptRow, receipt.bids_root)
        return published_transcript(session, row)

    document = await world.writer.read(published)
    return read_transcript(document, DOMAIN, job, grant(), HALF)


async def test_a_job_drawn_by_its_nonce_goes_to_the_newcomer_with_the_lowest_lot(
    world: World,
) -> None:
    """At the lesser of its price and the regular one, and receipt and rerun say so."""
    winners = set()
    for number in range(1, 25):
        offers(world)
        award, receipt, job = await served(world, number)
        replay, market = await rerun(world, receipt, job)
        drawn = is_drawn(award.nonce, HALF.explore_ppm)
        newcomers = [e.row.node for e in replay.entrants if e.row.newcomer]
        lots = [n for n in newcomers if n != CHEAP.address] if drawn else []
        assert (award.clearing == Clearing.EXPLORATION) == bool(lots)
        (segment,) = receipt.segments
        assert (segment.node, segment.clearing) == (award.node, award.clearing)
        cleared = replay.clear(market, frozenset())
        assert cleared
        assert cleared.entrant.row.node == award.node
        assert (cleared.price_out, cleared.clearing) == (award.price_out, award.clearing)
        if lots:
            assert award.node == min(lots, key=lambda node: lot(award.nonce, node))
            assert award.price_out == min(PRICES[award.node], _regular(replay, market))
            winners.add(award.node)
    assert winners == {NEW.address, NEWER.address}


def _regular(replay: Replay, market: Market) -> int:
    order = rule.rank(market, replay.entrants)
    return rule.second_score(market, order[0], rule.runner_up(order)).price_out


async def test_who_declines_gets_none(world: World) -> None:
    """Newcomers that don't say they take them wait for a regular auction."""
    drawn = 0
    for number in range(1, 9):
        offers(world, explore=False)
        award, _, _ = await served(world, number)
        drawn += is_drawn(award.nonce, HALF.explore_ppm)
        assert award.node == CHEAP.address
        assert award.clearing == Clearing.SECOND_SCORE
    assert drawn


async def test_who_is_known_gets_none_any_more(world: World) -> None:
    """Once its evidence outweighs the prior, a node that takes them is no newcomer."""
    world.reachable = {NEW.address}
    for number in range(1, 21):
        offers(world)
        await served(world, number)
    world.reachable = {node.address for node in NODES}
    explored = set()
    for number in range(21, 41):
        offers(world)
        award, _, _ = await served(world, number)
        explored |= {award.node} if award.clearing == Clearing.EXPLORATION else set()
    assert explored == {NEWER.address}
