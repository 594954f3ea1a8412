"""The control stream to one log's coordinator: offers, bids, completions, receipts, voided awards.

`CoordinatorLink.run` keeps the stream up for ever, to whichever coordinator holds the log's active
epoch. On each new stream it says `Hello`, then keeps its offers fresh and hands in what it owes
until that is taken; nothing is lost with a stream. Receipts and batches are kept only if the log's
epoch key signed them. That no receipt is missing shows in their counters (`Journal.earnings`), not
here; a batch that never came can't be noticed.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import trio

from node.errors import DirectoryWrong
from node.journal import Journal, Owed
from node.logs import Epoch, LogWatch
from node.models import ServedModel
from node.offers import RENEW_S, OfferDesk
from node.ports import NowMs
from pinaivu.errors import InvalidEncoding, Misconfigured, PeerFault, TransportFailure
from pinaivu.messages import Failure, Receipt
from pinaivu.p2p import wire
from pinaivu.p2p.calls import Calls
from pinaivu.p2p.errors import CallRefused, StreamBroken
from pinaivu.p2p.frames import FrameLimits, FrameStream
from pinaivu.p2p.host import Host
from pinaivu.p2p.links import Backoff, keep_connected
from pinaivu.store.batches import BatchKeeper
from pinaivu.typed_data import Domain, Signed, signed_from_bytes

CALL_TIMEOUT_S: Final = 10.0
RETRY_S: Final = 15.0
_NOTICES: Final = 1024
_logger: Final = logging.getLogger(__name__)


class CoordinatorLink:
    """One log's link: what it sends follows the journal, the engines and `withdraw`."""

    def __init__(
        self,
        node: bytes,
        domain: Domain,
        *,
        log: LogWatch,
        desk: OfferDesk,
        models: Mapping[str, ServedModel],
        journal: Journal,
        batches: Path,
        now_ms: NowMs,
        random: Callable[[], float],
        voided: Callable[[bytes, Signed[Failure]], None],
        backoff: Backoff | None = None,
        renew_s: float = RENEW_S,
        retry_s: float = RETRY_S,
    ) -> None:
        """`voided(log_id, report)` is called when the coordinator says that an award is void."""
        self._node = node
        self._domain = domain
        self._log = log
        self._desk = desk
        self._models = models
        self._journal = journal
        self._batches = BatchKeeper(batches, domain, log.log_id, log.signer)
        self._now_ms = now_ms
        self._random = random
        self._voided = voided
        self._backoff = backoff or Backoff(most=3.0)
        self._renew_s = renew_s
        self._retry_s = retry_s
        self._withdrawn = False
        self._withdrawal_known = trio.Event()
        self._stream_over = trio.Event()
        self._stream_over.set()
        self._owing = trio.Event()
        self._stale = trio.Event()
        self._settled = trio.Event()
        self._said: dict[str, str] = {}

    def owe(self) -> None:
        """There is a completion to hand in: don't wait for the next round."""
        self._owing.set()

    def renew(self) -> None:
        """Something that offers depend on has changed: send them anew at once."""
        self._stale.set()

    def withdraw(self) -> None:
        """Offer nothing from now on, and tell the coordinator."""
        self._withdrawn = True
        self.renew()

    async def flushed(self) -> None:
        """Hand in what is owed, once; the second round is for what came during the first."""
        for _ in range(2):
            if await self._journal.owed(self._log.log_id):
                self._settled = trio.Event()
                self.owe()
                await self._settled.wait()

    async def farewell(self) -> None:
        """After `withdraw`: wait until the coordinator knows, and has all that is owed.

        A lost stream ends the waiting: offers run out, and debts are kept for the next start.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._until_stream_over, nursery.cancel_scope)
            await self._withdrawal_known.wait()
            await self.flushed()
            nursery.cancel_scope.cancel()

    async def _until_stream_over(self, scope: trio.CancelScope) -> None:
        await self._stream_over.wait()
        scope.cancel()

    async def run(self, host: Host) -> None:
        """Stay connected to the log's present coordinator, for ever."""
        epoch: Epoch | None = None
        while True:
            epoch = await self._log.next_after(epoch)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_superseded, epoch, nursery.cancel_scope)
                await self._stay_connected(host, epoch.addresses)

    async def _stay_connected(self, host: Host, addresses: tuple[str, ...]) -> None:
        """Dial them for ever, even if none can be dialed: that is not ours to mend."""
        while True:
            try:
                await keep_connected(
                    host,
                    addresses,
                    wire.NODE_PROTOCOL,
                    self._session,
                    random=self._random,
                    backoff=self._backoff,
                    limits=FrameLimits.of(wire.MAX_CONTROL_FRAME),
                    sleep=self._pause,
                )
            except Misconfigured as error:
                _logger.warning("log 0x%s publishes no address: %s", self._log.log_id.hex(), error)
            await self._pause(self._backoff.most)

    async def _until_superseded(self, epoch: Epoch, scope: trio.CancelScope) -> None:
        await self._log.next_after(epoch)
        scope.cancel()

    async def _pause(self, seconds: float) -> None:
        """Between two attempts: perhaps the log has moved."""
        self._log.doubt()
        await trio.sleep(seconds)

    async def _session(self, stream: FrameStream) -> None:
        notices, inbox = trio.open_memory_channel[wire.ReceiptNotice](_NOTICES)
        calls = Calls(stream, on_call=self._answer, on_notice=partial(self._take_notice, notices))
        over = self._stream_over = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._converse, calls, over, nursery.cancel_scope)
            hello = wire.Hello(self._node, self._log.log_id)
            if refusal := await self._call(calls, hello, "hello"):
                raise StreamBroken(f"the coordinator refuses this node: {refusal.detail}")
            nursery.start_soon(self._keep_offering, calls)
            nursery.start_soon(self._keep_handing_in, calls)
            nursery.start_soon(self._keep_receipts, inbox)

    async def _converse(self, calls: Calls, over: trio.Event, scope: trio.CancelScope) -> None:
        try:
            await calls.run()
        finally:
            over.set()
        scope.cancel()

    async def _answer(self, payload: bytes) -> bytes:
        frame = wire.read_coordinator_to_node(payload)
        if isinstance(frame, wire.AuctionCall):
            return wire.encode(self._desk.answer(frame))
        if isinstance(frame, wire.PutBatch):
            await self._batches.keep(frame.batch, frame.consistency)
            return wire.encode(wire.Done())
        raise InvalidEncoding("this is not a call")

    async def _call(
        self, calls: Calls, frame: wire.NodeToCoordinator, what: str
    ) -> wire.Refused | None:
        """Make a call; a refusal, if that is the answer, is logged when it is news."""
        try:
            answer = wire.read_node_answer(await calls.call(wire.encode(frame), CALL_TIMEOUT_S))
        except CallRefused as error:  # its handler failed; one bad message must not end the stream
            answer = wire.Refused("failed", str(error))
        refusal = answer if isinstance(answer, wire.Refused) else None
        said = f"{refusal.code}: {refusal.detail}" if refusal else ""
        if refusal and said != self._said.get(what):
            _logger.warning("log 0x%s refuses %s: %s", self._log.log_id.hex(), what, said)
        self._said[what] = said
        return refusal

    async def _keep_offering(self, calls: Calls) -> None:
        while True:
            self._stale = trio.Event()
            withdrawn = self._withdrawn
            for model in self._models.values():
                open_for_work = model.engine.ready and not withdrawn
                offer = self._desk.offer(model, open_for_work=open_for_work)
                await self._call(calls, wire.PutOffer(offer.to_bytes()), f"offer of {model.name}")
            if withdrawn:
                self._withdrawal_known.set()
            with trio.move_on_after(self._renew_s):
                await self._stale.wait()

    async def _keep_handing_in(self, calls: Calls) -> None:
        while True:
            self._owing = trio.Event()
            for owed in await self._journal.owed(self._log.log_id):
                await self._hand_in(calls, owed)
            self._settled.set()
            with trio.move_on_after(self._retry_s):
                await self._owing.wait()

    async def _hand_in(self, calls: Calls, owed: Owed) -> None:
        refusal = await self._call(calls, wire.PutCompletion(owed.signed), "completion")
        if refusal is None:
            await self._journal.taken(owed.award_digest)
        elif not refusal.retry_after_ms and not await self._journal.refused(owed.award_digest):
            _logger.error("gave up on the completion of award 0x%s", owed.award_digest.hex())

    def _take_notice(
        self, receipts: "trio.MemorySendChannel[wire.ReceiptNotice]", payload: bytes
    ) -> None:
        frame = wire.read_coordinator_to_node(payload)
        if isinstance(frame, wire.AwardVoided):
            self._voided(self._log.log_id, signed_from_bytes(Failure, frame.failure))
            return
        if not isinstance(frame, wire.ReceiptNotice):
            raise InvalidEncoding("this is no notice")
        try:
            receipts.send_nowait(frame)
        except trio.WouldBlock as error:
            raise TransportFailure("receipts come faster than they can be kept") from error

    async def _keep_receipts(self, inbox: "trio.MemoryReceiveChannel[wire.ReceiptNotice]") -> None:
        async for notice in inbox:
            try:
                await self._keep(notice)
            except (PeerFault, InvalidEncoding, TransportFailure) as error:
                _logger.warning("a receipt was not kept: %s", error)

    async def _keep(self, notice: wire.ReceiptNotice) -> None:
        """Keep a receipt of this log that names this node, signed by the key of its epoch."""
        signed = signed_from_bytes(Receipt, notice.receipt)
        receipt = signed.message
        if receipt.log_id != self._log.log_id:
            raise DirectoryWrong("a receipt of another log")
        if all(segment.node != self._node for segment in receipt.segments):
            raise DirectoryWrong("a receipt that does not name this node")
        digest = signed.require(self._domain, await self._log.signer(receipt.epoch))
        now = self._now_ms()
        await self._journal.keep_receipt(signed, digest, self._node, notice.index, now)
