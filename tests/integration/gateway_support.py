# ruff: noqa: D102 - doubles implement ports that document their methods
"""A gateway among scripted peers: real hosts on loopback, real frames, real signatures.

`ScriptedCoordinator` awards jobs to the nodes it is told to, in that order, holds no auction and
writes receipts by the real rule. `ScriptedNode` lays ready streams and plays one script per award.
`FixedRegistry` and `FixedLog` stand for the chain and the coordinator's public server.
"""

import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import trio
from openai import OpenAI

from gateway.config import Limits
from gateway.drafts import Identity
from gateway.outbox import Pace
from gateway.ports import Epoch, ServedModel, UnknownParty
from gateway.service import Sources, open_gateway, run_http
from gateway.surface import Gateway
from pinaivu.books import Books
from pinaivu.codes import Clearing, Finish, JobKind, Reason
from pinaivu.commitments import (
    AckCounter,
    response_commitment,
    response_digest,
    segment_commitment,
    tokens_acknowledged,
)
from pinaivu.encoding import to_hex
from pinaivu.keys import SecretKey, peer_id_of_point
from pinaivu.manifest import Parameters, local_development_parameters
from pinaivu.messages import Award, Completion, Delivery, Failure, Grant, Job, Receipt
from pinaivu.metering import Attempt, Tolerance, reserve
from pinaivu.openai import Aggregator, finish_of
from pinaivu.p2p import PeerId, wire
from pinaivu.p2p.calls import Calls
from pinaivu.p2p.frames import FrameLimits, FrameStream
from pinaivu.p2p.host import Host, open_host
from pinaivu.p2p.links import Backoff, keep_ready
from pinaivu.receipts import Case, Held, Origin, compose
from pinaivu.store.database import open_database
from pinaivu.store.gateway_keys import add_grant, create_key
from pinaivu.tokens import Tokenizer
from pinaivu.typed_data import Domain, Message, Signed, signed_from_bytes
from tests.integration.p2p_support import PATIENCE, until
from tests.unit.tiny_tokenizer import TEMPLATE, tiny_tokenizer_json

M = TypeVar("M", bound=Message)

DOMAIN: Final = Domain(31337, b"\x51" * 20)
LOG: Final = b"\x11" * 32
MODEL: Final = "tiny-chat"
FINGERPRINT: Final = b"\x22" * 32
RATIO_PPM: Final = 250_000
PRICE_OUT: Final = 400_000
DAY_MS: Final = 86_400_000
QUICK: Final = Limits(patience_s=2, ready_within_s=2, submit_within_s=4, after_cancel_s=2)
_PACE: Final = Pace(backoff=Backoff(first=0.05, most=0.2), unserved_after_s=0.05)


@cache
def served_model() -> ServedModel:
    """A model with a real, small tokenizer."""
    return ServedModel(
        name=MODEL,
        fingerprint=FINGERPRINT,
        ratio_ppm=RATIO_PPM,
        context_tokens=2048,
        tokenizer=Tokenizer(tiny_tokenizer_json(), TEMPLATE),
    )


def parameters() -> Parameters:
    return local_development_parameters("http://127.0.0.1:8545")


@dataclass
class Keys:
    """Everybody's keys, new for each network."""

    gateway: SecretKey = field(default_factory=lambda: SecretKey.generate(os.urandom))
    payer: SecretKey = field(default_factory=lambda: SecretKey.generate(os.urandom))
    epoch: SecretKey = field(default_factory=lambda: SecretKey.generate(os.urandom))
    coordinator_peer: bytes = field(default_factory=lambda: os.urandom(32))
    gateway_peer: bytes = field(default_factory=lambda: os.urandom(32))


@dataclass
class FixedRegistry:
    """The chain and the manifest, as far as a gateway asks for them."""

    keys: Keys
    peers: dict[bytes, PeerId] = field(default_factory=dict)

    async def refresh(self) -> Epoch:
        return await self.epoch()

    async def epoch(self) -> Epoch:
        peer = PeerId(peer_id_of_point(SecretKey(self.keys.coordinator_peer).point))
        return Epoch(
            number=1, signer=self.keys.epoch.address, peer=peer, parameters=parameters()
        )

    async def signer(self, epoch: int) -> bytes:
        if epoch != 1:
            raise UnknownParty(f"epoch {epoch}")
        return self.keys.epoch.address

    async def node_peer(self, node: bytes) -> PeerId:
        if node not in self.peers:
            raise UnknownParty("no such node")
        return self.peers[node]


