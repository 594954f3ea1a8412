"""From an HTTP request to a running exchange, and back: what the routes share.

Everything that can be refused without the market is refused here: key, body, model, grant, quota,
load. What passes has a job signed for it and a task of its own.
"""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio
from starlette.requests import Request

from gateway.access import Access, Holder
from gateway.config import Limits
from gateway.demands import Demand, read_body, read_demand
from gateway.desk import Desk
from gateway.drafts import draft_job
from gateway.errors import ApiError
from gateway.exchange import Exchange
from gateway.ledger import Ledger
from gateway.logs import Entry, Logs
from gateway.ports import ServedModel
from gateway.traffic import Traffic
from pinaivu.messages import Grant
from pinaivu.metering import reserve
from pinaivu.typed_data import Signed

_COUNT_IN_THREAD_FROM: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """All parts of a running gateway, as the HTTP routes use them."""

    desk: Desk
    models: dict[str, ServedModel]
    random: Callable[[int], bytes]
    traffic: Traffic = field(default_factory=Traffic)
    cors_origins: tuple[str, ...] = ()

    @property
    def access(self) -> Access:
        """Keys, grants and quotas."""
        return self.desk.access

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

    async def holder(self, request: Request) -> Holder:
        """Who asks; 401 for a stranger."""
        return await self.access.authenticate(request.headers.get("authorization"))

    async def begin(self, request: Request) -> Exchange:
        """Judge a chat completion's request and put it on the market; `ApiError` otherwise."""
        holder = await self.holder(request)
        length = request.headers.get("content-length")
        async with aclosing(request.stream()) as chunks:
            raw = await read_body(chunks, length, self.limits.max_body_bytes)
        if self.access.under_way >= self.limits.max_in_flight:
            raise ApiError(
                429,
                "too_many_requests",
                "The gateway serves as many requests as it can; retry in a second.",
                retry_after_s=1,
            )
        exchange = await self._exchange(holder, await self._demand(raw))
        self.traffic.start(self.desk.nursery, exchange)
        return exchange

    async def _demand(self, raw: bytes) -> Demand:
        default = self.limits.default_output_tokens
        if len(raw) < _COUNT_IN_THREAD_FROM:
            return read_demand(raw, self.models, default_output_tokens=default)
        return await trio.to_thread.run_sync(
            lambda: read_demand(raw, self.models, default_output_tokens=default)
        )

    async def _exchange(self, holder: Holder, demand: Demand) -> Exchange:
        grants = await self.access.grants(holder, demand.model.name)
        first, *further = self.logs.ways(grants)
        _, units_left = await self.access.left(holder)
        entry = await self._entry(demand, first, units_left)
        job, terms = entry.draft.job.message, first.message
        units = reserve(job, terms.max_per_job, job.max_price_in, job.max_price_out)
        tokens = demand.prompt_tokens + demand.max_output_tokens
        reservation = await self.access.reserve(holder, tokens, units)
        # What was reserved covers any further log, too: only one of them comes to be charged.
        ways = [partial(self._entry, demand, grant, units) for grant in further]
        return Exchange(self.desk, demand, entry, ways, reservation)

    async def _entry(self, demand: Demand, grant: Signed[Grant], most_units: int | None) -> Entry:
        log = self.logs[grant.message.log_id]
        rules = (await log.registry.epoch()).parameters
        draft = draft_job(
            demand,
            grant,
            self.desk.identity,
            attempts=min(self.limits.attempts, rules.max_ranks),
            units_left=most_units,
            deadline_after_ms=int(self.limits.job_deadline_s * 1000),
            now_ms=self.desk.now_ms(),
            random=self.random,
        )
        return Entry(log=log, draft=draft, rules=rules)
