"""The economics bench: its bookkeeping is right, its comparisons are paired, its output is whole.

What strategies gain is the bench's to say (`make bench-auction-economics`); nothing of it is
asserted here.
"""

from dataclasses import replace
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from bench import auction_economics as economics
from bench.auction_faces import Face, Frozen, Learning, wallet
from bench.auction_payers import MARKETS, outlay
from bench.auction_picture import draw_picture
from bench.auction_play import Play, Result, offer_of
from bench.auction_strategies import CONTESTS, honest
from bench.auction_tally import Tally
from bench.auction_world import FEE_PPM, MILLION, Episode, Scene, draw
from pinaivu.codes import Clearing
from pinaivu.manifest import local_development_parameters

PARAMETERS: Final = local_development_parameters("http://127.0.0.1")
ALONE: Final = Scene(name="alone", fewest=1, most=1)
CROWD: Final = Scene(name="crowd", fewest=4, most=4)


def faces_of(episode: Episode) -> list[Face]:
    return [face for machine in episode.machines for face in honest([machine])]


def played(episode: Episode, faces: list[Face]) -> Result:
    return Play(episode, faces, Frozen(), PARAMETERS).run()


def certain(scene: Scene, seed: int) -> Episode:
    """An episode whose machines never fail."""
    episode = draw(scene, seed)
    return replace(episode, machines=tuple(replace(m, success=1.0) for m in episode.machines))


@pytest.mark.parametrize("contest", range(len(CONTESTS)), ids=lambda i: CONTESTS[i].scene.name)
def test_every_strategy_plays_every_scene(contest: int) -> None:
    """Each episode counts once, with all its jobs."""
    found, tallies = economics.play_chunk(economics.Chunk(contest, 0, 2, PARAMETERS))
    assert found == contest
    assert {s.name for s in CONTESTS[contest].strategies} == tallies.keys()
    jobs = CONTESTS[contest].scene.jobs
    assert all((t.episodes, t.jobs) == (2, 2 * jobs) for t in tallies.values())


def test_a_seed_gives_one_episode() -> None:
    """The same machines, jobs and failures for every strategy."""
    assert draw(CROWD, 5) == draw(CROWD, 5)
    assert draw(CROWD, 5) != draw(CROWD, 6)


