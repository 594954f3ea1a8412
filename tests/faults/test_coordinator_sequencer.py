"""Nothing is released before it is durable; a boot reads what is there and goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from sqlmodel import Session, col, delete, select, update

from coordinator.archive import published_transcript
from coordinator.docket import OpenJob
from coordinator.errors import LogDiverged
from coordinator.ports import AnchorRecord
from pinaivu.auction.transcript import Row, book_root
from pinaivu.checkpoints import CheckpointKeys, verify_note
from pinaivu.codes import Outcome, Reason, Status
from pinaivu.encoding import from_hex
from pinaivu.messages import Award, Receipt
from pinaivu.p2p import wire
from pinaivu.store.coordinator import (
    AwardRow,
    CheckpointRow,
    EvidenceRow,
    JobRow,
    LeafRow,
    TranscriptRow,
)
from pinaivu.store.database import StorageFailed, open_database
from pinaivu.typed_data import Signed, signed_from_bytes
from tests.faults.storage import Fault, FaultyDatabase
from tests.unit.coordinator_world import ChainDouble, World, open_world, refusal_of
from tests.unit.ledger_support import (
    DOMAIN,
    EPOCH,
    GATEWAY,
    LOG,
    NODES,
    PAYER,
    delivery,
    failure,
    part,
    secret,
)

SECOND = secret(33)  # the next boot's key


@pytest.fixture
def database(tmp_path: Path) -> Iterator[FaultyDatabase]:
    opened = open_database(f"sqlite:///{tmp_path}/c.db", "coordinator")
    yield FaultyDatabase(opened)
    opened.close()


def stored_receipts(database: FaultyDatabase) -> list[Receipt]:
    query = select(LeafRow).where(LeafRow.kind == "Receipt").order_by(col(LeafRow.position))
    with database.read() as session:
        return [signed_from_bytes(Receipt, row.signed).message for row in session.exec(query)]


def filed_books(database: FaultyDatabase) -> list[list[Row]]:
    """The book of every stored transcript, as a stranger gets it; its rows give its root."""
    books = []
    with database.read() as session:
        for stored in session.exec(select(TranscriptRow)):
            document = published_transcript(session, stored)
            rows = [Row.from_bytes(from_hex(entry["row"])) for entry in document["rows"]]
            assert book_root(list(rows)) == stored.book_root
            books.append(rows)
    return books


async def receipted(world: World, number: int) -> Receipt:
    world.put_offers(1_000_000, 1_100_000)
    job = await world.served(number)
    await job.receipted.wait()
    assert job.receipt
    return job.receipt[0].message


def next_boot(database: FaultyDatabase, **more: object):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """A new epoch with its own key over the same store."""
    signers = {1: EPOCH.address, 2: SECOND.address}
    return open_world(database, epoch=2, key=SECOND, signers=signers, **more)


async def test_two_closes_are_one_receipt(database: FaultyDatabase) -> None:
    async with open_world(database) as world:
        world.put_offers(1_000_000, 1_100_000)
        job = await world.served()
        world.sequencer.close(job)
        world.sequencer.close(job)
        await job.receipted.wait()
        await world.writer.settled()
    assert len(stored_receipts(database)) == 1


async def test_counters_are_gapless_over_many_at_once(database: FaultyDatabase) -> None:
    """Twenty jobs closed together: counters 1 to 20, totals their running sums, in log order."""
    async with open_world(database) as world:
        world.put_offers(1_000_000, 1_100_000, slots=32)
        jobs = [await world.served(number) for number in range(1, 21)]
        for job in jobs:
            await job.receipted.wait()
    receipts = stored_receipts(database)
    assert [r.payer_counter for r in receipts] == list(range(1, 21))
    totals = [r.total for r in receipts]
    assert [r.payer_total for r in receipts] == [sum(totals[: n + 1]) for n in range(20)]
    by_node = [r.segments[0] for r in receipts if r.segments[0].node == NODES[0].address]
    assert [s.node_counter for s in by_node] == list(range(1, len(by_node) + 1))


@pytest.mark.parametrize("fault", Fault)
async def test_a_failed_receipt_is_not_released(database: FaultyDatabase, fault: Fault) -> None:
    """The coordinator ends; the next epoch writes the receipt, or finds it, and exactly one."""
    job: OpenJob | None = None
    with pytest.RaisesGroup(StorageFailed, flatten_subgroups=True, allow_unwrapped=True):
        async with open_world(database) as world:
            world.put_offers(1_000_000, 1_100_000)
            award = (await world.awarded()).message
            (job,) = world.docket.jobs.values()
            done = world.completion_of(award)
            await world.evidence.completion(done)
            said = delivery(part(award, done.message), of=job.job.message)
            await world.evidence._keep(job.job_digest, Signed.by(GATEWAY, DOMAIN, said))
            job.delivery = Signed.by(GATEWAY, DOMAIN, said)
            database.next_commit = fault
            world.sequencer.close(job)
            await trio.sleep_forever()
    assert job
    assert job.receipt is None
    assert len(stored_receipts(database)) == (1 if fault == Fault.PERSISTED else 0)

    async with next_boot(database) as world:
        for left in list(world.docket.jobs.values()):
            world.sequencer.close(left)
            await left.receipted.wait()
    (receipt,) = stored_receipts(database)
    assert receipt.epoch == (1 if fault == Fault.PERSISTED else 2)
    assert receipt.total > 0


@pytest.mark.parametrize("fault", Fault)
async def test_a_failed_award_is_not_released(database: FaultyDatabase, fault: Fault) -> None:
    """No answer leaves; what was persisted is closed by the next epoch, and nothing else is."""
    with pytest.RaisesGroup(StorageFailed, flatten_subgroups=True, allow_unwrapped=True):
        async with open_world(database) as world:
            world.put_offers(1_000_000, 1_100_000)
            database.next_commit = fault
            await world.submit()
    async with next_boot(database) as world:
        open_now = list(world.docket.jobs.values())
        assert len(open_now) == (1 if fault == Fault.PERSISTED else 0)
        world.put_offers(1_000_000, 1_100_000)
        if fault == Fault.NOT_PERSISTED:
            assert isinstance(await world.submit(), wire.Awarded)


@pytest.mark.parametrize("fault", Fault)
async def test_an_award_and_its_book_are_durable_together(
    database: FaultyDatabase, fault: Fault
) -> None:
    """Whatever becomes of the second award's commit, each stored transcript's book is there."""
    with pytest.RaisesGroup(StorageFailed, flatten_subgroups=True, allow_unwrapped=True):
        async with open_world(database) as world:
            world.put_offers(1_000_000, 1_100_000)
            await world.awarded(1)
            database.next_commit = fault
            await world.awarded(2)
    assert len(filed_books(database)) == (2 if fault == Fault.PERSISTED else 1)
    async with next_boot(database) as world:
        world.put_offers(1_200_000, 1_100_000, slots=8)
        await world.awarded(3)
    books = filed_books(database)
    assert all(len(rows) == 2 for rows in books)
    assert len(books) == (3 if fault == Fault.PERSISTED else 2)


@pytest.mark.parametrize("fault", Fault)
async def test_failed_evidence_is_not_acknowledged(database: FaultyDatabase, fault: Fault) -> None:
    """The node isn't told Done and repeats it; the next epoch takes it either way."""
    award: Award | None = None
    with pytest.RaisesGroup(StorageFailed, flatten_subgroups=True, allow_unwrapped=True):
        async with open_world(database) as world:
            world.put_offers(1_000_000, 1_100_000)
            award = (await world.awarded()).message
            database.next_commit = fault
            await world.evidence.completion(world.completion_of(award))
    assert award
    async with next_boot(database) as world:
        await world.evidence.completion(world.completion_of(award))
        (job,) = world.docket.jobs.values()
        assert job.awards[0].completion


