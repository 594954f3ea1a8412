"""What keys may use: requests are let in and accounted for, together with all other processes.

The counting itself is `pinaivu.store.gateway_meters`: one short transaction when a request of a
limited key begins, one when it ends. Keys without limits cost nothing here. The process says every
few seconds that it is alive. When it has been silent for `LEASE_MS`, other processes give back what
its requests had reserved, each as soon as it is known what the request has used.

It fails closed: what can't be counted isn't served.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from gateway.errors import ApiError
from pinaivu.store import gateway_claims as claims
from pinaivu.store import gateway_meters as meters
from pinaivu.store.database import StorageFailed
from pinaivu.store.gateway_claims import Claim
from pinaivu.store.gateway_meters import Limited, Meter, Wanted
from pinaivu.store.gateway_policy import Policy
from pinaivu.store.rows import Rows
from pinaivu.store.writer import Writer

LEASE_MS: Final = 15_000
"""For how long a silent process counts as running."""

_BEATS: Final = 5
"""How often in that time a process says that it runs."""

_GIVEN_BACK_AT_ONCE: Final = 100
_MOST_METERS: Final = 10_000
_MS: Final = 1000
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Reservation:
    """What one request under way may use at most; for a key without limits it stands nowhere."""

    key_id: str
    reservation_id: bytes | None
    tokens: int
    units: int
    claim: Claim | None = None
    settled: bool = field(default=False, init=False)

    def bind(self, rows: Rows, job_id: bytes) -> None:
        """The request's job is about to be stored, in this transaction.

        Raises `StorageFailed` where the process stood still for so long that another one has
        given the reservation back, or has taken over the claim.
        """
        held = (self.reservation_id is None or meters.bind(rows, self.reservation_id, job_id)) and (
            self.claim is None or claims.bind(rows, self.claim, job_id)
        )
        if not held:
            raise StorageFailed("this process was taken for ended while it stood still")


class Quotas:
    """The meters of all keys, as one process uses them."""

    def __init__(
        self,
        writer: Writer,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
        lease_ms: int = LEASE_MS,
    ) -> None:
        self._writer = writer
        self._now_ms = now_ms
        self._random = random
        self._lease_ms = lease_ms
        self._meters: dict[str, Meter] = {}
        self._unsettled: list[tuple[Reservation, tuple[int, int] | None, bytes | None]] = []
        self.process_id = random(16)
        """How many requests this process is serving."""

    async def reserve(
        self,
        key_id: str,
        policy: Policy,
        tokens: int,
        units: int,
        claim: Claim | None = None,
        *,
        hosted: bool = False,
    ) -> Reservation:
        """Let a request in that may use `tokens`, and of `units` as many as are left; else 429.

        A hosted key's requests are counted even without limits: its account has one.
        """
        identity = None
        if policy.metered or hosted:
            identity = self._random(16)
            want = Wanted(
                reservation_id=identity,
                key_id=key_id,
                process_id=self.process_id,
                tokens=tokens,
                units=units,
                now_ms=self._now_ms(),
            )
            try:
                units, meter = await self._writer.write_rows_apart(
                    lambda rows: meters.begin(rows, policy, want)
                )
            except Limited as limited:
                self._keep(key_id, limited.meter)
                raise _refusal(limited, want.now_ms) from limited
            self._keep(key_id, meter)
        return Reservation(
            key_id=key_id, reservation_id=identity, tokens=tokens, units=units, claim=claim
        )

    async def settle(
        self, held: Reservation, used: tuple[int, int] | None, answer: bytes | None = None
    ) -> None:
        """The request is over: count the tokens and units it used instead of the most.

        None where only its receipt will tell: until then the most counts. `answer` is what a
        repeated request with the same `Idempotency-Key` gets. Settling twice is once; while the
        database fails it is tried again later.
        """
        if held.settled:
            return
        held.settled = True
        try:
            await self._settle(held, used, answer)
        except StorageFailed as error:
            _log.error("what key %s used is counted later: %s", held.key_id, error)
            self._unsettled.append((held, used, answer))

    async def release(self, claim: Claim) -> None:
        """Nothing ran for the request that holds this claim: its name is free again."""
        nothing = Reservation(
            key_id=claim.key_id, reservation_id=None, tokens=0, units=0, claim=claim
        )
        await self.settle(nothing, (0, 0))

    async def meter(self, key_id: str) -> Meter:
        """The key's meter, as last seen in this minute or as it is now."""
        now, found = self._now_ms(), self._meters.get(key_id)
        if found is None or found.minute < now // meters.MINUTE_MS:
            found = await self._writer.write_rows_apart(
                lambda rows: meters.read_meter(rows, key_id, now)
            )
            self._keep(key_id, found)
        return found

    async def enter(self) -> None:
        """Say that this process is alive; `StorageFailed` where that can't be noted."""
        until_ms = self._now_ms() + self._lease_ms
        await self._writer.write_rows_apart(
            lambda rows: meters.alive(rows, self.process_id, until_ms)
        )

    async def run(self) -> None:
        """Stay alive, and clear up after processes that didn't, until cancelled."""
        try:
            while True:
                await trio.sleep(self._lease_ms / _MS / _BEATS)
                try:
                    await self.beat()
                except StorageFailed as error:
                    _log.error("this process can't say that it is alive: %s", error)
        finally:
            with trio.CancelScope(shield=True):
                await self._leave()

    async def beat(self) -> None:
        """One round of what `run` does."""
        await self.enter()
        waiting, self._unsettled = self._unsettled, []
        for place, (held, used, answer) in enumerate(waiting):
            try:
                await self._settle(held, used, answer)
            except StorageFailed:
                self._unsettled += waiting[place:]
                raise
        await self.clear_up()

    async def clear_up(self) -> None:
        """Give back what ended processes had reserved, as far as it is known what they used."""
        now = self._now_ms()
        found = await self._writer.read(
            lambda session: meters.abandoned(session, now, _GIVEN_BACK_AT_ONCE)
        )
        for key_id, identity in found:
            await self._writer.write_rows_apart(
                partial(meters.resolve, key_id=key_id, reservation_id=identity, now_ms=now)
            )

    async def _settle(
        self, held: Reservation, used: tuple[int, int] | None, answer: bytes | None
    ) -> None:
        now, identity = self._now_ms(), held.reservation_id

        def write(rows: Rows) -> Meter | None:
            meter = None
            if identity is not None and used is None:
                meters.abandon(rows, held.key_id, identity, now)
            elif identity is not None and used is not None:
                meter = meters.settle(rows, held.key_id, identity, *used, now)
            if held.claim is not None:
                _end_claim(rows, held.claim, used, answer, now)
            return meter

        if identity is None and held.claim is None:
            return
        meter = await self._writer.write_rows_apart(write)
        if meter is not None:
            self._keep(held.key_id, meter)

    async def _leave(self) -> None:
        """Tell the others now rather than by silence."""
        try:
            await self._writer.write_rows_apart(lambda rows: meters.alive(rows, self.process_id, 0))
        except StorageFailed as error:
            _log.warning("this process's end is noticed in %d s: %s", self._lease_ms // _MS, error)

    def _keep(self, key_id: str, meter: Meter) -> None:
        if len(self._meters) >= _MOST_METERS:
            self._meters.clear()
        self._meters[key_id] = meter


def _end_claim(
    rows: Rows,
    held: Claim,
    used: tuple[int, int] | None,
    answer: bytes | None,
    now_ms: int,
) -> None:
    """Nothing was dispatched for a request that used nothing and has no answer."""
    if used == (0, 0) and answer is None:
        claims.release(rows, held)
    else:
        claims.end(rows, held, answer, now_ms)


_WHAT: Final = {
    "streams": ("too_many_streams", "requests under way", "retry when one of them has ended"),
    "requests_per_minute": ("rate_limit_exceeded", "requests a minute", "retry in a moment"),
    "tokens_per_minute": (
        "rate_limit_exceeded",
        "tokens a minute",
        "lower max_tokens, or retry in a moment",
    ),
    "daily_tokens": (
        "quota_exceeded",
        "daily tokens",
        "lower max_tokens, or wait for the next day (UTC)",
    ),
    "daily_units": (
        "quota_exceeded",
        "daily base units",
        "wait for the next day (UTC) or have the key's daily amount raised",
    ),
    "monthly_tokens": (
        "quota_exceeded",
        "monthly tokens",
        "lower max_tokens, or wait for the next month (UTC)",
    ),
    "monthly_units": (
        "quota_exceeded",
        "monthly base units",
        "wait for the next month (UTC) or have the key's monthly amount raised",
    ),
}


def _refusal(limited: Limited, now_ms: int) -> ApiError:
    code, what, advice = _WHAT[limited.limit]
    wait_ms = max(_MS, limited.ends_ms - now_ms)
    return ApiError(
        429,
        code,
        f"The key's limit of {what} is reached: the request may use {limited.wanted},"
        f" {limited.left} are left; {advice}.",
        retry_after_s=-(-wait_ms // _MS),
    )