def test_profit_is_what_is_paid_less_fee_and_true_cost() -> None:
    """Alone and truthful: paid the break-even price, so next to nothing is left."""
    episode = certain(ALONE, 1)
    (face,), (task,) = faces_of(episode), episode.tasks
    result = played(episode, [face])
    due = task.prompt_tokens * (face.price // 4) + task.output_tokens * face.price
    paid = -(-due // MILLION)
    assert result.revenue[face.payout] == result.paid == paid
    expected = paid * (1 - FEE_PPM / MILLION) - face.machine.cost(
        task.prompt_tokens, task.output_tokens
    )
    assert result.profit[face.payout] == pytest.approx(expected)
    assert 0 <= result.profit[face.payout] < 2
    assert result.clearings == {Clearing.LONE: 1}


def test_asking_more_when_alone_is_all_profit() -> None:
    """A tenth more, less the fee."""
    episode = certain(ALONE, 1)
    (face,) = faces_of(episode)
    dearer = replace(face, price=face.price * 11 // 10)
    less, more = (played(episode, [f]) for f in (face, dearer))
    extra = more.profit[face.payout] - less.profit[face.payout]
    assert extra == pytest.approx(0.1 * less.paid * (1 - FEE_PPM / MILLION), rel=0.01)


def test_who_refuses_leaves_the_job_to_the_next_rank() -> None:
    """And earns nothing with it."""
    episode = certain(CROWD, 2)
    faces = faces_of(episode)
    first = next(w for w, won in played(episode, faces).wins.items() if won)
    result = played(
        episode,
        [replace(f, refuses=lambda _: True) if f.payout == first else f for f in faces],
    )
    assert result.served == 1
    assert result.wins[first] == 0


def test_slots_that_are_taken_take_no_part() -> None:
    """Two jobs at one moment, one slot: the second goes to nobody."""
    episode = certain(replace(ALONE, jobs=2), 3)
    tasks = tuple(replace(task, at_ms=0.0) for task in episode.tasks)
    (face,) = faces_of(episode)
    episode = replace(episode, tasks=tasks)
    assert played(episode, [face]).served == 2
    assert played(episode, [replace(face, slots=1)]).served == 1


def test_a_boast_is_found_out_over_an_episode() -> None:
    """Unknown and promising twice one's speed: believed at first, calibrated later."""
    episode = certain(replace(ALONE, jobs=100), 1)
    (face,) = faces_of(episode)
    boast = replace(face, tps_milli=2 * face.tps_milli, ttft_ms=face.ttft_ms // 2)
    memory, offer = Learning(PARAMETERS), offer_of(boast, wallet(boast.name))
    before = memory.standing(offer, boast)
    Play(episode, [boast], memory, PARAMETERS).run()
    after = memory.standing(offer, boast)
    assert (before.cal_t, before.cal_s, before.newcomer) == (1000, 1000, True)
    assert after.cal_t == pytest.approx(2000, rel=0.05)
    assert after.cal_s == pytest.approx(2000, rel=0.05)
    assert not after.newcomer
    assert after.success_ppm > before.success_ppm


def test_veterans_begin_known_and_others_do_not() -> None:
    """The strategist arrives in a market whose other nodes have a past."""
    faces = faces_of(certain(CROWD, 1))
    memory = Learning(PARAMETERS, faces[1:])
    new = [memory.standing(offer_of(f, wallet(f.name)), f).newcomer for f in faces]
    assert new == [True, False, False, False]


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([1.0, 1.1, 0.9, 1.0], "pays"),
        ([-1.0, -1.1, -0.9], "doesn't pay"),
        ([5.0, -5.0], "not resolved"),
        ([0.0, 0.0], "no difference"),
    ],
)
def test_a_verdict_follows_from_the_interval(differences: list[float], verdict: str) -> None:
    """And sums over processes are sums over episodes."""
    parts = [Tally(), Tally()]
    for number, gain in enumerate(differences):
        truth, tried = Result(), Result()
        tried.profit[b"w"] = gain
        parts[number % 2].add(1, (truth, {b"w"}), (tried, {b"w"}))
    parts[0] += parts[1]
    assert parts[0].verdict == verdict
    assert parts[0].gain == pytest.approx(sum(differences) / len(differences))


def test_an_interval_is_1_96_standard_errors() -> None:
    """Differences 1 and 3: mean 2, deviation 1, two of them."""
    tally = Tally()
    for gain in (1.0, 3.0):
        tried = Result()
        tried.profit[b"w"] = gain
        tally.add(1, (Result(), {b"w"}), (tried, {b"w"}))
    assert tally.gain == 2.0
    assert tally.half_width == pytest.approx(1.96 / 2**0.5)


def test_a_whole_run_reports_draws_and_writes_every_strategy() -> None:
    """Tables, JSON and picture name each scene and strategy."""
    tallies = {
        CONTESTS[i].scene.name: economics.play_chunk(economics.Chunk(i, 0, 2, PARAMETERS))[1]
        for i in (0, 1)
    }
    outlays = [outlay(market, PARAMETERS, 3) for market in MARKETS[:2]]
    report = economics.report(tallies, outlays)
    figures = economics.to_json(tallies, outlays, 2)
    picture = draw_picture(tallies)
    texts = {element.text for element in ET.fromstring(picture).iter()}  # noqa: S314 - our own
    for scene, found in tallies.items():
        assert scene in report
        assert scene in texts
        for name in found:
            assert f"  {name} " in report
            assert name in texts
    assert figures.keys() == {"episodes", "load", "strategies", "payers"}


def test_work_is_cut_without_losing_an_episode() -> None:
    """Chunks of one contest follow each other without a gap."""
    for index, contest in enumerate(CONTESTS):
        cut = [c for c in economics.chunks(1_234, PARAMETERS) if c.contest == index]
        assert [c.first for c in cut] == [sum(b.count for b in cut[:i]) for i in range(len(cut))]
        assert sum(c.count for c in cut) == max(2, round(1_234 * contest.weight))
