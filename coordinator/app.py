"""Composition: from an epoch identity to a serving coordinator.

Order of a boot: open and check the store against the chain, show the attestation, wait until the
chain has activated this boot's key, write the epoch's first leaf, take up open jobs, serve. Until
the epoch is active nothing is signed.
"""

import json
import logging
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from time import time
from typing import Any

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve
from sqlmodel import Session, col, select

from coordinator.auctioneer import Auctioneer
from coordinator.book import OrderBook
from coordinator.bundler import Bundler
from coordinator.chain_view import ContractView
from coordinator.config import Config
from coordinator.courier import Courier
from coordinator.desk import AuctionDesk, Clock
from coordinator.directory import Directory
from coordinator.docket import Docket, OpenJob
from coordinator.epochs import activation, epoch_row, known_signers, parameters_by_epoch, watch
from coordinator.errors import LogDiverged
from coordinator.evidence import Evidence
from coordinator.log import Leaf, Log
from coordinator.ports import EpochRecord
from coordinator.public import Face, create_app
from coordinator.reputation import Reputation, learn_again
from coordinator.rows import open_jobs
from coordinator.sequencer import Sequencer
from coordinator.sessions import Handlers, Sessions
from coordinator.settler import Settler
from pinaivu.attestation import measurement, parse
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployment import Deployment
from pinaivu.chain.rpc import HttpRpc
from pinaivu.encoding import from_hex
from pinaivu.epoch_identity import EpochIdentity
from pinaivu.keys import checksum
from pinaivu.manifest import Parameters
from pinaivu.messages import EpochStart, Receipt
from pinaivu.model_card import ModelCard
from pinaivu.p2p import wire
from pinaivu.p2p.frames import FrameLimits
from pinaivu.p2p.host import Host, open_host
from pinaivu.receipts import Origin
from pinaivu.store.coordinator import LeafRow
from pinaivu.store.database import Database, open_database
from pinaivu.store.writer import Writer, open_writer
from pinaivu.typed_data import Domain, signed_from_bytes

_logger = logging.getLogger(__name__)


def now_ms() -> int:
    """Wall time. In an enclave it is bounded by NSM documents and block times."""
    return int(time() * 1000)


