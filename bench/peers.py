"""How soon a lost peer is noticed, and how soon it is back: killed, frozen, cut off.

    make bench-peers            # ten of each; RUNS=n for other
    python -m bench.peers --runs 10

This process is a coordinator that loses its node, then a node that loses its coordinator; the other
is a process of its own (`bench.peers_process` says what of both is real). *Noticed* is the time
from SIGKILL, from SIGSTOP, or from the network's end to the moment this process's conversation is
over, and with it whatever waited for an answer. *Back* is the time from the peer being there again
(it listens or is about to dial, was sent SIGCONT, has its network back) to the next hello answered.
A killed peer keeps its key, so finding a coordinator's new one on chain is not in it.

The loss comes at a random moment of the ping's second, on a link that is quiet and has been up long
enough to be redialed without delay; what is lost is brought back as soon as that is noticed. For
the cut the peer lives in a network namespace behind a pair of virtual links, whose far end is taken
down; that needs root, and is left out without.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import trio

from bench.machine import machine, said
from bench.peers_process import BACKOFF, Link
from pinaivu.loopback import free_port
from pinaivu.p2p import wire
from pinaivu.p2p.host import Host, Liveness, open_host

OUT: Final = Path(__file__).parent / "out" / "peers.json"
AIMS: Final = {"killed": 1_000.0, "frozen": 4_000.0, "cut": 4_000.0}
_PATIENCE_S: Final = 60.0
_HERE, _THERE = "198.18.61.1", "198.18.61.2"  # of the range for benchmarks, RFC 2544
_DRAW: Final = random.SystemRandom().random


class Peer:
    """The other process, which can be lost in three ways and come back from each."""

    def __init__(self, command: list[str], namespace: str | None) -> None:
        self._command = command
        self._namespace = namespace
        self._process: trio.Process | None = None
        self.address = ""

    async def start(self) -> None:
        """Start it; it listens, or is about to dial, when this returns."""
        enter = ["ip", "netns", "exec", self._namespace] if self._namespace else []
        self._process = await trio.lowlevel.open_process(
            [*enter, sys.executable, "-m", "bench.peers_process", *self._command],
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        with trio.fail_after(_PATIENCE_S):
            line = await self._process.stdout.receive_some()
        self.address = next(iter(json.loads(line)["addresses"]), "")

    async def end(self) -> None:
        """SIGKILL, and wait."""
        self.kill()
        assert self._process
        assert self._process.stdout
        await self._process.wait()
        await self._process.stdout.aclose()

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    async def thaw(self) -> None:
        """SIGCONT."""
        await trio.lowlevel.checkpoint()
        self._signal(signal.SIGCONT)

    async def restart(self) -> None:
        """Start it again after `kill`, with its key and port."""
        await self.end()
        await self.start()

    def cut(self) -> None:
        """Take its network away: packets are lost, both processes live on."""
        self._link("down")

    async def mend(self) -> None:
        """Give its network back."""
        await trio.lowlevel.checkpoint()
        self._link("up")

    def _signal(self, number: signal.Signals) -> None:
        assert self._process
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _link(self, state: str) -> None:
        assert self._namespace
        _ip("-n", self._namespace, "link", "set", "far", state)


WAYS: Final[dict[str, tuple[Callable[[Peer], None], Callable[[Peer], Awaitable[None]]]]] = {
    "killed": (Peer.kill, Peer.restart),
    "frozen": (Peer.freeze, Peer.thaw),
    "cut": (Peer.cut, Peer.mend),
}


@asynccontextmanager
async def lost_node(namespace: str | None, address: str) -> AsyncGenerator[tuple[Link, Peer]]:
    """This process as coordinator, and its node."""
    link = Link()
    async with open_host(os.urandom(32), [f"/ip4/{address}/tcp/0"]) as host:
        host.serve(wire.NODE_PROTOCOL, link.answer)
        async with running(Peer(["node", host.addresses()[0]], namespace)) as peer:
            yield link, peer


@asynccontextmanager
async def lost_coordinator(
    namespace: str | None, address: str
) -> AsyncGenerator[tuple[Link, Peer]]:
    """This process as node, and its coordinator."""
    link, there = Link(), _THERE if namespace else address
    command = ["coordinator", os.urandom(32).hex(), f"/ip4/{there}/tcp/{free_port()}"]
    async with (
        open_host(os.urandom(32)) as host,
        running(Peer(command, namespace)) as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_dial, link, host, peer.address)
        yield link, peer
        nursery.cancel_scope.cancel()


async def _dial(link: Link, host: Host, address: str) -> None:
    await link.dial(host, address)


@asynccontextmanager
async def running(peer: Peer) -> AsyncGenerator[Peer]:
    """The peer, started; killed after the block."""
    await peer.start()
    try:
        yield peer
    finally:
        with trio.CancelScope(shield=True):
            await peer.end()


async def measure(
    side: Callable[..., Any], way: str, runs: int, namespace: str | None
) -> dict[str, float]:
    """Lose the peer and have it back, so many times."""
    lose, bring_back = WAYS[way]
    noticed, back = list[float](), list[float]()
    async with side(namespace, _HERE if namespace else "127.0.0.1") as (link, peer):
        for _ in range(runs):
            await _within(link.up)
            await trio.sleep(BACKOFF.healthy_after + Liveness().ping_after * _DRAW())
            began = trio.current_time()
            lose(peer)
            await _within(link.lost)
            noticed.append(1000 * (trio.current_time() - began))
            await bring_back(peer)
            began = trio.current_time()
            await _within(link.up)
            back.append(1000 * (trio.current_time() - began))
    return {
        "noticed_p50_ms": median(noticed),
        "noticed_max_ms": max(noticed),
        "back_p50_ms": median(back),
        "back_max_ms": max(back),
        "runs": runs,
    }


async def _within(event: trio.Event) -> None:
    with trio.fail_after(_PATIENCE_S):
        await event.wait()


async def measure_all(runs: int) -> dict[str, dict[str, float]]:
    """Every figure, by who is lost and how."""
    figures = {}
    for who, side in (("node", lost_node), ("coordinator", lost_coordinator)):
        for way in ("killed", "frozen"):
            figures[f"{who}_{way}"] = await measure(side, way, runs, None)
        async with namespace() as inside:
            if inside:
                figures[f"{who}_cut"] = await measure(side, "cut", runs, inside)
    return figures


@asynccontextmanager
async def namespace() -> AsyncGenerator[str | None]:
    """A network namespace with one link to here, by name; None where that is not permitted."""
    name, near = f"pinaivu-{os.getpid()}", f"pv{os.getpid()}"
    far = ("-n", name)
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        await trio.lowlevel.checkpoint()
        yield None
        return
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", "far", "netns", name)
        _ip("addr", "add", f"{_HERE}/30", "dev", near)
        _ip("link", "set", near, "up")
        _ip(*far, "addr", "add", f"{_THERE}/30", "dev", "far")
        _ip(*far, "link", "set", "far", "up")
        _ip(*far, "link", "set", "lo", "up")
        yield name
    finally:
        _ip("netns", "del", name)  # and the links with it


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)  # noqa: S603, S607 - fixed words


def show(figures: dict[str, dict[str, float]]) -> None:
    """Print the table."""
    columns = ("noticed_p50_ms", "noticed_max_ms", "back_p50_ms", "back_max_ms")
    print(f"{'':22}" + "".join(f"{name:>16}" for name in columns) + f"{'runs':>6}")
    for name, figure in figures.items():
        cells = "".join(f"{figure[column]:16.0f}" for column in columns)
        aim = AIMS[name.rpartition("_")[2]]
        print(f"{name:22}{cells}{figure['runs']:6.0f}   noticed: aim < {aim:.0f}")


def main() -> None:
    """Print the table and write `bench/out/peers.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    chosen = parser.parse_args()
    where = machine()
    figures = trio.run(partial(measure_all, chosen.runs))
    where["load_after"] = os.getloadavg()[0]
    print(f"machine: {said(where)}")
    show(figures)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(figures | {"machine": where}, indent=2) + "\n")


if __name__ == "__main__":
    main()
