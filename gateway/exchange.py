"""One request on the market: submit, award, relay, the next rank where a node fails, delivery.

A request is put to one log after the other until one awards it, each time as a job of its own; and
again where nobody goes on after a failure, as long as nothing has been acknowledged or shown. So no
node can claim anything under a job left behind: its log closes it at no charge.

An exchange runs in a task of its own, so it outlives its client: whatever happens, it ends with a
signed delivery in the outbox, or with a request that never had an award. The client's side reads
the `Answer`; `leave` tells that the client has gone.

Disk is waited for where something depends on it and nowhere else: the request row is written while
the job is being auctioned, the attempt row while the node computes its first token.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio

from gateway.answers import Answer
from gateway.attempts import Attempts, attempt_row
from gateway.checks import Before, require_award
from gateway.conclusions import conclusion_of, output_tokens_of
from gateway.deliveries import Leg, sign_failure
from gateway.demands import Demand
from gateway.desk import Desk
from gateway.drafts import Draft
from gateway.errors import (
    ApiError,
    CoordinatorFault,
    CoordinatorUnreachable,
    MarketRefused,
    coordinator_fault,
    from_attempt,
    from_refusal,
    internal,
    storage,
    unreachable,
)
from gateway.hindrances import in_the_way
from gateway.ledger import OPEN, REFUSED, UNSERVED
from gateway.logs import Entry
from gateway.quotas import Reservation
from gateway.relay import Order, Patience
from gateway.reports import Report
from gateway.seals import Part, Seal
from gateway.summaries import summary
from gateway.tasks import Background
from pinaivu.codes import Outcome, Reason
from pinaivu.encoding import to_hex
from pinaivu.errors import PinaivuError, TransportFailure
from pinaivu.messages import Award
from pinaivu.metering import Tolerance, reserve
from pinaivu.p2p import wire
from pinaivu.store.database import StorageFailed
from pinaivu.store.gateway import RequestRow
from pinaivu.typed_data import signed_from_bytes

_RECEIPT_WITHIN_S: Final = 2.0
_log = logging.getLogger(__name__)
Way = Callable[[], Awaitable[Entry]]
"""Drafts the request's job for a further log, when it comes to that."""


