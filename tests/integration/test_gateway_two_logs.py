"""A gateway with two logs and a key with a payer at each: requests go to the next log and back."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from pinaivu.codes import Reason, Status
from pinaivu.messages import Receipt
from pinaivu.p2p import wire
from pinaivu.typed_data import signed_from_bytes
from tests.integration.gateway_support import Network, network
from tests.integration.p2p_support import until
from tests.integration.scripted_coordinator import (
    Keys,
    ScriptedCoordinator,
    scripted_coordinator,
)
from tests.integration.scripted_node import Script, Work, speaks

SECOND = b"\x12" * 32


@asynccontextmanager
async def two_logs(
    folder: Path, *scripts: Script
) -> AsyncGenerator[tuple[Network, ScriptedCoordinator, ScriptedCoordinator]]:
    """The network of one gateway, and the coordinators of its two logs."""
    keys = Keys()
    others = Keys(gateway=keys.gateway, gateway_peer=keys.gateway_peer)
    async with (
        scripted_coordinator(keys) as first,
        scripted_coordinator(others, SECOND) as second,
        network(folder, *scripts, keys=keys, coordinator=first, further=[second]) as net,
    ):
        yield net, first[0], second[0]


async def _receipts(net: Network, *coordinators: ScriptedCoordinator) -> list[Receipt]:
    """What these coordinators have receipted, as the gateway has stored it in the end."""
    await until(lambda: net.gateway.logs.waiting == 0)
    found = []
    for coordinator in coordinators:
        for job_id in [key for key, case in coordinator.cases.items() if case.receipt]:
            row = await net.gateway.ledger.found_receipt(job_id)
            assert row is not None
            assert row.problem is None, row.problem
            found.append(signed_from_bytes(Receipt, row.signed).message)
    return found


def _id_of(answer: Any) -> str:
    return str(answer.model_extra["request_id"]).replace("-", "")


async def test_the_first_payers_log_awards(tmp_path: Path) -> None:
    async with two_logs(tmp_path, speaks("Hello.")) as (net, first, second):
        await net.complete()
        (receipt,) = await _receipts(net, first)
        assert receipt.payer == first.keys.payer.address
        assert not second.cases


REFUSALS = [
    wire.Refused("settlement_behind", "wait", 0, 0),
    wire.Refused("insufficient_balance", "deposit more"),
    wire.Refused("no_nodes_available", "nobody", Reason.NO_NODES_AVAILABLE, 2_000),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=[r.code for r in REFUSALS])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_one_log_refuses_is_put_to_the_next(
    tmp_path: Path, refusal: wire.Refused, *, stream: bool
) -> None:
    """As a job of its own, whose id the client gets; it names the other payer's grant."""
    async with two_logs(tmp_path, speaks("Hello.")) as (net, first, second):
        first.refusal = refusal
        answer = await net.complete(stream=stream)
        (job_id,) = second.cases
        assert _id_of(answer[-1] if stream else answer) == job_id.hex()
        if refusal.reason:  # it was auctioned: a receipt over zero follows
            first.only.receipt = first.receipt(first.only)
            zero, paid = await _receipts(net, first, second)
            assert (zero.status, zero.total) == (Status.UNSERVED, 0)
        else:
            (paid,) = await _receipts(net, second)
        assert (paid.log_id, paid.payer) == (SECOND, second.keys.payer.address)
        assert paid.total > 0


async def test_what_no_log_takes_is_refused(tmp_path: Path) -> None:
    """The last one's words; nothing waits for a receipt."""
    async with two_logs(tmp_path) as (net, first, second):
        first.refusal = wire.Refused("settlement_behind", "wait", 0, 0)
        second.refusal = wire.Refused("insufficient_balance", "deposit more")
        with pytest.raises(openai.APIStatusError, match="deposit more") as caught:
            await net.complete()
        assert caught.value.status_code == 402
        await until(lambda: net.gateway.logs.waiting == 0)
        assert (first.submissions, second.submissions) == (1, 1)


