"""Takes dispatches, works on them, signs what was done, and answers the gateway.

The order of durable steps: the award is marked used before anything of its answer leaves, the
completion is kept before anybody sees it. After a crash in between, the award is never served again
and nothing is claimed for it. The engine computes meanwhile; an award that comes twice while it
holds is refused from memory, so that it costs no second prefill. A completion is signed when the
answer is whole, or when it was stopped with at least preimage 1 held; without that the node has
nothing to claim.

`Executor.serve` is the job of a ready stream (`pinaivu.p2p.links.keep_ready`).
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from node.checks import Gatekeeper, Order
from node.errors import AwardUsed, JobRefused
from node.journal import Journal
from node.ports import NowMs
from node.voids import Voids
from node.work import BROKEN, CANCELLED, DRAINED, VOIDED, Stop, Work
from pinaivu.codes import Reason
from pinaivu.errors import InvalidEncoding, TransportFailure
from pinaivu.keys import SecretKey
from pinaivu.messages import Completion, Failure
from pinaivu.p2p import PeerId, wire
from pinaivu.p2p.errors import StreamBroken
from pinaivu.p2p.frames import FrameStream
from pinaivu.remembered import Remembered
from pinaivu.store.database import StorageFailed
from pinaivu.typed_data import Domain, Signed

ACK_TIMEOUT_S: Final = 20.0
_RECALLED_MS: Final = 3_600_000  # awards hold for minutes; the journal knows older ones, too
_ZERO: Final = bytes(32)
_logger: Final = logging.getLogger(__name__)


class Executor:
    """Works for gateways. `owed(log_id)` is called when there is a completion to hand in."""

    def __init__(
        self,
        key: SecretKey,
        domain: Domain,
        *,
        gatekeeper: Gatekeeper,
        journal: Journal,
        now_ms: NowMs,
        owed: Callable[[bytes], None],
        ack_timeout_s: float = ACK_TIMEOUT_S,
    ) -> None:
        self._key = key
        self._domain = domain
        self._gatekeeper = gatekeeper
        self._journal = journal
        self._now_ms = now_ms
        self._owed = owed
        self._ack_timeout_s = ack_timeout_s
        self._voids = Voids(domain)
        self._taken: Remembered[bytes] = Remembered()  # awards that still hold
        self._running: set[Work] = set()
        self._idle = trio.Event()
        self._idle.set()
        self._draining = False

    async def recall(self) -> None:
        """Know again the awards that former processes used and that may still hold."""
        now = self._now_ms()
        for signed in await self._journal.used_since(now - _RECALLED_MS):
            self._take(signed.digest(self._domain), signed.message.expires_ms)

    @property
    def running(self) -> int:
        """How many orders are worked on."""
        return len(self._running)

    async def serve(self, stream: FrameStream, first: bytes) -> None:
        """Answer one dispatch on a stream, whatever comes of it."""
        try:
            await self._work(stream, await self._checked(stream.peer, first))
        except JobRefused as refusal:
            _logger.info("refused a dispatch of %s: %s", stream.peer, refusal)
            status = refusal.engine_status
            no = wire.NodeRefused(refusal.reason, str(refusal), engine_status=status)
            stream.send(wire.encode(no))
        except StorageFailed:
            _logger.exception("the database failed under an order")
            why = "the node could not write its journal"
            stream.send(wire.encode(wire.NodeRefused(Reason.REFUSED, why)))

    def void(self, log_id: bytes, report: Signed[Failure]) -> None:
        """A log's coordinator says that an award was reported failed: work for it no more."""
        self._voids.note(log_id, report)
        for work in self._running:
            self._require_standing(work)

    async def drain(self, within_s: float) -> None:
        """Take no more orders; give those under way some time, then stop and sign them."""
        self._draining = True
        with trio.move_on_after(within_s):
            await self._idle.wait()
        for work in list(self._running):
            work.halt(DRAINED)
        await self._idle.wait()

    async def _checked(self, peer: PeerId, first: bytes) -> Order:
        if self._draining:
            raise JobRefused(Reason.REFUSED_CAPACITY, "the node is shutting down")
        try:
            frame = wire.read_work_down(first)
        except InvalidEncoding as error:
            raise JobRefused(Reason.PROTOCOL_VIOLATION, str(error)) from error
        if not isinstance(frame, wire.Dispatch):
            raise JobRefused(Reason.PROTOCOL_VIOLATION, "a stream begins with a dispatch")
        try:
            order = await self._gatekeeper.check(peer, frame)
        except TransportFailure as error:
            raise JobRefused(Reason.REFUSED, f"the award can't be checked now: {error}") from error
        if order.digest in self._taken:
            raise AwardUsed(order.digest)
        if not order.model.engine.ready:
            raise JobRefused(Reason.ENGINE_ERROR, "the engine is not running at this moment")
        return order

    async def _work(self, stream: FrameStream, order: Order) -> None:
        with order.model.slots.hold(order.award.log_id):
            self._take(order.digest, order.award.expires_ms)
            work = Work(
                order,
                stream,
                mark_used=partial(self._mark_used, order),
                now_ms=self._now_ms,
                ack_timeout_s=self._ack_timeout_s,
            )
            self._enter(work)
            try:
                await work.run()
                completion = await self._completed(work)
            finally:
                self._leave(work)
        _report(work)
        _answer(stream, work.stop, completion)

    def _take(self, digest: bytes, expires_ms: int) -> None:
        self._taken.note(digest, until_ms=expires_ms, now_ms=self._now_ms())

    async def _mark_used(self, order: Order) -> None:
        await self._journal.use(order.digest, order.award.log_id, order.signed, self._now_ms())

    def _enter(self, work: Work) -> None:
        if not self._running:
            self._idle = trio.Event()
        self._running.add(work)
        if self._draining:
            work.halt(DRAINED)
        self._require_standing(work)

    def _require_standing(self, work: Work) -> None:
        try:
            self._voids.require_standing(work.order.award, work.order.digest)
        except JobRefused:
            work.halt(VOIDED)

    def _leave(self, work: Work) -> None:
        self._running.discard(work)
        if not self._running:
            self._idle.set()

    async def _completed(self, work: Work) -> Signed[Completion] | None:
        """The completion, kept; None where nothing was acknowledged."""
        if not work.window.acks:
            return None
        signed = Signed.by(self._key, self._domain, completion_of(work, self._key.address))
        log_id = work.order.award.log_id
        standing = await self._journal.complete(signed, log_id, self._now_ms())
        self._owed(log_id)
        return standing


