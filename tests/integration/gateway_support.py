# ruff: noqa: D102 - doubles implement ports that document their methods
"""A gateway among scripted peers on loopback, with the official SDK as its client.

`FixedRegistry` and `FixedLog` stand for the chain and the coordinator's public server.
"""

import os
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import trio
from openai import OpenAI

from gateway.config import Limits
from gateway.drafts import Identity
from gateway.http.surface import Gateway
from gateway.network import LogUnreachable
from gateway.outbox import Pace
from gateway.ports import Epoch, Standing, UnknownParty
from gateway.service import LogPorts, Sources, open_gateway, run_http
from pinaivu.errors import TransportFailure
from pinaivu.keys import SecretKey, peer_id_of_point
from pinaivu.messages import Grant, Receipt
from pinaivu.p2p import PeerId
from pinaivu.p2p.host import Host, Liveness, open_host
from pinaivu.p2p.links import Backoff
from pinaivu.store.database import open_database
from pinaivu.store.gateway_keys import add_grant, create_key
from pinaivu.store.gateway_policy import Policy
from pinaivu.typed_data import Signed, signed_from_bytes
from tests.integration.p2p_support import PATIENCE, until
from tests.integration.scripted_coordinator import (
    Keys,
    ScriptedCoordinator,
    scripted_coordinator,
)
from tests.integration.scripted_node import AS_IN_SERVICE, Script, ScriptedNode
from tests.unit.gateway_facts import BODY, DOMAIN, LOG, MODEL, model, rules

DAY_MS: Final = 86_400_000
QUICK: Final = Limits(patience_s=2, ready_within_s=2, submit_within_s=4, after_cancel_s=2)
_PACE: Final = Pace(backoff=Backoff(first=0.05, most=0.2), unserved_after_s=0.05)


class ChainAway(TransportFailure):
    """The chain can't be asked, because the test says so."""


@dataclass
class FixedRegistry:
    """The chain and the manifest, as far as a gateway asks for them."""

    keys: Keys
    peers: dict[bytes, PeerId] = field(default_factory=dict)
    settled: dict[int, list[int]] = field(default_factory=dict)
    chain_away: bool = False

    async def refresh(self) -> Epoch:
        return await self.epoch()

    async def epoch(self) -> Epoch:
        peer = PeerId(peer_id_of_point(SecretKey(self.keys.coordinator_peer).point))
        return Epoch(number=1, signer=self.keys.epoch.address, peer=peer, parameters=rules())

    async def signer(self, epoch: int) -> bytes:
        if epoch != 1:
            raise UnknownParty(f"epoch {epoch}")
        return self.keys.epoch.address

    async def settles(self, sequence: int, index: int) -> bool:
        if self.chain_away:
            raise ChainAway("as scripted")
        return index in self.settled.get(sequence, ())

    async def node_peer(self, node: bytes) -> PeerId:
        if node not in self.peers:
            raise UnknownParty("no such node")
        return self.peers[node]


@dataclass
class FixedLog:
    """A public log with one bundle for everybody."""

    packed: bytes | None = None
    standing: Standing | None = None
    settled: dict[str, Any] = field(default_factory=lambda: {"state": "batched", "sequence": 1})
    away: bool = False

    async def bundle(self, gateway: bytes, request_id: str) -> bytes | None:
        assert len(gateway) == 20
        assert request_id
        return self.packed

    async def settlement(self, gateway: bytes, request_id: str) -> dict[str, Any]:
        assert len(gateway) == 20
        assert request_id
        return self.settled

    async def market(self, model: str) -> Standing | None:
        if self.away:
            raise LogUnreachable("as scripted")
        return self.standing if model == MODEL else None

    async def urls(self) -> tuple[str, ...]:
        return ("http://127.0.0.1:1",)


class Seller(Protocol):
    """A node, scripted or real: it lays ready streams at the gateway and is in the registry."""

    key: SecretKey

    @property
    def peer(self) -> PeerId: ...

    async def run(self, gateway_address: str) -> None: ...


@dataclass
class Network:
    """A gateway with its scripted peers and a client that knows a key."""

    keys: Keys
    gateway: Gateway
    coordinator: ScriptedCoordinator
    nodes: list[ScriptedNode]
    log: FixedLog
    url: str
    secret: str
    database: str

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.secret, max_retries=0, timeout=20)

    async def complete(self, **body: Any) -> Any:
        """A chat completion by the official SDK, in a thread; streams are gathered in a list."""

        def call() -> Any:
            with self.client as client:
                answer = client.chat.completions.create(**request(**body))
                return list(answer) if body.get("stream") else answer

        return await in_thread(call)

    async def receipt(self) -> Receipt:
        """The one job's receipt, as the gateway stored it."""
        await until(lambda: self.coordinator.only.receipt is not None)
        await until(lambda: self.gateway.logs.waiting == 0)
        row = await self.gateway.ledger.found_receipt(self.coordinator.only.job.message.job_id)
        assert row is not None
        assert row.problem is None, row.problem
        return signed_from_bytes(Receipt, row.signed).message


