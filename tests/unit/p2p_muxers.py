"""Muxers of the library over pipes in memory that keep what crosses them."""

import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Final

import trio
import trio.testing
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

DATA: Final = 0
CREDIT: Final = 1
PING: Final = 2
GO_AWAY: Final = 3
SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8

Header = tuple[int, int, int, int]
"""Kind, flags, stream, length."""


def frame(kind: int, flags: int, stream: int, length: int = 0, body: bytes = b"") -> bytes:
    """A frame's bytes, written independently of the code under test."""
    return struct.pack("!BBHII", 0, kind, flags, stream, length or len(body)) + body


class Wire:
    """One end of a secured connection in memory; keeps the header of every frame it sends."""

    is_initiator = True

    def __init__(self, send: Any, receive: Any) -> None:
        self._send, self._receive = send, receive
        self.sent: list[Header] = []

    async def write(self, data: bytes) -> None:
        """Send a frame."""
        _, *header = struct.unpack("!BBHII", data[:12])
        self.sent.append(tuple(header))
        await self._send.send_all(data)

    async def read(self, n: int | None = None) -> bytes:
        """Up to `n` bytes, what is there without `n`."""
        return bytes(await self._receive.receive_some(n))

    async def close(self) -> None:
        """Close both directions."""
        self._send.close()
        self._receive.close()

    def total(self, kind: int) -> int:
        """Bytes of data or of credit sent so far."""
        return sum(length for found, _, _, length in self.sent if found == kind)

    def frames(self, kind: int) -> int:
        """Frames without flags of a kind sent so far."""
        return sum(found == kind and not flags for found, flags, _, _ in self.sent)


class Pair(SimpleNamespace):
    """Two muxers, a stream between them, and the wires beneath."""

    near: YamuxStream
    far: YamuxStream
    near_wire: Wire
    far_wire: Wire


@asynccontextmanager
async def muxed() -> AsyncGenerator[Pair]:
    """A stream, and its other end."""
    one, two = trio.testing.memory_stream_pair()
    wires = [Wire(end.send_stream, end.receive_stream) for end in (one, two)]
    near, far = (
        Yamux(wire, "peer", is_initiator=first)
        for wire, first in zip(wires, (True, False), strict=True)
    )
    async with trio.open_nursery() as nursery:
        for muxer in (near, far):
            nursery.start_soon(muxer.start)
            await muxer.event_started.wait()
        opened = await near.open_stream()
        accepted = await far.accept_stream()
        yield Pair(near=opened, far=accepted, near_wire=wires[0], far_wire=wires[1])
        nursery.cancel_scope.cancel()


class Peer(SimpleNamespace):
    """A muxer, and the wire at whose other end the test sits."""

    muxer: Yamux
    wire: Wire


@asynccontextmanager
async def alone() -> AsyncGenerator[Peer]:
    """A running muxer with a stranger at the other end, who says what the test has it say."""
    one, two = trio.testing.memory_stream_pair()
    muxer = Yamux(Wire(one.send_stream, one.receive_stream), "peer", is_initiator=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxer.start)
        await muxer.event_started.wait()
        yield Peer(muxer=muxer, wire=Wire(two.send_stream, two.receive_stream))
        nursery.cancel_scope.cancel()
