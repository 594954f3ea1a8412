"""What waits for a client: the first at once, the rest together, and never without bound."""

from contextlib import aclosing

import pytest
import trio
import trio.testing

from gateway.outlet import MOST_WAITING, STALL_S, ClientStalled, Outlet
from node.executor import ACK_TIMEOUT_S


async def test_first_event_leaves_at_once_and_later_ones_together() -> None:
    """Nothing waits for company; what came while the socket was busy needs one write."""
    outlet = Outlet()
    async with aclosing(outlet.parts()) as parts:
        outlet.write(b"1")
        assert await anext(parts) == b"1"
        for event in (b"2", b"3", b"4"):  # the reader is busy with the first
            outlet.write(event)
        assert await anext(parts) == b"234"
        assert outlet.waiting == 0


async def test_reader_that_waits_is_woken_by_each_event() -> None:
    outlet = Outlet()
    async with aclosing(outlet.parts()) as parts:
        for event in (b"1", b"2"):
            async with trio.open_nursery() as nursery:

                async def take(expected: bytes = event) -> None:
                    assert await anext(parts) == expected

                nursery.start_soon(take)
                await trio.testing.wait_all_tasks_blocked()
                outlet.write(event)


async def test_writer_gives_way_to_the_first_part_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Until it is taken; or a moment, where nobody takes it. Afterwards it never waits again."""
    taken, left = Outlet(), Outlet()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(taken.begun)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        taken.write(b"1")
        async with aclosing(taken.parts()) as parts:
            await anext(parts)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 0
    assert autojump_clock.current_time() == 0
    await left.begun()
    waited = autojump_clock.current_time()
    assert 0 < waited < 0.1
    await left.begun()
    assert autojump_clock.current_time() == waited


async def test_parts_end_between_events() -> None:
    """Another's comment may come between two parts, so none ends within an event."""
    outlet = Outlet()
    events = [bytes([number]) * 10_000 for number in range(20)]
    for event in events:
        outlet.write(event)
    outlet.close()
    parts = [part async for part in outlet.parts()]
    assert 1 < len(parts) < len(events)
    assert all(len(part) % 10_000 == 0 for part in parts)
    assert b"".join(parts) == b"".join(events)


async def test_writer_waits_above_the_limit_until_enough_is_taken(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    """A client that takes a little in time is slow, and waited for."""
    outlet = Outlet()
    for _ in range(6):
        outlet.write(bytes(MOST_WAITING // 4))
    async with trio.open_nursery() as nursery, aclosing(outlet.parts()) as parts:

        async def take_slowly() -> None:
            for _ in range(2):
                await trio.sleep(STALL_S / 3)
                await anext(parts)

        nursery.start_soon(take_slowly)
        await outlet.drained()
        assert outlet.waiting <= MOST_WAITING
        assert trio.current_time() == pytest.approx(2 * STALL_S / 3)


async def test_client_may_not_keep_its_node_waiting_by_taking_crumbs(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    """In all no longer than a node waits for an acknowledgement: it would be blamed."""
    outlet = Outlet()
    for _ in range(12):
        outlet.write(bytes(MOST_WAITING // 4))
    async with trio.open_nursery() as nursery, aclosing(outlet.parts()) as parts:

        async def take_crumbs() -> None:
            while True:
                await trio.sleep(STALL_S / 3)
                await anext(parts)

        nursery.start_soon(take_crumbs)
        with pytest.raises(ClientStalled):
            await outlet.drained()
        assert STALL_S < ACK_TIMEOUT_S
        nursery.cancel_scope.cancel()


async def test_client_that_takes_nothing_is_given_up(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    outlet = Outlet()
    outlet.write(bytes(MOST_WAITING + 1))
    with pytest.raises(ClientStalled):
        await outlet.drained()
    assert trio.current_time() == pytest.approx(STALL_S)


async def test_nobody_waits_for_a_closed_outlet() -> None:
    """The exchange ends while its client stalls: the writer goes on at once."""
    outlet = Outlet()
    outlet.write(bytes(MOST_WAITING + 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outlet.drained)
        await trio.testing.wait_all_tasks_blocked()
        outlet.close()
