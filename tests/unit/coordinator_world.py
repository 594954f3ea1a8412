# ruff: noqa: D102 - the double implements a port that documents its methods
"""A coordinator without network: real desk, docket, log, sequencer, settler and store.

The chain is a `ChainDouble`, nodes answer auction calls by `World.bidding`, the clock stands still
unless a test moves it.
"""

import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from msgspec.structs import replace
from sqlmodel import col, select

from coordinator.app import _leaf
from coordinator.auctioneer import Auctioneer
from coordinator.book import OrderBook
from coordinator.courier import Party
from coordinator.desk import AuctionDesk, Clock
from coordinator.directory import Directory
from coordinator.docket import Docket, OpenJob
from coordinator.errors import JobRefused
from coordinator.evidence import Evidence
from coordinator.log import Log
from coordinator.ports import (
    AnchorRecord,
    EpochRecord,
    LogFunds,
    ModelRecord,
    NodeRecord,
    PayerRecord,
)
from coordinator.reputation import Reputation, learn_again
from coordinator.rows import open_jobs
from coordinator.sequencer import Sequencer
from coordinator.settler import Settler
from pinaivu.chain.errors import ChainUnavailable
from pinaivu.keys import SecretKey
from pinaivu.manifest import Parameters, local_development_parameters
from pinaivu.merkle.hashing import EMPTY_ROOT
from pinaivu.messages import Award, Batch, Completion, Grant, Job, Offer
from pinaivu.p2p import wire
from pinaivu.p2p.errors import NotConnected
from pinaivu.receipts import Origin
from pinaivu.store.coordinator import LeafRow
from pinaivu.store.database import Database, open_database
from pinaivu.store.writer import Writer, open_writer
from pinaivu.typed_data import Domain, Signed, digest, signed_from_bytes
from tests.unit.ledger_support import (
    DOMAIN,
    EPOCH,
    FINGERPRINT,
    GATEWAY,
    LOG,
    MODEL,
    NODES,
    NOW,
    PAYER,
    chain,
    completion,
    delivery,
    grant,
    job,
    offer,
    part,
)

MODEL_RECORD: Final = ModelRecord(FINGERPRINT, 250_000, b"\x07" * 32, 8192)
RULES: Final = local_development_parameters("http://127.0.0.1:8545")
NO_ANCHOR: Final = AnchorRecord(0, 0, EMPTY_ROOT, bytes(32))
Bidding = Callable[[bytes, wire.AuctionCall], Awaitable[wire.BidReply]]


def node_record(node: SecretKey, payout: bytes | None = None) -> NodeRecord:
    return NodeRecord(node.address, payout or b"\xee" + node.address[1:], node.point, bytes(20))


@dataclass
class ChainDouble:
    """Chain state written by a test; `down` makes every read fail.

    While `answering` is not set, what was read of a payer is on its way.
    """

    balance: int = 10**9
    leaving: int = 0
    limit: int = 10**12  # what batches may take from deposits
    left: set[bytes] = field(default_factory=set)  # payers without money in the log at the head
    anchors: dict[int, AnchorRecord] = field(default_factory=dict)  # before the newest
    grant_epoch: int = 0
    assigned: bytes = LOG
    final: AnchorRecord = NO_ANCHOR
    newest: AnchorRecord = NO_ANCHOR
    epochs: dict[int, EpochRecord] = field(default_factory=dict)
    funders: dict[bytes, bytes] = field(default_factory=dict)
    down: bool = False
    reads: int = 0
    answering: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.answering.set()

    def _reached(self) -> None:
        self.reads += 1
        if self.down:
            raise ChainUnavailable("the chain is down, on purpose")

    def settle(self, batch: Batch) -> None:
        """The chain takes a batch."""
        self.anchors[self.newest.sequence] = self.newest
        self.newest = anchor_of(batch)

    def domain(self) -> Domain:
        self._reached()
        return DOMAIN

    def block_number(self) -> int:
        self._reached()
        return 7

    def node(self, node: bytes) -> NodeRecord | None:
        self._reached()
        found = next((node_record(key) for key in NODES if key.address == node), None)
        funder = self.funders.get(node, bytes(20))
        return replace(found, bond_funder=funder) if found else None

    def gateway_peer(self, gateway: bytes) -> bytes | None:
        self._reached()
        return GATEWAY.point if gateway == GATEWAY.address else None

    def model(self, model: str) -> ModelRecord | None:
        self._reached()
        return MODEL_RECORD if model == MODEL else None

    def payer(self, payer: bytes) -> PayerRecord:
        self._reached()
        assert payer == PAYER.address
        read = PayerRecord(self.assigned, self.balance, self.leaving, self.grant_epoch)
        assert self.answering.wait(20)
        return read

    def anchor(self, log_id: bytes) -> AnchorRecord:
        self._reached()
        assert log_id == LOG
        return self.final

    def newest_anchor(self, log_id: bytes) -> AnchorRecord:
        self._reached()
        assert log_id == LOG
        return self.newest

    def anchor_of(self, log_id: bytes, sequence: int) -> AnchorRecord:
        self._reached()
        assert log_id == LOG
        if sequence == self.newest.sequence:
            return self.newest
        return self.anchors[sequence]

    def debitable(self, log_id: bytes) -> int:
        self._reached()
        assert log_id == LOG
        return self.limit

    def newest_funds(self, log_id: bytes, payers: Sequence[bytes]) -> LogFunds:
        self._reached()
        assert log_id == LOG
        return LogFunds(self.limit, {p: 0 if p in self.left else self.balance for p in payers})

    def active_epoch(self, log_id: bytes) -> EpochRecord | None:
        self._reached()
        assert log_id == LOG
        return self.epochs[max(self.epochs)] if self.epochs else None

    def epoch(self, log_id: bytes, number: int) -> EpochRecord | None:
        self._reached()
        assert log_id == LOG
        return self.epochs.get(number)


