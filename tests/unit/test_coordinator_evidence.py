"""Evidence: what is checked, that the first one stands, and when a job closes."""

import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from coordinator.docket import OpenJob
from pinaivu.codes import Outcome, Reason, Status
from pinaivu.messages import Award, Completion, Delivery, Failure
from pinaivu.store.coordinator import EvidenceRow
from pinaivu.typed_data import Signed
from tests.unit.coordinator_world import World, refusal_of, three_offers
from tests.unit.ledger_support import (
    DOMAIN,
    GATEWAY,
    NODES,
    NOW,
    completion,
    delivery,
    failure,
    part,
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World, None]:
    async with three_offers(tmp_path) as made:
        yield made


def _job(world: World) -> OpenJob:
    (job,) = world.docket.jobs.values()
    return job


async def _deliver(world: World, said: Delivery, by: Any = GATEWAY) -> OpenJob:
    return await world.evidence.delivery(GATEWAY.address, Signed.by(by, DOMAIN, said))


async def _fail(world: World, said: Failure, gateway: bytes = GATEWAY.address) -> None:
    await world.evidence.failure(gateway, Signed.by(GATEWAY, DOMAIN, said))


def _delivered(world: World, award: Award, done: Completion | None = None, **more: Any) -> Delivery:
    return delivery(part(award, done), of=_job(world).job.message, **more)


async def test_completion_and_delivery_close_a_job(world: World) -> None:
    """In either order; the receipt has both."""
    for number, completion_first in ((1, True), (2, False)):
        award = (await world.awarded(number)).message
        job = next(j for j in world.docket.jobs.values())
        done = world.completion_of(award, number)
        said = delivery(part(award, done.message), of=job.job.message)
        if completion_first:
            await world.evidence.completion(done)
            assert not job.closing
            await _deliver(world, said)
        else:
            await _deliver(world, said)
            assert not job.closing
            await world.evidence.completion(done)
        await job.receipted.wait()
        assert job.receipt
        assert job.receipt[0].message.status == Status.COMPLETED
        assert job.receipt[0].message.total > 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"node": NODES[1].address}, "bad_completion"),
        ({"fingerprint": bytes(32)}, "bad_completion"),
        ({"start_byte": 1}, "bad_completion"),
        ({"acks": 2, "last_preimage": b"\x01" * 32}, "bad_preimage"),
        ({"acks": 0, "last_preimage": b"\x01" * 32}, "bad_preimage"),
        ({"acks": 99}, "bad_preimage"),
    ],
)
async def test_a_false_completion(world: World, change: dict[str, Any], code: str) -> None:
    """Refused, and nothing of it is kept: the true one is still taken."""
    award = (await world.awarded()).message
    good = world.completion_of(award)
    wrong = Signed.by(NODES[0], DOMAIN, replace(good.message, **change))
    assert await refusal_of(world.evidence.completion(wrong)) == code
    await world.evidence.completion(good)


async def test_anothers_completion(world: World) -> None:
    award = (await world.awarded()).message
    forged = Signed.by(NODES[1], DOMAIN, world.completion_of(award).message)
    assert await refusal_of(world.evidence.completion(forged)) == "bad_signature"


async def test_a_completion_of_an_unknown_award(world: World) -> None:
    award = (await world.awarded()).message
    stray = Signed.by(NODES[0], DOMAIN, completion(replace(award, rank=2)))
    assert await refusal_of(world.evidence.completion(stray)) == "unknown_award"


async def test_the_first_completion_stands(world: World) -> None:
    """The same again is harmless, also under another signature; another one is refused."""
    award = (await world.awarded()).message
    first = world.completion_of(award)
    await world.evidence.completion(first)
    await world.evidence.completion(first)
    other = world.completion_of(award, output_tokens=79)
    assert await refusal_of(world.evidence.completion(other)) == "evidence_stands"
    rows = await world.writer.read(
        lambda s: s.get(EvidenceRow, ("Completion", first.message.award_digest))
    )
    assert rows
    assert rows.signed == first.to_bytes()
    assert world.docket.busy(NODES[0].address) == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"reason": Reason.NONE}, "bad_failure"),
        ({"reason": Reason.PASSED_OVER}, "bad_failure"),
        ({"reason": Reason.CLIENT_GONE}, "bad_failure"),
        ({"gateway": NODES[0].address}, "bad_failure"),
        ({"award_digest": bytes(32)}, "unknown_award"),
    ],
)
async def test_a_false_failure(world: World, change: dict[str, Any], code: str) -> None:
    award = (await world.awarded()).message
    assert await refusal_of(_fail(world, replace(failure(award), **change))) == code
    assert _job(world).awards[0].failure is None


async def test_another_gateways_failure(world: World) -> None:
    award = (await world.awarded()).message
    assert await refusal_of(_fail(world, failure(award), NODES[3].address)) == "foreign_gateway"


async def test_the_first_failure_stands(world: World) -> None:
    """Else a gateway could change what the next award was computed from."""
    award = (await world.awarded()).message
    await _fail(world, failure(award))
    await _fail(world, failure(award))
    assert await refusal_of(_fail(world, failure(award, acks=1))) == "evidence_stands"


async def test_a_failure_of_an_overtaken_award(world: World) -> None:
    """Only the newest award can fail."""
    first = (await world.awarded()).message
    await _fail(world, failure(first))
    job, entry = world.docket.find_award(_job(world).awards[0].digest) or (None, None)
    assert job
    assert entry
    await world.desk.award_next(job, entry)
    entry.failure = None
    assert await refusal_of(_fail(world, failure(first))) == "stale_failure"