@dataclass
class FixedLog:
    """A public log with one bundle for everybody."""

    packed: bytes | None = None

    async def bundle(self, gateway: bytes, request_id: str) -> bytes | None:
        assert len(gateway) == 20
        assert request_id
        return self.packed

    async def settlement(self, gateway: bytes, request_id: str) -> dict[str, Any]:
        assert len(gateway) == 20
        assert request_id
        return {"state": "batched", "sequence": 1}


# The coordinator


@dataclass
class OpenCase:
    """A job at the scripted coordinator."""

    job: Signed[Job]
    grant: Signed[Grant]
    awards: list[Signed[Award]] = field(default_factory=list)
    failures: list[Signed[Failure]] = field(default_factory=list)
    completions: list[Signed[Completion]] = field(default_factory=list)
    delivery: Signed[Delivery] | None = None
    receipt: wire.Receipted | None = None


class ScriptedCoordinator:
    """Awards to `line` in order, and receipts what is delivered. No auction, no log."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.line: list[bytes] = []
        self.refusal: wire.Refused | None = None
        self.change: Callable[[Award], Award] = lambda award: award
        self.signer = keys.epoch
        self.receipts_flow = trio.Event()
        self.receipts_flow.set()
        self.cases: dict[bytes, OpenCase] = {}
        self.submissions = 0
        self.streams: list[FrameStream] = []
        self._books = Books()

    @property
    def only(self) -> OpenCase:
        """The one job there is."""
        (case,) = self.cases.values()
        return case

    async def serve(self, _peer: PeerId, stream: FrameStream) -> None:
        self.streams.append(stream)
        calls = Calls(stream, on_call=self._answer)
        await calls.run()

    async def _answer(self, payload: bytes) -> bytes:
        frame = wire.read_gateway_to_coordinator(payload)
        match frame:
            case wire.Hello():
                assert frame.owner == self.keys.gateway.address
                assert frame.log_id == LOG
                return wire.encode(wire.Done())
            case wire.SubmitJob():
                return wire.encode(self._submit(frame))
            case wire.ReportFailure():
                return wire.encode(self._failed(signed_from_bytes(Failure, frame.failure)))
            case wire.Deliver():
                return wire.encode(await self._deliver(frame))

    def _submit(self, frame: wire.SubmitJob) -> wire.GatewayAnswer:
        self.submissions += 1
        job, grant = signed_from_bytes(Job, frame.job), signed_from_bytes(Grant, frame.grant)
        job.require(DOMAIN, self.keys.gateway.address)
        grant.require(DOMAIN, self.keys.payer.address)
        case = self.cases.setdefault(job.message.job_id, OpenCase(job, grant))
        if case.receipt:
            return case.receipt
        if self.refusal:
            return self.refusal
        return self._awarded(case.awards[-1]) if case.awards else self._award(case)

    def _failed(self, failure: Signed[Failure]) -> wire.GatewayAnswer:
        failure.require(DOMAIN, self.keys.gateway.address)
        for case in self.cases.values():
            if case.awards[-1].digest(DOMAIN) == failure.message.award_digest:
                case.failures.append(failure)
                return self._award(case)
        raise AssertionError("a failure of an unknown award")

    def _award(self, case: OpenCase) -> wire.GatewayAnswer:
        rank = len(case.awards) + 1
        job = case.job.message
        if rank > min(len(self.line), len(job.anchors)):
            return wire.Refused("no_node_left", "no further node", Reason.NO_NODE_LEFT)
        done = sum(
            tokens_acknowledged(f.message.acks, job.max_output_tokens) for f in case.failures
        )
        spent = sum(
            -(-tokens_acknowledged(f.message.acks, job.max_output_tokens) * PRICE_OUT // 10**6)
            for f in case.failures
        )
        award = Award(
            log_id=LOG,
            epoch=1,
            job_id=job.job_id,
            job_digest=case.job.digest(DOMAIN),
            gateway=job.gateway,
            node=self.line[rank - 1],
            rank=rank,
            prior=case.awards[-1].digest(DOMAIN) if case.awards else bytes(32),
            bid_digest=b"\x33" * 32,
            clearing=int(Clearing.SECOND_SCORE),
            price_in=PRICE_OUT * RATIO_PPM // 10**6,
            price_out=PRICE_OUT,
            prompt_tokens=job.prompt_tokens,
            max_output_tokens=job.max_output_tokens - done,
            max_amount=self._reserve(case) - spent,
            start_byte=case.failures[-1].message.end_byte if case.failures else 0,
            request_commitment=job.request_commitment,
            anchor=job.anchors[rank - 1],
            nonce=b"\x44" * 32,
            bids_root=b"\x55" * 32,
            lease=bytes(32),
            awarded_ms=job.created_ms,
            expires_ms=job.created_ms + 60_000,
        )
        signed = Signed.by(self.signer, DOMAIN, self.change(award))
        case.awards.append(signed)
        return self._awarded(signed)

    def _awarded(self, signed: Signed[Award]) -> wire.Awarded:
        return wire.Awarded(signed.to_bytes(), peer=bytes(64), tps_milli=100_000, ttft_ms=50)

    @staticmethod
    def _reserve(case: OpenCase) -> int:
        job, grant = case.job.message, case.grant.message
        return reserve(job, grant.max_per_job, job.max_price_in, job.max_price_out)

    async def _deliver(self, frame: wire.Deliver) -> wire.GatewayAnswer:
        await self.receipts_flow.wait()
        job = signed_from_bytes(Job, frame.job)
        case = self.cases[job.message.job_id]
        if case.receipt:
            return case.receipt
        case.delivery = signed_from_bytes(Delivery, frame.delivery)
        case.delivery.require(DOMAIN, self.keys.gateway.address)
        assert frame.awards == [award.to_bytes() for award in case.awards]
        assert frame.failures == [failure.to_bytes() for failure in case.failures]
        case.completions = [signed_from_bytes(Completion, raw) for raw in frame.completions]
        case.receipt = self.receipt(case)
        return case.receipt

    def receipt(self, case: OpenCase) -> wire.Receipted:
        """The receipt by the real rule."""
        job, delivery = case.job.message, case.delivery
        completions = {c.message.award_digest: c for c in case.completions}
        failures = {f.message.award_digest: f.message for f in case.failures}
        parts = {part.award_digest: part for part in delivery.message.parts} if delivery else {}
        digests = [award.digest(DOMAIN) for award in case.awards]
        line = [
            Attempt(
                award=award.message,
                completion=completions[digest].message if digest in completions else None,
                completion_digest=(
                    completions[digest].digest(DOMAIN) if digest in completions else bytes(32)
                ),
                failure=failures.get(digest),
                part=parts.get(digest),
            )
            for award, digest in zip(case.awards, digests, strict=True)
        ]
        rules = parameters()
        facts = Case(
            job=job,
            job_digest=case.job.digest(DOMAIN),
            grant=case.grant.message,
            held=Held(
                fingerprint=FINGERPRINT,
                nonce=b"\x44" * 32,
                bids_root=b"\x55" * 32,
                bids=len(self.line),
            ),
            line=line,
            award_digests=digests,
            delivery=delivery.message if delivery else None,
            delivery_digest=delivery.digest(DOMAIN) if delivery else bytes(32),
            unserved_reason=self.refusal.reason if self.refusal else 0,
            received_ms=job.created_ms,
            closed_ms=job.created_ms + 1,
            reserve_units=self._reserve(case),
            fee_bps=[rules.fee_bps] * len(line),
            tolerance=Tolerance(rules.tolerance_tokens, rules.tolerance_ppm),
        )
        origin = Origin(
            log_id=LOG, epoch=1, measurement=b"\x66" * 32, parameters_digest=rules.digest()
        )
        receipt = _plain(compose(facts, origin, self._books))
        receipt = msgspec.structs.replace(
            receipt, segments=tuple(_plain(segment) for segment in receipt.segments)
        )
        self._books.post(receipt)
        signed = Signed.by(self.keys.epoch, DOMAIN, receipt)
        return wire.Receipted(signed.to_bytes(), index=len(self.cases) - 1)


def _plain(message: M) -> M:
    """The same message with plain integers for its enumerations, as it comes off the wire."""
    codes = {
        name: int(value)
        for name, value in msgspec.structs.asdict(message).items()
        if isinstance(value, IntEnum)
    }
    return msgspec.structs.replace(message, **codes)


# Nodes


class Work:
    """One award at a scripted node: what a script can do with it, honestly unless told not to."""

    def __init__(self, key: SecretKey, stream: FrameStream, dispatch: wire.Dispatch) -> None:
        self.key = key
        self.stream = stream
        self.dispatch = dispatch
        self.signed = signed_from_bytes(Award, dispatch.award)
        self.award = self.signed.message
        self.acks = AckCounter(
            self.award.job_id, self.award.rank, self.award.max_output_tokens, self.award.anchor
        )
        self.cancelled = False
        self._aggregator = Aggregator(JobKind.CHAT)
        if dispatch.prefix:
            self._aggregator.add({"choices": [{"delta": {"content": dispatch.prefix}}]})
        self._first = True

    def send(self, *deltas: dict[str, Any], finish: str | None = None) -> None:
        """One frame with an event for each delta; the last one ends the choice."""
        events = []
        for number, delta in enumerate(deltas):
            last = number == len(deltas) - 1
            choice = {"index": 0, "delta": delta, "finish_reason": finish if last else None}
            event = msgspec.json.encode({"object": "chat.completion.chunk", "choices": [choice]})
            self._aggregator.feed(event)
            events.append(event)
        self.stream.send(wire.encode(wire.Chunk(events)))

    async def say(self, *texts: str, finish: str | None = None) -> None:
        """Content, the first frame with the role; waits for the first acknowledgement."""
        deltas: list[dict[str, Any]] = [{"content": text} for text in texts]
        if self._first:
            deltas.insert(0, {"role": "assistant", "content": ""})
        self.send(*deltas, finish=finish)
        if self._first:
            self._first = False
            await self.wait_acks(1)

    async def wait_acks(self, count: int) -> None:
        """Take acknowledgements, each checked against the anchor, until there are `count`."""
        while self.acks.acks < count:
            await self.take()

    async def take(self) -> None:
        frame = wire.read_work_down(await self.stream.receive())
        if isinstance(frame, wire.Ack):
            self.acks.accept(frame.index, frame.preimage)
        else:
            assert isinstance(frame, wire.Cancel)
            self.cancelled = True

    def text(self) -> bytes:
        return self._aggregator.text()[self.award.start_byte :]

    def completion(self, **changes: Any) -> Signed[Completion]:
        """The completion that is true, but for `changes`."""
        text = self.text()
        reason = self._aggregator.finish_reason
        whole = response_commitment(
            self.dispatch.salt_response, response_digest(self._aggregator.choices())
        )
        tokenizer = served_model().tokenizer
        fields: dict[str, Any] = {
            "award_digest": self.signed.digest(DOMAIN),
            "node": self.key.address,
            "fingerprint": FINGERPRINT,
            "segment_commitment": segment_commitment(self.dispatch.salt_segment, text),
            "response_commitment": whole if reason else bytes(32),
            "start_byte": self.award.start_byte,
            "end_byte": self.award.start_byte + len(text),
            "prompt_tokens": self.award.prompt_tokens,
            "output_tokens": tokenizer.count_text(text.decode()),
            "acks": self.acks.acks,
            "last_preimage": self.acks.last_preimage,
            "finish": int(finish_of(reason) if reason else Finish.CANCELLED),
            "started_ms": self.award.awarded_ms,
            "first_token_ms": self.award.awarded_ms + 1,
            "finished_ms": self.award.awarded_ms + 2,
            "audit_commitment": bytes(32),
        }
        return Signed.by(self.key, DOMAIN, Completion(**fields | changes))

    async def end(self, **changes: Any) -> None:
        self.stream.send(wire.encode(wire.End(self.completion(**changes).to_bytes())))
        await self.stream.flush()

    async def refuse(self, reason: Reason, detail: str = "as scripted") -> None:
        self.stream.send(wire.encode(wire.NodeRefused(reason, detail)))
        await self.stream.flush()

    async def break_off(self) -> None:
        """What was sent arrives; then the stream is gone without an end."""
        await self.stream.flush()
        await trio.sleep(0.05)  # a reset overtakes what the peer has not read yet
        self.stream.reset("as scripted")

    async def wait_cancel(self) -> None:
        while not self.cancelled:
            await self.take()


Script = Callable[[Work], Awaitable[None]]


def speaks(*texts: str, finish: str = "stop") -> Script:
    """An honest node that says `texts`, a frame each."""

    async def play(work: Work) -> None:
        for text in texts[:-1]:
            await work.say(text)
        await work.say(texts[-1], finish=finish)
        await work.end()

    return play


class ScriptedNode:
    """Lays ready streams at the gateway and plays its script for every award."""

    def __init__(self, script: Script) -> None:
        self.key = SecretKey.generate(os.urandom)
        self.peer_secret = os.urandom(32)
        self.script = script
        self.works: list[Work] = []

    @property
    def peer(self) -> PeerId:
        return PeerId(peer_id_of_point(SecretKey(self.peer_secret).point))

    async def run(self, gateway_address: str) -> None:
        async with open_host(self.peer_secret) as host, trio.open_nursery() as nursery:
            peer = await host.connect(gateway_address)
            limits = FrameLimits.of(wire.MAX_WORK_FRAME)
            await keep_ready(
                host, peer, wire.WORK_PROTOCOL, self._job, jobs=nursery, idle=2, limits=limits
            )

    async def _job(self, stream: FrameStream, first: bytes) -> None:
        dispatch = wire.read_work_down(first)
        assert isinstance(dispatch, wire.Dispatch)
        work = Work(self.key, stream, dispatch)
        self.works.append(work)
        await self.script(work)


# The network


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
        await until(lambda: self.gateway.outbox.waiting == 0)
        row = await self.gateway.ledger.found_receipt(self.coordinator.only.job.message.job_id)
        assert row is not None
        assert row.problem is None, row.problem
        return signed_from_bytes(Receipt, row.signed).message


def request(**changes: Any) -> dict[str, Any]:
    """A small chat completion's body."""
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": "The keeper's lamp isn't lit."}],
        "max_tokens": 200,
    } | changes


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
    import time  # noqa: PLC0415

    return time.time_ns() // 1_000_000