def completion_of(work: Work, node: bytes) -> Completion:
    """What a node signs for an order it has worked on (types.md section 2, Completion)."""
    order, answer, window = work.order, work.answer, work.window
    start = order.award.start_byte
    return Completion(
        award_digest=order.digest,
        node=node,
        fingerprint=order.model.record.fingerprint,
        segment_commitment=answer.segment_commitment(),
        response_commitment=_ZERO if work.stop else answer.response_commitment(),
        start_byte=start,
        end_byte=start + len(answer.segment()),
        prompt_tokens=order.prompt_tokens,
        output_tokens=answer.output_tokens(),
        acks=window.acks,
        last_preimage=window.last_preimage,
        finish=int(work.stop.finish if work.stop else answer.finish),
        started_ms=work.started_ms,
        first_token_ms=work.first_token_ms,
        finished_ms=work.finished_ms,
        audit_commitment=_ZERO,
    )


def _answer(stream: FrameStream, stop: Stop | None, completion: Signed[Completion] | None) -> None:
    """Tell the gateway how it ended; where it is gone the completion goes to the log alone."""
    raw = completion.to_bytes() if completion else None
    if stop is BROKEN:
        raise StreamBroken(stop.detail)
    if raw is not None and stop in (None, CANCELLED):
        stream.send(wire.encode(wire.End(raw)))
    elif stop is not None:
        refused = wire.NodeRefused(stop.reason, stop.detail, raw, stop.engine_status)
        stream.send(wire.encode(refused))


def _report(work: Work) -> None:
    award, answer = work.order.award, work.answer
    _logger.info(
        "order %s rank %d: %s, %d tokens, %d acknowledgements",
        award.job_id.hex(),
        award.rank,
        work.stop.reason.name.lower() if work.stop else "whole",
        answer.tokens,
        work.window.acks,
    )
    if difference := answer.usage_difference():
        _logger.warning("order %s: %s", award.job_id.hex(), difference)
