"""One end of a control stream, as nodes and coordinators hold them, and when it is up and lost.

    python -m bench.peers_process node ADDRESS
    python -m bench.peers_process coordinator SECRET_HEX MULTIADDR

A node dials and says hello, again and again as a node does; a coordinator listens and answers. What
is real: host, liveness, frames, calls, the node's redialing. Nothing is offered or auctioned. A
JSON line says where the host is; the process serves until it is killed.
"""

import json
import os
import random
import sys
from contextlib import suppress
from typing import Final

import trio

from pinaivu.errors import PinaivuError
from pinaivu.p2p import PeerId, wire
from pinaivu.p2p.calls import Calls
from pinaivu.p2p.frames import FrameStream
from pinaivu.p2p.host import Host, open_host
from pinaivu.p2p.links import Backoff, keep_connected

BACKOFF: Final = Backoff(most=3.0)
"""As of `node.control`."""
_HELLO_S: Final = 10.0
_DRAW: Final = random.SystemRandom().random


class Link:
    """This end's conversation with the one peer: when it was greeted, when lost."""

    def __init__(self) -> None:
        self.up = trio.Event()
        self.lost = trio.Event()

    def greeted(self) -> None:
        """A hello was answered."""
        self.lost = trio.Event()
        self.up.set()

    def ended(self) -> None:
        """The stream is over, and everything that waited on it knows."""
        self.up = trio.Event()
        self.lost.set()

    async def dial(self, host: Host, address: str) -> None:
        """A node's end, for ever."""
        await keep_connected(
            host, (address,), wire.NODE_PROTOCOL, self._greet, random=_DRAW, backoff=BACKOFF
        )

    async def _greet(self, stream: FrameStream) -> None:
        calls = Calls(stream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._converse, calls, nursery.cancel_scope)
            await calls.call(b"hello", _HELLO_S)
            self.greeted()

    async def answer(self, _peer: PeerId, stream: FrameStream) -> None:
        """A coordinator's end, as a handler of streams."""

        async def hello(payload: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            self.greeted()
            return payload

        async with trio.open_nursery() as nursery:
            await self._converse(Calls(stream, on_call=hello), nursery.cancel_scope)

    async def _converse(self, calls: Calls, scope: trio.CancelScope) -> None:
        with suppress(PinaivuError):
            await calls.run()
        self.ended()
        scope.cancel()


async def main(role: str, *where: str) -> None:
    """Hold one end until killed."""
    link = Link()
    secret = bytes.fromhex(where[0]) if role == "coordinator" else os.urandom(32)
    listen = where[1:] if role == "coordinator" else ()
    async with open_host(secret, listen) as host:
        host.serve(wire.NODE_PROTOCOL, link.answer)
        print(json.dumps({"addresses": host.addresses()}), flush=True)
        if role == "node":
            await link.dial(host, where[0])
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
