"""Whole auctions over libp2p connections between processes, and the book at 10,000 offers.

    make bench-auction            # 3, 10 and 50 connected nodes
    make bench-auction DEEP=1     # 200 as well, and longer runs
    python -m bench.auction --database postgresql+psycopg://…   # instead of SQLite
    python -m bench.auction --compare 50   # 50 nodes, with and without our patches of libp2p

Three processes on this machine: a coordinator (`bench.auction_coordinator` says what of it is real
and what is left out), the nodes, all in one process with a host and a connection each
(`bench.auction_nodes`), and this one as gateway, which asks for one job after the other. Times are
the coordinator's, from the frame with the job to the frame with the award; CPU is all that the
coordinator's process spends, offers renewed meanwhile included.

`standing_10000` is what an auction over a book of 10,000 does on the event loop, in process: from
the market to winner, price, eligible count and both roots, after a few offers were renewed.
`standing_10000_crowded` is the same where offers come in ten price steps, all else equal, so that
about a thousand tie. CPU is the event loop's there, and a median. The transcript's JSON and the
durable write are not in these two.

`--compare` keeps two such networks up and measures them in turns, so that what else the machine
does falls on both; a ratio is that of two runs next to each other. The gateway, which both share,
is patched.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from subprocess import PIPE
from typing import Any, Final

import trio
from msgspec import Struct
from msgspec.structs import replace

from bench.auction_market import (
    DOMAIN,
    GATEWAY,
    LOG,
    PATIENT,
    RECORD,
    RULES,
    grant,
    job,
    key_of,
    offer,
    record_of,
)
from bench.machine import machine, said
from coordinator.app import now_ms
from coordinator.auctioneer import Auctioneer
from coordinator.book import OrderBook
from coordinator.reputation import Standing
from pinaivu.auction.replay import market_of
from pinaivu.auction.transcript import Header
from pinaivu.codes import Mode
from pinaivu.keys import SecretKey
from pinaivu.messages import Offer
from pinaivu.p2p import wire
from pinaivu.p2p.calls import Calls
from pinaivu.p2p.frames import FrameLimits
from pinaivu.p2p.host import open_host
from pinaivu.typed_data import Signed

OUT: Final = Path(__file__).parent / "out" / "auction.json"
AIMS: Final = {"live_n50.p50_ms": 10.0, "standing_10000.p50_ms": 1.0}
_PATIENCE_S: Final = 60.0
_RENEWED: Final = 5
_TURNS: Final = 6
LEFT_OUT: Final = (
    "left out: a network (all is loopback), cores of the nodes' own (they share these with the "
    "coordinator), reads of the chain, what follows an award"
)

Figures = dict[str, dict[str, float]]


class Size(Struct, frozen=True):
    """How much is measured."""

    nodes: tuple[int, ...] = (3, 10, 50)
    auctions: int = 200
    warm_up: int = 20
    book: int = 10_000
    rounds: int = 300


DEEP: Final = Size(nodes=(3, 10, 50, 200), auctions=1_000, rounds=1_000)


async def measure(size: Size, database: Callable[[int], str]) -> Figures:
    """Every figure, by name; `database` is the URL of an empty database, by number of nodes."""
    figures: Figures = {}
    for nodes in size.nodes:
        async with market(database(nodes), nodes) as (coordinator, gateway):
            for name, mode in (("live", Mode.LIVE), ("standing", Mode.STANDING)):
                await hold(gateway, mode, size.warm_up)
                figures[f"{name}_n{nodes}"] = await timed(coordinator, gateway, mode, size.auctions)
    figures[f"standing_{size.book}"] = await book(size, _offer)
    figures[f"standing_{size.book}_crowded"] = await book(size, _crowded)
    return figures


def summary(times_ms: list[float]) -> dict[str, float]:
    """Median, 99th percentile and number."""
    cuts = quantiles(times_ms, n=100, method="inclusive")
    return {"p50_ms": cuts[49], "p99_ms": cuts[98], "auctions": len(times_ms)}


class Child:
    """A process of the bench, which answers lines with JSON lines."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._buffer = b""

    async def tell(self, order: str) -> dict[str, Any]:
        """Its answer to a line."""
        assert self._process.stdin
        await self._process.stdin.send_all(order.encode() + b"\n")
        return await self.said()

    async def said(self) -> dict[str, Any]:
        """Its next line."""
        assert self._process.stdout
        while b"\n" not in self._buffer:
            some = await self._process.stdout.receive_some()
            if not some:
                raise RuntimeError(f"{self._process.args} has ended")
            self._buffer += some
        line, self._buffer = self._buffer.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[Child]:
    """A process of this package; it ends with its stdin."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", module, *arguments], stdin=PIPE, stdout=PIPE
    )
    try:
        yield Child(process)
        assert process.stdin
        await process.stdin.aclose()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        assert process.stdout
        await process.stdout.aclose()


@asynccontextmanager
async def market(url: str, nodes: int, *options: str) -> AsyncIterator[tuple[Child, Calls]]:
    """A coordinator, nodes with standing offers, and this process's stream as the gateway."""
    limits = FrameLimits.of(wire.MAX_CONTROL_FRAME)
    async with (
        child("bench.auction_coordinator", url, str(nodes), *options) as coordinator,
        open_host(GATEWAY.secret, liveness=PATIENT) as host,
        trio.open_nursery() as nursery,
    ):
        address = (await coordinator.said())["address"]
        async with child("bench.auction_nodes", address, str(nodes), *options) as bidders:
            await bidders.said()
            peer = await host.connect(address)
            calls = Calls(await host.open_stream(peer, wire.GATEWAY_PROTOCOL, limits))
            nursery.start_soon(calls.run)
            await calls.call(wire.encode(wire.Hello(GATEWAY.address, LOG)), _PATIENCE_S)
            yield coordinator, calls
            nursery.cancel_scope.cancel()


