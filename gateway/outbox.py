"""Every job of one log gets its receipt: deliveries are sent until it has come, across restarts.

One task per unfinished job, started when an exchange ends and, for all that a former life of this
process left, at the start:

- *open*: the process ended, or failed, before a delivery was signed. The job is submitted once
  more, which gives the same answer as before, and is delivered as failed with what the ledger
  knows: every award, and at least as many acknowledgements as were released;
- *delivered*: the stored frame is sent until the receipt comes back. Where it is refused because
  the answer to a report was lost, and with it the next rank's award, that award is asked for and
  the delivery signed anew with it;
- *unserved*: the auction refused the job; its zero receipt is asked for.

The client never waits for any of it. Failures are retried for ever, ever more slowly.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from gateway.checks import require_receipt
from gateway.counts import receipted_differences
from gateway.deliveries import (
    Leg,
    delivery_frame,
    evidence_of,
    recovered_leg,
    sign_delivery,
    with_further_award,
)
from gateway.drafts import Identity
from gateway.errors import CoordinatorFault, CoordinatorUnreachable, MarketRefused
from gateway.ledger import DELIVERED, OPEN, REFUSED, UNSERVED, Conclusion, Ledger
from gateway.market import Market
from gateway.ports import Registry
from gateway.store_forms import award_of, grant_of, job_of
from pinaivu.codes import Outcome, Reason
from pinaivu.commitments import Salts, response_commitment, response_digest
from pinaivu.errors import PinaivuError
from pinaivu.manifest import Parameters
from pinaivu.messages import Award, Receipt
from pinaivu.p2p import wire
from pinaivu.p2p.links import Backoff
from pinaivu.store.gateway import AttemptRow, ReceiptRow, RequestRow
from pinaivu.typed_data import signed_from_bytes

_AT_ONCE: Final = 32
_UNSERVED_TRIES: Final = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast failures are retried, and how soon after a refusal its receipt is asked for."""

    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.5, most=60.0))
    unserved_after_s: float = 1.0


