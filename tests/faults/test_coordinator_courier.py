"""Everybody in a batch gets it: repeated until kept, over restarts, and not once it is final.

Parties are functions here; `tests/integration/test_coordinator_sessions.py` has real streams.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from sqlmodel import select

from coordinator.courier import GATEWAY, NODE, Courier, Party
from pinaivu.batch_copies import BatchCopy
from pinaivu.errors import PinaivuError
from pinaivu.messages import Batch
from pinaivu.p2p import wire
from pinaivu.p2p.errors import CallRefused, CallTimeout, NotConnected
from pinaivu.store.batches import MOST_COPIES
from pinaivu.store.coordinator import BatchCopyRow, BatchRow
from pinaivu.store.database import StorageFailed, open_database
from pinaivu.typed_data import signed_from_bytes
from tests.faults.storage import Fault, FaultyDatabase
from tests.integration.p2p_support import until
from tests.unit.coordinator_world import NO_ANCHOR, ChainDouble, World, anchor_of, open_world
from tests.unit.ledger_support import DOMAIN, EPOCH, LOG, secret
from tests.unit.ledger_support import GATEWAY as GATEWAY_KEY

SECOND = secret(33)
SIGNERS = {1: EPOCH.address, 2: SECOND.address}
THE_GATEWAY = Party(GATEWAY, GATEWAY_KEY.address)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[FaultyDatabase]:
    opened = open_database(f"sqlite:///{tmp_path}/c.db", "coordinator")
    yield FaultyDatabase(opened)
    opened.close()


@dataclass
class Parties:
    """Whoever is connected checks what it gets and says that it keeps it, unless told otherwise."""

    away: set[Party] = field(default_factory=set)
    failing: PinaivuError | None = None
    slow: Party | None = None
    asked: int = 0
    got: dict[Party, list[Batch]] = field(default_factory=dict)
    on_call: Callable[[], Awaitable[None]] | None = None

    async def send(self, party: Party, payload: bytes) -> bytes:
        """As `Sessions.send`."""
        await trio.lowlevel.checkpoint()
        if party in self.away:
            raise NotConnected("on purpose")
        self.asked += 1
        if party == self.slow:
            await trio.sleep_forever()
        if self.on_call is not None:
            await self.on_call()
        if self.failing is not None:
            raise self.failing
        frame = wire.read_coordinator_to_gateway(payload)
        copy = BatchCopy.from_bytes(frame.batch, frame.consistency)
        copy.check(DOMAIN, LOG, SIGNERS[copy.batch.epoch])
        self.got.setdefault(party, []).append(copy.batch)
        return wire.encode(wire.Done())

    def sequences(self, party: Party = THE_GATEWAY) -> list[int]:
        """The numbers of the batches that a party keeps, as they came."""
        return [batch.sequence for batch in self.got.get(party, [])]


@asynccontextmanager
async def couriered(
    world: World, parties: Parties, *, retry_s: float = inf
) -> AsyncIterator[Courier]:
    """A courier wired as `coordinator.app` does."""
    async with trio.open_nursery() as nursery:
        courier = Courier(world.log, world.writer, parties.send, nursery, retry_s=retry_s)
        world.on_owed = courier.owe
        yield courier
        nursery.cancel_scope.cancel()


def second_epoch(
    database: FaultyDatabase, known: ChainDouble | None = None
) -> AbstractAsyncContextManager[World]:
    return open_world(database, epoch=2, key=SECOND, signers=dict(SIGNERS), chain=known)


async def receipt(world: World, number: int, *prices: int) -> Party:
    """One job, served; its node."""
    world.put_offers(*(prices or (1_000_000, 1_100_000)))
    job = await world.served(number)
    await job.receipted.wait()
    assert job.receipt
    return Party(NODE, job.receipt[0].message.segments[-1].node)


async def close_batch(world: World) -> None:
    world.now += world.rules.batch_age_ms
    await world.settler._look()


async def mine(world: World, *, final: bool = False) -> Batch:
    """The chain has the newest batch."""
    with world.writer._database.read() as session:
        rows = session.exec(select(BatchRow)).all()
    newest = max((signed_from_bytes(Batch, row.batch).message for row in rows), key=_sequence)
    world.chain.newest = anchor_of(newest)
    if final:
        world.chain.final = anchor_of(newest)
    await world.settler._look()
    return newest


def _sequence(batch: Batch) -> int:
    return batch.sequence


def owed(world: World) -> dict[Party, list[int]]:
    """Who has not said yet that it keeps which batches."""
    found: dict[Party, list[int]] = {}
    with world.writer._database.read() as session:
        for row in session.exec(select(BatchCopyRow)):
            if not row.kept:
                found.setdefault(Party(row.role, row.party), []).append(row.sequence)
    return found


def rows(world: World) -> int:
    with world.writer._database.read() as session:
        return len(session.exec(select(BatchCopyRow)).all())


async def test_everybody_in_a_batch_is_handed_it_at_once(database: FaultyDatabase) -> None:
    """Its gateway and its nodes, with a proof that holds; each once; nobody else."""
    parties = Parties()
    async with open_world(database) as world, couriered(world, parties):
        node = await receipt(world, 1)
        await close_batch(world)
        await until(lambda: rows(world) == 2 and not owed(world))
        await mine(world)
        assert await receipt(world, 2) == node
        await close_batch(world)
        await until(lambda: rows(world) == 4 and not owed(world))
        await mine(world)
        other = await receipt(world, 3, 1_900_000, 1_000_000)
        await close_batch(world)
        await until(lambda: rows(world) == 6 and not owed(world))
    assert len({THE_GATEWAY, node, other}) == 3
    assert parties.sequences(THE_GATEWAY) == [1, 2, 3]
    assert parties.sequences(node) == [1, 2]
    assert parties.sequences(other) == [3]
    assert set(parties.got) == {THE_GATEWAY, node, other}


async def test_nobody_is_handed_what_is_anothers(database: FaultyDatabase) -> None:
    """Also where another of its kind has not got its own yet."""
    parties = Parties()
    async with open_world(database) as world, couriered(world, parties) as courier:
        node = await receipt(world, 1)
        parties.away.add(node)
        await close_batch(world)
        await mine(world)
        other = await receipt(world, 2, 1_900_000, 1_000_000)
        await close_batch(world)
        courier.owe(other)
        await until(lambda: owed(world) == {node: [1]})
        await until(lambda: not courier._news)
    assert parties.sequences(other) == [2]


async def test_who_was_away_gets_all_it_missed_in_order(database: FaultyDatabase) -> None:
    """Each batch is of use only after the one before it; coming twice is once."""
    parties = Parties(away={THE_GATEWAY})
    async with open_world(database) as world, couriered(world, parties) as courier:
        for number in (1, 2, 3):
            await receipt(world, number)
            await close_batch(world)
            await mine(world)
        assert THE_GATEWAY not in parties.got
        assert owed(world)[THE_GATEWAY] == [1, 2, 3]
        parties.away.clear()
        for _ in range(3):
            courier.owe(THE_GATEWAY)
        await until(lambda: THE_GATEWAY not in owed(world))
        courier.owe(THE_GATEWAY)
        await until(lambda: not courier._news)
    assert parties.sequences() == [1, 2, 3]


async def test_what_is_owed_outlives_the_coordinator(database: FaultyDatabase) -> None:
    """Mined and not final: the next boot hands it to a party that was away."""
    async with open_world(database) as world, couriered(world, Parties(away={THE_GATEWAY})):
        node = await receipt(world, 1)
        await close_batch(world)
        await until(lambda: set(owed(world)) == {THE_GATEWAY})
        known = ChainDouble(newest=anchor_of(await mine(world)))
    parties = Parties()
    async with (
        second_epoch(database, known) as world,
        couriered(world, parties) as courier,
    ):
        courier.owe(THE_GATEWAY)
        courier.owe(node)
        await until(lambda: not owed(world) and not courier._news)
    assert parties.sequences() == [1]
    assert parties.sequences(node) == []


@pytest.mark.parametrize("error", [CallTimeout("late"), CallRefused("WrongCopy: no")], ids=repr)
async def test_it_is_repeated_until_it_is_kept(
    database: FaultyDatabase, error: PinaivuError
) -> None:
    """Silence and refusals change nothing about what is owed."""
    parties = Parties(failing=error)
    async with open_world(database) as world, couriered(world, parties, retry_s=0.01):
        node = await receipt(world, 1)
        await close_batch(world)
        await until(lambda: parties.asked > 6)
        assert set(owed(world)) == {THE_GATEWAY, node}
        parties.failing = None
        await until(lambda: not owed(world))
    assert parties.sequences() == [1]


async def test_an_answer_that_is_none_is_not_taken_for_one(database: FaultyDatabase) -> None:
    async def garbage(_party: Party, _payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        asked.append(1)
        return b"\xc1"

    asked: list[int] = []
    async with open_world(database) as world, trio.open_nursery() as nursery:
        courier = Courier(world.log, world.writer, garbage, nursery, retry_s=0.01)
        world.on_owed = courier.owe
        await receipt(world, 1)
        await close_batch(world)
        await until(lambda: len(asked) > 4)
        assert len(owed(world)) == 2
        nursery.cancel_scope.cancel()


async def test_a_slow_party_delays_nobody(database: FaultyDatabase) -> None:
    parties = Parties(slow=THE_GATEWAY)
    async with open_world(database) as world, couriered(world, parties):
        node = await receipt(world, 1)
        await close_batch(world)
        await until(lambda: parties.sequences(node) == [1])
        await mine(world)
        await receipt(world, 2)
        await close_batch(world)
        await until(lambda: owed(world) == {THE_GATEWAY: [1, 2]})
    assert parties.sequences(node) == [1, 2]


async def test_nothing_is_owed_once_it_is_final(database: FaultyDatabase) -> None:
    """It is on chain for ever; who comes later needs no copy."""
    parties = Parties(away={THE_GATEWAY})
    async with open_world(database) as world, couriered(world, parties) as courier:
        await receipt(world, 1)
        await close_batch(world)
        await mine(world, final=True)
        assert rows(world) == 0
        parties.away.clear()
        courier.owe(THE_GATEWAY)
        await until(lambda: not courier._news)
    assert parties.sequences() == []


async def test_a_batch_signed_anew_is_handed_over_anew(database: FaultyDatabase) -> None:
    """Dropped by a reorganisation under another epoch: the copies that are out settle nothing."""
    async with open_world(database) as world, couriered(world, Parties()):
        await receipt(world, 1)
        await close_batch(world)
        await until(lambda: rows(world) == 2 and not owed(world))
        known = ChainDouble(newest=anchor_of(await mine(world)))
    parties = Parties()
    async with (
        second_epoch(database, known) as world,
        couriered(world, parties),
    ):
        await world.settler._look()
        known.newest = NO_ANCHOR
        await world.settler._look()
        world.now += 10_000
        await world.settler._look()
        await until(lambda: rows(world) == 2 and not owed(world))
    assert [(b.sequence, b.epoch) for b in parties.got[THE_GATEWAY]] == [(1, 2)]


async def test_an_unsubmitted_batch_of_an_ended_epoch_is_owed_to_nobody(
    database: FaultyDatabase,
) -> None:
    """Its leaves are in this epoch's batch, which is handed over in its place."""
    async with open_world(database) as world, couriered(world, Parties(away={THE_GATEWAY})):
        await receipt(world, 1)
        await close_batch(world)
    parties = Parties()
    async with (
        second_epoch(database) as world,
        couriered(world, parties) as courier,
    ):
        assert rows(world) == 0
        courier.owe(THE_GATEWAY)
        await until(lambda: not courier._news)
        assert parties.got == {}
        await close_batch(world)
        await until(lambda: rows(world) == 2 and not owed(world))
    assert [(b.sequence, b.epoch) for b in parties.got[THE_GATEWAY]] == [(1, 2)]


