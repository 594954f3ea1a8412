"""Batches under the chain's debit limiter, and two signed batches of one sequence."""

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from sqlmodel import select

from coordinator.errors import LogDiverged
from pinaivu.messages import Batch
from pinaivu.settlement import unpack_rows
from pinaivu.store.coordinator import ReplacedBatchRow
from pinaivu.store.database import StorageFailed, open_database
from pinaivu.typed_data import digest
from tests.faults.settler_support import SECOND, SIGNERS, batch, receipt, states, stored
from tests.faults.storage import Fault, FaultyDatabase
from tests.unit.coordinator_world import NO_ANCHOR, ChainDouble, World, anchor_of, open_world
from tests.unit.ledger_support import DOMAIN, PAYER

PATIENCE_MS = 10_000


@pytest.fixture
def database(tmp_path: Path) -> Iterator[FaultyDatabase]:
    opened = open_database(f"sqlite:///{tmp_path}/c.db", "coordinator")
    yield FaultyDatabase(opened)
    opened.close()


@pytest.fixture
async def world(database: FaultyDatabase) -> AsyncGenerator[World, None]:
    async with open_world(database) as made:
        yield made


async def receipts(world: World, *numbers: int) -> list[int]:
    """So many receipts; what each charges."""
    for number in numbers:
        await receipt(world, number)
    return [leaf.receipt.total for leaf in world.log.pending() if leaf.receipt]


def debited(made: Batch) -> int:
    return sum(unpack_rows(made.debits).values())


def replaced(world: World) -> set[bytes]:
    with world.writer._database.read() as session:
        return {row.digest for row in session.exec(select(ReplacedBatchRow))}


async def refused(world: World, *, limit: int) -> None:
    """A payer left: the batch on its way is over the limit for as long as the settler waits."""
    world.chain.limit = limit
    world.now += PATIENCE_MS
    await world.settler._look()


async def cut(world: World) -> tuple[Batch, Batch]:
    """A batch over two receipts, and the one over the first of them that has replaced it."""
    totals = await receipts(world, 1, 2)
    whole = await batch(world)
    await refused(world, limit=totals[0])
    ((short, _),) = stored(world)
    assert (whole.new_size, short.new_size) == (3, 2)
    return whole, short


async def test_a_batch_takes_no_more_than_the_limiter_lets_it(world: World) -> None:
    """To the unit; what is left over comes in the next batch."""
    totals = await receipts(world, 1, 2, 3)
    world.chain.limit = sum(totals) - 1
    first = await batch(world)
    assert (first.new_size, debited(first)) == (3, sum(totals[:2]))
    world.chain.settle(first)
    world.chain.limit = totals[2]
    second = await batch(world)
    assert (second.prev_size, second.new_size, debited(second)) == (3, 4, totals[2])


