"""Many streams at once through the whole network, with clients that stall, vanish and return.

    python -m bench.gateway_load             # as `make test-deep` runs it; ends with 1 if not flat
    python -m bench.gateway_load --rounds 2

Each round opens so many streams at once: half of the clients read to the end, the others stop
reading for a while with a small buffer, go away in mid-stream, go away before the first token, or
go away and come back with another request. After each round, once every receipt has come, the
gateway's resident memory is read. Flat means: after the first round, which warms up, it grows by no
more than `GROWTH`, whatever the number of rounds. The engine is scripted; all else is real.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final

import httpx
import trio
from msgspec import Struct

from bench.gateway_client import request_bytes
from bench.gateway_processes import Say, Stage, stage
from pinaivu.local.folder import MODEL

GROWTH: Final = 24 << 20
"""Bytes by which the gateway may grow after its first round, whatever their number: an allocator's
slack. A leak of some kilobytes per request passes it within the rounds of `make test-deep`."""
SLOTS: Final = 72
KINDS: Final = ("reads", "reads", "reads", "reads", "stalls", "vanishes", "flees", "returns")
_END: Final = b"\r\n0\r\n\r\n"
_SMALL_BUFFER: Final = 4096
_SETTLED_S: Final = 120.0


class Load(Struct, frozen=True):
    """How much: streams at once, rounds, tokens of each stream and milliseconds between them."""

    streams: int = 200
    rounds: int = 12
    tokens: int = 120
    interval_ms: int = 150
    stall_s: float = 3.0
    arrivals_s: float = 10.0


class Outcome(Struct, frozen=True):
    """What came of it: answers by kind and status, and resident bytes after each round."""

    answers: dict[str, int]
    resident: list[int]

    @property
    def growth(self) -> int:
        """Bytes since the first round."""
        return max(self.resident[1:]) - self.resident[0]


async def run(running: Stage, load: Load, say: Say) -> Outcome:
    """All rounds; raises where an answer is none of those that a client may get."""
    answers: Counter[str] = Counter()
    resident = []
    port, key = running.doors["standing"]
    random = Random(1)  # noqa: S311 - the same clients in every run
    for number in range(load.rounds):
        async with trio.open_nursery() as nursery:
            for place in range(load.streams):
                kind = KINDS[place % len(KINDS)]
                client = Client(port, _request(key, load), load, random.random())
                nursery.start_soon(client.play, kind, answers)
        await trio.to_thread.run_sync(_settle, running)
        resident.append(running.usage().resident["gateway"])
        say(f"round {number + 1} of {load.rounds}: {megabytes(resident[-1:])} MiB")
    return Outcome(dict(answers), resident)


class Client:
    """One client of one round."""

    def __init__(self, port: int, request: bytes, load: Load, late: float) -> None:
        """`late` is the part of the arrivals' time after which it comes, from 0 to 1."""
        self._port, self._request, self._load = port, request, load
        self._late_s = late * load.arrivals_s

    async def play(self, kind: str, answers: Counter[str]) -> None:
        """Be this kind of client; what came of it is counted."""
        await trio.sleep(self._late_s)
        answers[f"{kind}: {await self._once(kind)}"] += 1
        if kind == "returns":
            answers[f"{kind} again: {await self._once('reads')}"] += 1

    async def _once(self, kind: str) -> str:
        stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        async with stream:
            if kind == "stalls":
                option = (trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, _SMALL_BUFFER)
                stream.setsockopt(*option)
            await stream.send_all(self._request)
            if kind == "flees":
                return "gone before the first token"
            raw = bytearray(await stream.receive_some(_SMALL_BUFFER))
            if not raw.startswith(b"HTTP/1.1 200 "):
                return raw.split(b"\r\n", 1)[0].decode()
            if kind in ("vanishes", "returns"):
                return "gone in mid-stream"
            if kind == "stalls":
                await trio.sleep(self._load.stall_s)
            while not raw.endswith(_END):
                some = await stream.receive_some(_SMALL_BUFFER)
                if not some:
                    return "cut"
                raw += some
            return "whole" if b"data: [DONE]" in raw[-100:] else "ended by an error"


def _request(key: str, load: Load) -> bytes:
    prompt = f"Tell of the sea. script {load.tokens} {load.interval_ms}"
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": load.tokens,
        "stream": True,
        "pinaivu": {"auction": "standing"},
    }
    return request_bytes(key, body)


def _settle(running: Stage) -> None:
    """Wait until every request has its receipt."""
    url = f"{running.network.gateway_url}/health"

    def settled() -> bool:
        return int(httpx.get(url, timeout=30).json()["awaiting_receipts"]) == 0

    running.network.children["gateway"].wait_until(settled, within_s=_SETTLED_S)


def megabytes(sizes: Sequence[int]) -> str:
    """Sizes for people."""
    return ", ".join(f"{size / (1 << 20):.1f}" for size in sizes)


def main() -> int:
    """Print what came of it; 1 where memory is not flat."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=Load().rounds)
    load = Load(rounds=parser.parse_args().rounds)
    with (
        tempfile.TemporaryDirectory() as folder,
        stage(Path(folder), print, litellm=False, slots=SLOTS) as running,
    ):
        outcome = trio.run(run, running, load, print)
    for kind, number in sorted(outcome.answers.items()):
        print(f"{number:6} {kind}")
    print(f"gateway, resident MiB after each round: {megabytes(outcome.resident)}")
    print(
        f"growth after the first: {megabytes([outcome.growth])} MiB; {megabytes([GROWTH])} allowed"
    )
    return 0 if outcome.growth <= GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
