"""Found through the chain alone: a node knows ids, a real chain says where they are now."""

import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from gateway.network import ChainRegistry, LogServer
from gateway.places import Places
from node.config import ChainConfig, Config, LlamaCpp, LogConfig, ModelConfig
from node.directory import HttpDirectory
from node.journal import Journal
from node.service import Parts, Surroundings, with_logs
from node.wallet import NodeKeys
from pinaivu.chain.anvil import AnvilProcess
from pinaivu.chain.discovery import known_logs
from pinaivu.chain.rpc import HttpRpc
from pinaivu.codes import Role
from pinaivu.manifest import Manifest
from pinaivu.p2p import wire
from pinaivu.p2p.host import open_host
from pinaivu.store.database import open_database
from pinaivu.store.writer import open_writer
from tests.integration.chain_network import GENESIS_AGE_S, Network
from tests.integration.node_peers import (
    LOOPBACK,
    ClientEngine,
    ScriptedCoordinator,
    ScriptedEngine,
    ScriptedGateway,
    activate_epoch,
    text_in,
)
from tests.integration.p2p_support import until
from tests.unit import node_support as n

pytestmark = pytest.mark.chain
GATEWAY_ID = "0x" + n.GATEWAY.address.hex()


@dataclass(frozen=True)
class Ground:
    """A chain with one log, whose active epoch is the scripted coordinator's."""

    net: Network
    manifest: Manifest

    def document(self, addresses: list[str]) -> bytes:
        """What the log's directory serves."""
        entry = {
            "number": self.net.client.epoch_count(self.net.log_id),
            "manifest": self.manifest.to_json(),
            "parameters": n.parameters().to_json(),
            "document": "",
        }
        return json.dumps({"epochs": [entry], "addresses": addresses}).encode()

    def log_is_at(self, *endpoints: str) -> None:
        """The operator publishes where the log is served."""
        self.net.admin.send(self.net.calls.set_endpoints(self.net.log_id, list(endpoints)))

    def gateway_is_at(self, *endpoints: str) -> None:
        """The gateway registers, or registers anew."""
        net = self.net
        proof = net.binding(n.GATEWAY.address, Role.GATEWAY, n.GATEWAY_PEER)
        call = net.calls.register_gateway(n.GATEWAY_PEER.point, list(endpoints), proof)
        net.sender(n.GATEWAY).send(call)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    state = tmp_path_factory.mktemp("discovery") / "state.json"
    began = int(time.time()) - GENESIS_AGE_S
    with AnvilProcess(state, genesis_s=began) as chain, HttpRpc(chain.url) as rpc:
        net = Network(rpc)
        yield Ground(net, activate_epoch(net))


@asynccontextmanager
async def http(body: bytes) -> AsyncIterator[str]:
    """A server that gives one answer, whatever was asked; its URL."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        await stream.send_all(head.encode() + body)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def coordinator(ground: Ground) -> AsyncIterator[tuple[ScriptedCoordinator, list[str]]]:
    """The epoch's coordinator on fresh ports, and what its operator has to publish."""
    async with open_host(n.COORDINATOR_PEER.secret, [LOOPBACK]) as host:
        address = host.addresses()[0]
        async with http(ground.document([address])) as url:
            yield ScriptedCoordinator(host), [url, bare(address)]


@asynccontextmanager
async def gateway() -> AsyncIterator[tuple[ScriptedGateway, str]]:
    """The gateway on a fresh port, and its address without a peer id."""
    async with open_host(n.GATEWAY_PEER.secret, [LOOPBACK]) as host:
        yield ScriptedGateway(host), bare(host.addresses()[0])


def bare(address: str) -> str:
    """An address without its peer id."""
    return address.partition("/p2p/")[0]


def config_of(ground: Ground, folder: Path, **changes: Any) -> Config:
    """A node that knows ids and nothing else."""
    values: dict[str, Any] = {
        "state": str(folder),
        "chain": ChainConfig("http://127.0.0.1:1", "none", private_endpoints=True),
        "logs": (LogConfig("0x" + ground.net.log_id.hex()),),
        "gateways": (GATEWAY_ID,),
        "models": (ModelConfig(n.MODEL, "none", n.PRICE, LlamaCpp("none")),),
        "drain_s": 0.0,
    }
    return Config(**(values | changes))