class Coordinator:
    """One boot of one log's coordinator."""

    def __init__(self, config: Config, identity: EpochIdentity, database: Database) -> None:
        self._config = config
        self._identity = identity
        self._rules = identity.parameters
        self._log_id = from_hex(config.log_id, 32)
        rpc = HttpRpc(self._rules.rpc[0].url)
        deployment = Deployment.load(Path(config.deployment))
        self._view = ContractView(
            ChainClient(rpc, deployment, finality_blocks=self._rules.finality_blocks)
        )
        self._domain: Domain = deployment.domain
        self._database = database
        self._log = Log(self._domain, self._log_id, recent_ms=2 * self._rules.job_skew_ms)
        self._docket = Docket()
        self._reputation = Reputation(self._rules)
        self._directory = Directory(self._view)
        self._sessions = Sessions(self._directory, self._log_id, now_ms)
        self._cards = _model_cards(config.model_cards)
        self._host: Host | None = None
        self._epoch: EpochRecord | None = None
        self._signers: dict[int, bytes] = {}  # by epoch, from the chain

    async def run(self, stopping: Callable[[], Any]) -> None:
        """Serve until `stopping` returns."""
        await trio.to_thread.run_sync(self._view.domain)
        async with AsyncExitStack() as stack:
            writer = await stack.enter_async_context(open_writer(self._database, crash_only=True))
            await writer.read(self._load)
            self._host = await stack.enter_async_context(
                open_host(self._identity.peer_secret.secret, listen=self._config.listen)
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve_http, stopping)
                await self._serve(writer, nursery)
                await stopping()
                nursery.cancel_scope.cancel()

    def _load(self, session: Session) -> None:
        """Rebuild the log from the store, checking every signature again."""
        self._signers = known_signers(session, self._view, self._log_id)
        rows = session.exec(select(LeafRow).order_by(col(LeafRow.position)))
        self._log.replay((_leaf(row) for row in rows), self._signers)
        learn_again(self._reputation, self._log.leaves(0, self._log.size))

    async def _serve(self, writer: Writer, nursery: trio.Nursery) -> None:
        key = self._identity.signing_secret.address
        epoch = await activation(self._view, self._log_id, key)
        self._epoch = epoch
        self._signers[epoch.number] = epoch.key
        await writer.write(lambda session: session.merge(epoch_row(self._identity, epoch.number)))
        epochs = await writer.read(parameters_by_epoch)
        sequencer = self._sequencer(writer, epoch, epochs)
        courier = Courier(self._log, writer, self._sessions.send, nursery)
        settler = Settler(
            self._log,
            self._view,
            writer,
            key=self._identity.signing_secret,
            epoch=epoch.number,
            parameters=self._rules,
            now_ms=now_ms,
            on_final=self._directory.renew,
            on_owed=courier.owe,
        )
        await settler.resume()
        if epoch.number not in self._log.epoch_starts:
            await sequencer.start_epoch(self._identity.manifest.digest())
        for job in await writer.read(self._open_jobs):
            self._docket.open(job)
        self._attach(writer, sequencer, epoch)
        sequencer.on_receipt.append(self._sessions.announce)
        self._sessions.on_hello.append(courier.owe)
        for task in (sequencer.run, sequencer.close_due, sequencer.checkpoint, settler.run):
            nursery.start_soon(task)
        nursery.start_soon(self._directory.run)
        nursery.start_soon(watch, self._view, self._log_id, epoch)
        assert self._host
        limits = FrameLimits.of(wire.MAX_CONTROL_FRAME)
        self._host.serve(wire.NODE_PROTOCOL, self._sessions.serve_node, limits)
        self._host.serve(wire.GATEWAY_PROTOCOL, self._sessions.serve_gateway, limits)
        _logger.info("epoch %d is active: serving", epoch.number)

    def _open_jobs(self, session: Session) -> list[OpenJob]:
        return list(open_jobs(session, self._domain, self._signers))

    def _sequencer(
        self, writer: Writer, epoch: EpochRecord, epochs: dict[int, Parameters]
    ) -> Sequencer:
        return Sequencer(
            self._log,
            self._docket,
            self._reputation,
            writer,
            key=self._identity.signing_secret,
            note_secret=self._identity.note_secret,
            origin=Origin(
                log_id=self._log_id,
                epoch=epoch.number,
                measurement=measurement(parse(self._identity.document).pcrs),
                parameters_digest=self._rules.digest(),
            ),
            epochs=epochs,
            now_ms=now_ms,
        )

    def _attach(self, writer: Writer, sequencer: Sequencer, epoch: EpochRecord) -> None:

        async def find_receipt(gateway: bytes, job_id: bytes) -> wire.Receipted | None:
            return await writer.read(lambda session: _receipted(session, gateway, job_id))

        book = OrderBook(
            self._domain,
            self._log_id,
            ttl_ms=self._rules.offer_ttl_ms,
            standing=self._reputation.standing,
            busy=self._docket.busy,
        )
        self._docket.on_load.append(book.touch)
        sequencer.on_learnt.append(book.heed)
        desk = AuctionDesk(
            log=self._log,
            docket=self._docket,
            book=book,
            reputation=self._reputation,
            directory=self._directory,
            auctioneer=Auctioneer(
                self._domain,
                self._sessions.ask,
                now_ms,
                window_ms=self._rules.window_ms,
                live_all=self._rules.live_all,
                live_best=self._rules.live_best,
            ),
            writer=writer,
            key=self._identity.signing_secret,
            epoch=epoch.number,
            parameters=self._rules,
            clock=Clock(now_ms, os.urandom),
            reachable=self._sessions.reachable,
            find_receipt=find_receipt,
        )
        evidence = Evidence(self._log, self._docket, writer, sequencer.close, now_ms)

        self._sessions.attach(Handlers(book, desk, evidence, find_receipt))

    async def _serve_http(self, stopping: Callable[[], Any]) -> None:
        face = Face(
            log=self._log,
            database=self._database,
            bundler=Bundler(self._log, self._database, self._cards),
            addresses=lambda: self._host.addresses() if self._host else [],
            active_epoch=lambda: self._epoch.number if self._epoch else 0,
            pending=self._pending,
            market=self._sessions.market,
            live_offers=self._sessions.live_offers,
            refused_offers=self._sessions.refused_offers,
        )
        config = HypercornConfig()
        config.bind = [f"{self._config.http_host}:{self._config.http_port}"]
        config.accesslog = None
        await serve(create_app(face), config, shutdown_trigger=stopping)  # type: ignore[arg-type]

    def _pending(self) -> dict[str, Any] | None:
        """What the operator needs to activate this boot, while it is not."""
        if self._epoch is not None:
            return None
        return {
            "signer": checksum(self._identity.signing_secret.address),
            "manifest": self._identity.manifest.to_json(),
            "parameters": self._identity.parameters.to_json(),
            "document": self._identity.document.hex(),
        }


def open_coordinator(config: Config, identity: EpochIdentity) -> Coordinator:
    """A coordinator over its opened store; `LogDiverged` where the manifest is another log's."""
    if identity.manifest.log_id != from_hex(config.log_id, 32):
        raise LogDiverged("the manifest names another log than the configuration")
    return Coordinator(config, identity, open_database(config.database, "coordinator"))


def _model_cards(paths: list[str]) -> dict[bytes, dict[str, Any]]:
    cards = [ModelCard.from_json(Path(path).read_bytes()) for path in paths]
    return {card.fingerprint: json.loads(card.to_json()) for card in cards}


def _leaf(row: LeafRow) -> Leaf:
    if row.kind == "Receipt":
        receipt = signed_from_bytes(Receipt, row.signed)
        return Leaf(receipt, row.digest, receipt.message.closed_ms)
    start = signed_from_bytes(EpochStart, row.signed)
    return Leaf(start, row.digest, start.message.time_ms)


def _receipted(session: Session, gateway: bytes, job_id: bytes) -> wire.Receipted | None:
    row = session.exec(
        select(LeafRow).where(LeafRow.gateway == gateway, LeafRow.job_id == job_id)
    ).first()
    return wire.Receipted(receipt=row.signed, index=row.position) if row else None
