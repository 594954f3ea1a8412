"""Acknowledgements wait for the disk, and run ahead of it never."""

import pytest
import trio
import trio.testing

from gateway.attempts import Allowance, attempt_row
from gateway.ledger import ACKS_AHEAD, Ledger
from gateway.tasks import Background
from pinaivu.store.database import StorageFailed
from tests.unit.gateway_facts import draft, order_for


class RecordingLedger(Ledger):
    """Remembers the ceilings it was told, and fails when told to."""

    def __init__(self) -> None:
        self.ceilings: list[int] = []
        self.fails = False

    async def raise_ceiling(self, award_digest: bytes, acks: int) -> None:
        """Remember, or fail."""
        await trio.lowlevel.checkpoint()
        assert len(award_digest) == 32
        if self.fails:
            raise StorageFailed("disk full")
        self.ceilings.append(acks)


async def test_nothing_is_released_before_the_award_is_stored() -> None:
    ledger, stored, released = RecordingLedger(), trio.Event(), []
    async with trio.open_nursery() as nursery:
        allowed = Allowance(ledger, order_for(draft()), Background(nursery, stored.wait))

        async def release() -> None:
            await allowed.need(1)
            released.append(1)

        nursery.start_soon(release)
        await trio.testing.wait_all_tasks_blocked()
        assert released == []
        stored.set()
    assert released == [1]


async def test_award_that_could_not_be_stored_releases_nothing() -> None:
    async def fails() -> None:
        await trio.lowlevel.checkpoint()
        raise StorageFailed("disk full")

    async with trio.open_nursery() as nursery:
        allowed = Allowance(RecordingLedger(), order_for(draft()), Background(nursery, fails))
        for _ in range(2):
            with pytest.raises(StorageFailed):
                await allowed.need(1)


async def test_ceiling_is_raised_before_it_is_passed() -> None:
    """One write for many acknowledgements, never beyond the chain's length."""
    ledger, order = RecordingLedger(), order_for(draft(max_tokens=1900))
    async with trio.open_nursery() as nursery:
        allowed = Allowance(ledger, order, Background(nursery, trio.lowlevel.checkpoint))
        await allowed.need(ACKS_AHEAD)
        assert ledger.ceilings == []
        await allowed.need(ACKS_AHEAD + 1)
        assert ledger.ceilings == [order.chain.length]
        assert order.chain.length == 61
        await allowed.need(60)
        assert ledger.ceilings == [61]


async def test_ceiling_that_could_not_be_raised_is_not_passed() -> None:
    ledger = RecordingLedger()
    ledger.fails = True
    async with trio.open_nursery() as nursery:
        order = order_for(draft(max_tokens=1900))
        allowed = Allowance(ledger, order, Background(nursery, trio.lowlevel.checkpoint))
        for _ in range(2):
            with pytest.raises(StorageFailed):
                await allowed.need(ACKS_AHEAD + 1)


def test_stored_ceiling_is_never_above_the_chain() -> None:
    order = order_for(draft())
    row = attempt_row(order.award, order.award_digest, order.chain.length)
    assert (row.acks_ceiling, row.rank) == (order.chain.length, 1)
    assert order.chain.length == 5
