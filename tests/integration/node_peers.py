"""The node's counterparts, scripted: engine, gateway, coordinator. Real HTTP, libp2p, signatures.

`ScriptedEngine` answers as an OpenAI-compatible server would, with the events it is given.
`ScriptedGateway` and `ScriptedCoordinator` speak the wire's frames over real hosts on loopback and
do what a test tells them, also what a real one never would. Registries are dictionaries.
"""

import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import h11
import msgspec
import trio

from node.config import ChainConfig, Config, LlamaCpp, LogConfig, ModelConfig
from node.engines.client import EngineClient, Patience
from node.journal import Journal
from node.models import ServedModel
from node.pricing import IdleDiscount
from node.quotes import Quotes
from node.service import Node, Parts, Surroundings
from node.wallet import NodeKeys
from pinaivu import typed_data
from pinaivu.codes import JobKind
from pinaivu.keys import SecretKey
from pinaivu.manifest import Block, Manifest
from pinaivu.messages import Bid, Completion, Failure, Offer, Receipt
from pinaivu.p2p import PeerId, wire
from pinaivu.p2p.calls import Calls
from pinaivu.p2p.errors import CallRefused
from pinaivu.p2p.frames import FrameLimits, FrameStream
from pinaivu.p2p.host import Host, open_host
from pinaivu.p2p.links import ReadyPool
from pinaivu.store.database import open_database
from pinaivu.store.writer import open_writer
from pinaivu.typed_data import Signed, signed_from_bytes
from tests.integration.chain_network import MEASUREMENT, Network
from tests.integration.p2p_support import PATIENCE
from tests.unit import node_support as n

T = TypeVar("T")
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
Step = Sequence[bytes] | trio.Event | str
"""Events to send in one write, something to wait for, or "break": close without an end."""


class Log(Generic[T]):
    """A growing list that tests can wait on."""

    def __init__(self) -> None:
        self.items: list[T] = []
        self._more = trio.Event()

    def add(self, item: T) -> None:
        """Append and wake whoever waits."""
        self.items.append(item)
        self._more.set()
        self._more = trio.Event()

    async def find(self, wanted: Callable[[T], bool]) -> T:
        """The first item that is wanted, as soon as there is one."""
        with trio.fail_after(PATIENCE):
            while True:
                for item in self.items:
                    if wanted(item):
                        return item
                await self._more.wait()

    async def reach(self, count: int, within: float = PATIENCE) -> list[T]:
        """All items, as soon as there are `count`."""
        with trio.fail_after(within):
            while len(self.items) < count:
                await self._more.wait()
        return self.items


