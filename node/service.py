"""The node, put together: `open_node` builds it from a configuration, `Node.run` runs it.

    async with open_node(config, surroundings) as node:
        await node.run(stop.wait)

Start-up is one check after the other, each of which says what to do when it fails: keys, database,
chain, registration, model files, engine, promise. Then nothing ends the node but `stop`: logs,
coordinators, gateways and engine may come and go. Stopping withdraws the offers, lets running work
finish within `drain_s`, signs the rest as drained, and hands in what can be handed in.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import httpx
import trio
from msgspec.structs import replace

from node.checks import Gatekeeper
from node.config import MOST_LOGS, Config, LogConfig, ModelConfig, engine_spec
from node.control import CoordinatorLink
from node.directory import HttpDirectory
from node.engines.gguf_tokenizer import check_files
from node.engines.measure import measure
from node.engines.spec import child_environment
from node.engines.supervisor import EngineEvent, Supervisor
from node.engines.trial import tried
from node.errors import DirectoryUnavailable
from node.executor import ACK_TIMEOUT_S, Executor
from node.gateways import Gateways
from node.journal import Journal
from node.links import Where, gateway_at, keep_serving
from node.logs import LogWatch
from node.models import (
    SERVED,
    ServedModel,
    SupervisedEngine,
    load_files,
)
from node.models import (
    check_registered as check_model,
)
from node.offers import OfferDesk
from node.ports import Chain, Directory, NowMs
from node.quotes import Quotes
from node.registered import Look, Registered
from node.slots import Slots
from node.wallet import NodeKeys, check_registered
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployment import Deployment
from pinaivu.chain.discovery import known_logs, registered_gateways
from pinaivu.chain.rpc import HttpRpc
from pinaivu.keyfiles import load_key
from pinaivu.keys import checksum
from pinaivu.p2p.host import Host, open_host
from pinaivu.store.database import open_database
from pinaivu.store.writer import open_writer
from pinaivu.typed_data import Domain

_FAREWELL_S: Final = 5.0
_LAST_WORDS_S: Final = 2.0
_MOST_IDLE: Final = 16
_logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the outside world gives a node: clocks, randomness, environment variables."""

    now_ms: NowMs
    clock_ns: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    random: Callable[[], float]
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node that is ready to run: its engine serves, its registration is checked."""

    address: bytes
    host: Host
    logs: Mapping[bytes, LogWatch]
    links: Mapping[bytes, CoordinatorLink]
    executor: Executor
    journal: Journal
    gateways: tuple[Where, ...]
    registered: Registered | None
    idle_streams: int
    drain_s: float
    random: Callable[[], float]

    async def run(self, stop: Callable[[], Awaitable[None]]) -> None:
        """Serve until `stop` returns, then end in order."""
        await self.executor.recall()
        async with trio.open_nursery() as jobs, trio.open_nursery() as background:
            for log in self.logs.values():
                background.start_soon(log.run)
            for link in self.links.values():
                background.start_soon(link.run, self.host)
            with trio.CancelScope() as intake:
                async with trio.open_nursery() as dialing:
                    dialing.start_soon(_cancel_after, stop, intake)
                    for where in self.gateways:
                        dialing.start_soon(self._serve, where, jobs)
                    if self.registered is not None:
                        dialing.start_soon(
                            self.registered.run,
                            lambda where: dialing.start_soon(self._serve, where, jobs),
                        )
            await self._wind_down()
            background.cancel_scope.cancel()
            jobs.cancel_scope.deadline = trio.current_time() + _LAST_WORDS_S

    async def _serve(self, where: Where, jobs: trio.Nursery) -> None:
        await keep_serving(
            self.host,
            where,
            self.executor,
            jobs=jobs,
            idle=self.idle_streams,
            random=self.random,
        )

    async def _wind_down(self) -> None:
        """Withdraw, finish or stop what runs, hand in what is owed; bounded."""
        _logger.info("stopping: %d orders are running", self.executor.running)
        for link in self.links.values():
            link.withdraw()
        await self.executor.drain(self.drain_s)
        with trio.move_on_after(_FAREWELL_S):
            async with trio.open_nursery() as nursery:
                for link in self.links.values():
                    nursery.start_soon(link.farewell)


async def _cancel_after(event: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    await event()
    scope.cancel()


@asynccontextmanager
async def open_node(config: Config, around: Surroundings) -> AsyncGenerator[Node]:
    """Check everything, start the engines, open the host; on leaving, close all of it.

    Raises `Misconfigured` where something is set up wrongly and `TransportFailure` where the chain
    can't be reached.
    """
    keys = NodeKeys(
        signing=load_key(config.node_key_path, around.random_bytes),
        peer=load_key(config.peer_key_path, around.random_bytes),
    )
    async with AsyncExitStack() as stack:
        database = await trio.to_thread.run_sync(open_database, config.database_url, "node")
        stack.callback(database.close)
        journal = Journal(await stack.enter_async_context(open_writer(database)))
        rpc = stack.enter_context(HttpRpc(config.chain.rpc))
        deployment = Deployment.load(config.path(config.chain.deployment))
        chain = ChainClient(rpc, deployment)
        await trio.to_thread.run_sync(chain.check)
        record = await trio.to_thread.run_sync(check_registered, keys, chain)
        _logger.info("node %s pays out to %s", checksum(keys.address), checksum(record.payout))
        config = await trio.to_thread.run_sync(with_logs, config, chain)
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        heard: list[Callable[[], None]] = []
        models = await _start_models(config, chain, around, nursery, heard)
        host = await stack.enter_async_context(open_host(keys.peer.secret))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=10.0, trust_env=False))
        parts = Parts(
            config,
            keys,
            deployment.domain,
            chain,
            around,
            journal,
            models,
            heard,
            registry=partial(registered_gateways, chain),
        )
        yield parts.assemble(host, HttpDirectory(http))


def with_logs(config: Config, chain: ChainClient) -> Config:
    """The configuration with the logs it means; those of the chain as they are at start."""
    if not config.all_logs:
        return config
    found = known_logs(chain, MOST_LOGS)
    if not found:
        raise DirectoryUnavailable(
            "the chain knows no log with an active epoch; try again later, or name `logs`"
        )
    logs = tuple(LogConfig("0x" + log_id.hex()) for log_id in found)
    _logger.info("logs on chain: %s", ", ".join(log.log_id for log in logs))
    return replace(config, logs=logs)


async def _start_models(
    config: Config,
    chain: Chain,
    around: Surroundings,
    nursery: trio.Nursery,
    heard: Sequence[Callable[[], None]],
) -> dict[str, ServedModel]:
    """Start each model's engine and measure what it can promise; one after the other."""
    return {
        model.name: await _start_model(config, model, chain, around, nursery, heard)
        for model in config.models
    }