async def hold(gateway: Calls, mode: Mode, auctions: int) -> None:
    """One auction after the other, each with an award."""
    allowed = grant().to_bytes()
    for number in range(auctions):
        frame = wire.SubmitJob(job=job(number, mode, now_ms()).to_bytes(), grant=allowed)
        answer = wire.read_gateway_answer(await gateway.call(wire.encode(frame), _PATIENCE_S))
        assert isinstance(answer, wire.Awarded), answer


async def timed(coordinator: Child, gateway: Calls, mode: Mode, auctions: int) -> dict[str, float]:
    """The figures of one run."""
    await coordinator.tell("begin")
    await hold(gateway, mode, auctions)
    told = await coordinator.tell("report")
    return summary(told["times_ms"]) | {"cpu_ms": 1000 * told["cpu_s"] / auctions}


async def compare(nodes: int, size: Size, database: Callable[[int], str]) -> None:
    """Print what our patches of libp2p make of time and CPU, with the spread over the runs."""
    runs: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {"live": [], "standing": []}
    async with market(database(nodes), nodes) as ours, market(database(0), nodes, "plain") as plain:
        for turn in range(_TURNS):
            for name, mode in (("live", Mode.LIVE), ("standing", Mode.STANDING)):
                pair: dict[bool, dict[str, float]] = {}
                for patched in (turn % 2 == 0, turn % 2 == 1):
                    side = ours if patched else plain
                    await hold(side[1], mode, size.warm_up // 4)
                    pair[patched] = await timed(*side, mode, size.auctions // _TURNS)
                runs[name].append((pair[True], pair[False]))
    for name, pairs in runs.items():
        for key in ("p50_ms", "cpu_ms"):
            ratios = sorted(patched[key] / plain[key] for patched, plain in pairs)
            print(
                f"{name}_n{nodes} {key}: {median(p[key] for p, _ in pairs):.2f} patched, "
                f"{median(q[key] for _, q in pairs):.2f} plain, "
                f"ratio {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )


Offering = Callable[[SecretKey, int, int, int], Signed[Offer]]


def _offer(node: SecretKey, number: int, sequence: int, now: int) -> Signed[Offer]:
    return offer(node, number, sequence, now)


def _crowded(node: SecretKey, number: int, sequence: int, now: int) -> Signed[Offer]:
    spread = offer(node, number, sequence, now).message
    price = 300_000 + spread.price_out % 10 * 70_000
    alike = replace(spread, price_out=price, ttft_ms=200, tps_milli=50_000)
    return Signed.by(node, DOMAIN, alike)


async def book(size: Size, offering: Offering) -> dict[str, float]:
    """Standing auctions over a book, each after a few of its offers were renewed."""
    keys = [key_of("node", number) for number in range(size.book)]
    standing = Standing(success_ppm=900_000, cal_t=1000, cal_s=1000, newcomer=False)
    orders = OrderBook(
        DOMAIN,
        LOG,
        ttl_ms=RULES.offer_ttl_ms,
        standing=lambda _: standing,
        busy=lambda _: 0,
    )
    now = now_ms()

    def put(number: int, sequence: int) -> None:
        signed = offering(keys[number], number, sequence, now)
        orders.put(signed, record_of(keys[number]), RECORD, now)

    for number in range(size.book):
        put(number, 1)
    terms = job(0, Mode.STANDING, now).message
    opened = header(now)
    auctioneer = Auctioneer(
        DOMAIN,
        _ask_nobody,
        lambda: now,
        window_ms=RULES.window_ms,
        live_all=RULES.live_all,
        live_best=RULES.live_best,
    )
    orders.field(replace(market_of(opened, terms, grant().message, RULES), close_ms=now))
    times: list[float] = []
    cpu_ms: list[float] = []
    for number in range(size.rounds):
        for renewed in range(_RENEWED):
            put((number * _RENEWED + renewed) * 7919 % size.book, number + 2)
        began, cpu_began = time.perf_counter(), time.thread_time()
        asked = replace(opened, nonce=number.to_bytes(32))
        wanted = replace(market_of(asked, terms, grant().message, RULES), close_ms=now)
        held = await auctioneer.hold(orders.field(wanted), asked, live=False)
        cleared, root = held.ranking.clear(frozenset()), held.bids_root
        times.append(1000 * (time.perf_counter() - began))
        cpu_ms.append(1000 * (time.thread_time() - cpu_began))
        assert cleared is not None
        assert root
        assert held.header.eligible == size.book
    return summary(times) | {"cpu_ms": median(cpu_ms)}


async def _ask_nobody(_node: bytes, _call: wire.AuctionCall) -> wire.BidReply:
    raise AssertionError


def header(now: int) -> Header:
    """What the book's auctions are about."""
    signed = job(0, Mode.STANDING, now)
    terms = signed.message
    return Header(
        job_digest=signed.digest(DOMAIN),
        log_id=LOG,
        epoch=1,
        nonce=bytes(32),
        model_key=bytes(32),
        fingerprint=RECORD.fingerprint,
        ratio_ppm=RECORD.ratio_ppm,
        prompt_tokens=terms.prompt_tokens,
        expected_tokens=256,
        max_output_tokens=terms.max_output_tokens,
        value_of_time=RULES.value_of_time,
        mode=Mode.STANDING,
        parameters_digest=RULES.digest(),
        open_ms=now,
        close_ms=0,
        book_root=bytes(32),
        book_size=0,
        chain_block=7,
        reserve=terms.max_cost,
        eligible=0,
        called=0,
    )


def show(figures: Figures) -> None:
    """Print the table."""
    print(f"{'':24}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}{'number':>9}")
    for name, figure in figures.items():
        cells = "".join(f"{figure[key]:9.2f}" for key in ("p50_ms", "p99_ms", "cpu_ms"))
        aim = AIMS.get(f"{name}.p50_ms")
        said = f"   aim {aim:g}" if aim else ""
        print(f"{name:24}{cells}{figure['auctions']:9.0f}{said}")


def main() -> None:
    """Print the table and write `bench/out/auction.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deep", action="store_true")
    parser.add_argument("--database", help="an empty database for all runs; SQLite without")
    parser.add_argument("--compare", type=int, metavar="NODES", help="with and without patches")
    chosen = parser.parse_args()
    where = machine()
    with tempfile.TemporaryDirectory() as folder:

        def database(nodes: int) -> str:
            return chosen.database or f"sqlite:///{folder}/auction-{nodes}.db"

        size = DEEP if chosen.deep else Size()
        if chosen.compare:
            print(f"machine: {said(where)}")
            trio.run(compare, chosen.compare, size, database)
            return
        figures = trio.run(measure, size, database)
    print(f"machine: {said(where)}")
    show(figures)
    print(LEFT_OUT)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(figures | {"machine": where}, indent=2) + "\n")


if __name__ == "__main__":
    main()
