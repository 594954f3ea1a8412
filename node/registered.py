"""Gateways that nobody named: whoever registers on chain is dialed, up to a bound.

A private gateway on somebody's laptop is served like this: its owner registers it, and within
seconds the nodes have streams ready for it. Those that were registered first come first, so that
whoever floods the registry comes after those who were there; those named in the configuration are
served beside. One that is never reached costs a dial every few seconds.
"""

import logging
from collections.abc import Callable, Collection
from typing import Final, NoReturn

import trio

from node.links import Where
from pinaivu.errors import TransportFailure

MOST: Final = 64
_EVERY_S: Final = 5.0
_logger: Final = logging.getLogger(__name__)

Look = Callable[[int | None], tuple[tuple[bytes, ...], int]]
"""Gateways registered from a block on, and the block to go on from; called in worker threads."""


class Registered:
    """Finds registered gateways; `at` says how to find one of them to dial."""

    def __init__(self, look: Look, at: Callable[[str], Where], named: Collection[str]) -> None:
        self._look = look
        self._at = at
        self._named = frozenset(named)
        self._found = set[str]()
        self._next: int | None = None

    async def run(self, serve: Callable[[Where], None]) -> NoReturn:
        """Hand each gateway to `serve` once; the chain is looked at again every few seconds."""
        while True:
            try:
                found, self._next = await trio.to_thread.run_sync(self._look, self._next)
            except TransportFailure as error:
                _logger.info("gateways on chain: %s", error)
            else:
                for gateway in found:
                    self._serve("0x" + gateway.hex(), serve)
            await trio.sleep(_EVERY_S)

    def _serve(self, gateway: str, serve: Callable[[Where], None]) -> None:
        if gateway in self._named or gateway in self._found or len(self._found) >= MOST:
            return
        self._found.add(gateway)
        _logger.info("serving gateway %s, found on chain", gateway)
        serve(self._at(gateway))
