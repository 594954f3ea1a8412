"""What a party keeps of a batch: only what settles, on its disk, a bounded number."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from pinaivu.batch_copies import MAX_BATCH_BYTES, BatchCopy, WrongCopy
from pinaivu.cli.submit import _from_file
from pinaivu.errors import InvalidEncoding, PeerFault, PinaivuError, TransportFailure
from pinaivu.keys import SecretKey
from pinaivu.store.batches import MOST_COPIES, BatchFolder, BatchKeeper, CopyNotKept
from tests.unit.batch_support import DOMAIN, KEY, LOG, copy

STRANGER = SecretKey(b"\x0f" * 32)
OTHER_LOG = b"\x12" * 32


async def signer(epoch: int) -> bytes:
    """As the chain would say: both epochs this log has had."""
    await trio.lowlevel.checkpoint()
    if epoch not in (1, 2):
        raise WrongCopy(f"no epoch {epoch}")
    return KEY.address


def keeper(root: Path) -> BatchKeeper:
    return BatchKeeper(root, DOMAIN, LOG, signer)


async def hand_over(root: Path, given: BatchCopy) -> None:
    """As a coordinator's frame brings it."""
    await keeper(root).keep(given.signed.to_bytes(), list(given.consistency))


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("sequence", [1, 2, 3, 100])
async def test_a_batch_with_its_proof_is_kept_as_submit_reads_it(
    tmp_path: Path, sequence: int
) -> None:
    """One file, by log and number; keeping it again changes nothing."""
    given = copy(sequence)
    await hand_over(tmp_path, given)
    name = f"0x{LOG.hex()}/{sequence}.json"
    assert files(tmp_path) == [name]
    before = (tmp_path / name).stat().st_mtime_ns
    await hand_over(tmp_path, given)
    assert (tmp_path / name).stat().st_mtime_ns == before
    assert BatchCopy.from_json(json.loads((tmp_path / name).read_bytes())) == given
    published = [(given.signed, list(given.consistency))]
    assert _from_file(tmp_path / name) == published
    assert _from_file((tmp_path / name).parent) == published


def _another_hash(given: BatchCopy) -> BatchCopy:
    return replace(given, consistency=(b"\x01" * 32, *given.consistency[1:]))


def _signed(**changes: object) -> Callable[[BatchCopy], BatchCopy]:
    return lambda given: copy(given.batch.sequence, **changes)  # type: ignore[arg-type]


WRONG: dict[str, tuple[Callable[[BatchCopy], BatchCopy], str]] = {
    "of another log": (_signed(log_id=OTHER_LOG), "a batch of log"),
    "signed by a stranger": (_signed(key=STRANGER), "signed by"),
    "altered after it was signed": (
        lambda given: replace(
            given, signed=replace(given.signed, message=replace(given.batch, fees=4))
        ),
        "signed by",
    ),
    "of an epoch that never was": (_signed(epoch=3), "no epoch 3"),
    "number zero": (_signed(sequence=0), "can't begin at leaf"),
    "the first, but not from the start": (_signed(sequence=1), "can't begin at leaf"),
    "later, but from the start": (_signed(prev_size=0), "can't begin at leaf 0"),
    "without a leaf": (_signed(new_size=14), "adds no leaf"),
    "shrinking": (_signed(new_size=13), "adds no leaf"),
    "from another old root": (_signed(prev_root=b"\x02" * 32), "the proof beside"),
    "to another new root": (_signed(new_root=b"\x02" * 32), "the proof beside"),
    "with a wrong hash in its proof": (_another_hash, "the proof beside"),
    "with a hash too many": (
        lambda given: replace(given, consistency=(*given.consistency, bytes(32))),
        "the proof beside",
    ),
    "with a hash too few": (
        lambda given: replace(given, consistency=given.consistency[:-1]),
        "the proof beside",
    ),
    "with a hash of no length": (
        lambda given: replace(given, consistency=(b"", *given.consistency[1:])),
        "the proof beside",
    ),
    "without its proof": (lambda given: replace(given, consistency=()), "the proof beside"),
}


