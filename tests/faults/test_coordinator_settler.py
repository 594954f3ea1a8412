"""Batches: closed when due, followed to finality, offered again after a reorganisation."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from pinaivu.chain.errors import ChainUnavailable
from pinaivu.merkle.hashing import EMPTY_ROOT
from pinaivu.settlement import net, unpack_rows
from pinaivu.store.database import StorageFailed, open_database
from tests.faults.settler_support import SECOND, SIGNERS, batch, receipt, states, stored
from tests.faults.storage import Fault, FaultyDatabase
from tests.unit.coordinator_world import (
    NO_ANCHOR,
    ChainDouble,
    anchor_of,
    open_world,
    with_rules,
)
from tests.unit.ledger_support import PAYER


@pytest.fixture
def database(tmp_path: Path) -> Iterator[FaultyDatabase]:
    opened = open_database(f"sqlite:///{tmp_path}/c.db", "coordinator")
    yield FaultyDatabase(opened)
    opened.close()


async def test_a_batch_covers_what_is_pending(database: FaultyDatabase) -> None:
    """Leaves, roots, rows and fees follow from the receipts; the next one joins on."""
    async with open_world(database) as world:
        await receipt(world, 1)
        await receipt(world, 2)
        receipts = [leaf.receipt for leaf in world.log.pending() if leaf.receipt]
        first = await batch(world)
        due = net(receipts)
        assert (first.sequence, first.prev_size, first.new_size) == (1, 0, 3)
        assert (first.prev_root, first.new_root) == (EMPTY_ROOT, world.log.tree.root(3))
        assert (first.debits, first.credits, first.fees) == (due.debits, due.credits, due.fees)
        assert first.statement_root == due.statement_root
        assert sum(unpack_rows(first.debits).values()) == sum(r.total for r in receipts)

        world.chain.newest = anchor_of(first)
        await receipt(world, 3)
        second = await batch(world)
        assert (second.sequence, second.prev_size, second.prev_root) == (2, 3, first.new_root)


async def test_only_what_is_due_is_batched(database: FaultyDatabase) -> None:
    """Not before its age; an epoch's start alone is no reason; one batch on its way at a time."""
    async with open_world(database) as world:
        world.now += world.rules.batch_age_ms
        await world.settler._look()
        assert stored(world) == []
        await receipt(world, 1)
        world.now += world.rules.batch_age_ms - 1
        await world.settler._look()
        assert stored(world) == []
        world.now += 1
        await world.settler._look()
        await receipt(world, 2)
        world.now += world.rules.batch_age_ms
        await world.settler._look()
        assert states(world) == ["batched"]


@pytest.mark.parametrize("rules", [{"batch_count": 2}, {"batch_value": 1}], ids=["count", "value"])
async def test_count_and_value_close_it_at_once(
    database: FaultyDatabase, rules: dict[str, int]
) -> None:
    async with open_world(database, rules=with_rules(**rules)) as world:
        await receipt(world, 1)
        await world.settler._look()
        assert states(world) == ["batched"]
        assert stored(world)[0][0].new_size == 2


async def test_mined_then_final(database: FaultyDatabase) -> None:
    """Only when final is the payer's money counted as paid."""
    async with open_world(database) as world:
        await receipt(world, 1)
        first = await batch(world)
        total = world.log.unsettled(PAYER.address)
        assert total > 0
        world.chain.newest = anchor_of(first)
        await world.settler._look()
        assert states(world) == ["mined"]
        assert world.log.unsettled(PAYER.address) == total
        world.chain.final = anchor_of(first)
        await world.settler._look()
        assert states(world) == ["final"]
        assert world.log.unsettled(PAYER.address) == 0
        assert world.log.oldest_unsettled_ms() is None


async def test_a_reorganisation_drops_it_and_brings_it_back(database: FaultyDatabase) -> None:
    """Mined, reverted, mined: the same signed batch all along, and no other signed meanwhile."""
    async with open_world(database) as world:
        await receipt(world, 1)
        first = await batch(world)
        world.chain.newest = anchor_of(first)
        await world.settler._look()
        assert stored(world) == [(first, "mined")]

        world.chain.newest = NO_ANCHOR
        await receipt(world, 2)
        world.now += world.rules.batch_age_ms
        await world.settler._look()
        await world.settler._look()
        assert stored(world) == [(first, "reverted")]

        world.chain.newest = anchor_of(first)
        await world.settler._look()
        (again, second) = stored(world)
        assert again == (first, "mined")
        assert second[0].prev_size == first.new_size


