"""What survives the gateway's own end: deliveries, jobs without one, and money.

The gateway's tasks are cancelled in mid-air here: on disk is then what a killed process leaves.
"""

from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import trio
from sqlmodel import select

from pinaivu.codes import Outcome, Reason, Status
from pinaivu.messages import Receipt
from pinaivu.p2p import wire
from pinaivu.store.database import open_database
from pinaivu.store.gateway import AttemptRow, OutboxRow, ReceiptRow, RequestRow
from pinaivu.typed_data import signed_from_bytes
from tests.integration.gateway_support import Network, in_thread, network, request
from tests.integration.p2p_support import PATIENCE, until
from tests.integration.scripted_coordinator import Keys, scripted_coordinator
from tests.integration.scripted_node import Work, speaks

T = TypeVar("T")
LETTERS = "abcdefghij" * 12


async def test_delivery_waits_for_a_coordinator_that_does_not_answer(tmp_path: Path) -> None:
    """The client has its answer at once; the receipt comes when the coordinator is back."""
    async with network(tmp_path, speaks("Here ", "you are.")) as net:
        net.coordinator.receipts_flow = trio.Event()
        answer = await net.complete()
        assert answer.choices[0].message.content == "Here you are."
        assert net.gateway.outbox.waiting == 1
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
            await until(lambda: net.gateway.outbox.waiting == 1)
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
    """Never with fewer acknowledgements than the node holds; the award is not lost."""
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
        assert part.result == Reason.STREAM_BROKEN
        assert part.acks >= held[0].acks.acks >= 3
        assert (receipt.status, receipt.total) == (Status.FAILED, 0)


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
            await until(lambda: net.gateway.outbox.waiting == 0)
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
