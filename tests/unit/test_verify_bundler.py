"""What a coordinator packs from its database is, byte for byte, what the factory makes."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from coordinator.bundler import Bundler
from coordinator.log import Leaf, Log
from pinaivu.encoding import from_hex, parse_json
from pinaivu.messages import Offer, Receipt
from pinaivu.store.coordinator import (
    AwardRow,
    BatchRow,
    BookRow,
    CheckpointRow,
    EpochRow,
    EvidenceRow,
    JobRow,
    LeafRow,
    TranscriptRow,
)
from pinaivu.store.database import Database, open_database
from pinaivu.testing.bundles import BundleFactory, Served
from pinaivu.testing.parties import CARD
from pinaivu.testing.scenarios import SCENARIOS
from pinaivu.typed_data import signed_from_json
from tests.unit.verify_support import network


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path}/coordinator.db", "coordinator")
    yield opened
    opened.close()


def store(database: Database, factory: BundleFactory) -> Log:
    """Fill a coordinator's tables, and its log in memory, with the factory's network."""
    log = Log(factory.domain, factory.parties.log_id, recent_ms=0)
    with database.begin() as session:
        for index, signed in enumerate(factory.ledger.leaves):
            digest, message = signed.digest(factory.domain), signed.message
            log.commit(Leaf(signed, digest, 0))
            job = (message.gateway, message.job_id) if isinstance(message, Receipt) else (None,) * 2
            session.add(
                LeafRow(
                    position=index,
                    kind=type(message).__name__,
                    digest=digest,
                    signed=signed.to_bytes(),
                    gateway=job[0],
                    job_id=job[1],
                )
            )
        for number, epoch in factory.epochs.items():
            session.add(
                EpochRow(
                    number=number,
                    signer=epoch.key.address,
                    manifest=epoch.manifest.to_jcs().decode(),
                    parameters=epoch.parameters.to_jcs().decode(),
                    document=epoch.document,
                )
            )
        for settled in factory.ledger.batches:
            batch = settled.batch.message
            session.add(
                BatchRow(
                    sequence=batch.sequence,
                    batch=settled.batch.to_bytes(),
                    new_size=batch.new_size,
                    state="final",
                )
            )
        checkpoint, note = factory.ledger.checkpoints[-1]
        session.add(
            CheckpointRow(
                size=checkpoint.message.size, note=note, checkpoint=checkpoint.to_bytes(), time_ms=0
            )
        )
        for served in factory.served:
            session.add_all(_rows(factory, served))
    return log


def _rows(factory: BundleFactory, served: Served) -> Iterator[object]:
    domain, receipt = factory.domain, served.receipt.message
    yield JobRow(
        gateway=receipt.gateway,
        job_id=receipt.job_id,
        job=served.request.job.to_bytes(),
        grant=factory.parties.grant.to_bytes(),
        nonce=receipt.nonce,
        bids_root=receipt.bids_root,
        received_ms=receipt.received_ms,
        closed=True,
    )
    header, rows = served.auction.header, served.auction.rows
    changes = [
        (
            entry["slot"],
            from_hex(entry["row"]),
            signed_from_json(Offer, entry["offer"]).to_bytes(),
        )
        for entry in rows
    ]
    yield BookRow(
        position=served.index,
        base=served.index,
        root=header.book_root,
        changes=msgspec.msgpack.encode(changes),
    )
    yield TranscriptRow(bids_root=receipt.bids_root, document=json.dumps(served.auction.document))
    evidence = [("Delivery", receipt.job_digest, served.service.delivery)]
    for leg in served.service.legs:
        digest = leg.award.digest(domain)
        yield AwardRow(
            digest=digest,
            gateway=receipt.gateway,
            job_id=receipt.job_id,
            rank=leg.award.message.rank,
            award=leg.award.to_bytes(),
        )
        evidence += [("Failure", digest, leg.failure), ("Completion", digest, leg.completion)]  # type: ignore[list-item]
    for kind, about, signed in evidence:
        if signed:
            yield EvidenceRow(kind=kind, about=about, signed=signed.to_bytes(), arrived_ms=0)


def test_a_coordinators_bundles_are_the_factorys(database: Database) -> None:
    factory = network()
    for number, scenario in enumerate(SCENARIOS.values()):
        factory.serve(scenario)
        if number == 5:
            factory.settle()
        if number == 8:
            factory.start_epoch()
    factory.ledger.checkpoint(factory.epoch)
    log = store(database, factory)
    bundler = Bundler(log, database, {CARD.fingerprint: parse_json(CARD.to_json())})  # type: ignore[dict-item]
    factory.ledger.checkpoint = lambda _: factory.ledger.checkpoints[-1]  # type: ignore[method-assign,assignment]
    for served in factory.served:
        receipt = served.receipt.message
        packed = bundler.bundle(receipt.gateway, receipt.job_id)
        assert packed == factory.bundle(served).raw