class Outbox:
    """Clears up after requests."""

    def __init__(
        self,
        identity: Identity,
        ledger: Ledger,
        market: Market,
        registry: Registry,
        nursery: trio.Nursery,
        *,
        now_ms: Callable[[], int],
        random: Callable[[], float],
        pace: Pace | None = None,
    ) -> None:
        self._identity = identity
        self._ledger = ledger
        self._market = market
        self._registry = registry
        self._nursery = nursery
        self._now_ms = now_ms
        self._random = random
        self._pace = pace or Pace()
        self._under_way: set[bytes] = set()
        self._progress = trio.Event()  # set, and another in its place, whenever one of them is over
        self._places = trio.CapacityLimiter(_AT_ONCE)

    def take_up(self, job_id: bytes) -> None:
        """See a job through to its receipt; taking it up twice is once."""
        if job_id not in self._under_way:
            self._under_way.add(job_id)
            self._nursery.start_soon(self._see_through, job_id)

    async def seen_through(self, job_id: bytes) -> None:
        """Wait until a job that was taken up has its receipt, or will have none."""
        while job_id in self._under_way:
            await self._progress.wait()

    @property
    def waiting(self) -> int:
        """How many jobs are still without their receipt."""
        return len(self._under_way)

    async def _see_through(self, job_id: bytes) -> None:
        failures = 0
        try:
            while True:
                await self._market.wait_connected()
                try:
                    async with self._places:
                        if await self._step(job_id, failures):
                            return
                except PinaivuError as error:
                    failures += 1
                    _log.warning("job %s waits for its receipt: %s", job_id.hex(), error)
                    await trio.sleep(self._pace.backoff.delay(failures, self._random))
        finally:
            self._under_way.discard(job_id)
            self._progress.set()
            self._progress = trio.Event()

    async def _step(self, job_id: bytes, failures: int) -> bool:
        """Do what the job's state asks for; True when nothing is left to do."""
        request, frame = await self._ledger.queued(job_id)
        if request is None:  # it was never stored, so nothing was dispatched for it either
            return True
        if request.state == OPEN:
            await self._recover(request)
        elif request.state == UNSERVED:
            await self._fetch_unserved(request, failures)
        elif request.state == DELIVERED:
            assert frame is not None
            try:
                receipted = await self._market.deliver(frame)
            except MarketRefused as refused:
                if refused.code != "bad_delivery":
                    raise
                await self._add_unknown_award(request, frame)
            else:
                await self._keep(request, receipted, frame)
                return True
        else:
            return True
        return False

    # Jobs without a delivery

    async def _recover(self, request: RequestRow) -> None:
        rows = await self._ledger.attempts(request.job_id)
        try:
            answer = await self._market.submit(job_of(request), grant_of(request))
        except MarketRefused as refused:
            if not rows:
                if refused.reason == Reason.EPOCH_ENDED:
                    raise  # the job is still open there; once it is closed, its receipt comes
                await self._ledger.mark(request.job_id, UNSERVED if refused.reason else REFUSED)
                return
        else:
            if isinstance(answer, wire.Receipted):
                await self._keep(request, answer, None)
                return
            await self._add_newest(rows, answer)
        await self._deliver_as_failed(request, rows)

    async def _add_newest(self, rows: list[AttemptRow], awarded: wire.Awarded) -> None:
        """The award that the coordinator stands by, where we had not stored it yet."""
        signed = signed_from_bytes(Award, awarded.award)
        signer = await self._registry.signer(signed.message.epoch)
        digest = signed.require(self._identity.domain, signer)
        if any(row.award_digest == digest for row in rows):
            return
        if signed.message.rank != len(rows) + 1:
            raise CoordinatorFault("an award before the newest one is not known here")
        row = AttemptRow(
            award_digest=digest,
            job_id=signed.message.job_id,
            rank=signed.message.rank,
            award=signed.to_bytes(),
        )
        await self._ledger.award(row)
        rows.append(row)

    async def _add_unknown_award(self, request: RequestRow, frame: bytes) -> None:
        """Put the award that the coordinator stands by on a delivery that was signed without it."""
        deliver = wire.read_gateway_to_coordinator(frame)
        assert isinstance(deliver, wire.Deliver)
        answer = await self._market.submit(job_of(request), grant_of(request))
        if isinstance(answer, wire.Receipted):
            await self._keep(request, answer, frame)
            return
        rows = await self._ledger.attempts(request.job_id)
        await self._add_newest(rows, answer)
        if len(rows) == len(deliver.awards):
            raise CoordinatorFault("a delivery of all awards was refused")
        further = award_of(rows[len(deliver.awards)])
        salts = Salts(request.salt_root)
        whole = with_further_award(deliver, further, self._identity, salts)
        await self._ledger.amend(request.job_id, frame, wire.encode(whole))

    async def _deliver_as_failed(self, request: RequestRow, rows: list[AttemptRow]) -> None:
        job, salts, now = job_of(request), Salts(request.salt_root), self._now_ms()
        legs: list[Leg] = [recovered_leg(row, job.message) for row in rows]
        nothing = response_commitment(salts.response, response_digest([]))
        digest = job.digest(self._identity.domain)
        delivery = sign_delivery(self._identity, digest, salts, legs, Outcome.FAILED, nothing, now)
        await self._ledger.conclude(
            Conclusion(
                job_id=request.job_id,
                frame=wire.encode(delivery_frame(delivery, job, grant_of(request), legs)),
                output_tokens=sum(leg.output_tokens for leg in legs),
                units=0,
                completions={},
                response=None,
                now_ms=now,
            )
        )

    async def _fetch_unserved(self, request: RequestRow, failures: int) -> None:
        """Ask for the receipt of a job that nobody could serve; after some tries, do without."""
        await trio.sleep(self._pace.unserved_after_s)
        try:
            answer = await self._market.submit(job_of(request), grant_of(request))
        except MarketRefused:
            if failures + 1 < _UNSERVED_TRIES:
                raise
            await self._ledger.mark(request.job_id, REFUSED)
            return
        if not isinstance(answer, wire.Receipted):
            raise CoordinatorUnreachable("the refused job has been awarded; it will be closed")
        await self._keep(request, answer, None)

    # Receipts

    async def _keep(
        self, request: RequestRow, receipted: wire.Receipted, frame: bytes | None
    ) -> None:
        """Store a receipt that its epoch's key signed for this job, and what is wrong with it."""
        signed = signed_from_bytes(Receipt, receipted.receipt)
        receipt = signed.message
        signer = await self._registry.signer(receipt.epoch)
        signed.require(self._identity.domain, signer)
        ours = (self._identity.address, request.job_id)
        if (receipt.gateway, receipt.job_id) != ours:
            raise CoordinatorFault("the receipt is for another job")
        row = ReceiptRow(
            job_id=request.job_id,
            signed=receipted.receipt,
            position=receipted.index,
            arrived_ms=self._now_ms(),
            problem=await self._problem(receipt, frame) if frame else None,
        )
        prompt = sum(segment.prompt_billed for segment in receipt.segments)
        output = sum(segment.output_billed for segment in receipt.segments)
        differing = receipted_differences(receipt, row.arrived_ms)
        await self._ledger.receipt(row, (prompt, output), receipt.total, differing)

    async def _problem(self, receipt: Receipt, frame: bytes) -> str | None:
        """What in the receipt contradicts our evidence; it is kept either way, as evidence."""
        deliver = wire.read_gateway_to_coordinator(frame)
        assert isinstance(deliver, wire.Deliver)
        evidence = evidence_of(deliver, self._identity.domain)
        try:
            require_receipt(receipt, evidence, await self._rules(evidence.attempts[-1].award.epoch))
        except CoordinatorFault as error:
            _log.error("receipt of job %s: %s", receipt.job_id.hex(), error)
            return str(error)
        return None

    async def _rules(self, epoch: int) -> Parameters | None:
        active = await self._registry.epoch()
        return active.parameters if active.number == epoch else None
