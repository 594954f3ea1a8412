"""What survives the gateway's own end: deliveries, jobs without one, and money.

The gateway's tasks are cancelled in mid-air here: on disk is then what a killed process leaves.
"""

from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import trio
from msgspec import structs
from sqlmodel import select

from pinaivu.codes import Outcome, Reason, Status
from pinaivu.keys import SecretKey
from pinaivu.messages import Receipt
from pinaivu.p2p import wire
from pinaivu.reputation.samples import Finding, samples_of
from pinaivu.store.database import open_database
from pinaivu.store.gateway import AttemptRow, OutboxRow, ReceiptRow, RequestRow
from pinaivu.typed_data import Signed, signed_from_bytes
from tests.integration.gateway_support import Network, in_thread, network, request
from tests.integration.p2p_support import PATIENCE, until
from tests.integration.scripted_coordinator import Keys, OpenCase, scripted_coordinator
from tests.integration.scripted_node import Work, speaks
from tests.unit.gateway_facts import DOMAIN

T = TypeVar("T")
LETTERS = "abcdefghij" * 12


async def test_delivery_waits_for_a_coordinator_that_does_not_answer(tmp_path: Path) -> None:
    """The client has its answer at once; the receipt comes when the coordinator is back."""
    async with network(tmp_path, speaks("Here ", "you are.")) as net:
        net.coordinator.receipts_flow = trio.Event()
        answer = await net.complete()
        assert answer.choices[0].message.content == "Here you are."
        assert net.gateway.logs.waiting == 1
        for stream in net.coordinator.streams:
            stream.reset("the coordinator ends")
        net.coordinator.receipts_flow.set()
        receipt = await net.receipt()
        assert receipt.status == Status.COMPLETED


async def test_delivery_is_sent_again_after_a_restart(tmp_path: Path) -> None:
    """The same frame, from disk; the row leaves the outbox with the receipt."""
    keys = Keys()
    async with scripted_coordinator(keys) as coordinator:
        coordinator[0].receipts_flow = trio.Event()
        async with network(tmp_path, speaks("Kept."), keys=keys, coordinator=coordinator) as net:
            await net.complete()
            await until(lambda: net.gateway.logs.waiting == 1)
            url = net.database
        assert len(_rows(url, OutboxRow)) == 1
        coordinator[0].receipts_flow.set()
        async with network(tmp_path, keys=keys, coordinator=coordinator) as net:
            receipt = await net.receipt()
            assert receipt.status == Status.COMPLETED
        assert _rows(url, OutboxRow) == []
        (stored,) = _rows(url, ReceiptRow)
        assert signed_from_bytes(Receipt, stored.signed).message == receipt


async def test_answer_cut_by_a_restart_is_delivered_as_failed(tmp_path: Path) -> None:
    """Never with fewer acknowledgements than the node holds; the node is not blamed for it."""
    keys = Keys()
    held = []
    speaking = trio.Event()

    async def speaks_on(work: Work) -> None:
        held.append(work)
        await work.say(LETTERS)
        await work.wait_acks(3)
        speaking.set()
        await work.stream.wait_over()

    async with scripted_coordinator(keys) as coordinator:
        async with network(tmp_path, speaks_on, keys=keys, coordinator=coordinator) as net:
            await _begin(net)
            with trio.fail_after(PATIENCE):
                await speaking.wait()
            _kill(net)
        async with network(tmp_path, keys=keys, coordinator=coordinator) as net:
            receipt = await net.receipt()
        delivery = coordinator[0].only.delivery
        assert delivery is not None
        (part,) = delivery.message.parts
        assert delivery.message.outcome == Outcome.FAILED
        assert part.result == Reason.CLIENT_GONE
        assert part.acks >= held[0].acks.acks >= 3
        assert (receipt.status, receipt.total) == (Status.FAILED, 0)
        assert [sample.finding for sample in samples_of(receipt)] == [Finding.NOTHING]


async def test_reported_failure_is_on_the_delivery_after_a_restart(tmp_path: Path) -> None:
    """Rank 1 refused and rank 2 was cut: both parts, and the failure as it was signed."""
    keys = Keys()
    speaking = trio.Event()

    async def refuses(work: Work) -> None:
        await work.refuse(Reason.REFUSED_CAPACITY)

    async def speaks_on(work: Work) -> None:
        await work.say("One")
        speaking.set()
        await work.stream.wait_over()

    async with scripted_coordinator(keys) as coordinator:
        async with network(tmp_path, refuses, speaks_on, keys=keys, coordinator=coordinator) as net:
            await _begin(net)
            with trio.fail_after(PATIENCE):
                await speaking.wait()
            _kill(net)
        async with network(tmp_path, keys=keys, coordinator=coordinator) as net:
            receipt = await net.receipt()
        assert [s.result for s in receipt.segments] == [Reason.REFUSED_CAPACITY, Reason.CLIENT_GONE]
        assert len(coordinator[0].only.failures) == 1


