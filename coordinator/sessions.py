"""The coordinator's side of the control streams: who is there, and what they may ask.

A stream belongs to whoever its noise-proven peer key is registered to on chain; `Hello` only says
which registration to look at. Errors by the peer are answered, never fatal; but who doesn't say who
it is in time is dropped, since anybody can open streams. One Hello of a stream is looked up at a
time, and until one is accepted any other call is refused at once: strangers' calls don't pile up.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import msgspec
import trio

from coordinator.book import OrderBook
from coordinator.courier import GATEWAY, NODE, Party
from coordinator.desk import AuctionDesk
from coordinator.directory import Directory
from coordinator.docket import Awarded, OpenJob
from coordinator.errors import JobRefused
from coordinator.evidence import Evidence
from coordinator.ports import NodeRecord
from pinaivu.errors import InvalidEncoding, PeerFault, PinaivuError, TransportFailure
from pinaivu.keys import checksum, point_of_peer_id
from pinaivu.messages import Completion, Delivery, Failure, Grant, Job, Offer
from pinaivu.p2p import PeerId, wire
from pinaivu.p2p.calls import Calls
from pinaivu.p2p.errors import NotConnected
from pinaivu.p2p.frames import FrameStream
from pinaivu.typed_data import Signed, signed_from_bytes

HELLO_WITHIN_S = 15.0
_RECEIPT_WAIT_S = 30.0
_BATCH_WAIT_S = 10.0
_RETRY_AFTER_MS = 1_000
T = TypeVar("T")
_logger = logging.getLogger(__name__)


class Handlers(msgspec.Struct, frozen=True):
    """Who answers what the streams bring."""

    book: OrderBook
    desk: AuctionDesk
    evidence: Evidence
    find_receipt: Callable[[bytes, bytes], Awaitable[wire.Receipted | None]]


class Sessions:
    """Connected nodes and gateways."""

    def __init__(self, directory: Directory, log_id: bytes, now_ms: Callable[[], int]) -> None:
        self._directory = directory
        self._log_id = log_id
        self._now_ms = now_ms
        self._nodes: dict[bytes, Calls] = {}
        self._gateways: dict[bytes, Calls] = {}
        self._handlers: Handlers | None = None
        self.on_hello: list[Callable[[Party], None]] = []

    def attach(self, handlers: "Handlers") -> None:
        """Name who answers; streams may be served from then on."""
        self._handlers = handlers

    @property
    def _to(self) -> "Handlers":
        if self._handlers is None:
            raise JobRefused("starting", "the coordinator is starting", retry_after_ms=1_000)
        return self._handlers

    def market(self) -> dict[str, int]:
        """Live offers by model."""
        return self._handlers.book.models(self._now_ms()) if self._handlers else {}

    def live_offers(self, model: str) -> list[Offer]:
        """The live offers of one model."""
        return self._handlers.book.live(model, self._now_ms()) if self._handlers else []

    def refused_offers(self) -> dict[str, int]:
        """Offers refused since the start, by reason."""
        return dict(self._handlers.book.refused) if self._handlers else {}

    def reachable(self, node: bytes) -> bool:
        """Whether a node's control stream is up."""
        return node in self._nodes

    async def ask(self, node: bytes, call: wire.AuctionCall) -> wire.BidReply:
        """Put an auction call to a node."""
        calls = self._nodes.get(node)
        if calls is None:
            raise NotConnected(f"node {checksum(node)} is not connected")
        reply = await calls.call(wire.encode(call), timeout=call.window_ms / 1000)
        return wire.read_bid_reply(reply)

    async def send(self, party: Party, payload: bytes) -> bytes:
        """Call a party with what a courier brings, and its answer."""
        calls = (self._nodes if party.role == NODE else self._gateways).get(party.address)
        if calls is None:
            raise NotConnected(f"{party.role} {checksum(party.address)} is not connected")
        return await calls.call(payload, timeout=_BATCH_WAIT_S)

    def announce(self, job: OpenJob) -> None:
        """Push a receipt to every node on it that is connected."""
        assert job.receipt
        signed, index = job.receipt
        notice = wire.encode(wire.ReceiptNotice(receipt=signed.to_bytes(), index=index))
        for node in {segment.node for segment in signed.message.segments}:
            calls = self._nodes.get(node)
            if calls:
                with suppress(PinaivuError):
                    calls.notify(notice)

    async def serve_node(self, peer: PeerId, stream: FrameStream) -> None:
        """A node's control stream, until it ends."""
        record: list[NodeRecord] = []
        greeted, greeting = trio.Event(), trio.Lock()

        async def answer(payload: bytes) -> wire.NodeAnswer:
            frame = wire.read_node_to_coordinator(payload)
            if isinstance(frame, wire.Hello):
                with _one_at_a_time(greeting):
                    record[:] = [await self._node_hello(peer, frame)]
                self._enter(NODE, frame.owner, calls)
                greeted.set()
            else:
                await self._node_call(_introduced(record), frame)
            return wire.Done()

        calls = Calls(stream, on_call=_answering(answer))
        await _run_registered(calls, self._nodes, greeted)

    async def serve_gateway(self, peer: PeerId, stream: FrameStream) -> None:
        """A gateway's control stream, until it ends."""
        owner: list[bytes] = []
        greeted, greeting = trio.Event(), trio.Lock()

        async def answer(payload: bytes) -> wire.GatewayAnswer:
            frame = wire.read_gateway_to_coordinator(payload)
            if not isinstance(frame, wire.Hello):
                return await self._gateway_call(_introduced(owner), frame)
            with _one_at_a_time(greeting):
                await self._gateway_hello(peer, frame)
            owner[:] = [frame.owner]
            self._enter(GATEWAY, frame.owner, calls)
            greeted.set()
            return wire.Done()

        calls = Calls(stream, on_call=_answering(answer))
        await _run_registered(calls, self._gateways, greeted)

    def _enter(self, role: str, owner: bytes, calls: Calls) -> None:
        (self._nodes if role == NODE else self._gateways)[owner] = calls
        for heard in self.on_hello:
            heard(Party(role, owner))

    async def _node_hello(self, peer: PeerId, hello: wire.Hello) -> NodeRecord:
        record = await self._directory.node(hello.owner)
        if record is None:
            raise JobRefused(
                "not_registered", f"node {checksum(hello.owner)} is not registered on chain"
            )
        self._require_peer(peer, record.peer, hello)
        return record

    def _require_peer(self, peer: PeerId, registered: bytes, hello: wire.Hello) -> None:
        if point_of_peer_id(peer) != registered:
            raise JobRefused("foreign_peer", "this peer key is not the registered one")
        if hello.log_id != self._log_id:
            raise JobRefused("foreign_log", "this coordinator keeps another log")

    async def _node_call(
        self, record: NodeRecord, frame: wire.PutOffer | wire.PutCompletion
    ) -> None:
        if isinstance(frame, wire.PutOffer):
            offer = self._read_offer(frame.offer)
            model = await self._directory.model(offer.message.model)
            # Wallet and bond may have changed since the hello; a node once registered stays so.
            fresh = await self._directory.node(record.node) or record
            self._to.book.put(offer, fresh, model, self._now_ms())
            return
        completion = signed_from_bytes(Completion, frame.completion)
        try:
            await self._to.evidence.completion(completion)
        except JobRefused as refusal:
            if refusal.code != "unknown_award":
                raise  # an award that is receipted or unknown needs no completion any more

    def _read_offer(self, raw: bytes) -> Signed[Offer]:
        try:
            return signed_from_bytes(Offer, raw)
        except InvalidEncoding:
            self._to.book.refused["malformed"] += 1
            raise

    async def _gateway_hello(self, peer: PeerId, hello: wire.Hello) -> None:
        registered = await self._directory.gateway_peer(hello.owner)
        if registered is None:
            raise JobRefused(
                "not_registered", f"gateway {checksum(hello.owner)} is not registered on chain"
            )
        self._require_peer(peer, registered, hello)

    async def _gateway_call(
        self, gateway: bytes, frame: wire.SubmitJob | wire.ReportFailure | wire.Deliver
    ) -> wire.GatewayAnswer:
        if isinstance(frame, wire.SubmitJob):
            signed, grant = signed_from_bytes(Job, frame.job), signed_from_bytes(Grant, frame.grant)
            return await self._to.desk.submit(gateway, signed, grant)
        if isinstance(frame, wire.ReportFailure):
            job, failed = await self._void(gateway, frame.failure)
            return await self._to.desk.award_next(job, failed)
        return await self._deliver(gateway, frame)

    async def _void(self, gateway: bytes, report: bytes) -> tuple[OpenJob, Awarded]:
        """Take a report that an award failed; its node hears of it, if it can be told now."""
        job, failed = await self._to.evidence.failure(gateway, signed_from_bytes(Failure, report))
        calls = self._nodes.get(failed.signed.message.node)
        if calls:
            with suppress(PinaivuError):
                calls.notify(wire.encode(wire.AwardVoided(report)))
        return job, failed

    async def _deliver(self, gateway: bytes, frame: wire.Deliver) -> wire.GatewayAnswer:
        job = signed_from_bytes(Job, frame.job)
        done = await self._to.find_receipt(gateway, job.message.job_id)
        if done:
            return done
        for raw in frame.failures:
            with suppress(JobRefused):
                await self._void(gateway, raw)
        for raw in frame.completions:
            with suppress(JobRefused):
                await self._to.evidence.completion(signed_from_bytes(Completion, raw))
        open_job = await self._to.evidence.delivery(
            gateway, signed_from_bytes(Delivery, frame.delivery)
        )
        with trio.move_on_after(_RECEIPT_WAIT_S):
            await open_job.receipted.wait()
        if open_job.receipt is None:
            raise JobRefused("not_yet", "the receipt is not there yet", retry_after_ms=1_000)
        signed, index = open_job.receipt
        return wire.Receipted(receipt=signed.to_bytes(), index=index)


