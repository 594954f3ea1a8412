"""A job's awards together: what a coordinator makes of failures, and that a node can rely on it."""

from collections.abc import AsyncGenerator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from coordinator.docket import Awarded, OpenJob
from coordinator.errors import JobRefused
from node.checks import check_budget, check_rank
from pinaivu.codes import Reason, Status
from pinaivu.commitments import acks_due, tokens_acknowledged
from pinaivu.messages import Award
from pinaivu.p2p import wire
from pinaivu.store.database import open_database
from pinaivu.typed_data import Signed, signed_from_bytes
from tests.unit.coordinator_world import (
    World,
    open_world,
    refusal_of,
    signed_grant,
    signed_job,
    three_offers,
)
from tests.unit.ledger_support import DOMAIN, GATEWAY, NODES, RESERVE, delivery, failure, part

MILLION = 10**6
TOKENS = 100  # a job's maximum


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World, None]:
    async with three_offers(tmp_path) as made:
        yield made


def _standing(world: World, award: Signed[Award]) -> tuple[OpenJob, Awarded]:
    found = world.docket.find_award(award.digest(DOMAIN))
    assert found
    return found


async def _fail(world: World, award: Signed[Award], **more: Any) -> tuple[OpenJob, Awarded]:
    said = Signed.by(GATEWAY, DOMAIN, failure(award.message, **more))
    return await world.evidence.failure(GATEWAY.address, said)


async def _next(world: World, award: Signed[Award], **more: Any) -> Signed[Award]:
    answer = await world.desk.award_next(*await _fail(world, award, **more))
    assert isinstance(answer, wire.Awarded)
    return signed_from_bytes(Award, answer.award)


async def test_no_next_rank_while_an_award_stands(world: World) -> None:
    """A second node is never awarded beside one of which no failure was reported."""
    job, standing = _standing(world, await world.awarded())
    assert await refusal_of(world.desk.award_next(job, standing)) == "award_stands"
    assert len(job.awards) == 1


async def test_another_gateway_gets_no_award_for_a_job(world: World) -> None:
    """It has seen the signed job and grant and submits them on its own stream, before or after."""
    stranger = NODES[3].address
    replayed = signed_job(1), signed_grant()
    assert await refusal_of(world.desk.submit(stranger, *replayed)) == "bad_signature"
    await world.awarded(1)
    assert await refusal_of(world.desk.submit(stranger, *replayed)) == "bad_signature"
    assert len(world.docket.jobs) == 1


async def test_a_failure_that_another_signed_makes_no_award(world: World) -> None:
    """On the gateway's own stream, in its name: only its key asks for the next rank."""
    award = await world.awarded()
    said = Signed.by(NODES[3], DOMAIN, failure(award.message))
    assert await refusal_of(world.evidence.failure(GATEWAY.address, said)) == "bad_signature"
    job, standing = _standing(world, award)
    assert standing.failure is None
    assert len(job.awards) == 1


async def test_two_reports_at_once_make_one_award(world: World) -> None:
    """The first makes it; the other is told to come back, and then gets the same."""
    job, failed = await _fail(world, await world.awarded())
    answers: list[object] = []

    async def report() -> None:
        try:
            answers.append(await world.desk.award_next(job, failed))
        except JobRefused as refusal:
            answers.append(refusal.code)

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(report)
    assert len(job.awards) == 2
    (awarded,) = [answer for answer in answers if isinstance(answer, wire.Awarded)]
    assert "in_progress" in answers
    assert await world.desk.award_next(job, failed) == awarded


async def test_no_next_rank_after_the_deadline(world: World) -> None:
    award = await world.awarded()
    world.now = _standing(world, award)[0].job.message.deadline_ms
    job, failed = await _fail(world, award)
    assert await refusal_of(world.desk.award_next(job, failed)) == "no_node_left"


async def test_a_node_that_filled_up_since_the_auction_is_passed_over(world: World) -> None:
    """Its slot went to another job; the transcript's second is not the next to be awarded."""
    first = await world.awarded(1)
    other = await world.awarded(2)
    assert other.message.node == NODES[1].address
    second = await _next(world, first)
    assert (second.message.rank, second.message.node) == (2, NODES[2].address)