@dataclass
class World:
    """One epoch of a coordinator over a store."""

    writer: Writer
    chain: ChainDouble
    epoch: int = 1
    key: SecretKey = EPOCH
    rules: Parameters = RULES
    now: int = NOW
    signers: dict[int, bytes] = field(default_factory=lambda: {1: EPOCH.address})
    reachable: set[bytes] = field(default_factory=lambda: {node.address for node in NODES})
    bidding: Bidding | None = None
    sequence: Iterator[int] = field(default_factory=lambda: count(1))
    on_award: Callable[[], None] = lambda: None
    on_owed: Callable[[Party], None] = lambda _: None

    def __post_init__(self) -> None:
        self.signers[self.epoch] = self.key.address
        self.log = Log(DOMAIN, LOG, recent_ms=2 * self.rules.job_skew_ms)
        self.docket = Docket()
        self.reputation = Reputation(self.rules)
        self.directory = Directory(self.chain)
        self.book = OrderBook(
            DOMAIN,
            LOG,
            ttl_ms=self.rules.offer_ttl_ms,
            standing=self.reputation.standing,
            busy=self.docket.busy,
        )
        self.docket.on_load.append(self.book.touch)
        self.receipted: dict[tuple[bytes, bytes], wire.Receipted] = {}
        self.sequencer = Sequencer(
            self.log,
            self.docket,
            self.reputation,
            self.writer,
            key=self.key,
            note_secret=b"\x09" * 32,
            origin=Origin(
                log_id=LOG,
                epoch=self.epoch,
                measurement=b"\xaa" * 32,
                parameters_digest=self.rules.digest(),
            ),
            epochs=dict.fromkeys(range(1, self.epoch + 1), self.rules),
            now_ms=self.clock,
        )
        self.sequencer.on_receipt.append(self._receipted)
        self.sequencer.on_learnt.append(self.book.heed)
        self.evidence = Evidence(
            self.log, self.docket, self.writer, self.sequencer.close, self.clock
        )
        self.settler = Settler(
            self.log,
            self.chain,
            self.writer,
            key=self.key,
            epoch=self.epoch,
            parameters=self.rules,
            now_ms=self.clock,
            on_final=self.directory.renew,
            on_owed=self._owed,
        )
        self.desk = AuctionDesk(
            log=self.log,
            docket=self.docket,
            book=self.book,
            reputation=self.reputation,
            directory=self.directory,
            auctioneer=Auctioneer(
                DOMAIN,
                self._ask,
                self.clock,
                window_ms=self.rules.window_ms,
                live_all=self.rules.live_all,
                live_best=self.rules.live_best,
            ),
            writer=self.writer,
            key=self.key,
            epoch=self.epoch,
            parameters=self.rules,
            clock=Clock(self.clock, os.urandom),
            reachable=self._reachable,
            find_receipt=self._find_receipt,
        )

    def clock(self) -> int:
        return self.now

    def _reachable(self, node: bytes) -> bool:
        self.on_award()
        return node in self.reachable

    async def _ask(self, node: bytes, call: wire.AuctionCall) -> wire.BidReply:
        if node not in self.reachable:
            raise NotConnected("not connected")
        return await self.bidding(node, call) if self.bidding else wire.BidReply()

    async def _find_receipt(self, gateway: bytes, job_id: bytes) -> wire.Receipted | None:
        await trio.lowlevel.checkpoint()
        return self.receipted.get((gateway, job_id))

    def _owed(self, party: Party) -> None:
        self.on_owed(party)

    def _receipted(self, done: OpenJob) -> None:
        assert done.receipt
        signed, index = done.receipt
        self.receipted[done.key] = wire.Receipted(signed.to_bytes(), index)

    # What parties do

    def put_offers(self, *prices: int, **more: Any) -> None:
        """Offers of the first nodes at these prices."""
        for node, price in zip(NODES, prices, strict=False):
            self.put_offer(node, price, **more)

    def put_offer(self, node: SecretKey, price: int, **more: Any) -> None:
        """A node's offer at a price."""
        terms = {
            "issued_ms": self.now,
            "expires_ms": self.now + 15_000,
            "sequence": next(self.sequence),
        }
        made = offer(node, price, **(terms | more))
        self.book.put(Signed.by(node, DOMAIN, made), node_record(node), MODEL_RECORD, self.now)

    async def submit(
        self, number: int = 1, *, terms: Grant | None = None, **more: Any
    ) -> wire.Awarded | wire.Refused | wire.Receipted:
        """A job of the gateway under the payer's grant."""
        made = signed_job(number, created_ms=self.now, deadline_ms=self.now + 300_000, **more)
        return await self.desk.submit(GATEWAY.address, made, signed_grant(terms))

    async def awarded(self, number: int = 1, **more: Any) -> Signed[Award]:
        """Submit, and the award."""
        answer = await self.submit(number, **more)
        assert isinstance(answer, wire.Awarded), answer
        return signed_from_bytes(Award, answer.award)

    def completion_of(self, award: Award, number: int = 1, **more: Any) -> Signed[Completion]:
        """The winner's completion, with the preimage that proves its acknowledgements."""
        node = next(key for key in NODES if key.address == award.node)
        acks = more.pop("acks", 3)
        preimage = chain(number, award.rank).preimage(acks) if acks else bytes(32)
        made = completion(award, acks, last_preimage=preimage, **more)
        return Signed.by(node, DOMAIN, made)

    async def served(self, number: int = 1) -> OpenJob:
        """A job from submission to the moment it is handed to the sequencer."""
        award = await self.awarded(number)
        open_job, _ = self.docket.find_award(award.digest(DOMAIN)) or (None, None)
        assert open_job
        done = self.completion_of(award.message, number)
        await self.evidence.completion(done)
        said = delivery(part(award.message, done.message), of=open_job.job.message)
        await self.evidence.delivery(GATEWAY.address, Signed.by(GATEWAY, DOMAIN, said))
        return open_job

    async def resumed(self) -> None:
        """Open jobs as the store has them."""
        found = await self.writer.read(lambda s: list(open_jobs(s, DOMAIN, self.signers)))
        for open_job in found:
            self.docket.open(open_job)


