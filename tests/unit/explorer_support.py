"""A log for the explorer to read: the coordinator's own public server over a made-up network.

`served_log` starts nothing: requests go to the application in this process. `Tampered` stands
between the two and changes one resource, as a server that lies would.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from starlette.testclient import TestClient

from coordinator.bundler import Bundler
from coordinator.log import Leaf, Log
from coordinator.public import Face, create_app
from explorer.indexer.batches import BatchFollower
from explorer.indexer.history import History
from explorer.indexer.log_follower import LogFollower
from explorer.reading import Reader
from explorer.sources import HttpLog
from pinaivu.encoding import parse_json
from pinaivu.merkle.tiles import Tile
from pinaivu.messages import Checkpoint, Receipt
from pinaivu.store.coordinator import BatchRow, CheckpointRow, EpochRow, LeafRow
from pinaivu.store.database import Database, open_database
from pinaivu.testing.bundles import BundleFactory
from pinaivu.testing.ledger import Settled
from pinaivu.testing.parties import CARD, MODEL, EpochParty
from pinaivu.testing.scenarios import Scenario
from pinaivu.typed_data import Signed
from tests.unit.test_verify_bundler import _rows as evidence_rows
from tests.unit.verify_support import network

_numbers = count()


@contextmanager
def served_log(factory: BundleFactory, folder: Path) -> Iterator[HttpLog]:
    """The factory's log as it stands now, under a fresh checkpoint, behind the real routes."""
    factory.ledger.checkpoint(factory.epoch)
    url = f"sqlite:///{folder}/coordinator-{next(_numbers)}.db"
    database = open_database(url, "coordinator")
    log = _store(database, factory)
    card: Any = parse_json(CARD.to_json())
    face = Face(
        log=log,
        database=database,
        bundler=Bundler(log, database, {CARD.fingerprint: card}),
        addresses=list,
        active_epoch=lambda: factory.epoch.number,
        pending=lambda: None,
        market=lambda: {MODEL: 3},
        refused_offers=dict,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client = TestClient(create_app(face))
    try:
        yield HttpLog("http://testserver", client)  # type: ignore[arg-type]
    finally:
        client.close()
        database.close()


def _store(database: Database, factory: BundleFactory) -> Log:
    """Fill a coordinator's tables with the factory's network, also where its epoch has lied."""
    ledger, domain = factory.ledger, factory.domain
    log, jobs = Log(domain, factory.parties.log_id, recent_ms=0), set[bytes]()
    with database.begin() as session:
        for position, signed in enumerate(ledger.leaves):
            message, digest = signed.message, signed.digest(domain)
            log.commit(Leaf(signed, digest, 0), posted=True)
            row = LeafRow(
                position=position,
                kind=type(message).__name__,
                digest=digest,
                signed=signed.to_bytes(),
            )
            if isinstance(message, Receipt) and message.job_id not in jobs:
                row.gateway, row.job_id = message.gateway, message.job_id
                jobs.add(message.job_id)
            session.add(row)
        session.add_all(_epoch_row(epoch) for epoch in factory.epochs.values())
        session.add_all(_batch_row(settled) for settled in ledger.batches)
        checkpoint, note = ledger.checkpoints[-1]
        size, signed_checkpoint = checkpoint.message.size, checkpoint.to_bytes()
        session.add(CheckpointRow(size=size, note=note, checkpoint=signed_checkpoint, time_ms=0))
        kept = [served for served in factory.served if served.index < len(ledger.leaves)]
        for served in kept:
            session.add_all(evidence_rows(factory, served))
    return log


def _epoch_row(epoch: EpochParty) -> EpochRow:
    return EpochRow(
        number=epoch.number,
        signer=epoch.key.address,
        manifest=epoch.manifest.to_jcs().decode(),
        parameters=epoch.parameters.to_jcs().decode(),
        document=epoch.document,
    )


def _batch_row(settled: Settled) -> BatchRow:
    batch = settled.batch.message
    return BatchRow(
        sequence=batch.sequence,
        batch=settled.batch.to_bytes(),
        new_size=batch.new_size,
        state="final",
    )


class Tampered:
    """A log source that answers like another one, but for what a test puts in `lies`.

    Keys are a method's name, or a tile's path.
    """

    def __init__(self, honest: HttpLog, **lies: Any) -> None:
        self.honest = honest
        self.lies = lies
        self.asked: list[str] = []

    def tile(self, tile: Tile) -> bytes:
        """A lie under the tile's path, or the honest tile."""
        self.asked.append(tile.path)
        found: bytes = self.lies.get(tile.path, b"") or self.honest.tile(tile)
        return found

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Any other method: its lie (an error is raised, a function called), or the honest one."""

        def answer(*arguments: Any) -> Any:
            lie = self.lies.get(name)
            if isinstance(lie, Exception):
                raise lie
            if callable(lie):
                return lie(*arguments)
            return lie if lie is not None else getattr(self.honest, name)(*arguments)

        return answer


class Indexed:
    """An explorer's database over one made-up network, brought level by hand."""

    def __init__(self, folder: Path, factory: BundleFactory | None = None) -> None:
        self.folder = folder
        self.factory = factory or network()
        self.database: Database = open_database(f"sqlite:///{folder}/explorer.db", "explorer")
        self.reader = Reader(self.database)

    def history(self) -> History:
        """The history as the database has it."""
        return History(self.database, self.factory.domain, self.factory.parties.log_id)

    def serve(self, number: int = 1, scenario: Scenario | None = None) -> None:
        """Let the network serve requests."""
        for _ in range(number):
            self.factory.serve(scenario or Scenario())

    def fill(self, number: int) -> None:
        """Let the log grow by many receipts that follow from the books, without evidence."""
        factory = self.factory
        base, books = factory.serve(Scenario()).receipt.message, factory.ledger.books
        for _ in range(number - 1):
            payer = books.payer(base.payer).plus(base.total)
            (segment,) = base.segments
            node = books.node(segment.node).plus(segment.amount - segment.fee)
            receipt = replace(
                base,
                job_id=factory.random(16),
                payer_counter=payer.counter,
                payer_total=payer.total,
                grant_spent=books.spent(base.grant_digest) + base.total,
                grant_spent_day=books.spent_on_day(base.grant_digest, base.received_ms)
                + base.total,
                segments=(replace(segment, node_counter=node.counter, node_total=node.total),),
            )
            factory.ledger.append(Signed.by(factory.epoch.key, factory.domain, receipt))

    def catch_up(self, source: Any = None) -> Checkpoint:
        """Take in all of `source`, by default the network's log as it stands."""
        if source is None:
            with served_log(self.factory, self.folder) as honest:
                return self.catch_up(honest)
        history, more = self.history(), True
        while more:
            checkpoint, more = LogFollower(source, lambda: self.factory.chain).step(history)
        BatchFollower(source, self.database).step(history)
        assert checkpoint is not None
        return checkpoint
