"""From an HTTP request to a running exchange, and back: what the routes share.

Everything that can be refused without the market is refused here: key, body, model, grant, quota,
load. What passes has a job signed for it and a task of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import UUID

import trio
from msgspec import structs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.access import Access, Holder
from gateway.accounts import Account
from gateway.claims import HEADER, Replay
from gateway.config import Limits
from gateway.demands import Demand, read_demand
from gateway.desk import Desk
from gateway.drafts import draft_job, most_units, uuid7
from gateway.errors import ApiError, from_parameter
from gateway.exchange import Exchange
from gateway.http.bodies import read_body
from gateway.ledger import Ledger
from gateway.logs import Entry, Logs
from gateway.ports import ServedModel
from gateway.quotas import Quotas
from gateway.traffic import Traffic
from gateway.wallets import Wallets
from pinaivu.codes import JobKind
from pinaivu.encoding import InvalidParameter
from pinaivu.messages import Grant
from pinaivu.store.gateway_claims import Claim
from pinaivu.store.gateway_policy import Scope
from pinaivu.terms import combined, terms_from_headers
from pinaivu.typed_data import Signed

_COUNT_IN_THREAD_FROM: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """All parts of a running gateway, as the HTTP routes use them."""

    desk: Desk
    models: dict[str, ServedModel]
    random: Callable[[int], bytes]
    wallets: Wallets | None = None
    traffic: Traffic = field(default_factory=Traffic)
    cors_origins: tuple[str, ...] = ()

    @property
    def access(self) -> Access:
        """Keys, grants and quotas."""
        return self.desk.access

    @property
    def quotas(self) -> Quotas:
        """What keys may use."""
        return self.desk.quotas

    @property
    def ledger(self) -> Ledger:
        """Durable state."""
        return self.desk.ledger

    @property
    def logs(self) -> Logs:
        """The logs it works with."""
        return self.desk.logs

    @property
    def limits(self) -> Limits:
        """The configuration's limits."""
        return self.desk.limits

    def new_request_id(self) -> str:
        """An id for a request that may never become a job: for its answer, and for logs."""
        return str(UUID(bytes=uuid7(self.desk.now_ms(), self.random)))

    async def holder(self, request: Request, scope: Scope | None = None) -> Holder:
        """Who asks; 401 for a stranger, 403 for a key without the scope."""
        found = await self.access.authenticate(request.headers.get("authorization"), scope)
        request.state.holder = found  # for `rates`
        return found

    async def begin(self, request: Request, kind: JobKind) -> Exchange | Replay:
        """Judge a request and put it on the market; `ApiError` otherwise.

        A request that was made before, by its `Idempotency-Key`, gets the answer it got.
        """
        holder = await self.holder(request, "inference")
        raw = await read_body(request, self.limits.max_body_bytes)
        with self.traffic.place(self.limits.max_in_flight):
            demand = _under_terms(await self._demand(raw, kind), holder, request)
            name = request.headers.get(HEADER)
            claim = await self.desk.claims.take(holder.key_id, name, demand, holder.seal)
            if isinstance(claim, Replay):
                return claim
            try:
                exchange = await self._exchange(holder, demand, claim)
            except BaseException:
                if claim is not None:
                    with trio.CancelScope(shield=True):
                        await self.quotas.release(claim)
                raise
            self.traffic.start(self.desk.nursery, exchange)
            return exchange

    async def _demand(self, raw: bytes, kind: JobKind) -> Demand:
        read = partial(
            read_demand,
            raw,
            self.models,
            default_output_tokens=self.limits.default_output_tokens,
            kind=kind,
        )
        if len(raw) < _COUNT_IN_THREAD_FROM:
            return read()
        return await trio.to_thread.run_sync(read)

    async def _exchange(self, holder: Holder, demand: Demand, claim: Claim | None) -> Exchange:
        grants = await self.access.grants(holder, demand.model.name)
        first, *further = self.logs.ways(grants)
        tokens = demand.prompt_tokens + demand.max_output_tokens
        most = units = most_units(demand, first.message)
        account = await self.desk.accounts.of(holder.key_id)
        if account:
            under_way = await self.ledger.reserved(holder.key_id)
            units = await self.desk.accounts.left(account, under_way.units, most)
        reservation = await self.quotas.reserve(
            holder.key_id, holder.policy, tokens, units, claim, hosted=account is not None
        )
        try:
            cut = reservation.units if reservation.units < most else None
            entry = await self._entry(demand, account, first, cut)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.quotas.settle(reservation, (0, 0))
            raise
        # What was reserved covers any further log, too: only one of them comes to be charged.
        ways = [
            partial(self._entry, demand, account, grant, reservation.units) for grant in further
        ]
        return Exchange(self.desk, demand, entry, ways, reservation, holder.seal)

    async def _entry(
        self, demand: Demand, account: Account | None, grant: Signed[Grant], most_units: int | None
    ) -> Entry:
        log = self.logs[grant.message.log_id]
        rules = (await log.registry.epoch()).parameters
        draft = draft_job(
            demand,
            grant,
            self.desk.identity,
            attempts=min(self.limits.attempts, rules.max_ranks),
            units_left=most_units,
            account=account,
            deadline_after_ms=int(self.limits.job_deadline_s * 1000),
            now_ms=self.desk.now_ms(),
            random=self.random,
        )
        return Entry(log=log, draft=draft, rules=rules)


def error_response(error: ApiError, request_id: str | None = None) -> Response:
    """An error in OpenAI's form, with its headers."""
    headers = error.headers() | ({"x-request-id": request_id} if request_id else {})
    return JSONResponse(error.body(request_id), status_code=error.status, headers=headers)


def _under_terms(demand: Demand, holder: Holder, request: Request) -> Demand:
    """The demand under what its key, its headers and its body say together."""
    try:
        said = terms_from_headers(request.headers.items())
        terms = combined(holder.policy.terms, said, demand.terms)
    except InvalidParameter as error:
        raise from_parameter(error) from error
    return structs.replace(demand, terms=terms)