async def test_an_answer_about_what_was_replaced_meanwhile_does_not_count(
    database: FaultyDatabase,
) -> None:
    """The party keeps the old one; the one that settles is still owed to it."""
    parties = Parties()
    async with open_world(database) as world, couriered(world, parties):
        await receipt(world, 1)

        async def sign_again() -> None:
            parties.on_call = None
            world.now += 1
            standing = world.settler._open[0].batch
            await world.settler._sign(replace(standing, time_ms=world.now))

        parties.on_call = sign_again
        await close_batch(world)
        await until(lambda: rows(world) == 2 and not owed(world))
        newest = world.settler._open[0].batch
        assert all(got[-1] == newest for got in parties.got.values())
        assert len(parties.got) == 2


async def test_a_batch_that_was_cut_is_owed_to_those_who_are_still_in_it(
    database: FaultyDatabase,
) -> None:
    """Nothing else is owed under its number; the rest of its receipts is in the next one."""
    parties = Parties()
    async with open_world(database) as world, couriered(world, parties):
        first = await receipt(world, 1)
        other = await receipt(world, 2, 1_900_000, 1_000_000)
        await close_batch(world)
        await until(lambda: rows(world) == 3 and not owed(world))
        totals = [leaf.receipt.total for leaf in world.log.leaves(0, 3) if leaf.receipt]
        world.chain.limit = totals[0]
        world.now += 10_000
        await world.settler._look()
        await until(lambda: rows(world) == 2 and not owed(world))
        await mine(world)
        world.chain.limit = 10**12
        await close_batch(world)
        await until(lambda: rows(world) == 4 and not owed(world))
    assert parties.sequences(first) == [1, 1]
    assert parties.sequences(other) == [1, 2]
    assert parties.sequences() == [1, 1, 2]


