"""Locks that are taken at once where they are free, and fairly where they aren't."""

import trio
import trio.testing

from pinaivu.p2p.patches.locks import PromptLock


async def test_a_free_lock_is_taken_without_giving_way() -> None:
    lock = PromptLock()
    with trio.testing.assert_no_checkpoints():
        async with lock:
            assert lock.locked()
    assert not lock.locked()


async def test_a_held_lock_goes_to_whoever_waits_longest() -> None:
    """Also when somebody comes along at the moment it is released."""
    lock, order = PromptLock(), list[int]()

    async def take(number: int) -> None:
        async with lock:
            order.append(number)
            await trio.testing.wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        async with lock:
            for number in range(3):
                nursery.start_soon(take, number)
                await trio.testing.wait_all_tasks_blocked()
        async with lock:
            order.append(3)
    assert order == [0, 1, 2, 3]


async def test_who_gives_up_waiting_doesnt_hold_it() -> None:
    lock = PromptLock()

    async def wait() -> None:
        async with lock:
            raise AssertionError

    async with trio.open_nursery() as nursery, lock:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not lock.locked()
