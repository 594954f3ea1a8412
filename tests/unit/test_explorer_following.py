"""Batches recomputed, chain events kept and taken back, faults written down and lifted."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from explorer.indexer.batches import BatchFollower, BatchRefuted
from explorer.indexer.chain_follower import ChainFollower, load_cursor
from explorer.indexer.log_follower import LogFollower
from explorer.indexer.runner import Indexer
from explorer.reading import Reader, Settling
from explorer.sources import LogUnavailable
from pinaivu.chain.events import Advance, Cursor, Event, Rollback
from pinaivu.errors import TransportFailure
from pinaivu.keys import SecretKey
from pinaivu.messages import Batch
from pinaivu.testing.bundles import BundleFactory
from pinaivu.testing.ledger import Settled
from pinaivu.testing.sources import SteppingClock
from pinaivu.typed_data import Signed
from tests.unit.explorer_support import Indexed, Tampered, served_log

TX = b"\x0a" * 32


@pytest.fixture
def indexed(tmp_path: Path) -> Iterator[Indexed]:
    made = Indexed(tmp_path)
    yield made
    made.database.close()


class Script:
    """Chain steps that a test wrote down; an error among them is raised."""

    def __init__(self, *steps: Advance | Rollback | Exception) -> None:
        self.steps = list(steps)

    def poll(self) -> Advance | Rollback | None:
        """The next step."""
        if not self.steps:
            return None
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


def settled_event(factory: BundleFactory, settled: Settled, block: int) -> Event:
    """What the contract says when it settles a batch."""
    batch = settled.batch.message
    return Event(
        contract="Settlement",
        name="BatchSettled",
        arguments={
            "logId": batch.log_id,
            "sequence": batch.sequence,
            "prevSize": batch.prev_size,
            "newSize": batch.new_size,
            "newRoot": batch.new_root,
            "batchDigest": settled.batch.digest(factory.domain),
            "debited": 100,
            "fees": batch.fees,
        },
        block_number=block,
        block_hash=bytes(32),
        tx_hash=TX,
        log_index=0,
    )


def advance(block: int, *events: Event) -> Advance:
    return Advance(Cursor(block, bytes([block]) * 32), events)


def follow(indexed: Indexed, *steps: Advance | Rollback) -> None:
    log_id = indexed.factory.parties.log_id
    chain = ChainFollower(Script(*steps), lambda n: n * 1_000, indexed.database, log_id)
    while chain.step():
        pass


def test_honest_batches_hold(indexed: Indexed) -> None:
    for _ in range(2):
        indexed.serve(2)
        indexed.factory.settle()
    indexed.catch_up()
    rows = indexed.reader.batches()
    assert [(row.sequence, row.prev_size, row.new_size) for row in rows] == [(2, 3, 5), (1, 0, 3)]
    assert [row.trouble for row in rows] == ["", ""]


def _dearer(batch: Batch) -> Batch:
    return replace(batch, debits=batch.debits[:-1] + bytes((batch.debits[-1] ^ 1,)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_dearer, "the payers' debits: not what the receipts give"),
        (lambda b: replace(b, fees=b.fees + 1), "the fees: not what"),
        (lambda b: replace(b, credits=b""), "the nodes' credits: not what"),
        (lambda b: replace(b, new_root=bytes(32)), "its root: not what"),
        (lambda b: replace(b, statement_root=bytes(32)), "the statements: not what"),
        (lambda b: replace(b, parties=b.parties + 1), "the number of parties: not what"),
        (lambda b: replace(b, prev_size=1), "does not begin at leaf 0"),
        (lambda b: replace(b, log_id=bytes(32)), "it names another log"),
        (lambda b: replace(b, epoch=9), "epoch 9 does not hold"),
    ],
)
def test_a_batch_other_than_its_receipts_give_is_marked(
    indexed: Indexed, change: Callable[[Batch], Batch], said: str
) -> None:
    indexed.serve(2)
    factory = indexed.factory
    honest = factory.settle().batch.message
    signed = Signed.by(factory.epoch.key, factory.domain, change(honest))
    with served_log(factory, indexed.folder) as log:
        indexed.catch_up(
            Tampered(log, batches=lambda after: [] if after else [{"batch": signed.to_json()}])
        )
    assert said in indexed.reader.batches()[0].trouble


def test_a_batch_signed_by_another_key_is_marked(indexed: Indexed) -> None:
    indexed.serve(1)
    factory = indexed.factory
    stranger = SecretKey(b"\x05" * 32)
    batch = factory.settle().batch.message
    factory.ledger.batches[0] = Settled(
        batch=Signed.by(stranger, factory.domain, batch),
        netting=factory.ledger.batches[0].netting,
    )
    indexed.catch_up()
    assert "Batch is signed by" in indexed.reader.batches()[0].trouble


def test_a_list_of_batches_with_a_gap_is_refused(indexed: Indexed) -> None:
    for _ in range(2):
        indexed.serve(1)
        second = indexed.factory.settle().batch
    with served_log(indexed.factory, indexed.folder) as log:
        source = Tampered(log, batches=lambda _: [{"batch": second.to_json()}])
        with pytest.raises(BatchRefuted, match="batch 2 is listed after batch 0"):
            indexed.catch_up(source)


def test_a_batch_signed_anew_by_the_next_epoch_replaces_the_old_one(indexed: Indexed) -> None:
    """Nobody submitted the first; until the chain has settled its sequence it may change."""
    factory = indexed.factory
    indexed.serve(1)
    factory.settle()
    indexed.catch_up()
    (first,) = indexed.reader.batches()
    factory.start_epoch()
    factory.ledger.batches.clear()
    second = factory.settle()
    indexed.catch_up()
    (row,) = indexed.reader.batches()
    assert first.digest != row.digest == second.batch.digest(factory.domain)
    assert row.trouble == ""


def test_settled_leaves_are_counted_and_a_rollback_takes_them_back(indexed: Indexed) -> None:
    indexed.serve(2)
    settled = indexed.factory.settle()
    indexed.serve(1)
    indexed.catch_up()
    follow(indexed, advance(4), advance(5, settled_event(indexed.factory, settled, 5)))
    oldest = indexed.reader.receipts(limit=1)[0].row.closed_ms
    assert indexed.reader.settling() == Settling(3, 1, oldest)
    newest, older, _ = indexed.reader.receipts()
    assert newest.settlement is None
    assert older.settlement is not None
    assert (older.settlement.block_number, older.settlement.block_ms) == (5, 5_000)
    assert [event.name for event in indexed.reader.transaction(TX)] == ["BatchSettled"]
    follow(indexed, Rollback(Cursor(4, b"\x04" * 32)))
    assert indexed.reader.settling().waiting == 3
    assert indexed.reader.transaction(TX) == []
    assert load_cursor(indexed.database) == Cursor(4, b"\x04" * 32)
    follow(indexed, Rollback(None))
    assert load_cursor(indexed.database) is None


def test_another_logs_settlement_is_an_event_and_settles_nothing_here(indexed: Indexed) -> None:
    indexed.serve(1)
    indexed.catch_up()
    event = settled_event(indexed.factory, indexed.factory.settle(), 5)
    foreign = dict(event.arguments) | {"logId": b"\x01" * 32}
    changed = Event("Settlement", "BatchSettled", foreign, 5, bytes(32), TX, 0)
    follow(indexed, advance(5, changed))
    assert indexed.reader.settling().size == 0
    assert len(indexed.reader.transaction(TX)) == 1


class Looking:
    """An indexer over a log source that a test changes, and a chain that it scripts."""

    def __init__(self, indexed: Indexed, source: Any, script: Script) -> None:
        self.source, self.script = source, script
        log_id, database = indexed.factory.parties.log_id, indexed.database
        self.clock = SteppingClock()
        self.indexer = Indexer(
            database=database,
            log=LogFollower(source, lambda: indexed.factory.chain),
            batches=BatchFollower(source, database),
            load_history=indexed.history,
            follow_chain=lambda: ChainFollower(script, lambda n: n, database, log_id),
            now_ms=self.clock,
        )
        self.reader = Reader(database)

    def fault(self, task: str) -> tuple[str, bool]:
        """A task's fault as the pages see it."""
        row = self.reader.progress()[task]
        return row.fault, row.refuted


