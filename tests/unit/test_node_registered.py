"""Gateways found on chain: each served once, newcomers too, no more than the bound."""

from collections.abc import Sequence

import trio
import trio.testing

from node import registered
from node.links import Where
from node.registered import Registered
from pinaivu.chain.errors import ChainUnavailable


def gateway(number: int) -> bytes:
    return number.to_bytes(20)


class Chain:
    """Registrations by block: one list for each look; `over` is set by the look after the last."""

    def __init__(self, *looks: Sequence[bytes] | None) -> None:
        self.looks = list(looks)
        self.asked: list[int | None] = []
        self.over = trio.Event()

    def look(self, first: int | None) -> tuple[tuple[bytes, ...], int]:
        """What a node asks, in a worker thread."""
        if not self.looks:
            trio.from_thread.run_sync(self.over.set)
            return (), 0
        self.asked.append(first)
        found = self.looks.pop(0)
        if found is None:
            raise ChainUnavailable("gone for now")
        return tuple(found), len(self.asked) * 10


async def served(chain: Chain, *, named: Sequence[str] = ()) -> list[str]:
    """What was handed over by all looks."""
    places = dict[Where, str]()
    handed = list[str]()

    def at(configured: str) -> Where:
        async def where() -> tuple[str, ...]:
            return ()

        places[where] = configured
        return where

    found = Registered(chain.look, at, named)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run, lambda where: handed.append(places[where]))
        await chain.over.wait()
        nursery.cancel_scope.cancel()
    return handed


async def test_each_is_served_once_and_newcomers_follow(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    """The chain is asked for what is new only; an endpoint that is gone is asked again."""
    chain = Chain([gateway(1), gateway(2)], None, [gateway(2), gateway(3)])
    handed = await served(chain)
    assert handed == ["0x" + gateway(n).hex() for n in (1, 2, 3)]
    assert chain.asked == [None, 10, 10]


async def test_who_is_named_is_not_served_twice(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    name = "0x" + gateway(1).hex()
    assert await served(Chain([gateway(1), gateway(2)]), named=[name]) == ["0x" + gateway(2).hex()]


async def test_a_flood_of_registrations_is_bounded(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    """Those who were there first stay."""
    flood = [gateway(n) for n in range(1, 200)]
    handed = await served(Chain([gateway(500)], flood))
    assert len(handed) == registered.MOST
    assert handed[0] == "0x" + gateway(500).hex()
