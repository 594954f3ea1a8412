"""A gateway keeps the batches its coordinator hands over, if they settle."""

from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from pinaivu.batch_copies import MAX_BATCH_BYTES, BatchCopy
from pinaivu.keys import SecretKey
from pinaivu.p2p import wire
from pinaivu.p2p.errors import CallRefused
from pinaivu.store.batches import BatchFolder
from tests.integration.gateway_support import network
from tests.integration.scripted_node import speaks
from tests.unit.batch_support import copy
from tests.unit.gateway_facts import LOG


def _frame(given: BatchCopy) -> wire.PutBatch:
    return wire.PutBatch(given.signed.to_bytes(), list(given.consistency))


async def test_batches_are_kept_if_they_settle(tmp_path: Path) -> None:
    """By its epoch's key and with its proof; what is wrong leaves stream and requests alone."""
    async with network(tmp_path, speaks("Still ", "here.")) as net:
        own = partial(copy, key=net.keys.epoch)
        for wrong in (
            wire.PutBatch(b"\xc1", []),
            wire.PutBatch(bytes(MAX_BATCH_BYTES + 1), []),
            _frame(own(2, log_id=b"\x12" * 32)),
            _frame(copy(2, key=SecretKey(b"\x07" * 32))),
            _frame(own(2, epoch=9)),
            replace(_frame(own(2)), consistency=[]),
        ):
            with pytest.raises(CallRefused):
                await net.coordinator.put(wrong)
        assert BatchFolder(tmp_path / "batches", LOG).sequences() == []
        for sequence in (1, 2, 2):
            assert await net.coordinator.put(_frame(own(sequence))) == wire.Done()
        assert BatchFolder(tmp_path / "batches", LOG).sequences() == [1, 2]
        answer = await net.complete()
        assert answer.choices[0].message.content == "Still here."
        assert len(net.coordinator.streams) == 1


async def test_a_disk_that_refuses_is_no_reason_to_hang_up(tmp_path: Path) -> None:
    """The batch is asked for again and again; requests go on."""
    (tmp_path / "batches").write_text("in the way")
    async with network(tmp_path, speaks("Still ", "here.")) as net:
        own = partial(copy, key=net.keys.epoch)
        with pytest.raises(CallRefused, match="CopyNotKept"):
            await net.coordinator.put(_frame(own(1)))
        await net.complete()
        (tmp_path / "batches").unlink()
        assert await net.coordinator.put(_frame(own(1))) == wire.Done()
        assert len(net.coordinator.streams) == 1