def sources() -> Sources:
    return Sources(now_ms=now_ms, random_bytes=os.urandom, random=random.random)


@asynccontextmanager
async def scripted_coordinator(keys: Keys) -> AsyncGenerator[tuple[ScriptedCoordinator, Host]]:
    """A coordinator that listens."""
    coordinator = ScriptedCoordinator(keys)
    async with open_host(keys.coordinator_peer, ["/ip4/127.0.0.1/tcp/0"]) as host:
        limits = FrameLimits.of(wire.MAX_CONTROL_FRAME)
        host.serve(wire.GATEWAY_PROTOCOL, coordinator.serve, limits)
        yield coordinator, host


@asynccontextmanager
async def network(
    folder: Path,
    *scripts: Script,
    limits: Limits = QUICK,
    key: dict[str, Any] | None = None,
    keys: Keys | None = None,
    coordinator: tuple[ScriptedCoordinator, Host] | None = None,
) -> AsyncGenerator[Network]:
    """A running gateway, coordinator and one node for each script, ranked in that order."""
    keys = keys or Keys()
    if coordinator is None:
        async with (
            scripted_coordinator(keys) as listening,
            network(
                folder, *scripts, limits=limits, key=key, keys=keys, coordinator=listening
            ) as inner,
        ):
            yield inner
        return
    scripted, coordinator_host = coordinator
    registry, log = FixedRegistry(keys), FixedLog()
    nodes = [ScriptedNode(script) for script in scripts]
    registry.peers = {node.key.address: node.peer for node in nodes}
    scripted.line = [node.key.address for node in nodes]
    url = f"sqlite:///{folder / 'gateway.db'}"
    database = open_database(url, "gateway")
    add_grant(database, DOMAIN, signed_grant(keys, now_ms()), now_ms())
    new = create_key(
        database,
        payer=keys.payer.address,
        label="test",
        random=os.urandom,
        now_ms=now_ms(),
        **key or {},
    )

    async def address() -> str:
        return coordinator_host.addresses()[0]

    async with (
        open_host(keys.gateway_peer, ["/ip4/127.0.0.1/tcp/0"]) as host,
        open_gateway(
            identity=Identity(keys.gateway, DOMAIN, LOG),
            database=database,
            host=host,
            registry=registry,
            coordinator=address,
            public_log=log,
            models={MODEL: served_model()},
            limits=limits,
            sources=sources(),
            pace=_PACE,
        ) as gateway,
        trio.open_nursery() as nursery,
    ):
        binds = await nursery.start(_run_http, gateway)
        for node in nodes:
            nursery.start_soon(node.run, host.addresses()[0])
        await until(lambda: gateway.desk.market.connected)
        await until(lambda: all(gateway.desk.pool.count(node.peer) for node in nodes))
        yield Network(
            keys, gateway, scripted, nodes, log, binds[0], new.secret, url
        )
        nursery.cancel_scope.cancel()
    database.close()


async def _run_http(gateway: Gateway, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    await run_http(gateway, "127.0.0.1:0", trio.sleep_forever, task_status)


def shown(address: bytes) -> str:
    """An address as JSON has it."""
    return to_hex(address)