@contextmanager
def _one_at_a_time(hello: trio.Lock) -> Iterator[None]:
    """Refuse a Hello while another of its stream is being looked up."""
    try:
        hello.acquire_nowait()
    except trio.WouldBlock as error:
        raise JobRefused(
            "in_progress", "another Hello is being looked up", retry_after_ms=_RETRY_AFTER_MS
        ) from error
    try:
        yield
    finally:
        hello.release()


def _introduced(owner: list[T]) -> T:
    """Whoever said Hello on this stream."""
    if not owner:
        raise JobRefused("no_hello", "say Hello first")
    return owner[0]


def _answering(
    answer: Callable[[bytes], Awaitable[msgspec.Struct]],
) -> Callable[[bytes], Awaitable[bytes]]:
    """Turn what a peer did wrong, or what failed on our side, into a refusal it can read."""

    async def run(payload: bytes) -> bytes:
        try:
            reply = await answer(payload)
        except JobRefused as refusal:
            reply = refusal.frame()
        except TransportFailure as failure:
            _logger.warning("a call failed: %s", failure)
            reply = wire.Refused("unavailable", str(failure), 0, _RETRY_AFTER_MS)
        except (PeerFault, InvalidEncoding) as fault:
            reply = wire.Refused("bad_message", str(fault))
        return wire.encode(reply)

    return run


async def _run_registered(calls: Calls, table: dict[bytes, Calls], greeted: trio.Event) -> None:
    """Run a conversation; whatever name it was entered under is free afterwards."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_require_hello, calls, greeted)
        try:
            await calls.run()
        finally:
            for owner in [owner for owner, entry in table.items() if entry is calls]:
                del table[owner]
        nursery.cancel_scope.cancel()


async def _require_hello(calls: Calls, greeted: trio.Event) -> None:
    with trio.move_on_after(HELLO_WITHIN_S):
        await greeted.wait()
        return
    calls.stream.drop_peer("no hello")
