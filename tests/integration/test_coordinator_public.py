"""The log's public server over a real store and tree: what is there, and what isn't yet."""

from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx
import pytest
import trio

from coordinator.bundler import Bundler
from coordinator.errors import JobRefused
from coordinator.public import Face, create_app
from pinaivu.auction.replay import MOST_ROWS_INSIDE, read_transcript
from pinaivu.auction.transcript import Header, Row, book_root
from pinaivu.bundles import unpack
from pinaivu.checkpoints import parse_note
from pinaivu.encoding import from_hex, to_hex
from pinaivu.merkle.hashing import leaf_hash
from pinaivu.merkle.tiles import read_entry_bundle, read_hash_tile
from pinaivu.messages import Receipt
from pinaivu.store.coordinator import EpochRow
from pinaivu.store.database import open_database
from pinaivu.typed_data import signed_from_json
from tests.unit.coordinator_world import (
    MODEL_RECORD,
    World,
    node_record,
    open_world,
    signed_offer,
)
from tests.unit.ledger_support import (
    DOMAIN,
    EPOCH,
    GATEWAY,
    MODEL,
    NODES,
    grant,
    job,
    job_id,
    secret,
)

RID = str(UUID(bytes=job_id(1)))


@dataclass
class Place:
    """A world and an HTTP client of its public face."""

    world: World
    http: httpx.AsyncClient

    async def receipted(self, number: int = 1) -> Receipt:
        """A served, receipted job."""
        self.world.put_offers(1_000_000, 1_100_000)
        job = await self.world.served(number)
        await job.receipted.wait()
        assert job.receipt
        return job.receipt[0].message

    async def checkpointed(self) -> None:
        """A checkpoint of all leaves there are."""
        size = self.world.log.size
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.world.sequencer.checkpoint)
            while not await self._covers(size):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    async def _covers(self, size: int) -> bool:
        answer = await self.http.get("/checkpoint")
        return answer.is_success and parse_note(answer.text).size == size


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place, None]:
    database = open_database(f"sqlite:///{tmp_path}/c.db", "coordinator")
    async with open_world(database) as world:
        identity = EpochRow(
            number=1, signer=EPOCH.address, manifest="{}", parameters="{}", document=b"d"
        )
        await world.writer.write(lambda session: session.add(identity))
        face = Face(
            log=world.log,
            database=database,
            bundler=Bundler(world.log, database, {}),
            addresses=lambda: ["/ip4/127.0.0.1/tcp/1"],
            active_epoch=lambda: 1,
            pending=lambda: None,
            market=lambda: world.book.models(world.now),
            live_offers=lambda model: world.book.live(model, world.now),
            refused_offers=lambda: dict(world.book.refused),
        )
        transport = httpx.ASGITransport(create_app(face))
        async with httpx.AsyncClient(transport=transport, base_url="http://log") as http:
            yield Place(world, http)
    database.close()


async def test_before_the_first_checkpoint(place: Place) -> None:
    """A receipt is found at once; a bundle needs a checkpoint over it."""
    assert (await place.http.get("/checkpoint")).status_code == 404
    assert (await place.http.get(f"/receipts/{RID}")).status_code == 404
    receipt = await place.receipted()
    (found,) = (await place.http.get(f"/receipts/{RID}")).json()["receipts"]
    assert signed_from_json(Receipt, found["receipt"]).message == receipt
    assert (found["index"], found["settlement"]) == (1, {"state": "logged"})
    bundle = f"/bundles/{to_hex(GATEWAY.address)}/{RID}"
    assert (await place.http.get(bundle)).status_code == 404
    await place.checkpointed()
    document = unpack((await place.http.get(bundle)).content)
    assert document["log"]["index"] == 1
    assert "batch" not in document
    assert "holder" not in document


async def test_tiles_are_the_tree_and_never_change(place: Place) -> None:
    await place.receipted()
    entries = await place.http.get("/tile/entries/000.p/2")
    digests = read_entry_bundle(entries.content, 2)
    hashes = read_hash_tile((await place.http.get("/tile/0/000.p/2")).content, 2)
    assert hashes == [leaf_hash(digest) for digest in digests]
    assert hashes == place.world.log.tree.hashes(0, 0, 2)
    lines = (await place.http.get("/tile/receipts/000.p/2")).text.splitlines()
    assert ["EpochStart" in lines[0], "Receipt" in lines[1]] == [True, True]
    assert "immutable" in entries.headers["cache-control"]
    await place.receipted(2)
    assert (await place.http.get("/tile/entries/000.p/2")).content == entries.content


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/tile/0/000.p/3", 404),
        ("/tile/0/000", 404),
        ("/tile/0/001", 404),
        ("/tile/9/../../x", 404),
        ("/tile/entries/x", 404),
        ("/receipts/no-uuid", 400),
        (f"/bundles/0x12/{RID}", 400),
        (f"/bundles/{to_hex(GATEWAY.address)}/no-uuid", 400),
        (f"/bundles/{to_hex(GATEWAY.address)}/{UUID(int=5)}", 404),
    ],
)
async def test_what_is_not_there(place: Place, path: str, status: int) -> None:
    await place.receipted()
    await place.checkpointed()
    assert (await place.http.get(path)).status_code == status


