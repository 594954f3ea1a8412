"""What the tests of hosts share."""

from collections.abc import Callable
from typing import Final

import trio

PATIENCE: Final = 20.0
"""Seconds until a condition that should come true at once counts as failed; machines are busy."""


async def until(condition: Callable[[], bool], within: float = PATIENCE) -> None:
    """Wait for a state that no event announces; fails after `within` seconds."""
    with trio.fail_after(within):
        while not condition():  # noqa: ASYNC110 - hosts have no events for tests to wait for
            await trio.sleep(0.01)