async def _start_model(
    config: Config,
    model: ModelConfig,
    chain: Chain,
    around: Surroundings,
    nursery: trio.Nursery,
    heard: Sequence[Callable[[], None]],
) -> ServedModel:
    files = await trio.to_thread.run_sync(load_files, config.path(model.files))
    record = check_model(model.name, files, await trio.to_thread.run_sync(chain.model, model.name))
    if model.weights is not None:
        await trio.to_thread.run_sync(check_files, files.card, config.path(model.weights))
    spec = engine_spec(config, model, child_environment(around.environment))
    log_path = config.state_path / f"engine-{model.name.replace('/', '_')}.log"
    supervisor = Supervisor(spec, log_path=log_path, report=_report_engine(model.name, heard))
    client = await nursery.start(supervisor.run)
    does = await tried(client, spec) if model.measure.features else spec.features
    nonce = around.random_bytes(8).hex()
    measured = await measure(
        client, spec, clock_ns=around.clock_ns, nonce=nonce, effort=model.measure.effort
    )
    _logger.info("%s promises %s, alone it shows %s", model.name, measured.promise, measured.alone)
    return ServedModel(
        name=model.name,
        engine_name=spec.model,
        record=record,
        tokenizer=files.tokenizer,
        engine=SupervisedEngine(supervisor),
        features=model.offered(does & SERVED),
        context_tokens=min(spec.context_tokens, record.context_tokens),
        promise=measured.promise,
        price_out=model.price_out,
        pricing=model.pricing,
        slots=Slots(spec.slots, [log.id for log in config.logs]),
        ignored=spec.ignored,
    )


