"""Taking in a log: every leaf under a signed root, and what does not hold said in words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from explorer.indexer.log_follower import LogRefuted
from explorer.indexer.prefix import Prefix, split_size
from pinaivu.checkpoints import CheckpointSigner
from pinaivu.errors import InvalidEncoding
from pinaivu.keys import BadSignature, SecretKey
from pinaivu.merkle.hashing import EMPTY_ROOT, leaf_hash, root_of_leaves
from pinaivu.merkle.tiles import Tile
from pinaivu.messages import Checkpoint, Receipt
from pinaivu.testing.ledger import Ledger
from pinaivu.testing.lies import Lies
from pinaivu.testing.scenarios import SCENARIOS, Scenario
from pinaivu.typed_data import Signed
from tests.unit.explorer_support import Indexed, Tampered, served_log


@pytest.fixture
def indexed(tmp_path: Path) -> Iterator[Indexed]:
    made = Indexed(tmp_path)
    yield made
    made.database.close()


def test_every_kind_of_request_is_taken_in_and_holds(indexed: Indexed) -> None:
    """Over two epochs; totals are the ledger's, and no row carries a trouble."""
    for number, scenario in enumerate(SCENARIOS.values()):
        if number == 7:
            indexed.factory.start_epoch()
        indexed.serve(1, scenario)
    indexed.catch_up()
    books, totals = indexed.factory.ledger.books, indexed.reader.totals()
    assert totals.receipts == len(SCENARIOS)
    assert totals.troubles == 0
    payer = indexed.factory.parties.payer.address
    assert int(totals.charged) == books.payer(payer).total
    for node, running in books.nodes.items():
        row = indexed.reader.running("node", node)
        assert row is not None
        assert (row.counter, int(row.total), row.troubles) == (running.counter, running.total, 0)
    assert [epoch.first_position for epoch in indexed.reader.epochs()] == [0, 8]


def test_a_log_that_grows_over_tile_borders_is_followed(indexed: Indexed) -> None:
    """Root and size are the log's after each look, also with a history loaded anew."""
    for grown in (3, 250, 4, 260):
        indexed.fill(grown)
        checkpoint = indexed.catch_up()
        history = indexed.history()
        assert history.size == len(indexed.factory.ledger.tree) == checkpoint.size
        assert history.prefix.root() == indexed.factory.ledger.tree.root()
    assert history.prefix.tiles == 2
    for size in (0, 1, 255, 256, 257, 512, history.size):
        assert history.root_at(size) == indexed.factory.ledger.tree.root(size)


def test_only_new_tiles_are_asked_for(indexed: Indexed) -> None:
    indexed.fill(300)
    indexed.catch_up()
    indexed.serve(1)
    with served_log(indexed.factory, indexed.folder) as honest:
        source = Tampered(honest)
        indexed.catch_up(source)
    assert source.asked == [Tile(0, 1, 46).path, Tile("receipts", 1, 46).path]


def test_receipts_other_than_the_signed_ones_are_not_taken(indexed: Indexed) -> None:
    """A changed receipt in a bundle does not give the tile's hashes."""
    indexed.serve(2)
    with served_log(indexed.factory, indexed.folder) as honest:
        tile = Tile("receipts", 0, 3)
        changed = honest.tile(tile).replace(b'"status":1', b'"status":2', 1)
        source = Tampered(honest, **{tile.path: changed})
        with pytest.raises(LogRefuted, match="not those of its hashes"):
            indexed.catch_up(source)
    assert indexed.history().size == 0


def test_a_full_tiles_receipts_are_held_to_its_hash(indexed: Indexed) -> None:
    """The tile before the open one; nothing of it is taken."""
    indexed.fill(300)
    with served_log(indexed.factory, indexed.folder) as honest:
        tile = Tile("receipts", 0)
        changed = honest.tile(tile).replace(b'"status":1', b'"status":2', 1)
        with pytest.raises(LogRefuted, match=r"not those of its hash$"):
            indexed.catch_up(Tampered(honest, **{tile.path: changed}))
    assert indexed.history().size == 0