@asynccontextmanager
async def node(ground: Ground, folder: Path, **changes: Any) -> AsyncIterator[None]:
    """The node on a scripted engine, running; everything else it reads from the chain."""
    database = open_database(f"sqlite:///{folder / 'node.db'}", "node")
    engine = ScriptedEngine()
    async with (
        trio.open_nursery() as nursery,
        open_writer(database) as writer,
        open_host(n.NODE_PEER.secret) as host,
        httpx.AsyncClient(timeout=5, trust_env=False) as client,
    ):
        serve = partial(trio.serve_tcp, engine.serve, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        model = n.served_model(ClientEngine(url), logs=[ground.net.log_id])
        parts = Parts(
            config=with_logs(config_of(ground, folder, **changes), ground.net.client),
            keys=NodeKeys(signing=n.NODE, peer=n.NODE_PEER),
            domain=ground.net.deployment.domain,
            chain=ground.net.client,
            around=Surroundings(now_ms, lambda: 0, os.urandom, lambda: 0.0, {}),
            journal=Journal(writer),
            models={model.name: model},
        )
        nursery.start_soon(parts.assemble(host, HttpDirectory(client)).run, trio.sleep_forever)
        yield
        nursery.cancel_scope.cancel()
    database.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def served(ground: Ground, at: ScriptedCoordinator, by: ScriptedGateway) -> None:
    """An offer comes to this coordinator, and an order by this gateway is served."""
    at.offers.items.clear()
    offer = (await at.offers.reach(1))[0]
    domain = ground.net.deployment.domain
    job = n.JobDraft(
        now_ms=now_ms(), job_id=os.urandom(16), last_preimage=os.urandom(32), domain=domain
    )
    talk = await by.dispatch(
        job,
        offer.digest(domain),
        log_id=ground.net.log_id,
        epoch=ground.net.client.epoch_count(ground.net.log_id),
    )
    frames = await talk.rest()
    assert isinstance(frames[-1], wire.End), frames[-1]
    assert text_in(frames) == "It is lit now "


async def test_a_node_finds_coordinator_and_gateway_by_their_ids(
    ground: Ground, tmp_path: Path
) -> None:
    """No address in its configuration; an order is served."""
    async with coordinator(ground) as (there, said), gateway() as (asking, address):
        ground.log_is_at(*said)
        ground.gateway_is_at(address)
        async with node(ground, tmp_path):
            await served(ground, there, asking)


async def test_who_moves_is_found_again_without_a_restart(ground: Ground, tmp_path: Path) -> None:
    """The log to other ports; then the gateway as well."""
    async with trio.open_nursery() as nursery:
        async with gateway() as (asking, address):
            ground.gateway_is_at(address)
            async with coordinator(ground) as (first, said):
                ground.log_is_at(*said)
                nursery.start_soon(keep_running, node(ground, tmp_path))
                await served(ground, first, asking)
            async with coordinator(ground) as (second, elsewhere):
                assert elsewhere != said
                ground.log_is_at(*elsewhere)
                await served(ground, second, asking)
        async with coordinator(ground) as (third, elsewhere), gateway() as (new, new_address):
            assert new_address != address
            ground.log_is_at(*elsewhere)
            ground.gateway_is_at(new_address)
            await served(ground, third, new)
        nursery.cancel_scope.cancel()


async def keep_running(what: AbstractAsyncContextManager[None]) -> None:
    """In a task of its own, so that others may end before it."""
    async with what:
        await trio.sleep_forever()


async def test_a_gateway_finds_the_coordinator_by_the_logs_id(ground: Ground) -> None:
    """And finds it again elsewhere: the same registry object, asked before each dial."""
    client, log_id = ground.net.client, ground.net.log_id
    places = Places(log_id, client.log_endpoints, private=True)
    async with (
        httpx.AsyncClient(timeout=5, trust_env=False) as web,
        open_host(n.GATEWAY_PEER.secret) as host,
    ):
        registry = ChainRegistry(client, log_id, LogServer(web, places), places)
        seen = list[str]()
        for _ in range(2):
            async with coordinator(ground) as (there, said):
                ground.log_is_at("/ip4/10.0.0.1/udp/1/quic-v1", *said)
                seen.append(await registry.coordinator_address())
                assert await host.connect(seen[-1]) == there.host.peer_id
            await until(lambda: not host.peers())
        assert len(set(seen)) == 2


async def test_a_hostile_registry_entry_does_no_harm(ground: Ground, tmp_path: Path) -> None:
    """Garbage, forms we don't speak, a server that lies, a door where another key answers."""
    async with (
        coordinator(ground) as (there, (url, address)),
        gateway() as (asking, gateway_address),
        http(b'{"epochs": [], "addresses": 7}') as liar,
        open_host(os.urandom(32), [LOOPBACK]) as impostor,
    ):
        wrong = bare(impostor.addresses()[0])
        ground.log_is_at("/unix/var/run/docker.sock", "\u202e", "/ip4/1.2.3.4/udp/1/quic-v1",
                         liar, wrong, url, address)  # fmt: skip
        ground.gateway_is_at("//", wrong, "/ip4/127.0.0.1/tcp/99999", gateway_address)
        async with node(ground, tmp_path):
            await served(ground, there, asking)
        assert impostor.peers() == []


async def test_private_addresses_are_passed_over_unless_allowed(
    ground: Ground, tmp_path: Path
) -> None:
    """The same entries that the other tests use: not a single connection is made."""
    async with coordinator(ground) as (there, said), gateway() as (asking, address):
        ground.log_is_at(*said)
        ground.gateway_is_at(address)
        public_only = ChainConfig("http://127.0.0.1:1", "none")
        async with node(ground, tmp_path, chain=public_only):
            with trio.move_on_after(3):  # well above what the other tests need
                await there.hellos.reach(1, within=3600)
        assert not there.hellos.items
        assert not asking.pool.peers()


async def test_all_logs_are_those_with_an_attested_epoch(ground: Ground, tmp_path: Path) -> None:
    """Logs that anybody opens and nobody serves are not followed; the list is bounded."""
    stranger = ground.net.sender()
    for _ in range(3):
        stranger.send(ground.net.calls.open_log(["http://127.0.0.1:1"]))
    assert known_logs(ground.net.client, 8) == (ground.net.log_id,)
    assert known_logs(ground.net.client, 0) == ()
    async with coordinator(ground) as (there, said), gateway() as (asking, address):
        ground.log_is_at(*said)
        ground.gateway_is_at(address)
        async with node(ground, tmp_path, logs=(), all_logs=True):
            await served(ground, there, asking)
