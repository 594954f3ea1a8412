"""Work that goes on beside a request and is waited for later.

written = Background(nursery, lambda: ledger.open(row))
…                      # something else meanwhile
await written.wait()   # its value, or the error it ended with
"""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Background(Generic[T]):
    """One task; it isn't cancelled with whoever waits for it."""

    def __init__(self, nursery: trio.Nursery, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._done = trio.Event()
        self._value: T | None = None
        self._error: Exception | None = None
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        try:
            self._value = await self._work()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits, whatever it is
            self._error = error
        finally:
            self._done.set()

    async def wait(self) -> T:
        """The work's value; raises what it raised, each time it is asked."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]
