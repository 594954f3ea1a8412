"""One order's work: events from the engine to the gateway, as far as the exchange allows.

    work = Work(order, stream, mark_used=…, clock…)
    await work.run()
    work.stop       # None: the answer is whole

`run` ends when the answer is whole and preimage 1 is held, or when something stopped it: the
gateway's cancellation, its disappearance, a broken rule, silence, the award's expiry or voiding,
the engine, or the node's own shutdown (`halt`). The engine's request is dropped at that moment.
What has been sent until then is `answer`, what was acknowledged is `window`. Nothing is signed.
Nothing is sent before `mark_used` has returned; the engine is asked at once.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from node.answer import Answer, engine_body
from node.checks import Order
from node.engines.errors import CLIENT_ERRORS, EngineRefused, EngineTimedOut
from node.errors import JobRefused
from node.exchange import Window
from node.ports import NowMs
from pinaivu.codes import Finish, JobKind, Reason
from pinaivu.errors import PeerFault, PinaivuError, TransportFailure
from pinaivu.openai import BadResponse
from pinaivu.p2p import wire
from pinaivu.p2p.frames import FrameStream
from pinaivu.store.database import StorageFailed

_OVERRUN: Final = 2  # times the limit: two ways to split a text differ by less
_logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stop:
    """Why an answer did not become whole; `reason` goes to the gateway, `finish` is signed."""

    finish: Finish
    reason: Reason
    detail: str
    engine_status: int = 0


CANCELLED: Final = Stop(Finish.CANCELLED, Reason.REFUSED, "cancelled by the gateway")
BROKEN: Final = Stop(Finish.CANCELLED, Reason.STREAM_BROKEN, "the gateway is gone")
EXPIRED: Final = Stop(Finish.CANCELLED, Reason.REFUSED_EXPIRED, "the award ran out")
STALLED: Final = Stop(Finish.CANCELLED, Reason.PROTOCOL_VIOLATION, "no acknowledgement came")
UNWRITTEN: Final = Stop(Finish.CANCELLED, Reason.REFUSED, "the node could not write its journal")
VOIDED: Final = Stop(Finish.CANCELLED, Reason.REFUSED, "the award was voided")
DRAINED: Final = Stop(Finish.DRAINED, Reason.REFUSED, "the node is shutting down")
CUT_OFF: Final = Stop(
    Finish.ENGINE_ERROR, Reason.ENGINE_ERROR, "the engine ended without a finish reason"
)
OVERRUN: Final = Stop(
    Finish.ENGINE_ERROR, Reason.ENGINE_ERROR, "the engine does not keep to its token limit"
)


class Work:
    """The running of one order."""

    def __init__(
        self,
        order: Order,
        stream: FrameStream,
        *,
        mark_used: Callable[[], Awaitable[None]],
        now_ms: NowMs,
        ack_timeout_s: float,
    ) -> None:
        """`mark_used` returns once it is durable that the award has been used, by this work."""
        self.order = order
        self.window = Window(order.award)
        self.answer = Answer(order)
        self.stop: Stop | None = None
        self.started_ms = now_ms()
        self.first_token_ms = 0
        self.finished_ms = 0
        self._stream = stream
        self._mark_used = mark_used
        self._marked = trio.Event()
        self._now_ms = now_ms
        self._ack_timeout_s = ack_timeout_s
        self._held: list[bytes] = []
        self._acknowledged = trio.Event()
        self._producing = trio.CancelScope()

    def halt(self, stop: Stop) -> None:
        """Stop for this reason, unless there is one already."""
        self.stop = self.stop or stop
        self._producing.cancel()

    async def run(self) -> None:
        """Work until the answer is whole or something stops it; never raises for either."""
        left_ms = self.order.award.expires_ms - self.started_ms
        self._producing.deadline = trio.current_time() + left_ms / 1000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._mark)
            nursery.start_soon(self._listen)
            with self._producing:
                await self._produce()
            if self._producing.cancelled_caught:
                self.halt(EXPIRED)  # who cancelled it has said why before
            nursery.cancel_scope.cancel()
        self.finished_ms = self._now_ms()

    async def _mark(self) -> None:
        try:
            await self._mark_used()
        except JobRefused as refusal:
            self.halt(Stop(Finish.CANCELLED, refusal.reason, str(refusal)))
        except StorageFailed:
            _logger.exception("the database failed under an order")
            self.halt(UNWRITTEN)
        else:
            self._marked.set()

    async def _listen(self) -> None:
        """Take what the gateway sends, until it says stop, goes away or breaks the rules."""
        try:
            while True:
                frame = wire.read_work_down(await self._stream.receive())
                if isinstance(frame, wire.Ack):
                    self.window.accept(frame)
                    self._acknowledged.set()
                    self._acknowledged = trio.Event()
                elif isinstance(frame, wire.Cancel):
                    self.halt(CANCELLED)
                    return
                else:
                    self.halt(_violation("a second dispatch on the same stream"))
                    return
        except TransportFailure:
            self.halt(BROKEN)
        except PinaivuError as error:
            self.halt(_violation(str(error)))

    async def _produce(self) -> None:
        engine = self.order.model.engine
        try:
            kind = self.order.request.kind
            async with engine.stream(kind, engine_body(self.order)) as events:
                async for batch in events:
                    if not self._marked.is_set():
                        await self._marked.wait()
                    for event in batch:
                        await self._forward(event)
                    self._send()
                    if kind == JobKind.EMBEDDING:  # no window holds it back
                        await self._handed_over()
        except (TransportFailure, BadResponse) as error:
            self.halt(_engine_failure(error))
            return
        if not self.answer.complete:
            self.halt(CUT_OFF)
            return
        self._send(whole=True)
        await self._until(lambda: self.window.acks > 0)

    async def _forward(self, event: bytes) -> None:
        """Add an event to the frame; send that and wait first where the window is full."""
        if not self.window.room:
            self._send()
            await self._until(lambda: self.window.room)
        self.answer.take(event)
        self._held.append(event)
        if self.answer.reaches(self.window.full_at):
            self.window.put(self.answer.tokens)
        if self.answer.begun and not self.first_token_ms:
            self.first_token_ms = self._now_ms()
        if self.answer.reaches(_OVERRUN * self.order.award.max_output_tokens + 1):
            self._send()
            self.halt(OVERRUN)
            await trio.lowlevel.checkpoint()

    def _send(self, *, whole: bool = False) -> None:
        """Send the frame, but the first one only with content: that is what is acknowledged."""
        if not self._held or not (self.answer.begun or whole):
            return
        try:
            self._stream.send(wire.encode(wire.Chunk(self._held)))
        except PinaivuError:
            self.halt(BROKEN)
            return
        self._held = []
        self.window.sent()

    async def _handed_over(self) -> None:
        """Wait until the gateway takes what was sent."""
        try:
            await self._stream.flush()
        except PinaivuError:
            self.halt(BROKEN)
            await trio.lowlevel.checkpoint()

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for an acknowledgement that makes the condition hold, though not for ever."""
        with trio.move_on_after(self._ack_timeout_s):
            while not condition():
                await self._acknowledged.wait()
            return
        self.halt(STALLED)
        await trio.lowlevel.checkpoint()


def _violation(detail: str) -> Stop:
    return Stop(Finish.CANCELLED, Reason.PROTOCOL_VIOLATION, detail)


def _engine_failure(error: TransportFailure | PeerFault) -> Stop:
    # What an engine says may quote the prompt: it goes to the gateway, never into a log.
    _logger.warning("the engine failed an order: %s", type(error).__name__)
    reason = Reason.ENGINE_ERROR
    if isinstance(error, EngineRefused) and error.status in CLIENT_ERRORS:
        return Stop(Finish.ENGINE_ERROR, Reason.REFUSED, str(error), error.status)
    if isinstance(error, EngineTimedOut):
        reason = Reason.TOO_SLOW
    return Stop(Finish.ENGINE_ERROR, reason, str(error))
