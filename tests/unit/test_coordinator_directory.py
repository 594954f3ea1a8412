"""Chain records: read once in a while, read anew on demand, good for an hour without a chain."""

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from coordinator.directory import Directory
from pinaivu.chain.errors import ChainUnavailable
from tests.unit.coordinator_world import ChainDouble
from tests.unit.ledger_support import MODEL, PAYER


async def test_a_record_is_read_once_in_a_while(mock_clock: MockClock) -> None:
    chain = ChainDouble()
    directory = Directory(chain)
    for _ in range(3):
        await directory.payer(PAYER.address)
    assert chain.reads == 1
    mock_clock.jump(3.0)
    await directory.payer(PAYER.address)
    assert chain.reads == 2


async def test_what_is_not_there_is_looked_for_again() -> None:
    """A node that has just registered need not wait."""
    chain = ChainDouble()
    directory = Directory(chain)
    assert await directory.model("unknown") is None
    assert await directory.model("unknown") is None
    assert chain.reads == 2


async def test_expired_records_are_read_anew() -> None:
    chain = ChainDouble(balance=5)
    directory = Directory(chain)
    await directory.payer(PAYER.address)
    chain.balance = 7
    assert (await directory.payer(PAYER.address)).balance == 5
    directory.expire()
    assert (await directory.payer(PAYER.address)).balance == 7


async def test_a_read_under_way_is_not_kept_after_expiry() -> None:
    """It may have seen the chain before whatever made the records expire."""
    chain = ChainDouble(balance=5)
    directory = Directory(chain)
    chain.answering.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(directory.payer, PAYER.address)
        await trio.testing.wait_all_tasks_blocked()
        directory.expire()
        chain.answering.set()
    chain.balance = 7
    assert (await directory.payer(PAYER.address)).balance == 7


async def test_without_a_chain_the_last_hour_serves(mock_clock: MockClock) -> None:
    chain = ChainDouble()
    directory = Directory(chain)
    await directory.model(MODEL)
    chain.down = True
    mock_clock.jump(3599.0)
    assert await directory.model(MODEL) is not None
    mock_clock.jump(1.0)
    with pytest.raises(ChainUnavailable):
        await directory.model(MODEL)


async def test_without_a_chain_the_unknown_stays_unknown() -> None:
    directory = Directory(ChainDouble(down=True))
    with pytest.raises(ChainUnavailable):
        await directory.payer(PAYER.address)
