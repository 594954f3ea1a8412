"""Our gateway beside a LiteLLM proxy, both in front of the same scripted engine, in one run.

    make bench-gateway               # 120 requests per arm and more
    make bench-gateway ROUNDS=500    # as many for the times to the first token

Four arms take turns: `direct` asks the engine itself, `standing` and `live` go through the whole
network (gateway, auction by the coordinator, three nodes, each a process; libp2p, signatures,
SQLite, a chain) and `litellm` through one worker of the proxy. Client and payload are the same.

`ttft`: one short request after the other, each in a quiet moment; *added* is a quantile less the
median of `direct`. `chunks`: streams as fast as they come, 1 and 8 at a time. `requests`: short
ones, 8 at a time. `paced`: 24 streams of 50 tokens per second. CPU is by process, from /proc.

Left out: TLS, networks with delay, an engine that computes, more than one worker or core of
either, a database for LiteLLM (ours writes to disk whatever it signs), and cold starts. What our
side does after an answer (receipt, log, settlement) goes on beside all arms' requests.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Any, Final

import trio
from msgspec import Struct

from bench.gateway_client import Seen, connect, request_bytes
from bench.gateway_processes import NAMES, Stage, stage
from bench.machine import machine, said
from pinaivu.local.folder import MODEL

OUT: Final = Path(__file__).parent / "out" / "gateway.json"
AIMS: Final = {
    "standing.added_ttft_vs_litellm": ("≤", 0.5),
    "live.added_ttft_vs_litellm": ("≤", 0.8),
    "chunks_vs_litellm": ("≥", 5.0),
    "paced.gateway_cpu_us_per_chunk": ("≤", 600.0),
    "paced.cpu_vs_litellm": ("≤", 0.5),
}
_QUIET_S: Final = 0.06
_SETTLED_S: Final = 1.5
_FAIL_AFTER_S: Final = 120

Figures = dict[str, Any]


class Size(Struct, frozen=True):
    """How much is measured, per arm."""

    rounds: int = 120
    short: int = 8
    long: int = 600
    blocks: int = 4
    requests: int = 32
    paced_streams: int = 24
    paced_tokens: int = 300
    paced_rounds: int = 2
    interval_ms: int = 20


class Arms:
    """The arms of a stage, and how each is asked."""

    def __init__(self, stage: Stage, size: Size) -> None:
        self.stage = stage
        self.size = size
        self.names = list(stage.doors)
        self._random = Random(1)  # noqa: S311 - the order of arms, the same in every run

    def shuffled(self) -> list[str]:
        """All arms, in another order each time."""
        return self._random.sample(self.names, len(self.names))

    def request(self, arm: str, tokens: int, interval_ms: int = 0) -> bytes:
        """A request for so many tokens."""
        prompt = f"Tell of the lighthouse, its keeper, and the sea. script {tokens} {interval_ms}"
        body: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "stream": True,
        }
        if arm in ("standing", "live"):
            body["pinaivu"] = {"auction": arm}
        return request_bytes(self.stage.doors[arm][1], body)

    async def streams(self, arm: str, number: int, each: int, request: bytes) -> list[Seen]:
        """So many connections at once, each with so many requests one after the other."""
        seen: list[Seen] = []

        async def run() -> None:
            async with connect(self.stage.doors[arm][0]) as connection:
                seen.extend([await connection.ask(request) for _ in range(each)])

        with trio.fail_after(_FAIL_AFTER_S):
            async with trio.open_nursery() as nursery:
                for _ in range(number):
                    nursery.start_soon(run)
        return seen


async def measure(stage: Stage, size: Size) -> Figures:
    """Every figure, by arm and by name."""
    arms = Arms(stage, size)
    for arm in arms.names:  # warm
        await arms.streams(arm, 4, 10, arms.request(arm, size.short))
    figures: Figures = {"ttft": await first_tokens(arms)}
    figures["chunks"] = {
        str(streams): await block(arms, streams, 1, arms.size.long, size.blocks)
        for streams in (1, 8)
    }
    figures["requests"] = await block(arms, 8, size.requests // 8, size.short, size.blocks)
    figures["paced_run"] = await block(
        arms, size.paced_streams, 1, size.paced_tokens, size.paced_rounds, size.interval_ms
    )
    return figures | headline(figures)


async def first_tokens(arms: Arms) -> Figures:
    """Times to the first token, ms: one request at a time, arms in turns."""
    times: dict[str, list[float]] = {arm: [] for arm in arms.names}
    requests = {arm: arms.request(arm, arms.size.short) for arm in arms.names}
    async with trio.open_nursery() as nursery:
        connections = {arm: await nursery.start(_held, arms.stage.doors[arm][0]) for arm in times}
        for _ in range(arms.size.rounds):
            for arm in arms.shuffled():
                await trio.sleep(_QUIET_S)  # what an arm does after its answer is its own business
                seen = await connections[arm].ask(requests[arm])
                times[arm].append(1000 * seen.first_s)
        nursery.cancel_scope.cancel()
    bare = median(times["direct"])
    return {arm: _spread(found) | {"added": _added(found, bare)} for arm, found in times.items()}


async def _held(port: int, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    async with connect(port) as connection:
        task_status.started(connection)
        await trio.sleep_forever()


async def block(
    arms: Arms, streams: int, each: int, tokens: int, rounds: int, interval_ms: int = 0
) -> Figures:
    """Streams at once, arms in turns: chunks and requests per second, and CPU of each process."""
    totals = {arm: {"chunks": 0, "requests": 0, "seconds": 0.0} for arm in arms.names}
    cpu: dict[str, dict[str, float]] = {arm: {} for arm in arms.names}
    for _ in range(rounds):
        for arm in arms.shuffled():
            before, began = arms.stage.usage(), time.perf_counter()
            seen = await arms.streams(arm, streams, each, arms.request(arm, tokens, interval_ms))
            took = time.perf_counter() - began
            await trio.sleep(_SETTLED_S)  # receipts and their like belong to the arm
            for name, spent in arms.stage.usage().since(before).items():
                cpu[arm][name] = cpu[arm].get(name, 0.0) + spent
            total = totals[arm]
            total["chunks"] += sum(one.events for one in seen)
            total["requests"] += len(seen)
            total["seconds"] += took
    return {arm: _rates(totals[arm], cpu[arm]) for arm in arms.names}


def _rates(total: dict[str, float], cpu: dict[str, float]) -> Figures:
    chunks, requests, seconds = total["chunks"], total["requests"], total["seconds"]
    return {
        "chunks": chunks,
        "requests": requests,
        "chunks_per_s": chunks / seconds,
        "requests_per_s": requests / seconds,
        "cpu_us_per_chunk": {name: 1e6 * spent / chunks for name, spent in cpu.items()},
        "cpu_ms_per_request": {name: 1e3 * spent / requests for name, spent in cpu.items()},
    }


def _spread(times: Sequence[float]) -> Figures:
    cuts = quantiles(times, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "requests": len(times)}


def _added(times: Sequence[float], bare: float) -> Figures:
    return {name: value - bare for name, value in _spread(times).items() if name != "requests"}


def headline(figures: Figures) -> Figures:
    """The figures that have an aim: ratios to LiteLLM in this run, and CPU per paced chunk."""
    ttft, paced = figures["ttft"], figures["paced_run"]
    if "litellm" not in ttft:
        return {}
    theirs = ttft["litellm"]["added"]["p50"]
    said: Figures = {
        arm: {"added_ttft_vs_litellm": ttft[arm]["added"]["p50"] / theirs}
        for arm in ("standing", "live")
    }
    said["chunks_vs_litellm"] = min(
        found["standing"]["chunks_per_s"] / found["litellm"]["chunks_per_s"]
        for found in figures["chunks"].values()
    )
    ours = paced["standing"]["cpu_us_per_chunk"]["gateway"]
    said["paced"] = {
        "gateway_cpu_us_per_chunk": ours,
        "litellm_cpu_us_per_chunk": paced["litellm"]["cpu_us_per_chunk"]["litellm"],
        "cpu_vs_litellm": ours / paced["litellm"]["cpu_us_per_chunk"]["litellm"],
    }
    return said


def show(figures: Figures) -> None:
    """Print the tables."""
    names = ("p50", "p95", "p99")
    heads = "".join(f"{name:>9}" for name in names)
    print(f"\n{'first token, ms':20}{heads}  added:{heads}")
    for arm, found in figures["ttft"].items():
        cells = "".join(f"{found[name]:9.1f}" for name in names)
        added = "".join(f"{found['added'][name]:9.1f}" for name in names)
        print(f"{arm:20}{cells}        {added}")
    for streams, found in figures["chunks"].items():
        _show_block(f"{streams} stream(s), fast", found, "cpu_us_per_chunk", "CPU µs per chunk")
    _show_block("short requests", figures["requests"], "cpu_ms_per_request", "CPU ms per request")
    _show_block("paced", figures["paced_run"], "cpu_us_per_chunk", "CPU µs per chunk")
    print()
    for name, (sign, aim) in AIMS.items():
        value = figures
        for step in name.split("."):
            value = value.get(step, {})
        if isinstance(value, float):
            met = value <= aim if sign == "≤" else value >= aim
            print(f"{name:36}{value:10.2f}   aim {sign} {aim:g}{'' if met else '   MISSED'}")


def _show_block(title: str, found: Figures, key: str, what: str) -> None:
    names = [name for name in NAMES if any(one[key].get(name) for one in found.values())]
    print(f"\n{title:20}{'chunks/s':>9}{'req/s':>9}  {what}: " + ", ".join(names))
    for arm, one in found.items():
        cells = "".join(f"{one[key].get(name, 0):9.1f}" for name in names)
        print(f"{arm:20}{one['chunks_per_s']:9.0f}{one['requests_per_s']:9.1f}  {cells}")


def main() -> None:
    """Print the tables and write `bench/out/gateway.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=Size().rounds, help="requests per arm")
    chosen = parser.parse_args()
    began, before = time.monotonic(), machine()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    with tempfile.TemporaryDirectory() as folder, stage(Path(folder), say) as running:
        say("measuring")
        figures = trio.run(measure, running, Size(rounds=chosen.rounds))
    print(f"machine before: {said(before)}")
    print(f"load after: {machine()['load']:.2f} (most of it this bench)")
    show(figures)
    print("\n" + __doc__.split("\n\n")[-1].strip())
    OUT.parent.mkdir(exist_ok=True)
    written = figures | {"machine": before | {"load_after": machine()["load"]}}
    OUT.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