async def test_receipt_by_a_stranger_is_not_taken(tmp_path: Path) -> None:
    """It is asked for again until the epoch's own key has signed it."""
    async with network(tmp_path, speaks("Kept.")) as net:
        true = net.coordinator.receipt

        def forged(case: OpenCase) -> wire.Receipted:
            receipted = true(case)
            message = signed_from_bytes(Receipt, receipted.receipt).message
            signed = Signed.by(SecretKey(b"\x77" * 32), DOMAIN, message)
            return wire.Receipted(signed.to_bytes(), receipted.index)

        net.coordinator.receipt = forged  # type: ignore[method-assign]
        await net.complete()
        await until(lambda: net.coordinator.deliveries >= 3)
        assert net.gateway.logs.waiting == 1
        case = net.coordinator.only
        assert await net.gateway.ledger.found_receipt(case.job.message.job_id) is None
        message = signed_from_bytes(Receipt, case.receipt.receipt).message  # type: ignore[union-attr]
        signed = Signed.by(net.keys.epoch, DOMAIN, message)
        case.receipt = wire.Receipted(signed.to_bytes(), 0)
        assert (await net.receipt()).status == Status.COMPLETED


async def test_receipt_that_contradicts_our_evidence_is_kept_as_evidence(tmp_path: Path) -> None:
    """What is wrong with it is stored beside it and shown to the key's holder."""
    async with network(tmp_path, speaks("Kept.")) as net:
        true = net.coordinator.receipt

        def dearer(case: OpenCase) -> wire.Receipted:
            message = signed_from_bytes(Receipt, true(case).receipt).message
            message = structs.replace(message, total=message.total + 1)
            return wire.Receipted(Signed.by(net.keys.epoch, DOMAIN, message).to_bytes(), 0)

        net.coordinator.receipt = dearer  # type: ignore[method-assign]
        await net.complete()
        await until(lambda: net.coordinator.deliveries == 1 and net.gateway.logs.waiting == 0)
        job_id = net.coordinator.only.job.message.job_id
        row = await net.gateway.ledger.found_receipt(job_id)
        assert row is not None
        assert row.problem is not None
        assert "total" in row.problem


async def test_award_that_was_never_stored_is_asked_for_again(tmp_path: Path) -> None:
    """Killed between submission and award: the job's award is still delivered as failed."""
    keys = Keys()
    speaking = trio.Event()

    async def silent(work: Work) -> None:
        speaking.set()
        await work.stream.wait_over()

    async with scripted_coordinator(keys) as coordinator:
        async with network(tmp_path, silent, keys=keys, coordinator=coordinator) as net:
            await _begin(net)
            with trio.fail_after(PATIENCE):
                await speaking.wait()
            url = net.database
            _kill(net)
        _forget_awards(url)
        async with network(tmp_path, keys=keys, coordinator=coordinator) as net:
            coordinator[0].line = [coordinator[0].only.awards[0].message.node]
            receipt = await net.receipt()
        assert [s.rank for s in receipt.segments] == [1]
        assert receipt.status == Status.FAILED


async def test_job_the_coordinator_refused_is_not_asked_for_for_ever(tmp_path: Path) -> None:
    keys = Keys()
    async with scripted_coordinator(keys) as coordinator:
        coordinator[0].refusal = wire.Refused(
            "no_nodes_available", "nobody", int(Reason.NO_NODES_AVAILABLE), 1000
        )
        async with network(tmp_path, keys=keys, coordinator=coordinator) as net:
            await _begin(net)
            await until(lambda: coordinator[0].submissions >= 4)
            await until(lambda: net.gateway.logs.waiting == 0)
            url = net.database
        (row,) = _rows(url, RequestRow)
        assert (row.state, row.prompt_tokens, row.units) == ("refused", 0, 0)


async def _begin(net: Network) -> None:
    """Send a request whose answer nobody waits for."""

    def post() -> None:
        client = net.client.with_streaming_response
        with client.chat.completions.create(**request(stream=True)) as answer:
            answer.read()

    async def ask() -> None:
        with suppress(Exception):
            await in_thread(post)

    net.gateway.desk.nursery.start_soon(ask)
    await until(lambda: net.coordinator.cases != {})


def _kill(net: Network) -> None:
    """End everything at once, before anybody can notice that somebody else has ended."""
    net.gateway.desk.nursery.cancel_scope.cancel()


def _rows(url: str, table: type[T]) -> list[T]:
    database = open_database(url, "gateway")
    with database.read() as session:
        rows = list(session.exec(select(table)).all())
    database.close()
    return rows


def _forget_awards(url: str) -> None:
    database = open_database(url, "gateway")
    with database.begin() as session:
        for row in session.exec(select(AttemptRow)):
            session.delete(row)
    database.close()
