"""What a node gains by not telling the truth, in simulated markets under the real rule.

    make bench-auction-economics               # some minutes on two cores
    make bench-auction-economics DEEP=1        # ten times as many auctions
    make bench-auction-economics UPLIFT=500000 # another max_uplift_ppm: tables only

Every strategy of `bench.auction_strategies` plays the same episodes as the truth: same machines,
jobs, nonces and failures, only one owner's reports change. Its gain is the mean difference in
profit with a 95 % interval (`bench.auction_tally`); profit is what is paid less fee and true cost
(`bench.auction_play`). The auction is `pinaivu.auction.rule` itself, with the local parameters.

What it doesn't show: other markets than those drawn in `bench.auction_world`, several who deviate
at once (the table of payers apart), and strategies nobody thought of. Of many true nulls one in
forty says "pays" by chance.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from bench.auction_faces import Face, Frozen, Learning, Memory
from bench.auction_payers import MARKETS, Outlay, outlay
from bench.auction_picture import draw_picture
from bench.auction_play import Play, Result
from bench.auction_strategies import CONTESTS, Contest
from bench.auction_tally import Tally
from bench.auction_world import Episode, draw
from pinaivu.manifest import Parameters, local_development_parameters

HERE: Final = Path(__file__).parent
OUT: Final = HERE / "out" / "auction_economics.json"
PICTURE: Final = HERE.parent / "docs" / "images" / "auction-economics.svg"
EPISODES: Final = 6_000
DEEP: Final = 60_000
_CHUNK: Final = 500
_SHARE_OF_TWENTY: Final = 100_000
"""A party's largest share where there are twenty; on a local network it is far higher."""

