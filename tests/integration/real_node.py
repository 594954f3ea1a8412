"""A real node's work behind a real gateway: gatekeeper, executor, journal, engine client, streams.

What it looks up (registries, the log's epoch, its own quotes) stands in dictionaries; offers and
bids are left out, since the scripted coordinator awards whom it is told to. `pouring` starts the
engine process that it works with.
"""

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from node.checks import Gatekeeper
from node.executor import Executor
from node.gateways import Gateways
from node.journal import Journal
from node.logs import Epoch
from node.quotes import Quote, Quotes
from pinaivu.chain.records import GatewayRecord
from pinaivu.keys import SecretKey, peer_id_of_point
from pinaivu.p2p import PeerId, wire
from pinaivu.p2p.frames import FrameLimits
from pinaivu.p2p.host import open_host
from pinaivu.p2p.links import keep_ready
from pinaivu.store.database import open_database
from pinaivu.store.writer import open_writer
from tests.integration.gateway_support import Network, network, now_ms
from tests.integration.node_peers import ClientEngine
from tests.integration.scripted_coordinator import Keys
from tests.unit import node_support as n

_BID = b"\x33" * 32  # what the scripted coordinator's awards name


class RealNode:
    """One node; `executor` is there once it runs."""

    def __init__(self, folder: Path, keys: Keys, engine_url: str) -> None:
        self.key = SecretKey.generate(os.urandom)
        self.engine_url = engine_url
        self._folder = folder
        self._keys = keys
        self._peer_secret = os.urandom(32)
        self.executor: Executor | None = None

    @property
    def peer(self) -> PeerId:
        """Its registered peer."""
        return PeerId(peer_id_of_point(SecretKey(self._peer_secret).point))

    async def run(self, gateway_address: str) -> None:
        """Lay ready streams at the gateway and work, until cancelled."""
        database = open_database(f"sqlite:///{self._folder / 'node.db'}", "node")
        async with (
            open_writer(database) as writer,
            open_host(self._peer_secret) as host,
            trio.open_nursery() as nursery,
        ):
            self.executor = Executor(
                self.key,
                n.DOMAIN,
                gatekeeper=self._gatekeeper(),
                journal=Journal(writer),
                now_ms=now_ms,
                owed=lambda _log: None,
            )
            peer = await host.connect(gateway_address)
            limits = FrameLimits.of(wire.MAX_WORK_FRAME)
            serve = self.executor.serve
            await keep_ready(
                host, peer, wire.WORK_PROTOCOL, serve, jobs=nursery, idle=2, limits=limits
            )

    def _gatekeeper(self) -> Gatekeeper:
        gateway, peer = self._keys.gateway.address, SecretKey(self._keys.gateway_peer).point
        chain = n.chain()
        chain.gateways[gateway] = GatewayRecord(gateway, peer, now_ms() - 5000, ())
        log = n.log_watch(chain)
        log.current = Epoch(1, self._keys.epoch.address, n.parameters(), ("/ip4/127.0.0.1/tcp/1",))
        quotes = Quotes()
        offer = n.offer(now_ms(), node=self.key.address)
        quotes.remember(Quote(_BID, offer, offer.price_out), now_ms())
        return Gatekeeper(
            self.key.address,
            n.DOMAIN,
            logs={n.LOG: log},
            gateways=Gateways(chain, now_ms),
            quotes=quotes,
            models={n.MODEL: n.served_model(ClientEngine(self.engine_url), slots=8)},
            now_ms=now_ms,
        )


class Engine:
    """A running engine process, from outside."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def stats(self) -> dict[str, int]:
        """What it says of itself."""
        async with httpx.AsyncClient() as http:
            found: dict[str, int] = (await http.get(f"{self.url}/stats")).json()
        return found

    async def until(self, **counts: int) -> dict[str, int]:
        """Its figures, once these are reached."""
        with trio.fail_after(20):
            while True:
                found = await self.stats()
                if all(found[name] >= count for name, count in counts.items()):
                    return found
                await trio.sleep(0.02)


@contextmanager
def pouring(*options: str) -> Generator[Engine]:
    """An engine process of `tests.integration.pouring_engine`."""
    command = [sys.executable, "-m", "tests.integration.pouring_engine", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield Engine(f"http://127.0.0.1:{process.stdout.readline().strip()}")
        finally:
            process.kill()


@asynccontextmanager
async def served(
    folder: Path, engine: Engine, **more: Any
) -> AsyncGenerator[tuple[Network, RealNode]]:
    """A gateway with one real node on that engine."""
    keys = Keys()
    node = RealNode(folder, keys, engine.url)
    async with network(folder, keys=keys, sellers=[node], **more) as net:
        yield net, node