async def test_a_chain_that_is_down_changes_nothing(database: FaultyDatabase) -> None:
    async with open_world(database) as world:
        await receipt(world, 1)
        await batch(world)
        world.chain.down = True
        with pytest.raises(ChainUnavailable):
            await world.settler._look()
        assert states(world) == ["batched"]


@pytest.mark.parametrize("fault", Fault)
async def test_a_failed_batch_is_not_published(database: FaultyDatabase, fault: Fault) -> None:
    """The coordinator ends; the next epoch signs that sequence itself."""
    with pytest.RaisesGroup(StorageFailed, flatten_subgroups=True, allow_unwrapped=True):
        async with open_world(database) as world:
            await receipt(world, 1)
            database.next_commit = fault
            await batch(world)
    async with open_world(database, epoch=2, key=SECOND, signers=dict(SIGNERS)) as world:
        again = await batch(world)
        assert (again.sequence, again.epoch, len(stored(world))) == (1, 2, 1)


async def test_an_unsubmitted_batch_is_signed_by_the_next_epoch(database: FaultyDatabase) -> None:
    """The chain would refuse the ended epoch's; its leaves and newer ones are in the new one."""
    async with open_world(database) as world:
        await receipt(world, 1)
        assert (await batch(world)).epoch == 1
        await receipt(world, 2)
    async with open_world(database, epoch=2, key=SECOND, signers=dict(SIGNERS)) as world:
        assert stored(world) == []
        again = await batch(world)
        assert (again.sequence, again.epoch, again.prev_size, again.new_size) == (1, 2, 0, 4)


async def test_a_submitted_batch_stands_over_a_boot(database: FaultyDatabase) -> None:
    """It was mined just before: the next epoch goes on after it."""
    async with open_world(database) as world:
        await receipt(world, 1)
        first = await batch(world)
    known = ChainDouble(newest=anchor_of(first))
    async with open_world(
        database, epoch=2, key=SECOND, signers=dict(SIGNERS), chain=known
    ) as world:
        await receipt(world, 2)
        second = await batch(world)
        assert (second.sequence, second.epoch, second.prev_size) == (2, 2, first.new_size)
        assert [b.epoch for b, _ in stored(world)] == [1, 2]
        known.settle(second)
        known.final = known.newest
        await world.settler._look()
        assert states(world) == ["final", "final"]
        assert world.log.unsettled(PAYER.address) == 0


async def test_an_ended_epochs_batch_that_is_dropped_is_signed_anew(
    database: FaultyDatabase,
) -> None:
    """Mined under epoch 1, reorganised away under epoch 2: same leaves, this epoch's key.

    Not before it has been missing for a while: an endpoint may lag behind another.
    """
    async with open_world(database) as world:
        await receipt(world, 1)
        first = await batch(world)
    known = ChainDouble(newest=anchor_of(first))
    async with open_world(
        database, epoch=2, key=SECOND, signers=dict(SIGNERS), chain=known
    ) as world:
        await world.settler._look()
        assert states(world) == ["mined"]
        known.newest = NO_ANCHOR
        await world.settler._look()
        world.now += 9_999
        await world.settler._look()
        assert stored(world) == [(first, "reverted")]
        world.now += 1
        await world.settler._look()
        ((again, state),) = stored(world)
        assert state == "batched"
        assert replace(again, epoch=1, time_ms=first.time_ms) == first
        assert again.epoch == 2


async def test_what_is_final_stays_paid_over_a_boot(database: FaultyDatabase) -> None:
    async with open_world(database) as world:
        await receipt(world, 1)
        first = await batch(world)
        world.chain.final = world.chain.newest = anchor_of(first)
        await world.settler._look()
    known = ChainDouble(newest=anchor_of(first), final=anchor_of(first))
    async with open_world(
        database, epoch=2, key=SECOND, signers=dict(SIGNERS), chain=known
    ) as world:
        assert world.log.unsettled(PAYER.address) == 0
        assert world.log.batched_size == first.new_size
