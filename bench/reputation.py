"""What reputation does to over-promisers, newcomers and nodes that somebody lies about.

    make bench-reputation

Simulated markets through the real rule and the real state machine (`bench.reputation_market`). All
figures are means over random markets with a 95 % interval; liars and over-promisers are compared
with the same market without them. Writes `bench/out/reputation.json`. docs/reputation.md explains.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt
from pathlib import Path
from random import Random
from statistics import mean, stdev
from typing import Final

from msgspec.structs import replace

from bench.reputation_market import (
    PRICE,
    RULES,
    Asked,
    MarketSimulation,
    SimulatedNode,
    honest,
    party,
)
from pinaivu.manifest import Parameters

OUT: Final = Path(__file__).parent / "out" / "reputation.json"
MARKETS: Final = 8
NODES: Final = 10
WARM: Final = 400  # jobs until every node is known
SPAN: Final = 400  # jobs over which shares are counted
UNGUARDED: Final = replace(RULES, party_share_ppm=10**6)
Figures = dict[str, dict[str, float]]


def _random(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - a simulation that can be repeated


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and half of its 95 % interval."""
    half = 1.96 * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
    return {"mean": mean(values), "half": half}


def over_promiser(seed: int) -> dict[str, float]:
    """Shares of wins of a node that promises twice its speed, in a market where all are new."""
    found = {}
    cases = {"honest": (1.0, True), "boasts": (2.0, True), "boasts, believed": (2.0, False)}
    for name, (boast, calibrated) in cases.items():
        nodes = [SimulatedNode(number) for number in range(NODES)]
        nodes[0].boast, nodes[0].calibrated = boast, calibrated
        market = MarketSimulation(_random(seed), nodes, honest())
        market.run(100 + SPAN)
        found[f"{name}: first 100 jobs"] = market.share(nodes[0].address, 0, 100)
        found[f"{name}: after 100 jobs"] = market.share(nodes[0].address, 100, 100 + SPAN)
    return found


def newcomer(seed: int, others: int, explore_ppm: int) -> dict[str, float]:
    """Jobs of the market, and own ones, until an equal newcomer has a fair share of the last."""
    rules = replace(RULES, explore_ppm=explore_ppm)
    nodes = [SimulatedNode(number) for number in range(others)]
    joined = SimulatedNode(others, since=WARM)
    market = MarketSimulation(_random(seed), [*nodes, joined], honest(), rules=rules)
    market.run(WARM)
    window, fair, limit = 20 * (others + 1), 1 / (others + 1), 10_000
    while len(market.wins) < WARM + limit:
        market.run(1)
        now = len(market.wins)
        start = max(WARM, now - window)
        if now - start == window and market.share(joined.address, start, now) >= 0.9 * fair:
            break
    own = sum(winner == joined.address for _, winner in market.wins)
    return {
        "jobs": len(market.wins) - WARM,
        "own jobs": own,
        "gave up": float(len(market.wins) >= WARM + limit),
    }


def lying(kind: str, lie: str, part: float) -> Callable[[Random], Asked]:
    """Honest jobs, and a `part` of jobs from a liar about node 0.

    A lying gateway serves all payers; a lying payer owns four gateways; a flood allows node 0 only.
    """
    truthful, rival = honest(), SimulatedNode(0).address

    def asks(random: Random) -> Asked:
        asked = truthful(random)
        if random.random() >= part:
            return asked
        if kind == "payer":
            return Asked(party(2, 100 + random.randrange(4)), party(3, 100), None, rival, lie)
        only = rival if kind == "flood" else None
        return Asked(party(2, 100), asked.payer, only, rival, lie)

    return asks


LIARS: Final = {
    "gateway, an eighth of the jobs": ("gateway", 0.125),
    "payer with 4 gateways, an eighth": ("payer", 0.125),
    "gateway, half of all jobs, for the rival only": ("flood", 0.5),
}


def lied_about(seed: int, lie: str, rules: Parameters) -> dict[str, float]:
    """What a liar takes from a node: success, and share of the jobs that others ask for."""
    found = {}
    for name, (kind, part) in LIARS.items():
        shares, successes = [], []
        for told in ("", lie):
            nodes = [SimulatedNode(number) for number in range(NODES)]
            market = MarketSimulation(_random(seed), nodes, honest(), rules=rules)
            market.run(WARM)
            market.asks = lying(kind, told, part)
            market.run(2 * SPAN)
            address, stop = nodes[0].address, WARM + 2 * SPAN
            shares.append(market.share(address, WARM + SPAN, stop, honest=True))
            known = market.reputation.standing(nodes[0].offer(PRICE))
            successes.append(known.success_ppm / 10**6)
        found[f"{name}: share honest"] = shares[0]
        found[f"{name}: share lied about"] = shares[1]
        found[f"{name}: success lost"] = successes[0] - successes[1]
    return found


def over_markets(measure: Callable[[int], dict[str, float]], markets: int) -> Figures:
    """Every figure of a measurement over so many random markets."""
    rows = [measure(seed) for seed in range(markets)]
    return {name: interval([row[name] for row in rows]) for name in rows[0]}


MEASURES: Final[dict[str, Callable[[int], dict[str, float]]]] = {
    f"over-promiser among {NODES}": over_promiser,
    "newcomer among 5, 2 % exploration": partial(newcomer, others=4, explore_ppm=20_000),
    "newcomer among 5, no exploration": partial(newcomer, others=4, explore_ppm=0),
    "newcomer among 10, 2 % exploration": partial(newcomer, others=9, explore_ppm=20_000),
    "newcomer among 10, no exploration": partial(newcomer, others=9, explore_ppm=0),
    "reported as failed": partial(lied_about, lie="failed", rules=RULES),
    "reported as slow": partial(lied_about, lie="slow", rules=RULES),
    "reported as failed, without the cap": partial(lied_about, lie="failed", rules=UNGUARDED),
}


def main() -> None:
    """Print the tables and write the JSON; an argument is the number of markets."""
    markets = int(sys.argv[1]) if len(sys.argv) > 1 else MARKETS
    tables = {title: over_markets(measure, markets) for title, measure in MEASURES.items()}
    for title, figures in tables.items():
        print(title)
        for name, figure in figures.items():
            print(f"  {name:72} {figure['mean']:9.3f} ± {figure['half']:.3f}")
    load = os.getloadavg()[0]
    print(f"{markets} markets each, machine load {load:.1f}")
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(
        json.dumps({"markets": markets, "tables": tables, "load": load}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