async def test_where_nothing_fits_it_waits_and_says_why(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, not at each look; the log's first leaf, an epoch's start, makes no batch alone."""
    (total,) = await receipts(world, 1)
    world.chain.limit = total - 1
    for _ in range(3):
        world.now += world.rules.batch_age_ms
        await world.settler._look()
    assert stored(world) == []
    assert f"may take {total - 1} base units" in world.settler.waits_because
    assert [r.message for r in caplog.records if "debit limit refills" in r.message] == [
        f"settlement waits: {world.settler.waits_because}"
    ]
    world.chain.limit = total
    assert debited(await batch(world)) == total
    assert world.settler.waits_because == ""


async def test_a_payer_that_has_left_takes_nothing_of_the_limit(world: World) -> None:
    """The reserve pays for it, so its receipts are settled even where no deposit is left."""
    totals = await receipts(world, 1, 2)
    world.chain.left.add(PAYER.address)
    world.chain.limit = 0
    assert debited(await batch(world)) == sum(totals)


async def test_a_payer_takes_no_more_than_its_balance(world: World) -> None:
    totals = await receipts(world, 1, 2)
    world.chain.balance = world.chain.limit = totals[0]
    assert debited(await batch(world)) == sum(totals)


async def test_a_batch_on_its_way_that_is_over_the_limit_is_cut(world: World) -> None:
    """Under its sequence, after a while, and kept: the chain may still take it."""
    totals = await receipts(world, 1, 2)
    whole = await batch(world)
    world.chain.limit = totals[0]
    world.now += PATIENCE_MS - 1
    await world.settler._look()
    assert stored(world) == [(whole, "batched")]
    world.now += 1
    await world.settler._look()
    ((short, state),) = stored(world)
    assert (state, short.sequence, short.prev_size, short.new_size) == ("batched", 1, 0, 2)
    assert (debited(short), short.new_root) == (totals[0], world.log.tree.root(2))
    assert replaced(world) == {digest(DOMAIN, whole)}
    assert world.log.batched_size == 2


async def test_a_batch_that_only_nobody_submits_stays(world: World) -> None:
    await receipts(world, 1, 2)
    whole = await batch(world)
    for _ in range(3):
        world.now += PATIENCE_MS
        await world.settler._look()
    assert stored(world) == [(whole, "batched")]


async def test_a_batch_that_can_not_be_cut_waits(world: World) -> None:
    """It is the one that is settled when the limit is there again."""
    (total,) = await receipts(world, 1)
    only = await batch(world)
    await refused(world, limit=total - 1)
    assert stored(world) == [(only, "batched")]
    assert world.settler.waits_because
    world.chain.settle(only)
    await world.settler._look()
    assert (stored(world), world.settler.waits_because) == ([(only, "mined")], "")


async def test_the_cut_batch_is_settled(world: World) -> None:
    """The next one joins on; once it is final nothing is left of the other."""
    whole, short = await cut(world)
    world.chain.settle(short)
    world.chain.limit = 10**12
    rest = await batch(world)
    assert (rest.sequence, rest.prev_size, rest.new_size) == (2, 2, whole.new_size)
    assert (rest.prev_root, rest.new_root) == (short.new_root, whole.new_root)
    world.chain.settle(rest)
    world.chain.final = world.chain.newest
    await world.settler._look()
    assert states(world) == ["final", "final"]
    assert (replaced(world), world.log.unsettled(PAYER.address)) == (set(), 0)


async def test_the_first_batch_is_settled_after_all(world: World) -> None:
    """The store follows the chain: nothing that it covers is batched again."""
    whole, _ = await cut(world)
    world.chain.settle(whole)
    world.chain.limit = 10**12
    world.now += world.rules.batch_age_ms
    await world.settler._look()
    assert stored(world) == [(whole, "mined")]
    assert world.log.batched_size == whole.new_size
    await receipt(world, 3)
    following = await batch(world)
    assert (following.sequence, following.prev_size) == (2, whole.new_size)
    world.chain.settle(following)
    world.chain.final = world.chain.newest
    await world.settler._look()
    assert states(world) == ["final", "final"]
    assert world.log.unsettled(PAYER.address) == world.log.all_unsettled() == 0


async def test_a_reorganisation_changes_the_one_for_the_other(world: World) -> None:
    """And what was built on one is signed anew over the other, and back again."""
    whole, short = await cut(world)
    world.chain.settle(short)
    world.chain.limit = 10**12
    on_short = await batch(world)

    world.chain.newest = anchor_of(whole)
    await world.settler._look()
    assert stored(world) == [(whole, "mined")]
    await receipt(world, 3)
    on_whole = await batch(world)
    assert stored(world) == [(whole, "mined"), (on_whole, "batched")]
    assert on_whole.prev_size == whole.new_size

    world.chain.newest = anchor_of(short)
    world.chain.settle(on_short)
    await world.settler._look()
    assert stored(world)[:2] == [(short, "mined"), (on_short, "mined")]
    ((following, _),) = stored(world)[2:]
    assert (following.sequence, following.prev_size) == (3, on_short.new_size)


async def test_the_one_that_is_final_is_the_one_that_stands(database: FaultyDatabase) -> None:
    """Also where a batch over both epochs' forms of it hides which of them the chain has."""
    async with open_world(database) as world:
        await receipt(world, 1)
        first = await batch(world)
    known = ChainDouble(newest=anchor_of(first))
    async with open_world(
        database, epoch=2, key=SECOND, signers=dict(SIGNERS), chain=known
    ) as world:
        await world.settler._look()
        known.newest = NO_ANCHOR
        await world.settler._look()
        world.now += PATIENCE_MS
        await world.settler._look()
        again = stored(world)[0][0]
        assert again.epoch == 2
        known.settle(again)
        await receipt(world, 2)
        second = await batch(world)
        known.settle(second)
        await world.settler._look()
        known.anchors[1] = anchor_of(first)
        known.final = known.newest
        await world.settler._look()
        assert stored(world) == [(first, "final"), (second, "final")]


async def test_the_first_batch_is_settled_while_the_coordinator_is_down(
    database: FaultyDatabase,
) -> None:
    async with open_world(database) as world:
        whole, _ = await cut(world)
    known = ChainDouble(newest=anchor_of(whole))
    async with open_world(
        database, epoch=2, key=SECOND, signers=dict(SIGNERS), chain=known
    ) as world:
        assert [made for made, _ in stored(world)] == [whole]
        await receipt(world, 3)
        assert (await batch(world)).prev_size == whole.new_size


async def test_an_endpoint_that_lags_at_boot_costs_no_batch(database: FaultyDatabase) -> None:
    """The ended epoch's batch was settled, which is seen only after it was signed anew."""
    async with open_world(database) as world:
        await receipt(world, 1)
        first = await batch(world)
    known = ChainDouble(newest=NO_ANCHOR)
    async with open_world(
        database, epoch=2, key=SECOND, signers=dict(SIGNERS), chain=known
    ) as world:
        assert (await batch(world)).epoch == 2
        known.newest = anchor_of(first)
        await world.settler._look()
        assert stored(world) == [(first, "mined")]


async def test_a_batch_that_nobody_here_has_signed(world: World) -> None:
    """The database is an older copy: better to end than to sign on beside the chain."""
    await receipts(world, 1)
    only = await batch(world)
    known = anchor_of(only)
    world.chain.newest = type(known)(known.sequence, known.size, known.root, b"\x01" * 32)
    with pytest.raises(LogDiverged, match="another batch 1"):
        await world.settler._look()


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("taken", ["whole", "none"])
async def test_a_failed_cut_leaves_both_or_the_first(
    database: FaultyDatabase, fault: Fault, taken: str
) -> None:
    """The coordinator ends; the next boot finds whichever the chain has."""
    made: list[Batch] = []
    with pytest.RaisesGroup(StorageFailed, flatten_subgroups=True, allow_unwrapped=True):
        async with open_world(database) as world:
            totals = await receipts(world, 1, 2)
            made.append(await batch(world))
            database.next_commit = fault
            await refused(world, limit=totals[0])
    known = ChainDouble(newest=anchor_of(made[0]) if taken == "whole" else NO_ANCHOR)
    async with open_world(
        database, epoch=2, key=SECOND, signers=dict(SIGNERS), chain=known
    ) as world:
        if taken == "whole":
            assert [entry for entry, _ in stored(world)] == made
        else:
            again = await batch(world)
            assert (again.sequence, again.epoch, again.prev_size) == (1, 2, 0)