class ScriptedEngine:
    """One HTTP server whose completions follow `script`; without one they say `text`."""

    def __init__(self) -> None:
        self.script: list[Step] | None = None
        self.text = "It is lit now"
        self.embedding = b""  # the whole answer to whatever has an input
        self.status = 200
        self.requests: Log[dict[str, Any]] = Log()
        self.gone: Log[str] = Log()

    @property
    def steps(self) -> list[Step]:
        """What the next completion does."""
        return list(self.script) if self.script is not None else [*n.answer_events(self.text)]

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one request on a connection."""
        http = h11.Connection(h11.SERVER)
        body = await self._request(stream, http)
        self.requests.add(msgspec.json.decode(body))
        if self.status != 200:
            await self._refuse(stream, http)
            return
        if "input" in self.requests.items[-1]:
            await self._embed(stream, http)
            return
        head = h11.Response(status_code=200, headers=[("content-type", "text/event-stream")])
        await stream.send_all(http.send(head) or b"")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._notice_end, stream, nursery.cancel_scope)
            try:
                await self._answer(stream, http)
            except trio.BrokenResourceError:
                self.gone.add("gone")
            nursery.cancel_scope.cancel()

    async def _answer(self, stream: trio.SocketStream, http: h11.Connection) -> None:
        for step in self.steps:
            if isinstance(step, trio.Event):
                await step.wait()
            elif step == "break":
                return
            else:
                await self._events(stream, http, [bytes(one) for one in step])  # type: ignore[arg-type]
        await self._events(stream, http, [b"[DONE]"])
        await stream.send_all(http.send(h11.EndOfMessage()) or b"")

    async def _embed(self, stream: trio.SocketStream, http: h11.Connection) -> None:
        head = h11.Response(status_code=200, headers=[("content-type", "application/json")])
        whole = (head, h11.Data(data=self.embedding), h11.EndOfMessage())
        await stream.send_all(b"".join(http.send(part) or b"" for part in whole))

    async def _events(
        self, stream: trio.SocketStream, http: h11.Connection, events: list[bytes]
    ) -> None:
        payload = b"".join(b"data: " + event + b"\n\n" for event in events)
        await stream.send_all(http.send(h11.Data(data=payload)) or b"")

    async def _request(self, stream: trio.SocketStream, http: h11.Connection) -> bytes:
        body = b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return body

    async def _refuse(self, stream: trio.SocketStream, http: h11.Connection) -> None:
        raw = b'{"error":{"message":"no such thing"}}'
        head = h11.Response(status_code=self.status, headers=[("content-length", str(len(raw)))])
        parts = (head, h11.Data(data=raw), h11.EndOfMessage())
        await stream.send_all(b"".join(http.send(part) or b"" for part in parts))

    async def _notice_end(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        """The client closed its connection: it wants no more."""
        with suppress(trio.BrokenResourceError):
            await stream.receive_some(1)
        self.gone.add("gone")
        scope.cancel()


class ClientEngine:
    """The node's own HTTP client on a scripted engine, as the port wants it."""

    def __init__(self, url: str) -> None:
        self.client = EngineClient(url, patience=Patience(first_token_s=20, token_s=20))
        self.ready = True

    def stream(self, kind: JobKind, body: bytes) -> Any:
        """See `Engine.stream`."""
        return self.client.stream(kind, body)