async def test_a_bounded_number_is_handed_over_at_a_time(database: FaultyDatabase) -> None:
    """Of what a party has not got, the newest."""
    parties = Parties()
    async with open_world(database) as world, couriered(world, parties) as courier:
        await receipt(world, 1)
        parties.away.add(THE_GATEWAY)
        await close_batch(world)
        with database.begin() as session:
            known = session.get_one(BatchRow, 1)
            for sequence in range(2, MOST_COPIES + 11):
                session.add(BatchRow(**(known.model_dump() | {"sequence": sequence})))
                session.add(
                    BatchCopyRow(
                        role=GATEWAY, party=GATEWAY_KEY.address, sequence=sequence, kept=False
                    )
                )
        parties.away.clear()
        courier.owe(THE_GATEWAY)
        await until(lambda: not courier._news)
        assert len(parties.got[THE_GATEWAY]) == MOST_COPIES
        assert owed(world)[THE_GATEWAY] == list(range(1, 11))


@pytest.mark.parametrize("fault", Fault)
async def test_a_note_that_failed_is_at_worst_handed_over_twice(
    database: FaultyDatabase, fault: Fault
) -> None:
    """The coordinator ends with the write; the next boot knows, or asks again."""

    async def fail_next() -> None:
        await trio.lowlevel.checkpoint()
        database.next_commit = fault

    known = ChainDouble()
    with pytest.RaisesGroup(StorageFailed, flatten_subgroups=True, allow_unwrapped=True):
        async with open_world(database, chain=known) as world:
            parties = Parties(away={THE_GATEWAY}, on_call=fail_next)
            await receipt(world, 1)
            await close_batch(world)
            await mine(world)
            async with couriered(world, parties) as courier:
                parties.away.clear()
                courier.owe(THE_GATEWAY)
                await trio.sleep_forever()
    assert parties.sequences() == [1]
    parties = Parties()
    async with (
        second_epoch(database, known) as world,
        couriered(world, parties) as courier,
    ):
        courier.owe(THE_GATEWAY)
        await until(lambda: not courier._news)
        assert THE_GATEWAY not in owed(world)
    assert parties.sequences() == ([1] if fault == Fault.NOT_PERSISTED else [])