def test_a_silent_log_is_a_fault_that_its_answer_lifts(indexed: Indexed) -> None:
    """The chain is followed meanwhile; progress survives."""
    indexed.serve(2)
    with served_log(indexed.factory, indexed.folder) as log:
        looking = Looking(indexed, Tampered(log), Script(advance(7)))
        looking.source.lies["checkpoint"] = LogUnavailable("no answer")
        assert looking.indexer.step()
        assert looking.fault("log") == ("no answer", False)
        assert looking.fault("chain") == ("", False)
        del looking.source.lies["checkpoint"]
        looking.indexer.step()
        assert looking.fault("log") == ("", False)
    assert looking.reader.progress()["log"].position == 3


def test_a_log_that_lies_is_a_fault_called_refuted(indexed: Indexed) -> None:
    indexed.serve(2)
    with served_log(indexed.factory, indexed.folder) as log:
        looking = Looking(indexed, Tampered(log), Script())
        looking.indexer.step()
        looking.source.lies["checkpoint"] = "not a note"
        looking.indexer.step()
        fault, refuted = looking.fault("log")
    assert "a note is three lines" in fault
    assert refuted
    assert looking.reader.progress()["log"].position == 3


def test_a_chain_that_fails_in_mid_step_is_followed_from_the_last_durable_block(
    indexed: Indexed,
) -> None:
    script = Script(advance(3), TransportFailure("gone"), advance(4))
    looking = Looking(indexed, Tampered(None, checkpoint=LogUnavailable("x")), script)  # type: ignore[arg-type]
    for expected in ("", "gone", ""):
        looking.indexer.step()
        assert looking.fault("chain")[0] == expected
    assert load_cursor(indexed.database) == Cursor(4, b"\x04" * 32)