def signed_grant(terms: Grant | None = None) -> Signed[Grant]:
    return Signed.by(PAYER, DOMAIN, terms or grant())


def signed_job(number: int = 1, **more: Any) -> Signed[Job]:
    return Signed.by(GATEWAY, DOMAIN, job(number, **more))


def signed_offer(by: SecretKey, price: int = 10**6, **more: Any) -> Signed[Offer]:
    return Signed.by(by, DOMAIN, offer(by, price, **more))


def anchor_of(batch: Batch) -> AnchorRecord:
    return AnchorRecord(batch.sequence, batch.new_size, batch.new_root, digest(DOMAIN, batch))


def with_rules(**more: Any) -> Parameters:
    return replace(RULES, **more)


@asynccontextmanager
async def open_world(database: Database, **more: Any) -> AsyncGenerator[World, None]:
    """A world over a store, its sequencer running, its epoch started."""
    known = more.pop("chain", None) or ChainDouble()
    async with open_writer(database, crash_only=True) as writer, trio.open_nursery() as nursery:
        world = World(writer, known, **more)
        await _load(world)
        if world.epoch not in world.log.epoch_starts:
            await world.sequencer.start_epoch(b"\x0c" * 32)
        nursery.start_soon(world.sequencer.run)
        yield world
        nursery.cancel_scope.cancel()


async def _load(world: World) -> None:
    """As `coordinator.app` does at boot."""
    rows = await world.writer.read(
        lambda session: list(session.exec(select(LeafRow).order_by(col(LeafRow.position))))
    )
    world.log.replay((_leaf(row) for row in rows), world.signers)
    learn_again(world.reputation, world.log.leaves(0, world.log.size))
    await world.settler.resume()
    await world.resumed()


async def refusal_of(call: Awaitable[object]) -> str:
    """The code with which a call is refused."""
    with pytest.raises(JobRefused) as caught:
        await call
    return caught.value.code


@asynccontextmanager
async def three_offers(folder: Path) -> AsyncGenerator[World, None]:
    """A world over a database of its own, with three nodes on offer."""
    database = open_database(f"sqlite:///{folder}/c.db", "coordinator")
    async with open_world(database) as made:
        made.put_offers(1_000_000, 1_100_000, 1_200_000)
        yield made
    database.close()
