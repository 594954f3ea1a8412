"""A gateway put together: database, network, logs and HTTP in one trio loop.

`open_gateway` is what tests use, with ports of their own; `serve` is the whole program after its
configuration was read. Everything started here ends when the block or the function does.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx
import trio
from hypercorn.config import Config as HttpConfig
from hypercorn.trio import serve as serve_http

from gateway.access import Access
from gateway.accounts import Accounts
from gateway.claims import Claims
from gateway.config import MOST_LOGS, Config, Limits, LogConfig
from gateway.desk import Desk
from gateway.drafts import Identity
from gateway.http.app import create_app
from gateway.http.bodies import Lingering
from gateway.http.gate import Counted
from gateway.http.metrics import metrics_of, serve_metrics
from gateway.http.surface import Gateway
from gateway.ledger import Ledger
from gateway.logs import Log, Logs
from gateway.market import Address, Market
from gateway.network import ChainRegistry, LogServer, LogUnreachable, load_models
from gateway.outbox import Outbox, Pace
from gateway.places import Places
from gateway.ports import PublicLog, Registry, ServedModel
from gateway.quotas import Quotas
from gateway.store_forms import job_of
from gateway.wallets import Wallets
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployment import Deployment
from pinaivu.chain.discovery import known_logs
from pinaivu.chain.rpc import HttpRpc
from pinaivu.encoding import to_hex
from pinaivu.errors import Misconfigured
from pinaivu.keyfiles import read_key
from pinaivu.p2p import wire
from pinaivu.p2p.frames import FrameLimits
from pinaivu.p2p.host import Host, open_host
from pinaivu.p2p.links import ReadyPool
from pinaivu.store.batches import BatchKeeper
from pinaivu.store.database import Database, StorageFailed, open_database
from pinaivu.store.writer import open_writer

_TIDY_S: Final = 600
_HOUR_MS: Final = 3_600_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where time and randomness come from."""

    now_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    random: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPorts:
    """A log's outside: who is who in it, where its coordinator is dialed, what it publishes."""

    log_id: bytes
    registry: Registry
    coordinator: Address
    public: PublicLog


@asynccontextmanager
async def open_gateway(
    *,
    identity: Identity,
    database: Database,
    batches: Path,
    host: Host,
    logs: Sequence[LogPorts],
    models: dict[str, ServedModel],
    limits: Limits,
    sources: Sources,
    pace: Pace | None = None,
    wallets: Wallets | None = None,
) -> AsyncGenerator[Gateway]:
    """Run all parts but HTTP while the block runs; what a former life left is taken up."""
    async with open_writer(database) as writer, trio.open_nursery() as nursery:
        ledger = Ledger(writer)
        quotas = Quotas(writer, sources.now_ms, sources.random_bytes)
        await quotas.enter()
        claims = Claims(writer, quotas.process_id, sources.now_ms)
        pool = ReadyPool()
        host.serve(wire.WORK_PROTOCOL, pool.accept, FrameLimits.of(wire.MAX_WORK_FRAME))

        def open_log(ports: LogPorts) -> Log:
            market = Market(
                host,
                ports.coordinator,
                wire.Hello(owner=identity.address, log_id=ports.log_id),
                BatchKeeper(batches, identity.domain, ports.log_id, ports.registry.signer),
                within_s=limits.submit_within_s,
                random=sources.random,
            )
            outbox = Outbox(
                identity,
                ledger,
                market,
                ports.registry,
                nursery,
                now_ms=sources.now_ms,
                random=sources.random,
                pace=pace,
            )
            return Log(
                log_id=ports.log_id,
                market=market,
                registry=ports.registry,
                public=ports.public,
                outbox=outbox,
            )

        opened = Logs([open_log(ports) for ports in logs])
        desk = Desk(
            identity=identity,
            ledger=ledger,
            access=Access(ledger, identity.address, opened, sources.now_ms),
            accounts=Accounts(ledger, sources.now_ms),
            quotas=quotas,
            claims=claims,
            logs=opened,
            pool=pool,
            limits=limits,
            nursery=nursery,
            now_ms=sources.now_ms,
        )
        for log in opened.values():
            nursery.start_soon(log.market.run)
        nursery.start_soon(quotas.run)
        nursery.start_soon(tidy, ledger, claims, limits, sources.now_ms)
        await _resume(ledger, opened, identity.address)
        yield Gateway(desk=desk, models=models, random=sources.random_bytes, wallets=wallets)
        nursery.cancel_scope.cancel()