def request(**changes: Any) -> dict[str, Any]:
    """A small chat completion's body."""
    return BODY | {"max_tokens": 200} | changes


async def in_thread(call: Callable[[], Any]) -> Any:
    """Run a blocking client call beside the loop."""
    with trio.fail_after(2 * PATIENCE):
        return await trio.to_thread.run_sync(call)


def signed_grant(keys: Keys, now_ms: int, **changes: Any) -> Signed[Grant]:
    """A generous grant of the payer to the gateway."""
    grant = Grant(
        log_id=LOG,
        payer=keys.payer.address,
        gateway=keys.gateway.address,
        grant_epoch=0,
        max_total=10**12,
        max_per_job=10**9,
        max_per_day=10**12,
        max_price_in=10**6,
        max_price_out=10**6,
        not_before_ms=now_ms - DAY_MS,
        not_after_ms=now_ms + DAY_MS,
        salt=os.urandom(32),
        models=(),
    )
    return Signed.by(keys.payer, DOMAIN, msgspec.structs.replace(grant, **changes))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def sources() -> Sources:
    return Sources(now_ms=now_ms, random_bytes=os.urandom, random=random.random)


@asynccontextmanager
async def network(
    folder: Path,
    *scripts: Script,
    limits: Limits = QUICK,
    key: dict[str, Any] | None = None,
    keys: Keys | None = None,
    coordinator: tuple[ScriptedCoordinator, Host] | None = None,
    further: Sequence[tuple[ScriptedCoordinator, Host]] = (),
    sellers: Sequence[Seller] = (),
    liveness: Liveness = AS_IN_SERVICE,
) -> AsyncGenerator[Network]:
    """A running gateway, coordinator and one node for each script, ranked in that order.

    `sellers` are nodes that are no script; they come after those that are.

    `further` are coordinators of other logs, for a key with a payer at each.
    """
    keys = keys or Keys()
    if coordinator is None:
        async with (
            scripted_coordinator(keys, liveness=liveness) as listening,
            network(
                folder,
                *scripts,
                limits=limits,
                key=key,
                keys=keys,
                coordinator=listening,
                sellers=sellers,
                liveness=liveness,
            ) as inner,
        ):
            yield inner
        return
    coordinators, log = [coordinator, *further], FixedLog()
    nodes = [ScriptedNode(script, liveness) for script in scripts]
    ranked: list[Seller] = [*nodes, *sellers]
    peers = {node.key.address: node.peer for node in ranked}
    url = f"sqlite:///{folder / 'gateway.db'}"
    database = open_database(url, "gateway")
    for scripted, _ in coordinators:
        scripted.line = list(peers)
        grant = signed_grant(scripted.keys, now_ms(), log_id=scripted.log_id)
        add_grant(database, DOMAIN, grant, now_ms())
    policy = dict(key or {})
    hosted = policy.pop("hosted_limit_units", None)
    new = create_key(
        database,
        payer=keys.payer.address,
        further_payers=[scripted.keys.payer.address for scripted, _ in further],
        label="test",
        random=os.urandom,
        now_ms=now_ms(),
        policy=Policy(**policy),
        hosted_limit_units=hosted,
    )

    async with (
        open_host(keys.gateway_peer, ["/ip4/127.0.0.1/tcp/0"], liveness=liveness) as host,
        open_gateway(
            identity=Identity(keys.gateway, DOMAIN),
            database=database,
            batches=folder / "batches",
            host=host,
            logs=[_log_ports(*listening, peers, log) for listening in coordinators],
            models={MODEL: model()},
            limits=limits,
            sources=sources(),
            pace=_PACE,
        ) as gateway,
        trio.open_nursery() as nursery,
    ):
        binds = await nursery.start(_run_http, gateway)
        for node in ranked:
            nursery.start_soon(node.run, host.addresses()[0])
        await until(lambda: len(gateway.logs.connected) == len(coordinators))
        await until(lambda: all(gateway.desk.pool.count(node.peer) for node in ranked))
        yield Network(keys, gateway, coordinator[0], nodes, log, binds[0], new.secret, url)
        nursery.cancel_scope.cancel()
    database.close()


def _log_ports(
    scripted: ScriptedCoordinator, host: Host, peers: dict[bytes, PeerId], log: FixedLog
) -> LogPorts:
    async def address() -> str:
        return host.addresses()[0]

    registry = FixedRegistry(scripted.keys, peers)
    return LogPorts(log_id=scripted.log_id, registry=registry, coordinator=address, public=log)


async def _run_http(gateway: Gateway, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    await run_http(gateway, "127.0.0.1:0", trio.sleep_forever, task_status)
