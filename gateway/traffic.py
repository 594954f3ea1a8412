"""What is under way in a gateway, and its end in order: HTTP answers, and exchanges behind them.

`drain` is how a gateway stops: from its call on nothing new is begun (`gateway.http.gate` refuses
it), what runs may finish within a bound, the rest is stopped as if its client had gone, so that
each node still signs what it did and each payer pays for that.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from gateway.errors import ApiError
from gateway.reports import Report

_log = logging.getLogger(__name__)


class UnderWay(Protocol):
    """An exchange, as far as it matters here."""

    async def run(self) -> None:
        """Serve the request to its end."""

    def stop(self) -> None:
        """Stop, whoever waits for the answer or will ask for it."""

    def report(self) -> Report:
        """What came of it, once `run` has ended."""


class Traffic:
    """Counts what is under way; `heard` gets the report of each exchange that has ended."""

    def __init__(self) -> None:
        self.heard: list[Callable[[Report], None]] = [_say]
        self.draining = False
        self.answering = 0
        """HTTP requests whose answers are not sent to their end."""
        self._exchanges: set[UnderWay] = set()
        self._beginning = 0
        self._calm = trio.Event()

    @property
    def exchanges(self) -> int:
        """How many exchanges run."""
        return len(self._exchanges)

    @contextmanager
    def answer(self) -> Iterator[None]:
        """An HTTP request, from its head to its answer's end."""
        self.answering += 1
        try:
            yield
        finally:
            self.answering -= 1
            self._look()

    @contextmanager
    def place(self, most: int) -> Iterator[None]:
        """A place among `most`, for a request that is to become an exchange; else 429."""
        if len(self._exchanges) + self._beginning >= most:
            raise ApiError(
                429,
                "too_many_requests",
                "The gateway serves as many requests as it can; retry in a second.",
                retry_after_s=1,
            )
        self._beginning += 1
        try:
            yield
        finally:
            self._beginning -= 1

    def start(self, nursery: trio.Nursery, exchange: UnderWay) -> None:
        """Run an exchange in a task of its own."""
        self._exchanges.add(exchange)
        nursery.start_soon(self._run, exchange)

    async def drain(self, within_s: float, after_s: float) -> None:
        """Begin nothing more; return when nothing is left, or the bounds are over.

        What still runs after `within_s` is stopped and has `after_s` to be accounted for.
        """
        self.draining = True
        _log.info("draining: %d exchanges, %d answers", self.exchanges, self.answering)
        with trio.move_on_after(within_s):
            await self._wait_for_calm()
        for exchange in list(self._exchanges):
            exchange.stop()
        with trio.move_on_after(after_s):
            await self._wait_for_calm()
        _log.info("drained: %d exchanges, %d answers are left", self.exchanges, self.answering)

    async def _run(self, exchange: UnderWay) -> None:
        try:
            await exchange.run()
            report = exchange.report()
            for hear in self.heard:
                hear(report)
        except Exception:  # noqa: BLE001 - what is said of a request must not end the others
            _log.exception("the report of a request failed")
        finally:
            self._exchanges.discard(exchange)
            self._look()

    async def _wait_for_calm(self) -> None:
        while self.answering or self._exchanges:
            self._calm = trio.Event()
            await self._calm.wait()

    def _look(self) -> None:
        if not self.answering and not self._exchanges:
            self._calm.set()


def _say(report: Report) -> None:
    if _log.isEnabledFor(logging.INFO):
        text = "request %s: %s, %d tokens in, %d out, %d ms"
        counts = (report.prompt_tokens, report.output_tokens, report.total_ms)
        fields = {"fields": report.fields()}
        _log.info(text, report.request_id, report.outcome, *counts, extra=fields)
