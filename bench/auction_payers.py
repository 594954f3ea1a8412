"""What payers pay per job under different uplift limits, and when everybody adds the best markup.

With `max_uplift_ppm` 0 the rule pays the winner what it asked: a market that pays as offered. There
truth earns nothing, so nodes add a markup; `best_markup` finds one that nobody gains from leaving
alone: the best answer to everybody's best answer, on a grid.
"""

from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from bench.auction_faces import Frozen
from bench.auction_play import Play, Result
from bench.auction_strategies import priced
from bench.auction_world import Scene, draw
from pinaivu.manifest import Parameters

TWO: Final = Scene(name="two in the book", fewest=2, most=2)
MORE: Final = Scene(name="three to eight in the book", fewest=3, most=8)
GRID: Final = (0, 1, 2, 4, 6, 8, 10, 15, 20, 25, 30, 40, 50, 75, 100)
"""Markups tried, per cent."""
_ROUNDS: Final = 8


@dataclass(frozen=True, slots=True)
class Pricing:
    """A scene, a limit on the uplift, and whether nodes answer it with their best markup."""

    scene: Scene
    uplift_ppm: int
    strategic: bool


MARKETS: Final = tuple(
    Pricing(scene, uplift, strategic)
    for scene in (TWO, MORE)
    for uplift in (0, 500_000, 1_000_000, 1_500_000, 2_000_000, 4_000_000)
    for strategic in (False, True)
)


@dataclass(frozen=True, slots=True)
class Outlay:
    """What came of it; `markup` in per cent over break-even, `paid` and `cost` per job served."""

    market: Pricing
    markup: int
    paid: float
    cost: float

    def line(self) -> str:
        """One row of the table."""
        uplift = self.market.uplift_ppm // 10_000
        how = f"up to {uplift} % over its price" if uplift else "what it asked"
        who = "best markup" if self.market.strategic else "truth"
        return (
            f"  {self.market.scene.name:28} {f'{how}, {who}':43} {self.markup:5} % "
            f"{self.cost:7.0f} {self.paid:7.0f}"
        )

    def to_json(self) -> dict[str, Any]:
        """The row's figures."""
        return {
            "scene": self.market.scene.name,
            "uplift_ppm": self.market.uplift_ppm,
            "strategic": self.market.strategic,
            "markup_percent": self.markup,
            "paid_units_per_job": self.paid,
            "cost_units_per_job": self.cost,
        }


def outlay(market: Pricing, parameters: Parameters, episodes: int) -> Outlay:
    """Play the market through with the markup that its nodes would add."""
    parameters = replace(parameters, max_uplift_ppm=market.uplift_ppm)
    markup = best_markup(market.scene, parameters, episodes) if market.strategic else 0
    results = [_play(market.scene, seed, markup, markup, parameters)[0] for seed in range(episodes)]
    served = max(1, sum(result.served for result in results))
    paid, cost = sum(r.paid for r in results), sum(r.cost for r in results)
    return Outlay(market, markup, paid / served, cost / served)


def best_markup(scene: Scene, parameters: Parameters, episodes: int) -> int:
    """Where answering each other's markups ends, or the last of a few rounds if it doesn't."""
    markup = 0
    for _ in range(_ROUNDS):
        earned = {
            own: sum(_play(scene, seed, own, markup, parameters)[1] for seed in range(episodes))
            for own in GRID
        }
        answer = max(GRID, key=lambda own: earned[own])
        if answer == markup:
            break
        markup = answer
    return markup


def _play(
    scene: Scene, seed: int, own: int, others: int, parameters: Parameters
) -> tuple[Result, float]:
    """The episode's result and what its first node earns, at these markups in per cent."""
    episode = draw(scene, seed)
    first, *rest = episode.machines
    mine = priced(1 + own / 100)([first])
    rivals = [face for machine in rest for face in priced(1 + others / 100)([machine])]
    result = Play(episode, [*mine, *rivals], Frozen(), parameters).run()
    return result, result.profit[mine[0].payout]
