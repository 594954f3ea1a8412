"""A log for the explorer to read: the coordinator's own public server over a made-up network.

`served_log` starts nothing: requests go to the application in this process. `Tampered` stands
between the two and changes one resource, as a server that lies would.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

from starlette.testclient import TestClient

from coordinator.bundler import Bundler
from coordinator.public import Face, create_app
from explorer.indexer.batches import BatchFollower
from explorer.indexer.history import History
from explorer.indexer.log_follower import LogFollower
from explorer.reading import Reader
from explorer.sources import HttpLog
from pinaivu.encoding import parse_json
from pinaivu.merkle.tiles import Tile
from pinaivu.messages import Checkpoint
from pinaivu.store.database import Database, open_database
from pinaivu.testing.bundles import BundleFactory
from pinaivu.testing.parties import CARD, MODEL
from pinaivu.testing.scenarios import Scenario
from tests.unit.test_verify_bundler import store
from tests.unit.verify_support import network

_numbers = count()


@contextmanager
def served_log(factory: BundleFactory, folder: Path) -> Iterator[HttpLog]:
    """The factory's log as it stands now, under a fresh checkpoint, behind the real routes."""
    factory.ledger.checkpoint(factory.epoch)
    url = f"sqlite:///{folder}/coordinator-{next(_numbers)}.db"
    database = open_database(url, "coordinator")
    log = store(database, factory)
    card: Any = parse_json(CARD.to_json())
    face = Face(
        log=log,
        database=database,
        bundler=Bundler(log, database, {CARD.fingerprint: card}),
        addresses=list,
        active_epoch=lambda: factory.epoch.number,
        pending=lambda: None,
        market=lambda: {MODEL: 3},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client = TestClient(create_app(face))
    try:
        yield HttpLog("http://testserver", client)  # type: ignore[arg-type]
    finally:
        client.close()
        database.close()


class Tampered:
    """A log source that answers like another one, but for what a test puts in `lies`.

    Keys are a method's name, or a tile's path.
    """

    def __init__(self, honest: HttpLog, **lies: Any) -> None:
        self.honest = honest
        self.lies = lies
        self.asked: list[str] = []

    def tile(self, tile: Tile) -> bytes:
        self.asked.append(tile.path)
        found: bytes = self.lies.get(tile.path, b"") or self.honest.tile(tile)
        return found

    def checkpoint(self) -> str:
        return self._answer("checkpoint")  # type: ignore[no-any-return]

    def epochs(self) -> list[dict[str, Any]]:
        return self._answer("epochs")  # type: ignore[no-any-return]

    def batches(self, after: int) -> list[dict[str, Any]]:
        return self._answer("batches", after)  # type: ignore[no-any-return]

    def receipts(self, request_id: UUID) -> list[dict[str, Any]]:
        return self._answer("receipts", request_id)  # type: ignore[no-any-return]

    def bundle(self, gateway: bytes, request_id: UUID) -> bytes:
        return self._answer("bundle", gateway, request_id)  # type: ignore[no-any-return]

    def market(self) -> dict[str, int]:
        return self._answer("market")  # type: ignore[no-any-return]

    def _answer(self, name: str, *arguments: Any) -> Any:
        lie = self.lies.get(name)
        if isinstance(lie, Exception):
            raise lie
        return lie if lie is not None else getattr(self.honest, name)(*arguments)


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
