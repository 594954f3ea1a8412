"""The coordinator's process of the auction bench, told by lines on stdin; answers are JSON lines.

    python -m bench.auction_coordinator DATABASE_URL NODES [plain]

Real: host, streams, sessions, admission, book, auction, signatures and the durable write. Left out:
chain reads (in memory), the HTTP server, settlement, and everything after the award: a job is
forgotten as soon as its award is on its way. `begin` starts a run, `report` gives its times, from
the frame with the job having come to the frame with the award being handed over for sending, and
the process's CPU over the run. `plain`: with libp2p as it comes.
"""

import json
import os
import sys
import time
from functools import partial
from typing import Any

import trio

from bench.auction_market import DOMAIN, EPOCH, GATEWAY, LOG, PATIENT, RULES, FixedChain, key_of
from coordinator.app import _receipted, now_ms
from coordinator.auctioneer import Auctioneer
from coordinator.book import OrderBook
from coordinator.desk import AuctionDesk, Clock
from coordinator.directory import Directory
from coordinator.docket import Docket
from coordinator.evidence import Evidence
from coordinator.log import Log
from coordinator.reputation import Reputation
from coordinator.sessions import Handlers, Sessions
from pinaivu.p2p import PeerId, wire
from pinaivu.p2p.frames import FrameLimits, FrameStream
from pinaivu.p2p.host import open_host
from pinaivu.store.database import open_database
from pinaivu.store.writer import Writer, open_writer

LISTEN = "/ip4/127.0.0.1/tcp/0"


class Run:
    """The times of one run."""

    def __init__(self) -> None:
        self.times_ms: list[float] = []
        self._cpu_s = time.process_time()

    def report(self) -> dict[str, Any]:
        """Times, and CPU spent since the run began."""
        return {"times_ms": self.times_ms, "cpu_s": time.process_time() - self._cpu_s}


class Bench:
    """A coordinator as `coordinator.app` puts it together, with a clock at its gateway's stream."""

    def __init__(self, writer: Writer, nodes: int) -> None:
        self.run = Run()
        self._writer = writer
        self.docket = Docket()
        log, reputation = Log(DOMAIN, LOG, recent_ms=2 * RULES.job_skew_ms), Reputation(RULES)
        directory = Directory(FixedChain(nodes))
        self.sessions = Sessions(directory, LOG, now_ms)
        self.book = OrderBook(
            DOMAIN,
            LOG,
            ttl_ms=RULES.offer_ttl_ms,
            standing=reputation.standing,
            busy=self.docket.busy,
        )
        self.docket.on_load.append(self.book.touch)
        desk = AuctionDesk(
            log=log,
            docket=self.docket,
            book=self.book,
            reputation=reputation,
            directory=directory,
            auctioneer=Auctioneer(
                DOMAIN,
                self.sessions.ask,
                now_ms,
                window_ms=RULES.window_ms,
                live_all=RULES.live_all,
                live_best=RULES.live_best,
            ),
            writer=writer,
            key=EPOCH,
            epoch=1,
            parameters=RULES,
            clock=Clock(now_ms, os.urandom),
            reachable=self.sessions.reachable,
            find_receipt=self._find_receipt,
        )
        evidence = Evidence(log, self.docket, writer, lambda _: None, now_ms)
        self.sessions.attach(Handlers(self.book, desk, evidence, self._find_receipt))

    async def _find_receipt(self, gateway: bytes, job_id: bytes) -> wire.Receipted | None:
        return await self._writer.read(lambda session: _receipted(session, gateway, job_id))

    async def serve_gateway(self, peer: PeerId, stream: FrameStream) -> None:
        """The one gateway's control stream; it asks for one auction after the other."""
        came = 0.0
        receive_many, send = stream.receive_many, stream.send

        async def timed_receive() -> list[bytes]:
            nonlocal came
            frames = await receive_many()
            came = time.perf_counter()
            return frames

        def timed_send(frame: bytes) -> None:
            send(frame)
            self.run.times_ms.append(1000 * (time.perf_counter() - came))
            for job in list(self.docket.jobs.values()):
                self.docket.close(job)

        stream.receive_many, stream.send = timed_receive, timed_send  # type: ignore[method-assign]
        await self.sessions.serve_gateway(peer, stream)

    def answer(self, order: str) -> dict[str, Any]:
        """What a line on stdin is answered."""
        if order == "begin":
            self.run = Run()
            return {}
        return self.run.report()


async def main(url: str, nodes: int, *, patched: bool) -> None:
    """Serve until stdin ends."""
    database = open_database(url, "coordinator")
    limits = FrameLimits.of(wire.MAX_CONTROL_FRAME)
    async with (
        open_writer(database, crash_only=True) as writer,
        open_host(
            key_of("coordinator").secret, [LISTEN], liveness=PATIENT, patched=patched
        ) as host,
    ):
        bench = Bench(writer, nodes)
        host.serve(wire.NODE_PROTOCOL, bench.sessions.serve_node, limits)
        host.serve(wire.GATEWAY_PROTOCOL, bench.serve_gateway, limits)
        say({"address": host.addresses()[0], "gateway": GATEWAY.address.hex()})
        async for order in orders():
            say(bench.answer(order))
    database.close()


async def orders() -> Any:
    """Lines of stdin as they come, until it ends."""
    buffer = b""
    async for some in trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())):
        *lines, buffer = (buffer + some).split(b"\n")
        for line in lines:
            yield line.decode()


def say(answer: dict[str, Any]) -> None:
    """One JSON line to whoever started this process."""
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    trio.run(partial(main, sys.argv[1], int(sys.argv[2]), patched="plain" not in sys.argv[3:]))
