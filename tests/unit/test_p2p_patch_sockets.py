"""Reading ahead from a socket: the same bytes, the same errors, and turns for others."""

import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream

from pinaivu.p2p.patches import patch_libp2p
from pinaivu.p2p.patches.sockets import AT_ONCE


@pytest.fixture(autouse=True)
def patched() -> None:
    patch_libp2p()


@asynccontextmanager
async def sockets() -> AsyncGenerator[tuple[TrioTCPStream, socket.socket]]:
    """A stream of the library, and the socket at its other end."""
    here, there = socket.socketpair()
    here.setblocking(False)
    stream = TrioTCPStream(trio.SocketStream(trio.socket.from_stdlib_socket(here)))
    with there:
        yield stream, there
        await stream.close()


async def test_bytes_come_in_order_whatever_is_asked_for() -> None:
    async with sockets() as (stream, there):
        there.sendall(bytes(range(100)))
        parts = [await stream.read(n) for n in (1, 0, 2, 50, None)]
        assert b"".join(parts) == bytes(range(100))
        assert [len(part) for part in parts] == [1, 0, 2, 50, 47]
        there.close()
        assert await stream.read(1) == b""


async def test_a_closed_stream_gives_nothing_of_what_it_had_read() -> None:
    async with sockets() as (stream, there):
        there.sendall(b"0123456789")
        assert await stream.read(1) == b"0"
        await stream.close()
        assert await stream.read(1) == b""


async def test_a_reset_by_the_peer_is_the_librarys_error() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        theirs = socket.create_connection(listener.socket.getsockname()[:2])
        stream = TrioTCPStream(await listener.accept())
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        with pytest.raises(ConnectionClosedError):
            await stream.read(1)
        await stream.close()


async def test_a_reader_with_much_to_read_gives_way() -> None:
    """A thousand reads from what lies there: others have their turn in between."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with sockets() as (stream, there), trio.open_nursery() as nursery:
        nursery.start_soon(others)
        there.sendall(bytes(2000))
        for _ in range(1000):
            await stream.read(2)
        assert turns >= 1000 // AT_ONCE - 1
        nursery.cancel_scope.cancel()