@pytest.mark.parametrize(("change", "says"), WRONG.values(), ids=WRONG.keys())
async def test_what_does_not_settle_is_not_kept(
    tmp_path: Path, change: Callable[[BatchCopy], BatchCopy], says: str
) -> None:
    """Each is one change away from a batch that is kept."""
    with pytest.raises(PeerFault, match=says):
        await hand_over(tmp_path, change(copy(3)))
    assert files(tmp_path) == []
    await hand_over(tmp_path, copy(3))


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x92\x90\xc4\x00", b"{}"])
async def test_garbage_is_not_kept(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(InvalidEncoding):
        await keeper(tmp_path).keep(raw, [])
    assert files(tmp_path) == []


async def test_more_than_a_transaction_could_settle_is_not_kept(tmp_path: Path) -> None:
    """However well signed: the bound is looked at before anything is decoded."""
    row = b"\x31" * 20 + (1).to_bytes(12)
    most = MAX_BATCH_BYTES // len(row)
    with pytest.raises(InvalidEncoding, match=f"{MAX_BATCH_BYTES} bytes at most"):
        await hand_over(tmp_path, copy(1, debits=row * most))
    assert files(tmp_path) == []
    await hand_over(tmp_path, copy(1, debits=row * (most - 100)))


async def test_a_later_epochs_batch_takes_the_place_of_an_earlier_ones(tmp_path: Path) -> None:
    """The chain takes the active epoch's only; of one time, and back, nothing is replaced."""
    await hand_over(tmp_path, copy(2))
    with pytest.raises(WrongCopy, match="another batch 2"):
        await hand_over(tmp_path, copy(2, fees=4))
    again = copy(2, epoch=2)
    await hand_over(tmp_path, again)
    with pytest.raises(WrongCopy, match="signed in epoch 2"):
        await hand_over(tmp_path, copy(2))
    (kept,) = _from_file(tmp_path / f"0x{LOG.hex()}")
    assert kept[0] == again.signed


async def test_what_was_signed_later_in_an_epoch_takes_the_place_too(tmp_path: Path) -> None:
    """A batch over the debit limit is cut: the chain takes either, the limit only the later."""
    first = copy(2)
    await hand_over(tmp_path, first)
    cut = copy(2, fees=4, time_ms=first.batch.time_ms + 1)
    await hand_over(tmp_path, cut)
    with pytest.raises(WrongCopy, match="another batch 2"):
        await hand_over(tmp_path, first)
    (kept,) = _from_file(tmp_path / f"0x{LOG.hex()}")
    assert kept[0] == cut.signed


async def test_the_newest_are_kept(tmp_path: Path) -> None:
    """A bounded number, whatever comes in which order."""
    folder = BatchFolder(tmp_path, LOG)
    for sequence in range(2, MOST_COPIES + 4):
        folder.keep(copy(sequence))
    assert folder.sequences() == list(range(4, MOST_COPIES + 4))
    with pytest.raises(WrongCopy, match="older than"):
        folder.keep(copy(3))
    folder.keep(copy(MOST_COPIES))
    assert folder.sequences() == list(range(4, MOST_COPIES + 4))


async def test_logs_do_not_get_into_each_others_way(tmp_path: Path) -> None:
    other = BatchKeeper(tmp_path, DOMAIN, OTHER_LOG, signer)
    given = copy(1, log_id=OTHER_LOG)
    await other.keep(given.signed.to_bytes(), [])
    await hand_over(tmp_path, copy(1))
    assert files(tmp_path) == [f"0x{LOG.hex()}/1.json", f"0x{OTHER_LOG.hex()}/1.json"]


async def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    await hand_over(tmp_path, copy(1))
    path = tmp_path / f"0x{LOG.hex()}" / "1.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    await hand_over(tmp_path, copy(1))
    assert path.read_bytes() == whole


async def test_a_write_that_failed_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed and not persisted: half a file is never under a batch's name."""

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pinaivu.store.batches.os.fsync", full)
    with pytest.raises(CopyNotKept, match="No space left"):
        await hand_over(tmp_path, copy(1))
    monkeypatch.undo()
    assert BatchFolder(tmp_path, LOG).sequences() == []
    await hand_over(tmp_path, copy(1))
    assert files(tmp_path) == [f"0x{LOG.hex()}/1.json"]


async def test_a_write_that_failed_after_it_happened_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed but persisted: the file is there, and is not called kept before it is durable."""

    def broken(_folder: BatchFolder) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(BatchFolder, "_sync", broken)
    for _ in range(2):
        with pytest.raises(CopyNotKept, match="Input/output error"):
            await hand_over(tmp_path, copy(1))
    assert BatchFolder(tmp_path, LOG).sequences() == [1]
    monkeypatch.undo()
    await hand_over(tmp_path, copy(1))


async def test_a_chain_that_is_away_keeps_nothing_and_is_not_the_coordinators_fault(
    tmp_path: Path,
) -> None:
    async def away(_epoch: int) -> bytes:
        await trio.lowlevel.checkpoint()
        raise TransportFailure("the chain is away")

    with pytest.raises(TransportFailure):
        await BatchKeeper(tmp_path, DOMAIN, LOG, away).keep(copy(1).signed.to_bytes(), [])
    assert files(tmp_path) == []


@pytest.mark.parametrize("document", [7, {}, {"batch": {}}, {"batch": 1, "consistency": []}])
def test_a_document_that_is_no_copy_is_said(document: object) -> None:
    with pytest.raises(PinaivuError):
        BatchCopy.from_json(document)
