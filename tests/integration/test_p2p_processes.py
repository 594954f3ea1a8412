"""Peers that are processes: killed, frozen, restarted."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from pinaivu.p2p.errors import NotConnected, StreamBroken
from pinaivu.p2p.frames import FrameLimits, FrameStream
from pinaivu.p2p.host import Host, Liveness, open_host
from pinaivu.p2p.links import Backoff, keep_connected
from tests.integration.p2p_peer import ECHO
from tests.integration.p2p_support import until

START = 60.0  # importing the library on a loaded machine
NEVER = Liveness(ping_after=3600)


class Peer:
    """A running `p2p_peer`."""

    def __init__(self, process: trio.Process, address: str) -> None:
        self.process = process
        self.address = address

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.split("/")[4])


@asynccontextmanager
async def peer_process(secret: bytes | None = None, port: int = 0) -> AsyncGenerator[Peer]:
    """Start a peer in a process of its own; it is killed after the block."""
    command = [sys.executable, "-m", "tests.integration.p2p_peer"]
    command += [(secret or os.urandom(32)).hex(), str(port)]
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
        )
        try:
            assert process.stdout is not None
            with trio.fail_after(START):
                line = await process.stdout.receive_some()
            yield Peer(process, line.decode().strip())
        finally:
            process.kill()


async def opened(host: Host, peer: Peer, limits: FrameLimits | None = None) -> FrameStream:
    return await host.open_stream(await host.connect(peer.address), ECHO, limits)


async def test_killed_peer_is_noticed_by_its_socket() -> None:
    """Not by a ping: the first would come after an hour."""
    async with open_host(os.urandom(32), liveness=NEVER) as host, peer_process() as peer:
        stream = await opened(host, peer)
        peer.process.send_signal(signal.SIGKILL)
        with trio.fail_after(10), pytest.raises(StreamBroken):
            await stream.receive()
        with pytest.raises(NotConnected):
            await host.open_stream(stream.peer, ECHO)
        assert host.drops == {}


async def test_frozen_peer_is_noticed_within_the_health_bound() -> None:
    slack = 2.0  # for a loaded machine; the bound itself is a figure of the bench
    assert Liveness().bound < 4
    async with open_host(os.urandom(32)) as host, peer_process() as peer:
        stream = await opened(host, peer)
        peer.process.send_signal(signal.SIGSTOP)
        with trio.fail_after(Liveness().bound + slack), pytest.raises(StreamBroken):
            await stream.receive()
        assert host.drops == {"silent": 1}
        assert host.peers() == []


async def test_frozen_peer_that_is_being_written_to_is_dropped_all_the_same() -> None:
    """The socket's buffer is full then, and a farewell or reset could not be written."""
    limits = FrameLimits(outbox_bytes=64 << 20, write_timeout=1.0)
    async with open_host(os.urandom(32), liveness=NEVER) as host, peer_process() as peer:
        streams = [await opened(host, peer, limits) for _ in range(40)]
        peer.process.send_signal(signal.SIGSTOP)
        for stream in streams:
            for _ in range(5):
                stream.send(bytes(200_000))
        with trio.fail_after(15):
            for stream in streams:
                await stream.wait_over()
        assert host.peers() == []
        await until(lambda: len(host._nursery.child_tasks) == 1)  # the library's own
        assert sum(host.drops.values()) == 1


async def test_busy_peer_is_not_taken_for_a_dead_one() -> None:
    """One that is frozen while it is pinged, for less than the bound, goes on where it was."""
    frozen_for = Liveness().ping_after + Liveness().answer_within / 2
    async with open_host(os.urandom(32)) as host, peer_process() as peer:
        stream = await opened(host, peer)
        peer.process.send_signal(signal.SIGSTOP)
        await trio.sleep(frozen_for)
        peer.process.send_signal(signal.SIGCONT)
        with trio.fail_after(10):
            stream.send(b"still there?")
            assert await stream.receive() == b"still there?"
        assert host.drops == {}


async def test_link_comes_back_when_the_listener_restarts_on_its_port_and_key() -> None:
    secret = os.urandom(32)
    sessions, receive = trio.open_memory_channel[str](10)

    async def session(stream: FrameStream) -> None:
        stream.send(b"hello")
        sessions.send_nowait((await stream.receive()).decode())
        await stream.receive()

    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await trio.sleep(seconds)

    async with open_host(os.urandom(32)) as host, trio.open_nursery() as nursery:
        async with peer_process(secret) as first:
            link = partial(
                keep_connected,
                random=lambda: 1.0,
                backoff=Backoff(first=0.05, most=0.4),
                sleep=sleep,
            )
            nursery.start_soon(link, host, (first.address,), ECHO, session)
            with trio.fail_after(START):
                assert await receive.receive() == "hello"
        async with peer_process(secret, first.port) as second:
            assert second.address == first.address
            with trio.fail_after(START):
                assert await receive.receive() == "hello"
        nursery.cancel_scope.cancel()
    assert waits[:4] == pytest.approx([0.05, 0.1, 0.2, 0.4])