async def test_an_award_that_was_lost_on_its_way_is_closed_at_no_charge(tmp_path: Path) -> None:
    """The coordinator awarded and died before anybody knew: the job is delivered as failed."""
    async with two_logs(tmp_path, speaks("Hello.")) as (net, first, second):
        first.dies_awarding = True
        answer = await net.complete()
        assert _id_of(answer) == next(iter(second.cases)).hex()
        zero, paid = await _receipts(net, first, second)
        assert (zero.log_id, zero.status, zero.total) == (first.log_id, Status.FAILED, 0)
        assert [segment.acks for segment in zero.segments] == [0]
        assert paid.total > 0
        assert len(net.nodes[0].works) == 1  # nobody worked for the award that was lost


async def test_a_failure_that_nobody_answers_is_put_to_the_next_log(tmp_path: Path) -> None:
    """A node refuses, and the coordinator dies before its next award is known: as a new job.

    The job left behind is closed with all its awards, at no charge.
    """
    async with two_logs(tmp_path, _refuses_the_first_log, speaks("Hello.")) as (net, first, second):
        first.dies_at_a_failure = True
        answer = await net.complete()
        assert answer.choices[0].message.content == "Hello."
        assert _id_of(answer) == next(iter(second.cases)).hex()
        zero, paid = await _receipts(net, first, second)
        assert (zero.log_id, zero.status, zero.total) == (first.log_id, Status.FAILED, 0)
        assert [s.rank for s in zero.segments] == [1, 2]
        assert (paid.log_id, paid.status) == (SECOND, Status.COMPLETED)
        assert paid.total > 0


async def test_a_job_that_no_node_of_one_log_serves_is_put_to_the_next(tmp_path: Path) -> None:
    """Each of them refused, so nobody can claim anything under it."""
    async with two_logs(tmp_path, _refuses_the_first_log) as (net, first, second):
        answer = await net.complete()
        assert _id_of(answer) == next(iter(second.cases)).hex()
        zero, paid = await _receipts(net, first, second)
        assert (zero.status, zero.total) == (Status.FAILED, 0)
        assert paid.total > 0


async def test_what_was_acknowledged_stays_with_its_log(tmp_path: Path) -> None:
    """The payer pays for it there; the client gets an error and not a second bill."""

    async def begins_and_dies(work: Work) -> None:
        work.send({"role": "assistant", "content": "So"})
        await work.wait_acks(1)
        await work.break_off()

    async with two_logs(tmp_path, begins_and_dies) as (net, first, second):
        with pytest.raises(openai.InternalServerError):
            await net.complete()
        (receipt,) = await _receipts(net, first)
        assert [s.acks for s in receipt.segments] == [1]
        assert not second.cases


async def _refuses_the_first_log(work: Work) -> None:
    """A node that refuses what one log awards, and serves the other."""
    if work.award.log_id != SECOND:
        await work.refuse(Reason.REFUSED_CAPACITY)
        return
    await speaks("Hello.")(work)


async def test_what_was_answered_waits_for_its_own_log_and_holds_up_no_other(
    tmp_path: Path,
) -> None:
    """Deliveries are never given to another log, however long their own is away."""
    async with two_logs(tmp_path, speaks("Hello.")) as (net, first, second):
        first.receipts_flow = type(first.receipts_flow)()  # it takes deliveries and answers none
        await net.complete()
        first.refusal = wire.Refused("settlement_behind", "wait", 0, 0)
        await net.complete()
        await until(lambda: second.only.receipt is not None)
        await until(lambda: net.gateway.logs.waiting == 1)
        assert second.deliveries == 1
        first.receipts_flow.set()
        totals = {r.log_id: r.total for r in await _receipts(net, first, second)}
        assert totals.keys() == {first.log_id, SECOND}
        assert all(totals.values())