async def _resume(ledger: Ledger, logs: Logs, gateway: bytes) -> None:
    """Take up every job of this gateway without a receipt, each with its log.

    Others that share the database have keys of their own, and see to their own jobs.
    """
    for row in await ledger.unfinished():
        job = job_of(row).message
        if job.gateway != gateway:
            continue
        log = logs.get(job.log_id)
        if log is None:
            _log.error("job %s waits for a log that is not configured", row.job_id.hex())
        else:
            log.outbox.take_up(row.job_id)
    if logs.waiting:
        _log.info("%d jobs of a former life wait for their receipts", logs.waiting)


async def serve(config: Config, sources: Sources, stopping: Callable[[], Awaitable[None]]) -> None:
    """Run the gateway that `config` describes until `stopping` returns."""
    key, peer_key = read_key(config.gateway_key_file), read_key(config.peer_key_file)
    deployment = Deployment.load(config.deployment_file)
    client = ChainClient(HttpRpc(config.rpc_url), deployment)
    await trio.to_thread.run_sync(client.check)
    models = await trio.to_thread.run_sync(load_models, client, config.models)
    logs = config.logs or await trio.to_thread.run_sync(_logs_on_chain, client)
    database = open_database(config.database, "gateway")
    identity = Identity(key, deployment.domain)
    try:
        async with (
            httpx.AsyncClient(timeout=10) as http,
            open_host(peer_key.secret, config.p2p_listen, announce=config.p2p_announce) as host,
            open_gateway(
                identity=identity,
                database=database,
                batches=config.batches_folder,
                host=host,
                logs=[
                    _log_ports(client, http, log, private=config.private_endpoints) for log in logs
                ],
                models=models,
                limits=config.limits,
                sources=sources,
                wallets=Wallets(client),
            ) as gateway,
        ):
            _log.info("nodes dial %s", ", ".join(host.addresses()))
            await _serve_until(gateway, config, stopping)
    finally:
        database.close()


async def _serve_until(
    gateway: Gateway, config: Config, stopping: Callable[[], Awaitable[None]]
) -> None:
    """Serve clients and metrics until told to stop, then until what ran has ended."""

    async def drained() -> None:
        await stopping()
        await gateway.traffic.drain(config.limits.drain_s, config.limits.after_cancel_s + 1)

    gateway = replace(gateway, cors_origins=tuple(config.cors_origins))
    metrics = metrics_of(gateway)
    async with trio.open_nursery() as nursery:
        if config.metrics_listen:
            await nursery.start(serve_metrics, metrics, config.metrics_listen)
        await run_http(gateway, config.listen, drained, counted=metrics.answered)
        nursery.cancel_scope.cancel()


def _logs_on_chain(client: ChainClient) -> list[LogConfig]:
    found = known_logs(client, MOST_LOGS)
    if not found:
        raise LogUnreachable("the chain knows no log with an active epoch; try again, or name logs")
    return [LogConfig(log_id=to_hex(log_id)) for log_id in found]


def _log_ports(
    client: ChainClient, http: httpx.AsyncClient, log: LogConfig, *, private: bool
) -> LogPorts:
    places = Places(
        log.id, client.log_endpoints, url=log.url, coordinator=log.coordinator, private=private
    )
    public = LogServer(http, places)
    registry = ChainRegistry(client, log.id, public, places)
    return LogPorts(
        log_id=log.id,
        registry=registry,
        coordinator=registry.coordinator_address,
        public=public,
    )


async def run_http(
    gateway: Gateway,
    listen: str,
    stopping: Callable[[], Awaitable[None]],
    task_status: Any = trio.TASK_STATUS_IGNORED,
    *,
    counted: Counted = lambda _route, _status: None,
) -> None:
    """Serve the application at ``host:port`` until `stopping` returns."""
    settings = HttpConfig()
    settings.bind = [listen]
    settings.include_server_header = False
    settings.keep_alive_timeout = 75
    settings.graceful_timeout = 1
    settings.errorlog = logging.getLogger("gateway.http")
    try:
        await serve_http(
            Lingering(create_app(gateway, counted)),  # type: ignore[arg-type]
            settings,
            shutdown_trigger=stopping,
            task_status=task_status,
            mode="asgi",
        )
    except OSError as error:
        raise Misconfigured(
            f"can't listen on {listen} ({error.strerror}); choose another port or end what uses it"
        ) from error


async def tidy(ledger: Ledger, claims: Claims, limits: Limits, now_ms: Callable[[], int]) -> None:
    """Empty what has been kept long enough; where the database fails, at the next round."""
    while True:
        try:
            await claims.forget(limits.content_hours * _HOUR_MS)
            await ledger.forget_contents(now_ms() - limits.content_hours * _HOUR_MS)
        except StorageFailed as error:
            _log.error("old contents are not emptied yet: %s", error)
        await trio.sleep(_TIDY_S)