class Exchange:
    """One request's way through the market."""

    def __init__(
        self,
        desk: Desk,
        demand: Demand,
        entry: Entry,
        further: Sequence[Way],
        reservation: Reservation,
        seal: Seal,
    ) -> None:
        """`further`: where to go if `entry`'s log awards no job; `seal`: for what is kept."""
        self._desk = desk
        self._demand = demand
        self._log, self._draft, self._rules = entry.log, entry.draft, entry.rules
        self._further = deque(further)
        self._reservation = reservation
        self._seal = seal
        self._legs: list[Leg] = []
        self._used: tuple[int, int] | None = (0, 0)  # None: only the receipt will tell
        self._nodes: list[bytes] = []
        self.answer = Answer(demand, self.request_id, self._created_s)
        self._attempts = Attempts(desk, self.answer)

    @property
    def request_id(self) -> str:
        """The job id as people see it."""
        return self._draft.request_id

    @property
    def headers(self) -> dict[str, str]:
        """What is known beside the answer: who served, the most it may cost, what it came to.

        A stream's are sent before its cost is known. The cost is by this gateway's own count; the
        receipt's total is what counts.
        """
        job, grant = self._draft.job.message, self._draft.grant.message
        most = reserve(job, grant.max_per_job, job.max_price_in, job.max_price_out)
        found = {"x-request-id": self.request_id, "x-pinaivu-cost-limit": str(most)}
        if self._nodes:
            found["x-pinaivu-node"] = ",".join(map(to_hex, self._nodes))
        if self.answer.body is not None and self._used is not None:
            found["x-pinaivu-cost"] = str(self._used[1])
        return found

    @property
    def _created_s(self) -> int:
        return self._draft.job.message.created_ms // 1000

    @property
    def streams(self) -> bool:
        """Whether the client wants server-sent events."""
        return self._demand.streams

    def leave(self) -> None:
        """The client has gone: stop the node now, unless the answer may be asked for again."""
        if self._kept_for_later:
            self.answer.forsake()
        else:
            self._attempts.leave()

    def stop(self) -> None:
        """The gateway ends: stop the node now, whoever may ask for the answer again."""
        self._attempts.leave()

    @property
    def _kept_for_later(self) -> bool:
        """Whether the answer is for whoever sends the request again."""
        return self._reservation.claim is not None and self._desk.limits.content_hours > 0

    async def run(self) -> None:
        """Serve the request to its end; never raises but for cancellation."""
        error = await self._served()
        await self._desk.quotas.settle(self._reservation, self._used)
        if error is not None:
            self.answer.fail(error)

    async def _served(self) -> ApiError | None:
        """Serve the request; how it failed, if it did."""
        try:
            await self._serve()
        except ApiError as error:
            return error
        except StorageFailed as error:
            _log.error("request %s: %s", self.request_id, error)
            return self._clear_up(storage())
        except TransportFailure as error:
            _log.warning("request %s: %s", self.request_id, error)
            return self._clear_up(unreachable())
        except PinaivuError as error:
            _log.error("request %s: %s", self.request_id, error)
            return self._clear_up(coordinator_fault(str(error)))
        except Exception:  # noqa: BLE001 - the supervisor of one request: a bug ends it and nothing else
            _log.exception("request %s failed", self.request_id)
            return self._clear_up(internal())
        return None

    def _clear_up(self, error: ApiError) -> ApiError:
        self._log.outbox.take_up(self._draft.job.message.job_id)
        return error

    async def _serve(self) -> None:
        awarded = await self._submit()
        while True:
            order, patience = await self._accept(awarded)
            self._used = None
            leg = await self._attempts.run(order, patience, self._log.registry)
            self._legs.append(leg)
            if leg.result == Reason.CLIENT_GONE:
                _log.info("request %s: its client closed it (499)", self.request_id)
                await self._conclude(Outcome.CLIENT_GONE)
                self.answer.fail(from_attempt(leg.result, "the client went away", cut=True))
                return
            if leg.result:  # for the next rank, and so that the log and the node let go of it
                leg.failure = sign_failure(self._desk.identity, leg, self._desk.now_ms())
            # Who fails behind the last token there may be leaves nothing to go on with (ADR 25).
            if not leg.result or self._over_by_length(leg):
                await self._conclude(Outcome.COMPLETE)
                self.answer.finish(self._output_tokens, await self._receipt_summary())
                return
            awarded = await self._next_rank(leg)

    def _over_by_length(self, leg: Leg) -> bool:
        """Whether a failure left nothing out. Who breaks the rules has no say in what is whole."""
        broke_the_rules = leg.result == Reason.PROTOCOL_VIOLATION
        return not broke_the_rules and self.answer.end_by_length(self._output_tokens)

    @property
    def _output_tokens(self) -> int:
        """By our own count, over all awards."""
        return output_tokens_of(self._draft, self._legs)

    async def _receipt_summary(self) -> dict[str, Any] | None:
        """The receipt in a few figures, where the client asks for it and it comes soon."""
        if not self._demand.terms.receipt:
            return None
        job_id = self._draft.job.message.job_id
        with suppress(StorageFailed), trio.move_on_after(_RECEIPT_WITHIN_S):
            await self._log.outbox.seen_through(job_id)
            row = await self._desk.ledger.found_receipt(job_id)
            return summary(row, self._desk.identity.domain) if row else None
        return None

    def report(self) -> Report:
        """What came of it, for whoever runs the gateway."""
        first = next((leg.first_token_ms for leg in self._legs if leg.first_token_ms), 0)
        created_ms, error = self._draft.job.message.created_ms, self.answer.error
        return Report(
            request_id=self.request_id,
            key_id=self._reservation.key_id,
            model=self._demand.model.name,
            log_id=to_hex(self._log.log_id),
            node=to_hex(self._legs[-1].award.message.node) if self._legs else None,
            outcome=error.code if error else "complete",
            attempts=[Reason(leg.result).name.lower() for leg in self._legs],
            prompt_tokens=self._demand.prompt_tokens if self._legs else 0,
            output_tokens=self._output_tokens,
            units=self._used[1] if self._used else 0,
            first_token_ms=max(1, first - created_ms) if first else 0,
            total_ms=max(0, self._desk.now_ms() - created_ms),
            streams=self.streams,
        )

    # Submission and awards

    async def _submit(self) -> wire.Awarded:
        """The first award, by the first log that gives one."""
        while self._further:
            try:
                return await self._submit_here()
            except (ApiError, CoordinatorUnreachable) as error:
                await self._move(error)
        return await self._submit_here()

    async def _move(self, why: PinaivuError | ApiError) -> None:
        """Begin anew with a job at the next log; the one left behind is the outbox's to close."""
        _log.info("request %s: another log is asked: %s", self.request_id, why)
        self._log.outbox.take_up(self._draft.job.message.job_id)
        entry = await self._further.popleft()()
        self._log, self._draft, self._rules = entry.log, entry.draft, entry.rules
        self._legs = []
        self.answer.rename(self.request_id, self._created_s)

    async def _submit_here(self) -> wire.Awarded:
        draft, patient = self._draft, not self._further
        written = Background(self._desk.nursery, lambda: self._write_request(draft))
        try:
            answer = await self._log.market.submit(draft.job, draft.grant, patient=patient)
        except MarketRefused as refused:
            await written.wait()
            raise await self._refused(refused) from refused
        finally:
            await written.wait()
        if isinstance(answer, wire.Receipted):
            raise CoordinatorFault("a new job was answered by a receipt")
        return answer

    async def _write_request(self, draft: Draft) -> None:
        job = draft.job.message
        row = RequestRow(
            job_id=job.job_id,
            key_id=self._reservation.key_id,
            model=job.model,
            job=draft.job.to_bytes(),
            grant=draft.grant.to_bytes(),
            salt_root=draft.salts.root,
            state=OPEN,
            created_ms=job.created_ms,
            prompt_tokens=job.prompt_tokens,
            body=self._kept("request", self._demand.raw),
        )
        await self._desk.ledger.open(row, self._reservation.bind)

    async def _refused(self, refused: MarketRefused) -> ApiError:
        """Without an award there is nothing to deliver; an auction's refusal has a receipt."""
        job_id = self._draft.job.message.job_id
        await self._desk.ledger.mark(job_id, UNSERVED if refused.reason else REFUSED)
        if refused.reason:
            self._log.outbox.take_up(job_id)
        return from_refusal(refused, await in_the_way(self._log.public, refused, self._demand))

    async def _accept(self, awarded: wire.Awarded) -> tuple[Order, Patience]:
        """The award, checked; nothing the coordinator says of it is believed unchecked."""
        signed = signed_from_bytes(Award, awarded.award)
        signer = await self._log.registry.signer(signed.message.epoch)
        domain, model = self._desk.identity.domain, self._demand.model
        digest = require_award(signed, signer, domain, self._draft, model.ratio_ppm, self._before())
        order = Order(
            award=signed,
            award_digest=digest,
            chain=self._draft.chains[signed.message.rank - 1],
            draft=self._draft,
            model=model,
            domain=domain,
            tolerance=Tolerance(self._rules.tolerance_tokens, self._rules.tolerance_ppm),
            body=self._demand.raw,
            prefix=self.answer.text().decode("utf-8"),
            choices=self._demand.request.choices,
        )
        self._nodes.append(signed.message.node)
        limits = self._desk.limits
        return order, Patience.of(awarded, limits.patience_s, limits.after_cancel_s)

    def _before(self) -> list[Before]:
        return [
            Before(leg.award.message, leg.award_digest, leg.failure.message)
            for leg in self._legs
            if leg.failure
        ]

    async def _next_rank(self, leg: Leg) -> wire.Awarded:
        """Report the failure and get the next award, where another node can go on."""
        assert leg.failure
        cut = self.answer.size > 0
        nothing_left = self._output_tokens >= self._demand.max_output_tokens
        if cut and (nothing_left or not self.answer.continuable):
            raise await self._give_up(leg)
        if not cut:
            self.answer.restart()
        row = attempt_row(leg.award, leg.award_digest, self._draft.chains[0].length)
        await self._desk.ledger.fail(row, leg.failure.to_bytes())
        if leg.award.message.rank == len(self._draft.chains):
            raise await self._give_up(leg)
        may_move = bool(self._further) and not cut and not any(leg.acks for leg in self._legs)
        try:
            return await self._log.market.report(leg.failure, patient=not may_move)
        except (MarketRefused, CoordinatorUnreachable) as error:
            if not may_move:
                _log.info("request %s: no further node: %s", self.request_id, error)
                raise await self._give_up(leg) from error
            await self._move(error)
            return await self._submit()

    async def _give_up(self, leg: Leg) -> ApiError:
        """Nobody goes on: deliver what there is, and say so."""
        await self._conclude(Outcome.FAILED)
        # Only where all of them say so: one node alone may say what it likes.
        status = leg.engine_status if all(one.engine_status for one in self._legs) else 0
        cut = self.answer.size > 0
        return from_attempt(leg.result, leg.detail, cut=cut, engine_status=status)

    # The end

    async def _conclude(self, outcome: Outcome) -> None:
        """Sign what the client gets and make it durable, before it gets the end of it."""
        end = conclusion_of(
            self._desk.identity,
            self._draft,
            self._rules,
            self._demand.prompt_tokens,
            self._legs,
            outcome,
            self.answer.choices(),
            keep=partial(self._kept, "response"),
            now_ms=self._desk.now_ms(),
        )
        try:
            await self._desk.ledger.conclude(end)
        except StorageFailed:  # it may have happened or not: doing it twice is once
            await self._desk.ledger.conclude(end)
        self._used = used = (self._demand.prompt_tokens + end.output_tokens, end.units)
        again = outcome == Outcome.COMPLETE and self._kept_for_later
        answer = self._kept("answer", self.answer.whole(end.output_tokens)) if again else None
        await self._desk.quotas.settle(self._reservation, used, answer)
        self._log.outbox.take_up(end.job_id)

    def _kept(self, part: Part, content: bytes) -> bytes | None:
        """What goes to disk of a prompt or an answer: for the key's holder only, or nothing."""
        kept = self._desk.limits.content_hours > 0
        return self._seal.close(self._draft.job.message.job_id, part, content) if kept else None