async def test_no_failure_after_the_delivery(world: World) -> None:
    """It would turn what was delivered into nothing to pay for."""
    award = (await world.awarded()).message
    await _deliver(world, _delivered(world, award))
    assert await refusal_of(_fail(world, failure(award))) == "delivered"


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": 0},
        {"outcome": 4},
        {"gateway": NODES[0].address},
        {"parts": ()},
        {"part": {"award_digest": bytes(32)}},
        {"part": {"result": Reason.STREAM_BROKEN}},
        {"part": {"result": Reason.CLIPPED}, "outcome": Outcome.FAILED},
        {"part": {"result": 200}, "outcome": Outcome.FAILED},
        {"part": {"start_byte": 1, "end_byte": 1}},
    ],
)
async def test_a_false_delivery(world: World, change: dict[str, Any]) -> None:
    """Unknown codes too: what gets in must be something a receipt can be written of."""
    award = (await world.awarded()).message
    said = _delivered(world, award)
    changed = dict(change)
    if "part" in changed:
        changed["parts"] = (replace(said.parts[0], **changed.pop("part")),)
    assert await refusal_of(_deliver(world, replace(said, **changed))) == "bad_delivery"
    assert _job(world).delivery is None


@pytest.mark.parametrize("result", [Reason.STREAM_BROKEN, Reason.TOO_SLOW])
async def test_a_whole_answer_without_an_end(world: World, result: Reason) -> None:
    """By its length: the parts hold all of the job's tokens, though the last one failed."""
    award = (await world.awarded()).message
    said = _delivered(world, award)
    most = _job(world).job.message.max_output_tokens
    short, whole = (
        replace(said, parts=(replace(said.parts[0], result=result, output_tokens=tokens),))
        for tokens in (most - 1, most)
    )
    left = replace(said, parts=(replace(whole.parts[0], result=Reason.CLIENT_GONE),))
    for refused in (short, left):
        assert await refusal_of(_deliver(world, refused)) == "bad_delivery"
    await _deliver(world, whole)
    job = _job(world)
    world.sequencer.close(job)
    await job.receipted.wait()
    assert job.receipt
    receipt = job.receipt[0].message
    assert (receipt.status, receipt.reason, receipt.total) == (Status.COMPLETED, result, 0)


async def test_another_gateways_delivery(world: World) -> None:
    award = (await world.awarded()).message
    said = _delivered(world, award)
    assert await refusal_of(_deliver(world, said, NODES[0])) == "bad_signature"
    foreign = world.evidence.delivery(NODES[0].address, Signed.by(NODES[0], DOMAIN, said))
    assert await refusal_of(foreign) == "foreign_gateway"


async def test_the_first_delivery_stands(world: World) -> None:
    award = (await world.awarded()).message
    first = _delivered(world, award)
    await _deliver(world, first)
    await _deliver(world, first)
    later = replace(first, response_commitment=bytes(32))
    assert await refusal_of(_deliver(world, later)) == "evidence_stands"


async def test_a_job_that_closes_takes_no_more_evidence(world: World) -> None:
    """A completion too late neither changes the receipt nor the count of what runs."""
    award = (await world.awarded()).message
    await _deliver(world, _delivered(world, award))
    job = _job(world)
    world.sequencer.close(job)
    late = world.completion_of(award)
    assert await refusal_of(world.evidence.completion(late)) == "unknown_award"
    await job.receipted.wait()
    assert job.receipt
    assert job.receipt[0].message.segments[0].result == Reason.NO_COMPLETION
    kept = await world.writer.read(
        lambda s: s.get(EvidenceRow, ("Completion", late.message.award_digest))
    )
    assert kept is None
    assert world.docket.busy(award.node) == 0


async def test_evidence_on_its_way_to_the_disk_is_on_the_receipt(world: World) -> None:
    """A close between a completion's arrival and its commit finds it all the same."""
    award = (await world.awarded()).message
    await _deliver(world, _delivered(world, award))
    job = _job(world)
    disk = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.writer.write, lambda _session: disk.wait(20))
        nursery.start_soon(world.evidence.completion, world.completion_of(award))
        await trio.testing.wait_all_tasks_blocked()
        world.sequencer.close(job)
        await trio.testing.wait_all_tasks_blocked()
        disk.set()
    await job.receipted.wait()
    assert job.receipt
    (segment,) = job.receipt[0].message.segments
    assert segment.completion_digest != bytes(32)
    assert segment.amount > 0


@pytest.mark.parametrize(
    ("delivered", "wait_ms"), [(True, 2_000), (False, 60_000 + 15_000)], ids=["delivery", "expiry"]
)
async def test_a_job_closes_without_the_rest(
    world: World, wait_ms: int, *, delivered: bool
) -> None:
    """Two seconds after a delivery; long after the award's expiry; not a moment before."""
    award = (await world.awarded()).message
    if delivered:
        await _deliver(world, _delivered(world, award))
    else:
        await world.evidence.completion(world.completion_of(award))
    job = _job(world)
    due = job.closes_at_ms(world.rules)
    assert due == NOW + wait_ms
    world.now = due - 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.sequencer.close_due)
        await trio.testing.wait_all_tasks_blocked()
        assert not job.closing
        world.now = due
        await job.receipted.wait()
        nursery.cancel_scope.cancel()
    assert job.receipt
    receipt = job.receipt[0].message
    assert receipt.status == (Status.COMPLETED if delivered else Status.UNDELIVERED)
    assert (receipt.total > 0) is (not delivered)
