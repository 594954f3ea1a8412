"""The gateway's figures for Prometheus, in a registry of its own.

Labels are models of the configuration, logs of the configuration, routes as declared, statuses, and
outcomes, of which at most `MOST_OUTCOMES` are told apart: no number of strangers, keys, nodes or
requests makes more series. Nothing here names a key, a node, a prompt or an answer.
"""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from gateway.reports import Report
from pinaivu.store.gateway import CountDifferenceRow

MOST_OUTCOMES: Final = 64
_PREFIX: Final = "pinaivu_gateway_"
_FIRST_TOKEN_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TOTAL_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
Gauges = Callable[[], dict[str, dict[str, float]]]
"""Gauges as of now: name → value by label; the label of a lone value is empty."""


class Metrics:
    """All series of one gateway."""

    def __init__(self, gauges: Gauges) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_Gauges(gauges))
        self._outcomes: set[str] = set()
        self._answers = Counter(
            _PREFIX + "http_responses", "HTTP answers", ["route", "status"], registry=registry
        )
        self._requests = Counter(
            _PREFIX + "requests", "Requests by outcome", ["model", "outcome"], registry=registry
        )
        self._attempts = Counter(
            _PREFIX + "attempts", "Awards by result", ["result"], registry=registry
        )
        self._tokens = Counter(
            _PREFIX + "tokens", "Tokens by our own count", ["model", "kind"], registry=registry
        )
        self._units = Counter(
            _PREFIX + "cost_units", "Base units by our own count", ["model"], registry=registry
        )
        self._differences = Counter(
            _PREFIX + "count_differences",
            "Counts of node and gateway too far apart",
            ["model", "kind", "higher"],
            registry=registry,
        )
        self._first = Histogram(
            _PREFIX + "first_token_seconds",
            "From a request's job to its first token",
            ["model"],
            buckets=_FIRST_TOKEN_S,
            registry=registry,
        )
        self._total = Histogram(
            _PREFIX + "request_seconds",
            "From a request's job to its end",
            ["model"],
            buckets=_TOTAL_S,
            registry=registry,
        )

    def answered(self, route: str, status: int) -> None:
        """An HTTP answer has ended; status 0 where the client left before it began."""
        self._answers.labels(route, str(status)).inc()

    def served(self, report: Report) -> None:
        """A request has ended."""
        self._requests.labels(report.model, self._known(report.outcome)).inc()
        for result in report.attempts:
            self._attempts.labels(result).inc()
        self._tokens.labels(report.model, "prompt").inc(report.prompt_tokens)
        self._tokens.labels(report.model, "output").inc(report.output_tokens)
        self._units.labels(report.model).inc(report.units)
        if report.first_token_ms:
            self._first.labels(report.model).observe(report.first_token_ms / 1000)
        self._total.labels(report.model).observe(report.total_ms / 1000)

    def differed(self, model: str, row: CountDifferenceRow) -> None:
        """Two counts that lie too far apart have been stored."""
        higher = "node" if row.by_node > row.by_gateway else "gateway"
        self._differences.labels(model, row.what, higher).inc()

    def exposed(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)

    def _known(self, outcome: str) -> str:
        """The outcome, while there are few: a coordinator's refusals bring words of their own."""
        if len(self._outcomes) < MOST_OUTCOMES:
            self._outcomes.add(outcome)
        return outcome if outcome in self._outcomes else "other"


class _Gauges(Collector):
    """Reads the gateway's state when it is asked."""

    def __init__(self, gauges: Gauges) -> None:
        self._read = gauges

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One family for each gauge."""
        for name, values in self._read().items():
            labels = ["log"] if "" not in values else []
            family = GaugeMetricFamily(_PREFIX + name, name.replace("_", " "), labels=labels)
            for label, value in values.items():
                family.add_metric([label] if label else [], value)
            yield family