async def test_no_next_rank_of_an_ended_epoch(world: World) -> None:
    """After a restart the transcript's entrants are gone: nobody could show who is next."""
    award = await world.awarded()
    await world.writer.settled()
    job, failed = await _fail(world, award)
    job.ranking = None
    assert await refusal_of(world.desk.award_next(job, failed)) == "epoch_ended"


async def test_a_voided_award_earns_what_was_acknowledged_and_no_more(world: World) -> None:
    """Its completion comes late and claims the whole answer; the next rank's stays whole."""
    first = await world.awarded()
    second = await _next(world, first, acks=2, output_tokens=40, end_byte=200)
    late = world.completion_of(first.message, acks=2, output_tokens=TOKENS, end_byte=900)
    await world.evidence.completion(late)
    done = world.completion_of(second.message, acks=3, output_tokens=68)
    await world.evidence.completion(done)
    job, _ = _standing(world, second)
    parts = (
        part(first.message, late.message, result=Reason.STREAM_BROKEN, end_byte=200),
        part(second.message, done.message, start_byte=200),
    )
    said = delivery(*parts, of=job.job.message)
    await world.evidence.delivery(GATEWAY.address, Signed.by(GATEWAY, DOMAIN, said))
    await job.receipted.wait()
    assert job.receipt
    receipt = job.receipt[0].message
    voided, served = receipt.segments
    assert receipt.status == Status.COMPLETED
    assert (voided.prompt_billed, voided.output_billed) == (0, 32)
    assert voided.amount == -(-32 * first.message.price_out // MILLION)
    assert (served.prompt_billed, served.output_billed) == (10, 68)
    assert voided.output_billed + served.output_billed <= TOKENS
    assert receipt.total == voided.amount + served.amount <= RESERVE


async def test_a_voided_award_without_acknowledgements_earns_nothing(world: World) -> None:
    first = await world.awarded()
    second = await _next(world, first)
    late = world.completion_of(first.message, acks=0, output_tokens=TOKENS)
    await world.evidence.completion(late)
    done = world.completion_of(second.message, acks=3, output_tokens=80)
    await world.evidence.completion(done)
    job, _ = _standing(world, second)
    parts = (
        part(first.message, late.message, result=Reason.SILENT, output_tokens=0, end_byte=0),
        part(second.message, done.message),
    )
    said = delivery(*parts, of=job.job.message)
    await world.evidence.delivery(GATEWAY.address, Signed.by(GATEWAY, DOMAIN, said))
    await job.receipted.wait()
    assert job.receipt
    voided, served = job.receipt[0].message.segments
    assert (voided.prompt_billed, voided.output_billed, voided.amount) == (0, 0, 0)
    assert served.amount > 0


@pytest.mark.parametrize("seed", range(12))
async def test_all_awards_of_a_job_keep_within_its_tokens_and_money(
    tmp_path: Path, seed: int
) -> None:
    """Whatever was acknowledged: no award exceeds what is left, and what is left pays for it.

    The reservation is as tight as the dearest node allows; nodes come in order of score, so a later
    one may be dearer or cheaper.
    """
    random = Random(seed)  # noqa: S311 - prices, not secrets
    prices = [random.randrange(1_000_000, 3_000_000) for _ in range(3)]
    database = open_database(f"sqlite:///{tmp_path}/c.db", "coordinator")
    async with open_world(database) as world:
        for node, price in zip(NODES, prices, strict=False):
            world.put_offer(node, price, tps_milli=random.randrange(10_000, 100_000))
        most = max(-(-(10 * (price // 4) + TOKENS * price) // MILLION) for price in prices)
        award = await world.awarded(max_cost=most, value_of_time=random.choice((0, 10**6)))
        tokens, money = TOKENS, most
        while True:
            terms = award.message
            assert terms.max_output_tokens == tokens
            assert terms.max_amount == money
            check_rank(terms)
            check_budget(terms)
            if terms.rank == len(prices):
                break
            acks = acks_due(random.randrange(1, tokens), TOKENS)
            acknowledged = tokens_acknowledged(acks, TOKENS)
            award = await _next(
                world, award, acks=acks, output_tokens=acknowledged, end_byte=10 * terms.rank
            )
            tokens -= acknowledged
            money -= -(-acknowledged * terms.price_out // MILLION)
    database.close()