@pytest.mark.parametrize("prices", [(1_000_000, 1_100_000), ()], ids=["awarded", "unserved"])
async def test_a_job_delivered_during_its_auction_is_receipted_after_it(
    database: FaultyDatabase, prices: tuple[int, ...]
) -> None:
    """Once, and no receipt before the job itself: no coordinator could boot from that."""
    auctioning, go_on = trio.Event(), trio.Event()

    async def slow() -> int:
        auctioning.set()
        await go_on.wait()
        return 7

    async with open_world(database) as world, trio.open_nursery() as nursery:
        world.put_offers(*prices)
        world.directory.block_number = slow  # type: ignore[method-assign]
        nursery.start_soon(world.submit)
        await auctioning.wait()
        (job,) = world.docket.jobs.values()
        nothing = delivery(of=job.job.message, outcome=Outcome.FAILED)
        early = Signed.by(GATEWAY, DOMAIN, nothing)
        assert await refusal_of(world.evidence.delivery(GATEWAY.address, early)) == "in_progress"
        assert stored_receipts(database) == []
        go_on.set()
    async with next_boot(database) as world:
        (job,) = world.docket.jobs.values()
        assert len(job.awards) == len(prices[:1])
        world.sequencer.close(job)
        await job.receipted.wait()
    assert len(stored_receipts(database)) == 1
    async with next_boot(database) as world:
        assert world.docket.jobs == {}


