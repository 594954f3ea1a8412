"""Chain records: read once in a while and ahead of use, good for an hour without a chain.

Clocks are virtual, and a slow chain is one that doesn't answer until the test says so.
"""

import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from coordinator.directory import BOUND_S, FRESH_S, Directory
from coordinator.ports import PayerRecord
from pinaivu.chain.errors import ChainUnavailable
from tests.unit.coordinator_world import ChainDouble
from tests.unit.ledger_support import MODEL, NODES, PAYER


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


async def test_renewed_records_are_read_anew() -> None:
    chain = ChainDouble(balance=5)
    directory = Directory(chain)
    await directory.payer(PAYER.address)
    chain.balance = 7
    assert (await directory.payer(PAYER.address)).value.balance == 5
    directory.renew()
    assert (await directory.payer(PAYER.address)).value.balance == 7


async def test_a_read_under_way_is_not_kept_after_a_renewal() -> None:
    """It may have seen the chain before whatever called for new ones."""
    chain = ChainDouble(balance=5)
    directory = Directory(chain)
    chain.answering.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(directory.payer, PAYER.address)
        await trio.testing.wait_all_tasks_blocked()
        directory.renew()
        chain.answering.set()
    chain.balance = 7
    assert (await directory.payer(PAYER.address)).value.balance == 7


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


@asynccontextmanager
async def reading_ahead(chain: ChainDouble) -> AsyncGenerator[Directory, None]:
    """A directory that reads ahead; leaving it lets a chain that is asked answer."""
    async with trio.open_nursery() as nursery:
        directory = Directory(chain)
        nursery.start_soon(directory.run)
        await trio.testing.wait_all_tasks_blocked()
        try:
            yield directory
        finally:
            chain.answering.set()
            nursery.cancel_scope.cancel()


async def balance(directory: Directory) -> int:
    return (await directory.payer(PAYER.address)).value.balance


async def answered(chain: ChainDouble, reads: int) -> None:
    """Wait until so many reads have come back and been kept."""
    chain.answering.set()
    while chain.reads < reads:
        await trio.lowlevel.checkpoint()
    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_record_in_use_is_not_waited_for(mock_clock: MockClock) -> None:
    """The chain doesn't answer at all; the record that was known serves, up to its bound."""
    chain = ChainDouble(balance=5)
    async with reading_ahead(chain) as directory:
        assert await balance(directory) == 5
        chain.answering.clear()
        for _ in range(int(BOUND_S / FRESH_S)):
            mock_clock.jump(FRESH_S)
            chain.balance = 7
            began = trio.current_time()
            with trio.fail_after(0):  # not even a moment
                assert await balance(directory) == 5
            assert trio.current_time() == began
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert chain.reads == 2  # the one that is under way is enough


async def test_a_record_that_was_not_in_use_is_read_anew(mock_clock: MockClock) -> None:
    """Who comes back, say after revoking a grant, finds the chain as it is."""
    chain = ChainDouble(balance=5)
    async with reading_ahead(chain) as directory:
        await balance(directory)
        mock_clock.jump(FRESH_S + 0.001)
        chain.balance = 7
        assert await balance(directory) == 7


async def test_what_was_read_ahead_serves_next(mock_clock: MockClock) -> None:
    chain = ChainDouble(balance=5)
    async with reading_ahead(chain) as directory:
        await balance(directory)
        mock_clock.jump(FRESH_S)
        chain.balance = 7
        assert await balance(directory) == 5
        while await balance(directory) == 5:
            await trio.lowlevel.checkpoint()
        assert (await balance(directory), chain.reads) == (7, 2)


async def test_nothing_older_than_the_bound_is_used(mock_clock: MockClock) -> None:
    """Whoever comes then waits, also while a read ahead is still on its way."""
    chain = ChainDouble(balance=5)
    got: list[int] = []
    async with reading_ahead(chain) as directory, trio.open_nursery() as nursery:
        await balance(directory)
        chain.answering.clear()
        turns = int(BOUND_S / FRESH_S)
        for _ in range(turns):
            mock_clock.jump(FRESH_S)
            await balance(directory)  # the first one sets off a read ahead, of 5 still
        mock_clock.jump(BOUND_S - turns * FRESH_S)

        async def wait() -> None:
            got.append(await balance(directory))

        while chain.reads < 2:
            await trio.lowlevel.checkpoint()
        chain.balance = 7
        nursery.start_soon(wait)
        while chain.reads < 3:
            await trio.lowlevel.checkpoint()
        assert got == []
        chain.answering.set()
    assert got == [7]


async def test_a_change_is_seen_within_the_bound(mock_clock: MockClock) -> None:
    """A payer in use every second: what it asked of the chain is known before the bound is over."""
    chain = ChainDouble()
    async with reading_ahead(chain) as directory:
        for second in range(40):
            if second == 20:
                chain.leaving = chain.balance
            seen = await directory.payer(PAYER.address)
            if second >= 20 + FRESH_S + 1:
                assert seen.value.leaving == chain.balance
            assert trio.current_time() - seen.asked_at < BOUND_S
            await trio.testing.wait_all_tasks_blocked(0.005)
            mock_clock.jump(1.0)


async def test_only_what_is_fresh_answers_who_asks_for_it(mock_clock: MockClock) -> None:
    chain = ChainDouble(balance=5)
    async with reading_ahead(chain) as directory:
        await balance(directory)
        mock_clock.jump(FRESH_S)
        chain.balance = 7
        assert (await directory.payer(PAYER.address, fresh=True)).value.balance == 7


