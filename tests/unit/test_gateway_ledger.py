"""Durable writes, each with its fault pair: failed and not kept, failed and kept nevertheless."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gateway.claims import Claims
from gateway.config import Limits
from gateway.ledger import Ledger
from gateway.service import tidy
from pinaivu.store.database import StorageFailed, open_database
from pinaivu.store.gateway import AttemptRow, CountDifferenceRow, ReceiptRow
from pinaivu.store.writer import open_writer
from tests.faults.storage import Fault, FaultyDatabase
from tests.unit.gateway_facts import NOW
from tests.unit.test_gateway_access import conclusion, request_row

JOB = (1).to_bytes(16)


@asynccontextmanager
async def ledger(folder: Path) -> AsyncGenerator[tuple[Ledger, FaultyDatabase]]:
    opened = open_database(f"sqlite:///{folder / 'g.db'}", "gateway")
    database = FaultyDatabase(opened)
    async with open_writer(database) as writer:
        yield Ledger(writer), database
    database.close()


def attempt(**changes: Any) -> AttemptRow:
    fields: dict[str, Any] = {"award_digest": b"a", "job_id": JOB, "rank": 1, "award": b"award"}
    return AttemptRow(**fields | changes)


def receipt() -> ReceiptRow:
    return ReceiptRow(job_id=JOB, signed=b"receipt", position=3, arrived_ms=NOW)


Write = Callable[[Ledger], Awaitable[None]]
Found = Callable[[Ledger], Awaitable[Any]]


async def state(found: Ledger) -> Any:
    row, frame = await found.queued(JOB)
    kept = await found.found_receipt(JOB)
    return row and (row.state, row.output_tokens, row.units), frame, bool(kept)


async def with_differences(found: Ledger) -> Any:
    rows = await found.differences(JOB)
    counts = [(row.rank, row.what, row.by_node, row.by_gateway) for row in rows]
    return await state(found), counts


def difference(**changes: Any) -> CountDifferenceRow:
    fields: dict[str, Any] = {
        "award_digest": b"a",
        "what": "output",
        "job_id": JOB,
        "rank": 1,
        "node": b"n",
        "by_node": 90,
        "by_gateway": 60,
        "result": 0,
        "noticed_ms": NOW,
    }
    return CountDifferenceRow(**fields | changes)


async def awards(found: Ledger) -> Any:
    rows = await found.attempts(JOB)
    return [(row.rank, row.acks_ceiling, row.failure, row.completion) for row in rows]


STEPS: list[tuple[str, Write, Found]] = [
    ("open", lambda ledger: ledger.open(request_row(1, tokens=9)), state),
    ("award", lambda ledger: ledger.award(attempt(acks_ceiling=4)), awards),
    ("ceiling", lambda ledger: ledger.raise_ceiling(b"a", 36), awards),
    ("fail", lambda ledger: ledger.fail(attempt(), b"failure"), awards),
    (
        "conclude",
        lambda ledger: ledger.conclude(
            conclusion(1, completions={b"a": b"c"}, differences=[difference()])
        ),
        with_differences,
    ),
    ("amend", lambda ledger: ledger.amend(JOB, b"frame", b"whole"), state),
    (
        "receipt",
        lambda ledger: ledger.receipt(receipt(), (9, 4), 11, [difference(rank=2, what="prompt")]),
        with_differences,
    ),
]


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("number", range(len(STEPS)), ids=[name for name, *_ in STEPS])
async def test_write_that_failed_can_be_repeated(tmp_path: Path, number: int, fault: Fault) -> None:
    """The failure is said; afterwards all or nothing is there, and doing it again ends the same."""
    async with ledger(tmp_path) as (found, database):
        for _, write, _ in STEPS[:number]:
            await write(found)
        _, write, look = STEPS[number]
        before = await look(found)
        database.next_commit = fault
        with pytest.raises(StorageFailed):
            await write(found)
        between = await look(found)
        await write(found)
        after = await look(found)
        assert after != before
        assert between == (before if fault == Fault.NOT_PERSISTED else after)


async def test_first_delivery_stands(tmp_path: Path) -> None:
    async with ledger(tmp_path) as (found, _):
        await found.open(request_row(1, tokens=9))
        await found.conclude(conclusion(1))
        await found.conclude(conclusion(1, frame=b"another", units=99))
        assert await state(found) == (("delivered", 5, 7), b"frame", False)


async def test_delivery_gives_way_only_where_it_is_the_one_that_was_refused(tmp_path: Path) -> None:
    async with ledger(tmp_path) as (found, _):
        await found.open(request_row(1, tokens=9))
        await found.conclude(conclusion(1))
        await found.amend(JOB, b"another", b"whole")
        assert (await state(found))[1] == b"frame"
        await found.amend(JOB, b"frame", b"whole")
        await found.amend(JOB, b"frame", b"late")
        assert (await state(found))[1] == b"whole"


async def test_difference_is_stored_once_with_both_counts(tmp_path: Path) -> None:
    """What the delivery showed stands; the receipt adds what only it knows."""
    async with ledger(tmp_path) as (found, _):
        await found.open(request_row(1, tokens=9))
        await found.conclude(conclusion(1, differences=[difference()]))
        further = difference(award_digest=b"b", rank=2, by_node=1)
        await found.receipt(receipt(), (8, 4), 11, [difference(by_node=7), further])
        _, counts = await with_differences(found)
        assert counts == [(1, "output", 90, 60), (2, "output", 1, 60)]


async def test_first_failure_stands(tmp_path: Path) -> None:
    async with ledger(tmp_path) as (found, _):
        await found.fail(attempt(), b"first")
        await found.fail(attempt(), b"second")
        assert (await awards(found))[0][2] == b"first"


async def test_receipt_replaces_our_figures_and_ends_the_sending(tmp_path: Path) -> None:
    async with ledger(tmp_path) as (found, _):
        await found.open(request_row(1, tokens=9))
        await found.conclude(conclusion(1))
        assert [row.job_id for row in await found.unfinished()] == [JOB]
        await found.receipt(receipt(), (8, 4), 11)
        assert await state(found) == (("receipted", 4, 11), None, True)
        assert await found.unfinished() == []
        row = await found.request(JOB)
        assert row
        assert row.prompt_tokens == 8


async def test_unfinished_jobs_are_found_oldest_first(tmp_path: Path) -> None:
    async with ledger(tmp_path) as (found, _):
        for number, at in ((1, NOW + 2), (2, NOW), (3, NOW + 1), (4, NOW)):
            await found.open(request_row(number, tokens=1, at_ms=at))
        await found.mark((4).to_bytes(16), "refused")
        await found.mark((3).to_bytes(16), "unserved")
        assert [int.from_bytes(row.job_id) for row in await found.unfinished()] == [2, 3, 1]


async def test_refused_request_is_charged_nothing(tmp_path: Path) -> None:
    async with ledger(tmp_path) as (found, _):
        await found.open(request_row(1, tokens=50))
        await found.mark(JOB, "refused")
        assert (await found.spent("key-1")).tokens == 0


async def test_contents_are_forgotten_in_time(tmp_path: Path) -> None:
    async with ledger(tmp_path) as (found, _):
        for number, at in ((1, NOW - 10), (2, NOW)):
            row = request_row(number, tokens=1, at_ms=at)
            row.body = b"secret"
            await found.open(row)
        await found.forget_contents(NOW)
        old, new = await found.request(JOB), await found.request((2).to_bytes(16))
        assert old
        assert new
        assert (old.body, new.body) == (None, b"secret")


async def test_a_database_that_fails_ends_no_tidying(
    tmp_path: Path,
    autojump_clock: MockClock,  # noqa: ARG001 - the next round is ten minutes later
) -> None:
    """What is old is emptied in the next round, and nothing else stops meanwhile."""
    async with ledger(tmp_path) as (found, database), trio.open_nursery() as nursery:
        row = request_row(1, tokens=1, at_ms=0)
        row.body = b"secret"
        await found.open(row)
        claims = Claims(found._writer, bytes(16), lambda: NOW)
        database.next_commit = Fault.NOT_PERSISTED
        nursery.start_soon(tidy, found, claims, Limits(), lambda: NOW)
        while (kept := await found.request(JOB)) and kept.body:
            pass  # asked again
        assert database.next_commit is None
        nursery.cancel_scope.cancel()


async def test_amounts_beyond_the_columns_width_are_kept_at_its_maximum(tmp_path: Path) -> None:
    async with ledger(tmp_path) as (found, _):
        await found.open(request_row(1, tokens=9))
        await found.conclude(conclusion(1, units=2**96 - 1))
        assert await state(found) == (("delivered", 5, 2**63 - 1), b"frame", False)