async def test_a_receipt_of_a_job_that_is_not_stored_is_not_released(
    database: FaultyDatabase,
) -> None:
    job: OpenJob | None = None
    with pytest.RaisesGroup(LogDiverged, flatten_subgroups=True, allow_unwrapped=True):
        async with open_world(database) as world:
            world.put_offers(1_000_000, 1_100_000)
            await world.awarded()
            (job,) = world.docket.jobs.values()
            with database.begin() as session:
                session.exec(delete(JobRow))
            world.sequencer.close(job)
            await job.receipted.wait()
    assert job
    assert job.receipt is None
    assert stored_receipts(database) == []


async def test_an_open_job_survives_a_boot(database: FaultyDatabase) -> None:
    """With all its evidence and passed-over nodes; no further rank, delivery and pay as usual."""
    async with open_world(database) as world:
        world.put_offers(1_000_000, 1_100_000, 1_200_000)
        first = await world.awarded()
        world.reachable.discard(NODES[1].address)
        said = Signed.by(GATEWAY, DOMAIN, failure(first.message, acks=0, end_byte=0))
        job, failed = await world.evidence.failure(GATEWAY.address, said)
        answer = await world.desk.award_next(job, failed)
        assert isinstance(answer, wire.Awarded)
        second = signed_from_bytes(Award, answer.award).message
        line = [type(entry).__name__ for entry in job.line]
    assert second.node == NODES[2].address

    async with next_boot(database) as world:
        (job,) = world.docket.jobs.values()
        assert [type(entry).__name__ for entry in job.line] == line
        assert job.awards[0].failure == said
        assert world.docket.reserved(PAYER.address) == job.reserve_units > 0
        refused = world.desk.award_next(job, job.awards[1])
        with pytest.raises(Exception, match="epoch has ended"):
            await refused
        done = world.completion_of(second)
        await world.evidence.completion(done)
        parts = (part(first.message, result=Reason.STREAM_BROKEN), part(second, done.message))
        await world.evidence.delivery(
            GATEWAY.address, Signed.by(GATEWAY, DOMAIN, delivery(*parts, of=job.job.message))
        )
        world.sequencer.close(job)
        await job.receipted.wait()
    (receipt,) = stored_receipts(database)
    assert (receipt.status, receipt.epoch) == (Status.COMPLETED, 2)
    assert [s.result for s in receipt.segments] == [
        Reason.STREAM_BROKEN,
        Reason.PASSED_OVER,
        Reason.NONE,
    ]


async def test_a_boot_goes_on_with_the_counters(database: FaultyDatabase) -> None:
    async with open_world(database) as world:
        await receipted(world, 1)
    async with next_boot(database) as world:
        second = await receipted(world, 2)
        assert world.log.epoch_starts == {1: 0, 2: 2}
    assert (second.payer_counter, second.epoch) == (2, 2)


async def test_a_checkpoint_covers_durable_leaves_only(database: FaultyDatabase) -> None:
    async with open_world(database) as world:
        await receipted(world, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.sequencer.checkpoint)
            while not (rows := await world.writer.read(_checkpoints)):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        keys: CheckpointKeys = world.sequencer._checkpoints.keys
        checkpoint = verify_note(rows[0].note, DOMAIN, LOG, keys).message
        assert (checkpoint.size, checkpoint.root) == (2, world.log.tree.root(2))