async def test_renewed_records_serve_until_they_are_read_anew() -> None:
    """With what was noted before they were asked for, not what is true by now."""
    chain = ChainDouble(balance=5)
    noted = iter((1, 2, 3))
    async with reading_ahead(chain) as directory:

        async def seen() -> tuple[int, int]:
            found = await directory.payer(PAYER.address, lambda: next(noted))
            return found.value.balance, found.noted

        assert await seen() == (5, 1)
        chain.balance = 7
        directory.renew()
        assert await seen() == (5, 1)
        await answered(chain, 2)
        assert await seen() == (7, 2)


async def test_a_read_ahead_that_fails_leaves_what_is_known(mock_clock: MockClock) -> None:
    """Beyond the bound the chain is asked while one waits, and then the last hour serves."""
    chain = ChainDouble(balance=5)
    async with reading_ahead(chain) as directory:
        await balance(directory)
        chain.down = True
        for step in (FRESH_S, 1.0, BOUND_S, 3000.0):
            mock_clock.jump(step)
            assert await balance(directory) == 5
            await trio.testing.wait_all_tasks_blocked(0.005)
        mock_clock.jump(600.0)
        with pytest.raises(ChainUnavailable):
            await balance(directory)


class OneByOne(ChainDouble):
    """Lets each read of a payer come back when the test says so; the first does at once."""

    def __init__(self) -> None:
        super().__init__(balance=5)
        self.gates = [threading.Event() for _ in range(3)]
        self.gates[0].set()

    def payer(self, payer: bytes) -> PayerRecord:
        """What the chain says now, handed over when its gate opens."""
        gate = self.gates[self.reads]
        read = super().payer(payer)
        assert gate.wait(20)
        return read


async def test_an_older_answer_does_not_replace_a_newer_one(mock_clock: MockClock) -> None:
    """Of two reads under way, what was asked for later is kept, whichever comes last."""
    chain = OneByOne()
    async with reading_ahead(chain) as directory:
        await balance(directory)
        mock_clock.jump(FRESH_S)
        await balance(directory)  # sets off a read ahead
        while chain.reads < 2:
            await trio.lowlevel.checkpoint()
        mock_clock.jump(1.0)
        chain.balance = 7
        chain.gates[2].set()
        assert (await directory.payer(PAYER.address, fresh=True)).value.balance == 7
        chain.gates[1].set()
        while directory._ahead:
            await trio.lowlevel.checkpoint()
        assert (await balance(directory), chain.reads) == (7, 3)


class Growing(ChainDouble):
    """A chain that has one more block each time it is asked for one."""

    height = 100

    def block_number(self) -> int:
        """One more than before."""
        self.height += 1
        return self.height


async def test_the_block_is_never_before_a_registration_that_was_read(
    mock_clock: MockClock,
) -> None:
    """A wallet read at a later block than a transcript's would refute an honest transcript."""
    chain = Growing()
    async with reading_ahead(chain) as directory:
        before = await directory.block_number()
        assert await directory.block_number() == before
        await directory.node(NODES[0].address)
        assert await directory.block_number() == chain.height > before
        mock_clock.jump(FRESH_S)
        assert await directory.block_number() == chain.height


class ManyPayers(ChainDouble):
    """A chain on which everybody pays."""

    def payer(self, payer: bytes) -> PayerRecord:
        """The same account for each."""
        assert len(payer) == 20
        return super().payer(PAYER.address)


async def test_records_unused_for_longest_make_room(mock_clock: MockClock) -> None:
    """Whoever names one payer after the other costs reads, not memory; who is in use stays."""
    chain = ManyPayers()
    directory = Directory(chain, most=10)
    await directory.model(MODEL)
    for number in range(100):
        mock_clock.jump(0.01)
        await directory.payer(number.to_bytes(20))
        await directory.payer(PAYER.address)
    assert chain.reads == 1 + 100 + 1
    assert len(directory._kept) == 10 + 1
    await directory.payer((99).to_bytes(20))
    await directory.model(MODEL)  # of another kind
    assert chain.reads == 102
    await directory.payer((1).to_bytes(20))
    assert chain.reads == 103


class Silent(ChainDouble):
    """A chain that answers nothing about gateways until the test says so; known are all even."""

    def __init__(self) -> None:
        super().__init__()
        self.spoken = threading.Event()

    def gateway_peer(self, gateway: bytes) -> bytes | None:
        """Its own address for a key."""
        assert self.spoken.wait(20)
        return gateway if gateway[-1] % 2 == 0 else None


async def test_strangers_hold_up_nobody(mock_clock: MockClock) -> None:
    """Neither the writer, which has trio's own threads, nor those who are known."""
    chain = Silent()
    directory = Directory(chain)
    known, new = bytes(20), b"\x02" * 20
    chain.spoken.set()
    assert await directory.gateway_peer(known) == known
    chain.spoken.clear()
    mock_clock.jump(BOUND_S)
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(directory.gateway_peer, (2 * number + 1).to_bytes(20))
        nursery.start_soon(directory.gateway_peer, known)
        await trio.testing.wait_all_tasks_blocked()
        default = trio.to_thread.current_default_thread_limiter().borrowed_tokens
        of_the_known = directory._waited["gateway", True].statistics()
        chain.spoken.set()
        assert default == 0
        assert (of_the_known.borrowed_tokens, of_the_known.tasks_waiting) == (1, 0)
    assert await directory.gateway_peer(new) == new


async def test_strangers_take_no_place() -> None:
    """Anybody can open a stream and name an address."""
    directory = Directory(ChainDouble(), most=10)
    for number in range(100):
        assert await directory.gateway_peer(number.to_bytes(20)) is None
    assert directory._kept == {}
    assert not any(directory._used.values())
