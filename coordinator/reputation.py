"""What is known of a node from its receipts: success share, calibrations, expected output.

Everything follows from the log's receipts in order, so anybody can replay it. Thin as yet: success
is a Beta mean over outcomes, the expected output one mean per model, calibrations stay at 1, and no
decay or per-party cap is applied.
"""

from collections import defaultdict

from msgspec import Struct

from pinaivu.codes import Reason
from pinaivu.manifest import Parameters
from pinaivu.messages import Receipt

_MILLION = 10**6
_UNCALIBRATED = 1000
_NEWCOMER_UNTIL = 20
_FAULTS = frozenset(range(Reason.REFUSED, Reason.PASSED_OVER))


class Standing(Struct, frozen=True):
    """A node's inputs to the score."""

    success_ppm: int
    cal_t: int
    cal_s: int
    newcomer: bool


class Reputation:
    """Counts over the log's receipts."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._good: dict[bytes, int] = defaultdict(int)
        self._bad: dict[bytes, int] = defaultdict(int)
        self._output: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    def learn(self, receipt: Receipt) -> None:
        """Take one more receipt, in log order."""
        for segment in receipt.segments:
            if segment.rank == 0:
                continue
            side = self._bad if segment.result in _FAULTS else self._good
            side[segment.node] += 1
            if segment.result == Reason.NONE:
                totals = self._output[receipt.model]
                totals[0] += segment.output_billed
                totals[1] += 1

    def standing(self, node: bytes) -> Standing:
        """The node's present standing."""
        good, bad = self._good[node], self._bad[node]
        a, b = self._parameters.prior_a, self._parameters.prior_b
        success = (a + good) * _MILLION // (a + b + good + bad)
        newcomer = good + bad < _NEWCOMER_UNTIL
        return Standing(success, _UNCALIBRATED, _UNCALIBRATED, newcomer)

    def expected_output(self, model: str, max_output_tokens: int) -> int:
        """M: the mean output seen for a model, at most what the job allows."""
        tokens, jobs = self._output[model]
        mean = tokens // jobs if jobs else max_output_tokens // 2
        return max(1, min(mean, max_output_tokens))