def _checkpoints(session: Session) -> list[CheckpointRow]:
    return list(session.exec(select(CheckpointRow)))


# What a hostile host does to the database


async def _two_receipts(database: FaultyDatabase) -> AnchorRecord:
    async with open_world(database) as world:
        await receipted(world, 1)
        await receipted(world, 2)
        return AnchorRecord(1, world.log.size, world.log.tree.root(), bytes(32))


async def _refuses(database: FaultyDatabase, match: str, **more: object) -> None:
    with pytest.RaisesGroup(
        pytest.RaisesExc(LogDiverged, match=match), flatten_subgroups=True, allow_unwrapped=True
    ):
        async with next_boot(database, **more):
            pytest.fail("it serves")


async def test_a_shortened_log_is_not_served(database: FaultyDatabase) -> None:
    """The chain has anchored more than the database holds."""
    anchor = await _two_receipts(database)
    with database.begin() as session:
        session.exec(delete(LeafRow).where(col(LeafRow.position) == 2))
    await _refuses(database, "has anchored 3 leaves", chain=ChainDouble(newest=anchor))


async def test_a_hole_in_the_log_is_not_served(database: FaultyDatabase) -> None:
    """Its counters don't follow."""
    await _two_receipts(database)
    with database.begin() as session:
        session.exec(delete(LeafRow).where(col(LeafRow.position) == 1))
    await _refuses(database, "leaf 1 of the stored log")


async def test_a_rewritten_tail_is_not_served(database: FaultyDatabase) -> None:
    """Same length, signed by the same key, other than what was anchored."""
    anchor = await _two_receipts(database)
    other = AnchorRecord(1, anchor.size, b"\x01" * 32, bytes(32))
    await _refuses(database, "not the ones anchored", chain=ChainDouble(newest=other))


@pytest.mark.parametrize("column", ["digest", "signed"])
async def test_a_changed_leaf_is_not_served(database: FaultyDatabase, column: str) -> None:
    await _two_receipts(database)
    with database.begin() as session:
        leaf = session.get_one(LeafRow, 1)
        raw = bytearray(getattr(leaf, column))
        raw[-20] ^= 1
        setattr(leaf, column, bytes(raw))
    await _refuses(database, "leaf 1 of the stored log")


async def test_a_leaf_of_a_key_the_chain_does_not_know_is_not_served(
    database: FaultyDatabase,
) -> None:
    """A host that re-signs the history with a key of its own gets nowhere."""
    await _two_receipts(database)
    with pytest.RaisesGroup(LogDiverged, flatten_subgroups=True, allow_unwrapped=True):
        async with open_world(database, epoch=2, key=SECOND, signers={1: secret(99).address}):
            pytest.fail("it serves")


@pytest.mark.parametrize("what", ["award", "grant", "transcript", "completion", "missing"])
async def test_false_evidence_of_an_open_job_is_not_signed(
    database: FaultyDatabase, what: str
) -> None:
    """What lay with the host is checked again before a receipt is made of it."""
    async with open_world(database) as world:
        world.put_offers(1_000_000, 1_100_000)
        award = (await world.awarded()).message
        await world.evidence.completion(world.completion_of(award))
    with database.begin() as session:
        _falsify(session, what, award)
    await _refuses(database, "stored job")


def _falsify(session: Session, what: str, award: Award) -> None:
    if what == "award":
        dearer = Signed.by(secret(99), DOMAIN, award)
        session.exec(update(AwardRow).values(award=dearer.to_bytes()))
    elif what == "grant":
        row = session.exec(select(JobRow)).one()
        row.grant = row.grant[:-1] + bytes((row.grant[-1] ^ 7,))
    elif what == "transcript":
        document = session.exec(select(TranscriptRow)).one()
        header = document.document.index('"header":"0x') + 12
        document.document = (
            document.document[: header + 600] + "ff" + document.document[header + 602 :]
        )
    elif what == "completion":
        row_ = session.exec(select(EvidenceRow)).one()
        row_.signed = row_.signed[:-2] + bytes((row_.signed[-2] ^ 1, row_.signed[-1]))
    else:
        session.exec(delete(TranscriptRow))
