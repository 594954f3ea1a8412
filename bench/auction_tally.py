"""Paired comparison of a strategy with the truth: sums that add up over processes, and intervals.

Each episode gives one difference, strategy less truth, on the same machines, jobs, nonces and
failures. Episodes are independent, so the interval is the mean difference ± 1.96 standard errors.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, Self

from bench.auction_play import Result

_Z95 = 1.96


@dataclass(slots=True)
class Tally:
    """Sums over episodes, base units; `tried` under the strategy, `truth` without it."""

    episodes: int = 0
    jobs: int = 0
    difference: float = 0.0
    square: float = 0.0
    rivalled: float = 0.0
    rivalled_square: float = 0.0
    truth_profit: float = 0.0
    truth_revenue: float = 0.0
    truth_wins: int = 0
    tried_wins: int = 0
    truth_paid: float = 0.0
    tried_paid: float = 0.0
    truth_served: int = 0
    tried_served: int = 0

    def add(
        self, jobs: int, truth: tuple[Result, set[bytes]], tried: tuple[Result, set[bytes]]
    ) -> None:
        """One more episode; beside each result stand the strategist's wallets."""
        was, now = (sum(r.profit[w] for w in wallets) for r, wallets in (truth, tried))
        self.episodes += 1
        self.jobs += jobs
        self.difference += now - was
        self.square += (now - was) ** 2
        if not any(result.lone & wallets for result, wallets in (truth, tried)):
            self.rivalled += now - was
            self.rivalled_square += (now - was) ** 2
        self.truth_profit += was
        self.truth_revenue += sum(truth[0].revenue[w] for w in truth[1])
        self.truth_wins += sum(truth[0].wins[w] for w in truth[1])
        self.tried_wins += sum(tried[0].wins[w] for w in tried[1])
        self.truth_paid += truth[0].paid
        self.tried_paid += tried[0].paid
        self.truth_served += truth[0].served
        self.tried_served += tried[0].served

    def __iadd__(self, other: Self) -> Self:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self

    @property
    def gain(self) -> float:
        """Mean gain over truth, base units per job."""
        return self.difference / self.jobs

    @property
    def half_width(self) -> float:
        """Half of the gain's 95 % interval, base units per job."""
        return self._half_width(self.difference, self.square)

    @property
    def gain_rivalled(self) -> tuple[float, float]:
        """The part of the gain from episodes in which nobody of the owner's was paid alone.

        With half of its interval; the rest of the gain comes of being alone, by truth or strategy.
        """
        return self.rivalled / self.jobs, self._half_width(self.rivalled, self.rivalled_square)

    def _half_width(self, total: float, squares: float) -> float:
        mean = total / self.episodes
        variance = max(0.0, squares / self.episodes - mean * mean)
        return _Z95 * math.sqrt(variance / self.episodes) * self.episodes / self.jobs

    @property
    def verdict(self) -> str:
        """What the interval says."""
        if self.square == 0:
            return "no difference"
        if self.gain - self.half_width > 0:
            return "pays"
        return "doesn't pay" if self.gain + self.half_width <= 0 else "not resolved"

    def share(self, amount: float, of: float) -> float | None:
        """Per-job `amount` in per cent of a sum over all episodes; None where that is nothing."""
        whole = of / self.jobs
        return 100 * amount / whole if whole > 0 else None

    def to_json(self) -> dict[str, Any]:
        """Figures of `bench/out/auction_economics.json`."""
        rivalled, half = self.gain_rivalled
        return {
            "auctions": self.jobs,
            "episodes": self.episodes,
            "gain_units_per_job": self.gain,
            "half_width_units_per_job": self.half_width,
            "gain_rivalled_percent_of_revenue": self.share(rivalled, self.truth_revenue),
            "half_width_rivalled_percent_of_revenue": self.share(half, self.truth_revenue),
            "truth_profit_units_per_job": self.truth_profit / self.jobs,
            "truth_revenue_units_per_job": self.truth_revenue / self.jobs,
            "gain_percent_of_profit": self.share(self.gain, self.truth_profit),
            "gain_percent_of_revenue": self.share(self.gain, self.truth_revenue),
            "half_width_percent_of_revenue": self.share(self.half_width, self.truth_revenue),
            "wins_truth": self.truth_wins / self.jobs,
            "wins_strategy": self.tried_wins / self.jobs,
            "payers_paid_truth": self.truth_paid / max(1, self.truth_served),
            "payers_paid_strategy": self.tried_paid / max(1, self.tried_served),
            "verdict": self.verdict,
        }
