"""Jobs from submission to award: admission, auction, awards rank by rank.

Job, transcript and award are durable before the award leaves. Calling again with the same bytes
gets the same answer; other bytes under a job's id are refused. A caller that goes away during the
auction leaves nothing behind; from the moment the award is written the job stays, whoever listens.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from coordinator.admission import Desk, Money
from coordinator.archive import Archive
from coordinator.auctioneer import Auctioneer
from coordinator.auctioneer import Held as HeldAuction
from coordinator.book import OrderBook
from coordinator.directory import Directory
from coordinator.docket import Awarded, Docket, OpenJob
from coordinator.errors import JobRefused
from coordinator.log import Log
from coordinator.ports import ModelRecord
from coordinator.purse import money_of
from coordinator.reputation import Reputation
from coordinator.rows import award_values, job_values, passed_over, transcript_values
from pinaivu.auction.replay import market_of
from pinaivu.auction.rule import Cleared
from pinaivu.auction.transcript import Header
from pinaivu.codes import Mode, Reason
from pinaivu.commitments import tokens_acknowledged
from pinaivu.fields import MAX_U64
from pinaivu.keccak import keccak
from pinaivu.keys import SecretKey
from pinaivu.manifest import Parameters
from pinaivu.messages import Award, Grant, Job, Receipt
from pinaivu.p2p import wire
from pinaivu.receipts import Held, PassedOver
from pinaivu.store.coordinator import AwardRow, JobRow, TranscriptRow
from pinaivu.store.rows import RowExists, Rows
from pinaivu.store.writer import Writer
from pinaivu.typed_data import Signed, digest, signed_from_bytes

_ZERO: Final = bytes(32)
_MILLION: Final = 10**6
_RETRY_AFTER_MS: Final = 2_000


class Clock(Struct, frozen=True):
    """Where time and randomness come from."""

    now_ms: Callable[[], int]
    random: Callable[[int], bytes]


class AuctionDesk:
    """Accepts jobs and awards them under one epoch."""

    def __init__(
        self,
        *,
        log: Log,
        docket: Docket,
        book: OrderBook,
        reputation: Reputation,
        directory: Directory,
        auctioneer: Auctioneer,
        writer: Writer,
        key: SecretKey,
        epoch: int,
        parameters: Parameters,
        clock: Clock,
        reachable: Callable[[bytes], bool],
        find_receipt: Callable[[bytes, bytes], Awaitable[wire.Receipted | None]],
    ) -> None:
        self._log = log
        self._docket = docket
        self._book = book
        self._reputation = reputation
        self._directory = directory
        self._auctioneer = auctioneer
        self._writer = writer
        self._key = key
        self._epoch = epoch
        self._rules = parameters
        self._rules_digest = parameters.digest()
        self._clock = clock
        self._reachable = reachable
        self._find_receipt = find_receipt
        self._admission = Desk(log.domain, log.log_id, parameters)
        self._archive = Archive()
        self._under_way: set[tuple[bytes, bytes]] = set()

    async def submit(
        self, gateway: bytes, job: Signed[Job], grant: Signed[Grant]
    ) -> wire.Awarded | wire.Refused | wire.Receipted:
        """Admit, auction and award a job; a `Refused` with a reason is receipted too.

        A job that is over already is answered by its receipt.
        """
        with self._alone((gateway, job.message.job_id)):
            known = self._docket.jobs.get((gateway, job.message.job_id))
            if known is not None:
                return await self._repeat(known, job)
            # Before it is in the docket again: what comes in for it then would be receipted anew.
            done = await self._done(gateway, job.message)
            if done is None:
                return await self._submit(gateway, job, grant)
            receipt = signed_from_bytes(Receipt, done.receipt).message
            if receipt.job_digest != job.digest(self._log.domain):
                raise JobRefused("job_id_used", "another job was submitted under this id")
            return done

    async def _done(self, gateway: bytes, job: Job) -> wire.Receipted | None:
        """The receipt of a job that is over; the store is asked only where there may be one.

        A job is admitted only within the skew of the time it says it was created. So whatever may
        be admitted again was receipted within twice that, and is remembered.
        """
        fresh = abs(job.created_ms - self._clock.now_ms()) <= self._rules.job_skew_ms
        if fresh and (gateway, job.job_id) not in self._log.recent:
            return None
        return await self._find_receipt(gateway, job.job_id)

    @contextmanager
    def _alone(self, key: tuple[bytes, bytes]) -> Iterator[None]:
        """One call at a time for each job."""
        if key in self._under_way:
            raise JobRefused("in_progress", "the job is being auctioned", retry_after_ms=100)
        self._under_way.add(key)
        try:
            yield
        finally:
            self._under_way.discard(key)

    async def _submit(
        self, gateway: bytes, job: Signed[Job], grant: Signed[Grant]
    ) -> wire.Awarded | wire.Refused:
        received_ms = self._clock.now_ms()
        self._require_settling(received_ms)
        model = await self._directory.model(job.message.model)
        try:
            money = await self._money(job.message, grant.message)
            reserve = self._admission.check(
                job, grant, gateway, model, money, self._log.books, received_ms
            )
        except JobRefused:  # perhaps no more: only what is fresh refuses
            money = await self._money(job.message, grant.message, fresh=True)
            reserve = self._admission.check(
                job, grant, gateway, model, money, self._log.books, received_ms
            )
        assert model is not None
        open_job = OpenJob(
            job=job,
            job_digest=job.digest(self._log.domain),
            grant=grant,
            received_ms=received_ms,
            reserve_units=reserve,
            held=Held(fingerprint=model.fingerprint, nonce=_ZERO, bids_root=_ZERO, bids=0),
        )
        self._docket.open(open_job)  # money is reserved from here on
        try:
            held = await self._hold(open_job, model)
            awarded = self._next(open_job)
        except BaseException:
            self._docket.close(open_job)
            raise
        return await self._award_first(open_job, held, awarded)

    def _require_settling(self, now_ms: int) -> None:
        """Award nothing while receipts have been waiting too long for the chain."""
        oldest = self._log.oldest_unsettled_ms()
        if oldest is not None and now_ms - oldest > self._rules.unsettled_max_ms:
            raise JobRefused(
                "settlement_behind",
                "receipts have not been settled for too long: no new jobs until they are",
                retry_after_ms=_RETRY_AFTER_MS,
            )

    async def _repeat(self, known: OpenJob, job: Signed[Job]) -> wire.Awarded | wire.Refused:
        if known.job.message != job.message:
            raise JobRefused("job_id_used", "another job was submitted under this id")
        await self._writer.settled()
        if known.awards:
            return self._answer(known.awards[-1])
        if known.unserved_reason:
            return _unserved(known.unserved_reason, known)
        raise JobRefused("in_progress", "the job is being auctioned", retry_after_ms=100)

    async def _money(self, job: Job, grant: Grant, *, fresh: bool = False) -> Money:
        return await money_of(self._directory, self._log, self._docket, job, grant, fresh=fresh)

    async def _hold(self, open_job: OpenJob, model: ModelRecord) -> HeldAuction:
        header = await self._header(open_job, model)
        job, grant = open_job.job.message, open_job.grant.message
        market = market_of(header, job, grant, self._rules)
        field = self._book.field(replace(market, close_ms=header.open_ms))
        held = await self._auctioneer.hold(field, header, live=job.mode == Mode.LIVE)
        open_job.ranking = held.ranking
        open_job.held = Held(
            fingerprint=model.fingerprint,
            nonce=header.nonce,
            bids_root=held.bids_root,
            bids=held.header.eligible,
        )
        return held

    async def _header(self, open_job: OpenJob, model: ModelRecord) -> Header:
        job = open_job.job.message
        value_of_time = job.value_of_time
        if value_of_time == MAX_U64:
            value_of_time = self._rules.value_of_time
        return Header(
            job_digest=open_job.job_digest,
            log_id=self._log.log_id,
            epoch=self._epoch,
            nonce=self._clock.random(32),
            model_key=keccak(job.model.encode()),
            fingerprint=model.fingerprint,
            ratio_ppm=model.ratio_ppm,
            prompt_tokens=job.prompt_tokens,
            expected_tokens=self._reputation.expected_output(job.model, job.max_output_tokens),
            max_output_tokens=job.max_output_tokens,
            value_of_time=value_of_time,
            mode=job.mode,
            parameters_digest=self._rules_digest,
            open_ms=self._clock.now_ms(),
            close_ms=0,
            book_root=_ZERO,
            book_size=0,
            chain_block=await self._directory.block_number(),
            reserve=open_job.reserve_units,
            eligible=0,
            called=0,
        )

    async def _award_first(
        self, open_job: OpenJob, held: HeldAuction, awarded: Awarded | None
    ) -> wire.Awarded | wire.Refused:
        if awarded is None:
            open_job.unserved_reason = _why_unserved(open_job, self._clock.now_ms())
        job, transcript = job_values(open_job), transcript_values(held)
        model, root = open_job.job.message.model, held.header.book_root

        def write(rows: Rows) -> None:
            try:
                rows.insert(JobRow, **job)
            except RowExists as error:  # before anything is filed, which is never undone
                raise JobRefused("job_id_used", "a job of this id was submitted before") from error
            self._archive.file(rows, model, root, held.slots)
            rows.insert(TranscriptRow, **transcript)
            if awarded:
                rows.insert(AwardRow, **award_values(open_job, awarded))

        try:
            await self._writer.write_rows(write)
        except JobRefused:
            self._docket.close(open_job)
            raise
        if awarded is None:
            return _unserved(open_job.unserved_reason, open_job)
        return self._answer(awarded)

    async def award_next(self, open_job: OpenJob, failed: Awarded) -> wire.Awarded | wire.Refused:
        """The rank after `failed` from the same transcript; the same again if it stands already."""
        with self._alone(open_job.key):
            following = open_job.awards[failed.signed.message.rank :]
            if following:
                await self._writer.settled()
                return self._answer(following[0])
            return await self._award_after_failure(open_job, failed)

    async def _award_after_failure(self, open_job: OpenJob, failed: Awarded) -> wire.Awarded:
        if open_job.closing or open_job.delivery:
            raise JobRefused("delivered", "the job is over: there is no further rank")
        if open_job.ranking is None:
            raise JobRefused("epoch_ended", "the epoch has ended", Reason.EPOCH_ENDED)
        if failed.failure is None:
            raise JobRefused("award_stands", "no failure of this award was reported")
        if open_job.tokens_left <= 0 < open_job.job.message.max_output_tokens:
            raise JobRefused("nothing_left", "all tokens are accepted", Reason.NO_NODE_LEFT)
        awarded = self._next(open_job)
        key, passed = open_job.key, passed_over(open_job)
        award = award_values(open_job, awarded) if awarded else None

        def write(rows: Rows) -> None:
            rows.change(JobRow, key, passed_over=passed)
            if award:
                rows.insert(AwardRow, **award)

        await self._writer.write_rows(write)
        if awarded is None:
            raise JobRefused("no_node_left", "no further node", Reason.NO_NODE_LEFT)
        return self._answer(awarded)

    def _next(self, open_job: OpenJob) -> Awarded | None:
        """Sign the next rank; nodes that are gone or full are passed over and stay on the line."""
        assert open_job.ranking is not None
        job, now = open_job.job.message, self._clock.now_ms()
        if len(open_job.awards) >= len(job.anchors) or now >= job.deadline_ms:
            return None
        line, ready = open_job.line, partial(self._ready, job.model)
        passed, cleared = open_job.ranking.next_ready(frozenset(map(_node_of, line)), ready)
        line.extend(map(PassedOver, passed))
        if cleared is None:
            return None
        held = self._book.held(job.model, cleared.entrant.row.node)
        assert held  # or it wasn't ready
        signed = Signed.by(self._key, self._log.domain, self._award(open_job, cleared, now))
        awarded = self._docket.award(open_job, signed, signed.digest(self._log.domain))
        awarded.offer, awarded.peer = cleared.entrant.offer, held.record.peer
        return awarded

    def _ready(self, model: str, node: bytes) -> bool:
        """Whether a node still offers the model, has a slot free and can be told."""
        held = self._book.held(model, node)
        free = held is not None and self._docket.busy(node) < held.signed.message.slots
        return free and self._reachable(node)

    def _award(self, open_job: OpenJob, cleared: Cleared, now: int) -> Award:
        job, before = open_job.job.message, open_job.awards
        tokens_left, money_left, start = open_job.tokens_left, open_job.reserve_units, 0
        for entry in before:
            assert entry.failure
            acknowledged = tokens_acknowledged(entry.failure.message.acks, job.max_output_tokens)
            money_left -= -(-acknowledged * entry.signed.message.price_out // _MILLION)
            start = entry.failure.message.end_byte
        row, bid = cleared.entrant.row, cleared.entrant.bid
        return Award(
            log_id=self._log.log_id,
            epoch=self._epoch,
            job_id=job.job_id,
            job_digest=open_job.job_digest,
            gateway=job.gateway,
            node=row.node,
            rank=len(before) + 1,
            prior=before[-1].digest if before else _ZERO,
            bid_digest=digest(self._log.domain, bid) if bid else row.offer_digest,
            clearing=cleared.clearing,
            price_in=cleared.price_in,
            price_out=cleared.price_out,
            prompt_tokens=job.prompt_tokens,
            max_output_tokens=max(0, tokens_left),
            max_amount=max(0, money_left),
            start_byte=start,
            request_commitment=job.request_commitment,
            anchor=job.anchors[len(before)],
            nonce=open_job.held.nonce,
            bids_root=open_job.held.bids_root,
            lease=_ZERO,
            awarded_ms=now,
            expires_ms=min(now + self._rules.award_ttl_ms, job.deadline_ms),
        )

    @staticmethod
    def _answer(awarded: Awarded) -> wire.Awarded:
        if awarded.offer is None:
            raise JobRefused("epoch_ended", "the epoch has ended", Reason.EPOCH_ENDED)
        return wire.Awarded(
            award=awarded.signed.to_bytes(),
            peer=awarded.peer,
            tps_milli=awarded.offer.tps_milli,
            ttft_ms=awarded.offer.ttft_ms,
        )


def _node_of(entry: Awarded | PassedOver) -> bytes:
    return entry.signed.message.node if isinstance(entry, Awarded) else entry.node


def _why_unserved(open_job: OpenJob, now_ms: int) -> int:
    """Why nobody serves: too late, passed over, beyond the limits, or nobody there."""
    assert open_job.ranking is not None
    if now_ms >= open_job.job.message.deadline_ms:
        return Reason.DEADLINE_PASSED
    if open_job.line:
        return Reason.NO_NODE_LEFT
    if open_job.ranking.cheapest is not None:
        return Reason.NO_NODES_WITHIN_LIMITS
    return Reason.NO_NODES_AVAILABLE


def _unserved(reason: int, open_job: OpenJob) -> wire.Refused:
    cheapest = open_job.ranking.cheapest if open_job.ranking else None
    if reason != Reason.NO_NODES_WITHIN_LIMITS or cheapest is None:
        return wire.Refused(
            "no_nodes_available",
            f"no node serves {open_job.job.message.model!r} now: try again soon",
            reason,
            _RETRY_AFTER_MS,
        )
    return wire.Refused(
        "no_nodes_within_limits",
        f"the cheapest offer is {cheapest} base units per million output tokens: "
        "raise max_price_out or max_cost_units",
        reason,
        _RETRY_AFTER_MS,
    )