def _report_engine(
    model: str, heard: Sequence[Callable[[], None]]
) -> Callable[[EngineEvent], None]:
    def report(event: EngineEvent) -> None:
        _logger.info("engine of %s: %s, %s", model, event.state.value, event.detail)
        for hear in heard:
            hear()

    return report


@dataclass(frozen=True, slots=True)
class Parts:
    """A node's parts, each ready; `assemble` wires them together. Nothing starts before `run`."""

    config: Config
    keys: NodeKeys
    domain: Domain
    chain: Chain
    around: Surroundings
    journal: Journal
    models: Mapping[str, ServedModel]
    heard: list[Callable[[], None]] = field(default_factory=list)
    """Called at every change of an engine: offers follow at once."""
    quotes: Quotes = field(default_factory=Quotes)
    ack_timeout_s: float = ACK_TIMEOUT_S
    registry: Look | None = None
    """Where `all_gateways` are looked for."""

    def assemble(self, host: Host, directory: Directory) -> Node:
        """The node on this host; its logs are looked up in `directory`."""
        private = self.config.chain.private_endpoints
        logs = {
            log.id: LogWatch(
                log.id,
                log.url,
                domain=self.domain,
                chain=self.chain,
                directory=directory,
                private=private,
            )
            for log in self.config.logs
        }
        links: dict[bytes, CoordinatorLink] = {}
        executor = self._executor(logs, links)
        links.update((log_id, self._link(log, executor)) for log_id, log in logs.items())
        self.heard.extend(link.renew for link in links.values())
        slots = sum(model.slots.total for model in self.models.values())
        return Node(
            address=self.keys.address,
            host=host,
            logs=logs,
            links=links,
            executor=executor,
            journal=self.journal,
            gateways=tuple(
                gateway_at(gateway, self.chain, private=private) for gateway in self.config.gateways
            ),
            registered=self._registered(private=private),
            idle_streams=min(slots + 1, _MOST_IDLE),
            drain_s=self.config.drain_s,
            random=self.around.random,
        )

    def _registered(self, *, private: bool) -> Registered | None:
        if not self.config.all_gateways or self.registry is None:
            return None
        named = [text for text in self.config.gateways if text.startswith("0x")]
        return Registered(
            self.registry,
            lambda gateway: gateway_at(gateway, self.chain, private=private),
            named,
        )

    def _executor(
        self, logs: Mapping[bytes, LogWatch], links: Mapping[bytes, CoordinatorLink]
    ) -> Executor:
        gatekeeper = Gatekeeper(
            self.keys.address,
            self.domain,
            logs=logs,
            gateways=Gateways(self.chain, self.around.now_ms),
            quotes=self.quotes,
            models=self.models,
            now_ms=self.around.now_ms,
        )
        return Executor(
            self.keys.signing,
            self.domain,
            gatekeeper=gatekeeper,
            journal=self.journal,
            now_ms=self.around.now_ms,
            owed=lambda log_id: links[log_id].owe(),
            ack_timeout_s=self.ack_timeout_s,
        )

    def _link(self, log: LogWatch, executor: Executor) -> CoordinatorLink:
        desk = OfferDesk(
            self.keys.signing,
            self.domain,
            log=log,
            models=self.models,
            quotes=self.quotes,
            now_ms=self.around.now_ms,
        )
        return CoordinatorLink(
            self.keys.address,
            self.domain,
            log=log,
            desk=desk,
            models=self.models,
            journal=self.journal,
            batches=self.config.batches_path,
            now_ms=self.around.now_ms,
            random=self.around.random,
            voided=executor.void,
        )
