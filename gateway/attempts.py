"""One award after another of one request: a stream, a relay, and what came of it.

The attempt's row is written while the node computes its first token; no acknowledgement leaves
before that is on disk. A client that goes away stops the attempt under way, which then waits a
moment for the node's account of its work.
"""

import logging
from contextlib import suppress

import trio

from gateway.answers import Answer
from gateway.deliveries import Leg
from gateway.desk import Desk
from gateway.errors import AttemptFailed
from gateway.ledger import ACKS_AHEAD, Ledger
from gateway.outlet import ClientStalled
from gateway.ports import Registry, UnknownParty
from gateway.relay import Order, Patience, Relay
from gateway.tasks import Background
from pinaivu.codes import Reason
from pinaivu.errors import PinaivuError, TransportFailure
from pinaivu.messages import Award
from pinaivu.p2p.frames import FrameStream
from pinaivu.store.gateway import AttemptRow
from pinaivu.typed_data import Signed

_log = logging.getLogger(__name__)


class Attempts:
    """Runs a request's attempts; the text they bring goes into one answer."""

    def __init__(self, desk: Desk, answer: Answer) -> None:
        self._desk = desk
        self._answer = answer
        self._scope: trio.CancelScope | None = None
        self._gone = False

    def leave(self) -> None:
        """The client has gone: stop the node now, and ask no other."""
        self._gone = True
        if self._scope is not None:
            self._scope.cancel()

    async def run(self, order: Order, patience: Patience, registry: Registry) -> Leg:
        """What came of one award. `StorageFailed` when it can't be accounted for."""
        leg = Leg(
            award=order.award,
            award_digest=order.award_digest,
            result=Reason.CLIENT_GONE,
            end_byte=order.award.message.start_byte,
        )
        written = Background(self._desk.nursery, lambda: self._write(order))
        if not self._gone:
            try:
                stream = await self._ready_stream(order.award.message.node, registry)
                await self._relay(stream, order, patience, leg, written)
            except AttemptFailed as failed:
                leg.result, leg.detail = failed.reason, str(failed)
                leg.engine_status = failed.engine_status
                # Not in the node's words: those may quote the prompt, and are for its client.
                result = Reason(failed.reason).name.lower()
                award = order.award.message
                _log.info("job %s: rank %d: %s", award.job_id.hex(), award.rank, result)
        await written.wait()
        return leg

    async def _write(self, order: Order) -> None:
        row = attempt_row(order.award, order.award_digest, order.chain.length)
        await self._desk.ledger.award(row)

    async def _relay(
        self,
        stream: FrameStream,
        order: Order,
        patience: Patience,
        leg: Leg,
        written: "Background[None]",
    ) -> None:
        """Relay until the end, or until the client goes: then `leg.result` stays as it was."""
        allowed = Allowance(self._desk.ledger, order, written)
        relay = Relay(stream, order, self._answer, patience, allowed.need, self._desk.now_ms)
        try:
            with trio.CancelScope() as self._scope:
                await relay.run()
                leg.result = Reason.NONE
            if leg.result:
                await relay.stop()
        except ClientStalled:
            await relay.stop()
        finally:
            self._scope = None
            self._note(relay, leg)
            if leg.result:
                stream.reset("the attempt is over")
            else:
                self._desk.nursery.start_soon(_end, stream)

    async def _ready_stream(self, node: bytes, registry: Registry) -> FrameStream:
        """A stream that the node, known by its registered peer key, has laid ready."""
        try:
            peer = await registry.node_peer(node)
            return await self._desk.pool.take(peer, self._desk.limits.ready_within_s)
        except (TransportFailure, UnknownParty) as error:
            raise AttemptFailed(Reason.SILENT, str(error)) from error

    def _note(self, relay: Relay, leg: Leg) -> None:
        leg.text = self._answer.text()[leg.award.message.start_byte :]
        leg.end_byte = leg.award.message.start_byte + len(leg.text)
        leg.output_tokens, leg.acks = relay.output_tokens, relay.acks
        leg.first_token_ms, leg.finished_ms = relay.first_token_ms, relay.finished_ms
        leg.completion = relay.completion


def attempt_row(award: Signed[Award], digest: bytes, most_acks: int) -> AttemptRow:
    """How an award is stored, before any acknowledgement is released."""
    return AttemptRow(
        award_digest=digest,
        job_id=award.message.job_id,
        rank=award.message.rank,
        award=award.to_bytes(),
        acks_ceiling=min(ACKS_AHEAD, most_acks),
    )


async def _end(stream: FrameStream) -> None:
    with suppress(PinaivuError):
        await stream.aclose()


class Allowance:
    """Acknowledgements that may be released because the ledger says so already."""

    def __init__(self, ledger: Ledger, order: Order, written: "Background[None]") -> None:
        self._ledger = ledger
        self._order = order
        self._written = written
        self._ceiling = ACKS_AHEAD

    async def need(self, acks: int) -> None:
        """Return once `acks` are on disk."""
        await self._written.wait()
        if acks > self._ceiling:
            ceiling = min(acks + ACKS_AHEAD, self._order.chain.length)
            await self._ledger.raise_ceiling(self._order.award_digest, ceiling)
            self._ceiling = ceiling