Tallies = dict[str, dict[str, Tally]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of work: some episodes of one contest."""

    contest: int
    first: int
    count: int
    parameters: Parameters


def play_chunk(chunk: Chunk) -> tuple[int, dict[str, Tally]]:
    """All strategies of a contest against its truth, over the chunk's episodes."""
    contest = CONTESTS[chunk.contest]
    tallies = {strategy.name: Tally() for strategy in contest.strategies}
    for seed in range(chunk.first, chunk.first + chunk.count):
        episode = draw(contest.scene, seed)
        own = episode.machines[: contest.scene.own]
        rivals = [
            face for m in episode.machines[contest.scene.own :] for face in contest.rivals([m])
        ]
        truth = _earned(contest, episode, contest.truth(own), rivals, chunk.parameters)
        for strategy in contest.strategies:
            tried = _earned(contest, episode, strategy.faces(own), rivals, chunk.parameters)
            tallies[strategy.name].add(len(episode.tasks), truth, tried)
    return chunk.contest, tallies


def _earned(
    contest: Contest, episode: Episode, own: list[Face], rivals: list[Face], parameters: Parameters
) -> tuple[Result, set[bytes]]:
    memory = _memory(episode, rivals, parameters)
    result = Play(episode, [*own, *rivals], memory, parameters, contest.clear).run()
    return result, {face.payout for face in own}


def _memory(episode: Episode, rivals: list[Face], parameters: Parameters) -> Memory:
    if not episode.scene.learns:
        return Frozen()
    many = replace(parameters, party_share_ppm=_SHARE_OF_TWENTY)
    return Learning(many, () if episode.scene.fresh else rivals)


def chunks(episodes: int, parameters: Parameters) -> Iterator[Chunk]:
    """The whole measurement in pieces of about equal length."""
    for index, contest in enumerate(CONTESTS):
        count, size = (max(2, round(n * contest.weight)) for n in (episodes, _CHUNK))
        for first in range(0, count, size):
            yield Chunk(index, first, min(size, count - first), parameters)


def measure(episodes: int, parameters: Parameters, workers: int) -> tuple[Tallies, list[Outlay]]:
    """Every contest's tallies by scene and strategy, and what payers pay under which rule."""
    tallies: Tallies = {c.scene.name: {s.name: Tally() for s in c.strategies} for c in CONTESTS}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        markets = [pool.submit(outlay, m, parameters, max(20, episodes // 8)) for m in MARKETS]
        for index, part in pool.map(play_chunk, chunks(episodes, parameters)):
            for name, tally in part.items():
                tallies[CONTESTS[index].scene.name][name] += tally
        return tallies, [market.result() for market in markets]


def to_json(tallies: Tallies, outlays: list[Outlay], episodes: int) -> dict[str, object]:
    """What `bench/out/auction_economics.json` holds."""
    return {
        "episodes": episodes,
        "load": os.getloadavg()[0],
        "strategies": {
            scene: {name: tally.to_json() for name, tally in found.items()}
            for scene, found in tallies.items()
        },
        "payers": [row.to_json() for row in outlays],
    }


def report(tallies: Mapping[str, Mapping[str, Tally]], outlays: list[Outlay]) -> str:
    """The tables, for somebody who has not read the code."""
    lines = [
        "Gain over truth of one owner; everybody else is truthful. Base units per auction (10⁶ are",
        "1 token of money) with the 95 % interval, then in % of truthful profit (— where truth",
        "earns next to nothing) and of what truth is paid. With a rival: the part of the gain from",
        "episodes in which the owner never was the only bidder left.",
    ]
    for scene, found in tallies.items():
        lines += ["", *_heading(scene, next(iter(found.values())))]
        lines += [_line(name, tally) for name, tally in found.items()]
    lines += [
        "",
        "── what payers pay per job, by how the winner's price is made",
        f"  {'market':28} {'winner is paid':43} {'markup':>7} {'cost':>7} {'paid':>7}",
        *(row.line() for row in outlays),
    ]
    return "\n".join(lines)


def _heading(scene: str, truth: Tally) -> tuple[str, str]:
    about = (
        f"── {scene}: {truth.jobs:,} auctions each; truth is paid "
        f"{truth.truth_revenue / truth.jobs:.0f} and earns {truth.truth_profit / truth.jobs:.1f} "
        f"per auction, wins {100 * truth.truth_wins / truth.jobs:.1f} %"
    )
    columns = (
        f"{'gain':>8} {'± 95 %':>7} {'of profit':>9} {'of paid':>8} {'wins':>7}  "
        f"{'with a rival':>15}  verdict"
    )
    return about, f"  {'strategy':38} {columns}"


def _line(name: str, tally: Tally) -> str:
    profit = tally.share(tally.gain, tally.truth_profit)
    negligible = tally.truth_profit < 0.01 * tally.truth_revenue
    of_profit = "—" if negligible or profit is None else f"{profit:+.1f} %"
    revenue = tally.share(tally.gain, tally.truth_revenue)
    of_paid = "—" if revenue is None else f"{revenue:+.1f} %"
    return (
        f"  {name:38} {tally.gain:+8.2f} {tally.half_width:7.2f} {of_profit:>9} {of_paid:>8} "
        f"{100 * tally.tried_wins / tally.jobs:5.1f} %  {_rivalled(tally):>15}  {tally.verdict}"
    )


def _rivalled(tally: Tally) -> str:
    """The part with a rival; where an episode is many jobs, it is hardly ever without one."""
    if tally.jobs > tally.episodes:
        return "—"
    gain, half = tally.gain_rivalled
    return f"{gain:+.2f} ± {half:.2f}"


def main() -> None:
    """Print the tables, write the figures and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--deep", action="store_true", help=f"{DEEP:,} episodes")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--uplift-ppm", type=int, help="instead of the local parameters' own")
    options = parser.parse_args()
    episodes = DEEP if options.deep else options.episodes
    parameters = local_development_parameters("http://127.0.0.1")
    if options.uplift_ppm is not None:
        parameters = replace(parameters, max_uplift_ppm=options.uplift_ppm)
    began = time.perf_counter()
    tallies, outlays = measure(episodes, parameters, options.workers)
    print(report(tallies, outlays))
    if options.uplift_ppm is None:
        OUT.parent.mkdir(exist_ok=True)
        figures = to_json(tallies, outlays, episodes)
        OUT.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        PICTURE.write_text(draw_picture(tallies), encoding="utf-8")
    print(f"\n{time.perf_counter() - began:.0f} s, machine load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
