"""OpenAI's rate-limit headers, on every answer to a key that has such limits, 429 included.

    x-ratelimit-limit-requests, -remaining-requests, -reset-requests     of this minute
    x-ratelimit-limit-tokens, -remaining-tokens, -reset-tokens           of what has least left:
                                                                         minute, day or month

They say how the key's meter stood when its last request began or ended in this process, the most
that requests under way may use counted as used. A key without such a limit gets no such header.
"""

from contextlib import suppress
from typing import Any, Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access import Holder
from gateway.http.surface import Gateway
from pinaivu.store.database import StorageFailed
from pinaivu.store.gateway_meters import DAY_MS, MINUTE_MS, Meter, month_of, month_start_ms
from pinaivu.store.gateway_policy import Policy

_SECOND_MS: Final = 1000
_RATES: Final = ("requests_per_minute", "tokens_per_minute", "daily_tokens", "monthly_tokens")


class RateHeaders:
    """Adds the headers where an answer starts."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything through; `Gateway.holder` has noted by then who asks."""

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._add(scope.get("state", {}).get("holder"), message)
            await send(message)

        await self._app(scope, receive, add if scope["type"] == "http" else send)

    async def _add(self, holder: Holder | None, message: Message) -> None:
        if holder is None or not any(getattr(holder.policy, name) is not None for name in _RATES):
            return
        with suppress(StorageFailed):  # the answer itself says so
            meter = await self._gateway.quotas.meter(holder.key_id)
            found = rate_headers(holder.policy, meter, self._gateway.desk.now_ms())
            MutableHeaders(scope=message).update(found)


def rate_headers(policy: Policy, meter: Meter, now_ms: int) -> dict[str, str]:
    """The headers for a key whose meter stands like this."""
    minute, day, month = now_ms // MINUTE_MS, now_ms // DAY_MS, month_of(now_ms)
    minute_ends, day_ends = (minute + 1) * MINUTE_MS, (day + 1) * DAY_MS
    in_minute, in_day = meter.minute >= minute, meter.day >= day
    requests = [(policy.requests_per_minute, in_minute * meter.minute_requests, minute_ends)]
    tokens = [
        (policy.tokens_per_minute, in_minute * meter.minute_tokens, minute_ends),
        (policy.daily_tokens, in_day * meter.day_tokens, day_ends),
        (
            policy.monthly_tokens,
            (meter.month >= month) * meter.month_tokens,
            month_start_ms(month + 1),
        ),
    ]
    return _headers("requests", requests, now_ms) | _headers("tokens", tokens, now_ms)


def _headers(what: str, limits: list[tuple[Any, int, int]], now_ms: int) -> dict[str, str]:
    """The limit with the least left; nothing where there is none."""
    left = [(max(0, most - gone), most, ends) for most, gone, ends in limits if most is not None]
    if not left:
        return {}
    remaining, most, ends_ms = min(left)
    return {
        f"x-ratelimit-limit-{what}": str(most),
        f"x-ratelimit-remaining-{what}": str(remaining),
        f"x-ratelimit-reset-{what}": _duration(ends_ms - now_ms),
    }


def _duration(ms: int) -> str:
    """As OpenAI writes them: ``340ms``, ``59s``, ``6m0s``, ``23h5m1s``."""
    if ms < _SECOND_MS:
        return f"{max(0, ms)}ms"
    minutes, seconds = divmod(-(-ms // _SECOND_MS), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
