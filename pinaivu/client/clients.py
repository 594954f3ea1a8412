"""HTTP clients for an SDK whose answers are verified before, or beside, they are used."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx

from pinaivu.client.async_transports import AsyncVerifyingTransport
from pinaivu.client.guard import Terms
from pinaivu.client.judge import Judge
from pinaivu.client.lazy import Later, Open
from pinaivu.client.transports import VerifyingTransport
from pinaivu.client.trust import Trust

WITHIN_S: Final = 15.0
"""How long a receipt is waited for: a gateway has it within a second or two of the answer."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class _Lazily:
    """What a lazy client says of the answers it has handed over."""

    _later: Later | None

    def unverified(self) -> list[Open]:
        """Answers not verified yet or at all; always empty where verification comes first."""
        return self._later.unverified() if self._later else []

    def require_verified(self, within_s: float = WITHIN_S) -> None:
        """Raise unless every answer so far is verified, waiting for those under way.

        One of `AnswerRefuted`, `AnswerUnproven`, `ReceiptMissing`: the first there is.
        """
        if self._later:
            self._later.require(within_s)


class VerifyingClient(_Lazily, httpx.Client):
    """An `httpx.Client` for `OpenAI(http_client=…)`."""

    def __init__(self, terms: Terms, inner: httpx.BaseTransport, **options: Any) -> None:
        self._later = terms.later
        super().__init__(transport=VerifyingTransport(terms, inner), **options)


class AsyncVerifyingClient(_Lazily, httpx.AsyncClient):
    """An `httpx.AsyncClient` for `AsyncOpenAI(http_client=…)`."""

    def __init__(self, terms: Terms, inner: httpx.AsyncBaseTransport, **options: Any) -> None:
        self._later = terms.later
        super().__init__(transport=AsyncVerifyingTransport(terms, inner), **options)


def verifying(
    trust: Trust,
    *,
    lazy: bool = False,
    within_s: float = WITHIN_S,
    keep: Path | None = None,
    now_ms: Callable[[], int] = _now_ms,
    inner: httpx.BaseTransport | None = None,
    **options: Any,
) -> VerifyingClient:
    """A client that hands over no answer but a verified one, or, if `lazy`, verifies beside.

    `within_s` bounds the wait for each receipt; `keep` is a folder for the bundles, as `pinaivu
    verify --account` takes it; `options` are `httpx.Client`'s. `Misconfigured` for a trust that
    could never be met.
    """
    terms = _terms(trust, lazy=lazy, within_s=within_s, keep=keep, now_ms=now_ms)
    return VerifyingClient(terms, inner or httpx.HTTPTransport(), **options)


def verifying_async(
    trust: Trust,
    *,
    lazy: bool = False,
    within_s: float = WITHIN_S,
    keep: Path | None = None,
    now_ms: Callable[[], int] = _now_ms,
    inner: httpx.AsyncBaseTransport | None = None,
    **options: Any,
) -> AsyncVerifyingClient:
    """`verifying` for `AsyncOpenAI`; judging runs in worker threads."""
    terms = _terms(trust, lazy=lazy, within_s=within_s, keep=keep, now_ms=now_ms)
    return AsyncVerifyingClient(terms, inner or httpx.AsyncHTTPTransport(), **options)


def _terms(
    trust: Trust, *, lazy: bool, within_s: float, keep: Path | None, now_ms: Callable[[], int]
) -> Terms:
    return Terms(
        judge=Judge(trust, now_ms),
        within_s=within_s,
        now_ms=now_ms,
        later=Later() if lazy else None,
        keep=keep,
    )