async def test_batches_and_what_their_submission_needs(place: Place) -> None:
    """Each with its consistency proof; `after` pages on; the receipt says how far it is."""
    await place.receipted()
    place.world.now += place.world.rules.batch_age_ms
    await place.world.settler._look()
    (batch,) = (await place.http.get("/batches")).json()["batches"]
    assert (batch["state"], batch["consistency"]) == ("batched", [])
    assert (await place.http.get("/batches?after=1")).json() == {"batches": []}
    (found,) = (await place.http.get(f"/receipts/{RID}")).json()["receipts"]
    assert found["settlement"] == {"state": "batched", "sequence": 1}
    await place.checkpointed()
    raw = (await place.http.get(f"/bundles/{to_hex(GATEWAY.address)}/{RID}")).content
    assert unpack(raw)["batch"]["batch"] == batch["batch"]


async def test_a_book_is_found_by_its_root(place: Place) -> None:
    """What the transcript's header commits to: its rows hash to the root they are asked by."""
    await place.receipted()
    (transcript,) = (await place.http.get(f"/transcripts/{RID}")).json()["transcripts"]
    header = Header.from_bytes(from_hex(transcript["header"]))
    found = await place.http.get(f"/books/{to_hex(header.book_root)}")
    assert found.json() == {"rows": transcript["rows"]}
    rows = [Row.from_bytes(from_hex(entry["row"])) for entry in found.json()["rows"]]
    assert book_root(list(rows)) == header.book_root
    assert (await place.http.get(f"/books/{to_hex(bytes(32))}")).status_code == 404
    assert (await place.http.get("/books/0x12")).status_code == 400


async def crowd(place: Place, nodes: int) -> None:
    """So many nodes, and a receipted job that the first of them won."""
    world = place.world
    for key in [NODES[0], *map(secret, range(1000, 1000 + nodes - 1))]:
        made = signed_offer(key, 1_000_000 if key is NODES[0] else 2_000_000)
        world.book.put(made, node_record(key), MODEL_RECORD, world.now)
    done = await world.served()
    await done.receipted.wait()
    await place.checkpointed()


@pytest.mark.parametrize("nodes", [MOST_ROWS_INSIDE, MOST_ROWS_INSIDE + 1])
async def test_a_large_book_stands_apart_from_its_transcripts(place: Place, nodes: int) -> None:
    """Up to 256 rows stand in transcript and bundle; a larger book is asked for by its root."""
    await crowd(place, nodes)
    (transcript,) = (await place.http.get(f"/transcripts/{RID}")).json()["transcripts"]
    header = Header.from_bytes(from_hex(transcript["header"]))
    packed = (await place.http.get(f"/bundles/{to_hex(GATEWAY.address)}/{RID}")).content
    assert unpack(packed)["transcript"] == transcript
    assert ("rows" in transcript) == (nodes <= MOST_ROWS_INSIDE)
    found = await place.http.get(f"/books/{to_hex(header.book_root)}")
    assert "immutable" in found.headers["cache-control"]
    whole = transcript | found.json()
    replay, market = read_transcript(whole, DOMAIN, job(), grant(), place.world.rules)
    assert (header.eligible, len(replay.entrants)) == (nodes, nodes)
    cleared = replay.clear(market, frozenset())
    assert cleared
    assert cleared.entrant.row.node == NODES[0].address


async def test_transcript_market_and_attestation(place: Place) -> None:
    """No keys needed for any of it."""
    receipt = await place.receipted()
    (transcript,) = (await place.http.get(f"/transcripts/{RID}")).json()["transcripts"]
    assert transcript["header"].startswith("0x0101")
    with suppress(JobRefused):
        place.world.put_offers(10**6, tps_milli=0)
    assert (await place.http.get("/market")).json() == {
        "models": {MODEL: 2},
        "refused_offers": {"no_speed": 1},
    }
    found = (await place.http.get(f"/market/{MODEL}")).json()
    assert (found["model"], found["nodes"]) == (MODEL, 2)
    assert (await place.http.get("/market/other")).status_code == 404
    said = (await place.http.get("/attestation")).json()
    assert (said["active"], said["pending"]) == (1, None)
    assert said["epochs"][0]["signer"] == to_hex(EPOCH.address)
    assert receipt.log_id == place.world.log.log_id
    assert place.world.log.domain == DOMAIN