def test_tiles_that_do_not_give_the_signed_root_are_refused(indexed: Indexed) -> None:
    indexed.serve(2)
    with served_log(indexed.factory, indexed.folder) as honest:
        source = Tampered(honest, **{Tile(0, 0, 3).path: bytes(96)})
        with pytest.raises(LogRefuted, match="don't give the root"):
            indexed.catch_up(source)
    assert indexed.history().size == 0


@pytest.mark.parametrize("before", [3, 300], ids=["in the open tile", "in a full tile"])
def test_a_rewritten_history_is_refuted(indexed: Indexed, before: int) -> None:
    """The same epoch signs a longer log whose past is another: what is here stays."""
    factory = indexed.factory
    indexed.fill(before)
    indexed.catch_up()
    factory.served.clear()
    factory.ledger = Ledger(factory.domain, factory.parties.log_id, factory.clock)
    factory.ledger.start(factory.epoch)
    indexed.fill(before + 1)
    with pytest.raises(LogRefuted):
        indexed.catch_up()
    assert indexed.history().size == before + 1


def test_two_roots_of_one_size_are_refuted(indexed: Indexed) -> None:
    indexed.serve(3)
    indexed.catch_up()
    with served_log(indexed.factory, indexed.folder) as honest:
        source = Tampered(honest, checkpoint=_note(indexed, size=4, root=bytes(32)))
        with pytest.raises(LogRefuted, match="two histories"):
            indexed.catch_up(source)


def test_an_older_checkpoint_of_the_same_history_changes_nothing(indexed: Indexed) -> None:
    indexed.serve(3)
    indexed.catch_up()
    root = indexed.factory.ledger.tree.root(2)
    with served_log(indexed.factory, indexed.folder) as honest:
        source = Tampered(honest, checkpoint=_note(indexed, size=2, root=root))
        assert indexed.catch_up(source).size == 2
    assert indexed.history().size == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"key": bytes(20)}, "has registered the key"),
        ({"manifest_digest": bytes(32)}, "has registered another manifest"),
    ],
)
def test_a_checkpoint_by_an_epoch_other_than_the_registered_one_counts_for_nothing(
    indexed: Indexed, change: dict[str, Any], said: str
) -> None:
    """The log shows its own manifest; the chain has another key or manifest for the epoch."""
    indexed.serve(1)
    facts, log_id = indexed.factory.chain.epochs, indexed.factory.parties.log_id
    facts[log_id, 1] = replace(facts[log_id, 1], **change)
    with pytest.raises(BadSignature, match="no epoch that the chain registered"):
        indexed.catch_up()
    assert indexed.history().size == 0
    (epoch,) = indexed.reader.epochs()
    assert said in epoch.trouble


@pytest.mark.parametrize(
    ("member", "value", "said"),
    [
        ("log_id", "0x" + "00" * 32, "names another log"),
        ("settlement", "0x" + "00" * 20, "another chain or Settlement"),
        ("chain_id", 1, "another chain or Settlement"),
    ],
)
def test_a_manifest_of_another_network_counts_for_nothing(
    indexed: Indexed, member: str, value: Any, said: str
) -> None:
    indexed.serve(1)
    with served_log(indexed.factory, indexed.folder) as honest:
        (shown,) = honest.epochs()
        shown["manifest"][member] = value
        with pytest.raises(BadSignature, match=said):
            indexed.catch_up(Tampered(honest, epochs=[shown]))


def test_an_epoch_that_is_registered_later_holds_from_then_on(indexed: Indexed) -> None:
    indexed.serve(1)
    key = (indexed.factory.parties.log_id, 1)
    fact = indexed.factory.chain.epochs.pop(key)
    with pytest.raises(BadSignature, match="the chain knows no epoch 1"):
        indexed.catch_up()
    indexed.factory.chain.epochs[key] = fact
    indexed.catch_up()
    assert indexed.reader.totals().troubles == 0
    assert indexed.history().size == 2


def _skipping(receipt: Receipt) -> Receipt:
    return replace(receipt, payer_counter=receipt.payer_counter + 1)