@dataclass
class Conversation:
    """A dispatched job, from the gateway's side."""

    stream: FrameStream
    job: n.JobDraft
    award: Any
    digest: bytes

    async def next(self) -> wire.WorkUp:
        """The node's next frame."""
        with trio.fail_after(PATIENCE):
            return wire.read_work_up(await self.stream.receive())

    async def rest(self) -> list[wire.WorkUp]:
        """The frames up to and with the last; chunks are acknowledged as they are counted."""
        frames: list[wire.WorkUp] = []
        counter, acks = n.tokenizer().stream(), 0
        while True:
            frames.append(await self.next())
            frame = frames[-1]
            if not isinstance(frame, wire.Chunk):
                return frames
            for event in frame.events:
                counter.feed(text_of(event))
            due = min(1 + counter.count // 32, self.job.acks.length)
            if due > acks:
                acks = due
                self.ack(acks)

    def ack(self, number: int) -> None:
        """Release a preimage."""
        self.send(wire.Ack(number, self.job.acks.preimage(number)))

    def send(self, frame: wire.WorkDown) -> None:
        """Send any frame."""
        self.stream.send(wire.encode(frame))

    def silent(self) -> bool:
        """Whether nothing has arrived that was not taken."""
        return not self.stream._inbox


def text_of(event: bytes) -> str:
    """The text that a chunk brings."""
    choices = msgspec.json.decode(event)["choices"]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def text_in(frames: Sequence[wire.WorkUp]) -> str:
    """The text of all chunks."""
    chunks = [frame for frame in frames if isinstance(frame, wire.Chunk)]
    return "".join(text_of(event) for chunk in chunks for event in chunk.events)


class ScriptedGateway:
    """A gateway's host with the streams that nodes have laid ready."""

    def __init__(self, host: Host, key: SecretKey = n.GATEWAY) -> None:
        self.host = host
        self.key = key
        self.pool = ReadyPool()
        host.serve(wire.WORK_PROTOCOL, self.pool.accept, FrameLimits.of(wire.MAX_WORK_FRAME))

    async def stream(self) -> FrameStream:
        """One of the node's ready streams."""
        return await self.pool.take(n.peer_of(n.NODE_PEER), within=PATIENCE)

    async def dispatch(self, job: n.JobDraft, bid_digest: bytes, /, **changes: Any) -> Conversation:
        """Dispatch a job under an award with some fields changed."""
        award = job.award(bid_digest, **({"gateway": self.key.address} | changes))
        return await self.send(job, award, job.dispatch(award))

    async def send(self, job: n.JobDraft, award: Any, frame: wire.Dispatch) -> Conversation:
        """Send any dispatch."""
        stream = await self.stream()
        stream.send(wire.encode(frame))
        digest = typed_data.digest(job.domain, award)
        return Conversation(stream, job, award, digest)


class ScriptedCoordinator:
    """A coordinator's host; answers every call as `refusal` says."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.hellos: Log[wire.Hello] = Log()
        self.offers: Log[Signed[Offer]] = Log()
        self.completions: Log[Signed[Completion]] = Log()
        self.refusal: Callable[[wire.NodeToCoordinator], wire.Refused | None] = lambda _: None
        self.calls: list[Calls] = []
        host.serve(wire.NODE_PROTOCOL, self._serve, FrameLimits.of(wire.MAX_CONTROL_FRAME))

    async def _serve(self, peer: PeerId, stream: FrameStream) -> None:
        assert peer == n.peer_of(n.NODE_PEER)
        calls = Calls(stream, on_call=self._answer)
        self.calls.append(calls)
        try:
            await calls.run()
        finally:
            self.calls.remove(calls)

    async def _answer(self, payload: bytes) -> bytes:
        frame = wire.read_node_to_coordinator(payload)
        if isinstance(frame, wire.Hello):
            self.hellos.add(frame)
        elif isinstance(frame, wire.PutOffer):
            self.offers.add(signed_from_bytes(Offer, frame.offer))
        else:
            self.completions.add(signed_from_bytes(Completion, frame.completion))
        return wire.encode(self.refusal(frame) or wire.Done())

    async def bid(self, call: wire.AuctionCall) -> Signed[Bid] | None:
        """Call the node in a live round."""
        reply = wire.read_bid_reply(await self.calls[-1].call(wire.encode(call), PATIENCE))
        return signed_from_bytes(Bid, reply.bid) if reply.bid else None

    async def put(self, frame: wire.PutBatch) -> wire.Done:
        """Hand over a batch; `CallRefused` where the node does not keep it."""
        return wire.read_batch_answer(await self.calls[-1].call(wire.encode(frame), PATIENCE))

    async def void(self, report: Signed[Failure]) -> None:
        """Say that an award is void; the node has heard it when this returns."""
        self.calls[-1].notify(wire.encode(wire.AwardVoided(report.to_bytes())))
        with suppress(CallRefused):  # what comes later is looked at later
            await self.calls[-1].call(b"", PATIENCE)

    def notify(self, receipt: Signed[Receipt], index: int = 3) -> None:
        """Send a receipt."""
        self.calls[-1].notify(wire.encode(wire.ReceiptNotice(receipt.to_bytes(), index)))


@dataclass
class Place:
    """Everything around one node, which can be started again and again on the same state.

    Its quotes are kept across restarts, so that nothing but the journal stops an old award.
    """

    state: Path
    chain: n.DictChain
    directory: n.DictDirectory
    engine: ScriptedEngine
    engine_url: str
    gateway: ScriptedGateway
    coordinator: ScriptedCoordinator
    ack_timeout_s: float = 20.0
    clock_ahead_ms: int = 0
    model: ServedModel | None = None
    heard: list[Callable[[], None]] = field(default_factory=list)
    quotes: Quotes = field(default_factory=Quotes)

    def now_ms(self) -> int:
        """The node's clock: the machine's, put forward."""
        return _wall_ms() + self.clock_ahead_ms

    def job(self, **changes: Any) -> n.JobDraft:
        """A job of this moment with an id and a chain of its own."""
        fresh = {
            "now_ms": self.now_ms(),
            "job_id": os.urandom(16),
            "last_preimage": os.urandom(32),
            "salt_root": os.urandom(32),
        }
        return n.JobDraft(**(fresh | changes))  # type: ignore[arg-type]

    @asynccontextmanager
    async def node(self, **config: Any) -> AsyncIterator[Node]:
        """The node, assembled and running; stopped in order at the end of the block."""
        async with self.assembled(**config) as node, trio.open_nursery() as nursery:
            stop = trio.Event()
            nursery.start_soon(node.run, stop.wait)
            yield node
            stop.set()

    @asynccontextmanager
    async def killed(self) -> AsyncIterator[Node]:
        """The node, running; at the end of the block it is gone without a word."""
        async with self.assembled() as node, trio.open_nursery() as nursery:
            nursery.start_soon(node.run, trio.sleep_forever)
            yield node
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def assembled(self, **config: Any) -> AsyncIterator[Node]:
        """A node's parts put together by the service itself."""
        database = open_database(f"sqlite:///{self.state / 'node.db'}", "node")
        model = n.served_model(ClientEngine(self.engine_url), pricing=IdleDiscount(100_000))
        self.model = model
        async with open_writer(database) as writer, open_host(n.NODE_PEER.secret) as host:
            parts = Parts(
                config=self._config(**config),
                keys=NodeKeys(signing=n.NODE, peer=n.NODE_PEER),
                domain=n.DOMAIN,
                chain=self.chain,
                around=self._around(),
                journal=Journal(writer),
                models={model.name: model},
                quotes=self.quotes,
                ack_timeout_s=self.ack_timeout_s,
            )
            self.heard = parts.heard
            yield parts.assemble(host, self.directory)
        database.close()

    def _config(self, **changes: Any) -> Config:
        values: dict[str, Any] = {
            "state": str(self.state),
            "chain": ChainConfig("http://127.0.0.1:1", "none"),
            "logs": (LogConfig("0x" + n.LOG.hex(), "http://log.test"),),
            "gateways": (self.gateway.host.addresses()[0],),
            "models": (ModelConfig(n.MODEL, "none", n.PRICE, LlamaCpp("none")),),
            "drain_s": 0.0,
        }
        return Config(**(values | changes))

    def _around(self) -> Surroundings:
        return Surroundings(
            now_ms=self.now_ms,
            clock_ns=lambda: 0,
            random_bytes=os.urandom,
            random=lambda: 0.5,
            environment={},
        )

    async def offered(self) -> bytes:
        """The digest of an offer of the node now running; earlier ones are forgotten."""
        self.coordinator.offers.items.clear()
        return (await self.coordinator.offers.reach(1))[0].digest(n.DOMAIN)


def activate_epoch(net: Network, **changes: Any) -> Manifest:
    """Start an epoch with the scripted coordinator's keys and this test's parameters."""
    rules = n.parameters()
    net.admin.send(net.calls.propose_pair(MEASUREMENT, rules.digest()))
    net.rpc.call("evm_increaseTime", net.client.times().admin_delay_ms // 1000)
    net.rpc.call("evm_mine")
    block = net.client.block()
    manifest = msgspec.structs.replace(
        n.manifest(),
        chain_id=net.deployment.chain_id,
        settlement=net.deployment.settlement,
        log_id=net.log_id,
        block=Block(number=block.number, hash=block.hash),
        **changes,
    )
    verdict = net.verdict(
        n.COORDINATOR, parameters_digest=rules.digest(), manifest_digest=manifest.digest()
    )
    signed = Signed.by(net.simulator, net.deployment.domain, verdict)
    net.admin.send(net.calls.activate(verdict, signed.signature))
    return manifest


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def place(state: Path) -> AsyncIterator[Place]:
    """A scripted engine, gateway and coordinator on loopback, and registries that know them."""
    engine = ScriptedEngine()
    async with (
        trio.open_nursery() as nursery,
        open_host(n.GATEWAY_PEER.secret, [LOOPBACK]) as gateway,
        open_host(n.COORDINATOR_PEER.secret, [LOOPBACK]) as coordinator,
    ):
        listeners = await nursery.start(partial(trio.serve_tcp, engine.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        at = coordinator.addresses()[0].partition("/p2p/")[0]
        yield Place(
            state=state,
            chain=n.chain(),
            directory=n.DictDirectory(n.published(address=at)),
            engine=engine,
            engine_url=f"http://127.0.0.1:{port}",
            gateway=ScriptedGateway(gateway),
            coordinator=ScriptedCoordinator(coordinator),
        )
        nursery.cancel_scope.cancel()