def test_a_receipt_that_skips_a_counter_is_marked(indexed: Indexed) -> None:
    """It stays in the list, and its party's page counts it."""
    indexed.serve(1)
    indexed.factory.serve(Scenario(), Lies(receipt=_skipping))
    indexed.catch_up()
    newest, first = indexed.reader.receipts()
    assert "counters or totals don't follow: payer" in newest.row.trouble
    assert first.row.trouble == ""
    payer = indexed.reader.running("payer", indexed.factory.parties.payer.address)
    assert payer is not None
    assert payer.troubles == 1
    assert indexed.reader.totals().troubles == 1


def test_a_receipt_signed_by_another_key_is_marked(indexed: Indexed) -> None:
    indexed.serve(1)
    ledger, domain = indexed.factory.ledger, indexed.factory.domain
    served = indexed.factory.serve(Scenario(), Lies(receipt=_skipping))
    stranger = SecretKey(b"\x05" * 32)
    ledger.leaves[served.index] = Signed.by(stranger, domain, served.receipt.message)
    indexed.catch_up()
    assert "Receipt is signed by" in indexed.reader.receipts()[0].row.trouble


def test_a_receipt_of_an_ended_epoch_is_marked(indexed: Indexed) -> None:
    """Its signature is good, and its epoch no longer covers the leaf."""
    factory = indexed.factory
    factory.start_epoch()
    served = factory.serve(Scenario(), Lies(receipt=lambda r: replace(r, epoch=1)))
    by_the_first = Signed.by(factory.epochs[1].key, factory.domain, served.receipt.message)
    factory.ledger.leaves[served.index] = by_the_first
    indexed.catch_up()
    assert indexed.reader.receipts()[0].row.trouble == "epoch 1 does not cover leaf 2"


@pytest.mark.parametrize(
    "change", [{"size": 7}, {"root": bytes(32)}, {"manifest_digest": bytes(32)}]
)
def test_an_epoch_that_starts_elsewhere_than_it_says_covers_nothing(
    indexed: Indexed, change: dict[str, Any]
) -> None:
    factory = indexed.factory
    start = replace(factory.ledger.starts[1].message, **change)
    factory.ledger = Ledger(factory.domain, factory.parties.log_id, factory.clock)
    factory.ledger._append(Signed.by(factory.epoch.key, factory.domain, start))
    indexed.serve(1)
    indexed.catch_up()
    assert indexed.reader.receipts()[0].row.trouble == "epoch 1 does not cover leaf 1"


def test_a_second_receipt_of_one_job_is_marked(indexed: Indexed) -> None:
    job_id = indexed.factory.serve(Scenario()).receipt.message.job_id
    indexed.factory.serve(Scenario(), Lies(receipt=lambda r: replace(r, job_id=job_id)))
    indexed.factory.served.pop()
    indexed.catch_up()
    second, first = indexed.reader.receipts()
    assert "another receipt at leaf 1" in second.row.trouble
    assert first.row.trouble == ""


def test_a_prefix_knows_the_root_of_every_size() -> None:
    leaves = [leaf_hash(number.to_bytes(4)) for number in range(1_100)]
    prefix = Prefix()
    assert prefix.root() == EMPTY_ROOT
    for size, leaf in enumerate(leaves, 1):
        prefix.append(leaf)
        if size in {1, 2, 255, 256, 257, 767, 768, 1_023, 1_024, 1_100}:
            tiles, _ = split_size(size)
            assert prefix.root() == root_of_leaves(leaves[:size])
            assert prefix.root_at(tiles, leaves[tiles * 256 : size]) == prefix.root()
            assert prefix.size == size


def test_a_root_beyond_the_leaves_is_refused(indexed: Indexed) -> None:
    with pytest.raises(InvalidEncoding, match="0 leaves are known"):
        indexed.history().root_at(1)


def _note(indexed: Indexed, *, size: int, root: bytes) -> str:
    """A note that the epoch in force signs, over anything."""
    factory = indexed.factory
    log_id, epoch = factory.parties.log_id, factory.epoch
    checkpoint = Checkpoint(
        log_id=log_id, epoch=epoch.number, size=size, root=root, time_ms=factory.clock()
    )
    return CheckpointSigner(factory.domain, log_id, epoch.key, epoch.note_secret).sign(checkpoint)
