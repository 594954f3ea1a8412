"""What a node could do instead of telling the truth, by scene.

Truth is: one identity per machine, all of an owner's on one payout wallet; stand at the break-even
price, fee included; promise the speed one has; make no live bid. Each strategy here changes what
one owner says; everybody else stays truthful.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.auction_faces import Face, truthful, wallet
from bench.auction_play import Clear, lone_at_bid
from bench.auction_world import Machine, Scene, Task
from pinaivu.auction import rule
from pinaivu.auction.rule import Cleared

PROMPT: Final = 820
OUTPUT: Final = 390
"""The mean job, which a standing price has to be made for."""
_EXPLORED: Final = 20_000
_FULL_DISCOUNT: Final = 1.25
"""Standing this many times too high, a discount of 20 % comes back to the truth."""

Faces = Callable[[Sequence[Machine]], list[Face]]


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to deviate: the owner's machines to the identities it shows."""

    name: str
    faces: Faces


def honest(machines: Sequence[Machine]) -> list[Face]:
    """The truth of one owner."""
    payout = wallet(f"payout {machines[0].number}")
    return [replace(truthful(m, m.break_even(PROMPT, OUTPUT)), payout=payout) for m in machines]


@dataclass(frozen=True, slots=True)
class Contest:
    """A scene, what truth is in it, and what is tried instead; each rival plays `rivals`."""

    scene: Scene
    strategies: tuple[Strategy, ...]
    truth: Faces = honest
    rivals: Faces = honest
    weight: float = 1.0
    """Share of the usual number of episodes: the long ones get fewer."""
    clear: Clear = rule.clear


def _each(change: Callable[[Face], Face], base: Faces = honest) -> Faces:
    return lambda machines: [change(face) for face in base(machines)]


def priced(factor: float) -> Faces:
    """The truth times `factor` as standing price."""
    return _each(lambda f: replace(f, price=max(1, round(f.price * factor))))


def _high_then(standing: float, live: float) -> Faces:
    """Stand at `standing` times the truth and bid `live` times the truth."""

    def change(face: Face) -> Face:
        bid = max(1, round(face.price * live))
        return replace(face, price=round(face.price * standing), bid=lambda _: bid)

    return _each(change)


def _promising(factor: float, base: Faces = honest) -> Faces:
    """Promise to be `factor` times as fast as one is."""
    return _each(
        lambda f: replace(
            f,
            ttft_ms=max(1, round(f.ttft_ms / factor)),
            tps_milli=max(1, round(f.tps_milli * factor)),
        ),
        base,
    )


def _with_sister(change: Callable[[Face], Face], *, own_wallet: bool) -> Faces:
    """A second identity on the first machine, changed by `change`."""

    def faces(machines: Sequence[Machine]) -> list[Face]:
        first = honest(machines)[0]
        payout = wallet("payout of the sister") if own_wallet else first.payout
        return [first, change(replace(first, name="sister", payout=payout))]

    return faces


def _dearer(factor: float) -> Callable[[Face], Face]:
    return lambda f: replace(f, price=max(1, round(f.price * factor)))


def _refusing_below(margin: float) -> Callable[[Face], Face]:
    """Refuse whatever pays less than `margin` over the truth, and leave it to the next rank."""

    def change(face: Face) -> Face:
        least = face.price * (1 + margin)

        def refuses(cleared: Cleared) -> bool:
            return cleared.price_out < least

        return replace(face, refuses=refuses)

    return change


def _separate(machines: Sequence[Machine]) -> list[Face]:
    return [replace(f, payout=wallet(f"own {f.name}")) for f in honest(machines)]


def _one_funder(machines: Sequence[Machine]) -> list[Face]:
    return [replace(f, funder=wallet("bond funder")) for f in _separate(machines)]


def _second_dearer(machines: Sequence[Machine]) -> list[Face]:
    faces = sorted(honest(machines), key=lambda f: f.price)
    return [faces[0], *(_dearer(1.5)(f) for f in faces[1:])]


def _at_job(length: float) -> Faces:
    """Stand 25 % high; bid the job's own break-even with answers `length` times M."""

    def change(face: Face) -> Face:
        def bid(task: Task) -> int:
            expected = task.expected_tokens * length
            return face.machine.break_even(task.prompt_tokens, expected)

        return replace(face, price=round(face.price * _FULL_DISCOUNT), bid=bid)

    return _each(change)


def _at_length(length: float) -> Faces:
    """Stand at the break-even price of answers `length` times as long as M."""
    return _each(
        lambda f: replace(f, price=f.machine.break_even(PROMPT, OUTPUT * length)),
    )


def _new(machines: Sequence[Machine]) -> list[Face]:
    return [replace(f, newcomer=True, explores=True) for f in honest(machines)]


def _five_new(machines: Sequence[Machine]) -> list[Face]:
    first = _new(machines)[0]
    return [replace(first, name=f"{first.name}, identity {k}") for k in range(5)]


def _halves(machines: Sequence[Machine]) -> list[Face]:
    """One machine's slots under two names: as many in all."""
    first = honest(machines)[0]
    half = first.slots // 2
    names = ((first.name, first.slots - half), ("sister", half))
    return [replace(first, name=name, slots=slots) for name, slots in names if slots]


def _exploring(machines: Sequence[Machine]) -> list[Face]:
    """The truth of an owner whose nodes take exploration jobs, as they do by default."""
    return [replace(f, explores=True) for f in honest(machines)]


def _renewing(base: Faces) -> Faces:
    return _each(lambda f: replace(f, renew_after=19), base)


PRICES: Final = (
    *(Strategy(f"offer {x:+d} %", priced(1 + x / 100)) for x in (-20, -5, 1, 5, 10, 25, 50)),
    Strategy("offer +25 %, live bid at cost", _high_then(_FULL_DISCOUNT, 1.0)),
    Strategy("offer +25 %, live bid +10 %", _high_then(_FULL_DISCOUNT, 1.1)),
    Strategy("offer at cost, live bid -20 %", _high_then(1.0, 0.8)),
)
PROMISES: Final = (
    Strategy("promises twice the speed, believed", _promising(2.0)),
    Strategy("promises half the speed, believed", _promising(0.5)),
)
DECOYS: Final = (
    *(
        Strategy(
            f"decoy of another wallet, +{x} %", _with_sister(_dearer(1 + x / 100), own_wallet=True)
        )
        for x in (5, 49, 199)
    ),
    Strategy("decoy of one's own wallet, +199 %", _with_sister(_dearer(2.99), own_wallet=False)),
    Strategy(
        "cheap decoy -20 % that refuses",
        _with_sister(lambda f: _refusing_below(99)(_dearer(0.8)(f)), own_wallet=True),
    ),
    Strategy("twice in the book, two wallets", _with_sister(lambda f: f, own_wallet=True)),
    Strategy("twice in the book, one wallet", _with_sister(lambda f: f, own_wallet=False)),
)
PAIRS: Final = (
    Strategy("two payout wallets", _separate),
    Strategy("two payout wallets, one bond funder", _one_funder),
    Strategy("one machine stays away", lambda machines: honest(machines[:1])),
    Strategy("dearer machine +50 %", _second_dearer),
    Strategy("refuse under +10 %, one wallet", _each(_refusing_below(0.1))),
    Strategy("refuse under +10 %, two wallets", _each(_refusing_below(0.1), _separate)),
)
OFF_RATIO: Final = (
    Strategy("live bid at the job's own cost", _at_job(1.0)),
    Strategy("offer +10 %", priced(1.1)),
)
NEWCOMERS: Final = (
    Strategy("declines exploration", _each(lambda f: replace(f, explores=False), _new)),
    Strategy("explores at +50 %", _each(_dearer(1.5), _new)),
    Strategy("five new identities, one wallet", _five_new),
)
_TWICE: Final = Strategy("promises twice the speed", _promising(2.0, _exploring))
_HALF: Final = Strategy("promises half the speed", _promising(0.5, _exploring))
LEARNING: Final = (
    Strategy("offer +10 %", _each(_dearer(1.1), _exploring)),
    _TWICE,
    _HALF,
    Strategy("declines exploration", honest),
    Strategy("new every 19 jobs", _renewing(_exploring)),
    Strategy("twice the speed, new every 19 jobs", _renewing(_promising(2.0, _exploring))),
    Strategy("refuses under +10 %", _each(_refusing_below(0.1), _exploring)),
)
LIVE: Final = (
    Strategy("live bid +5 %", _high_then(_FULL_DISCOUNT, 1.05)),
    Strategy("live bid +10 %", _high_then(_FULL_DISCOUNT, 1.1)),
    Strategy("no live bid", priced(_FULL_DISCOUNT)),
    Strategy("offer at cost", honest),
)
"""Against standing 25 % high and bidding at cost: what the price of who is alone does to bids."""
SLOTS: Final = (
    *(Strategy(f"offer {x:+d} %", priced(1 + x / 100)) for x in (5, 10, 25, 50, 100)),
    Strategy("slots under two names, one wallet", _halves),
)

CONTESTS: Final = (
    Contest(Scene(name="alone in the book", fewest=1, most=1), (*PRICES, *DECOYS)),
    Contest(Scene(name="two in the book", fewest=2, most=2), (*PRICES, *PROMISES, *DECOYS)),
    Contest(
        Scene(name="three to eight in the book", fewest=3, most=8),
        (*PRICES, *PROMISES, *DECOYS),
    ),
    Contest(
        Scene(name="owner of two machines, one to six rivals", fewest=2, most=7, own=2),
        PAIRS,
    ),
    *(
        Contest(
            Scene(name=f"answers {factor} times M", fewest=3, most=8, length_factor=factor),
            (
                Strategy("prices by the true length", _at_length(factor)),
                Strategy("offer +10 %", priced(1.1)),
                Strategy("offer -5 %", priced(0.95)),
            ),
        )
        for factor in (0.5, 1.5)
    ),
    Contest(
        Scene(name="input costs four times the ratio", fewest=3, most=8, cost_ratio=4),
        OFF_RATIO,
    ),
    *(
        Contest(
            Scene(
                name=f"input costs four times the ratio, answers {factor} times M",
                fewest=3,
                most=8,
                cost_ratio=4,
                length_factor=factor,
            ),
            (Strategy("prices by the true length", _at_length(factor)),),
        )
        for factor in (0.5, 1.5)
    ),
    Contest(
        Scene(
            name="three to eight newcomers, 2 % exploration",
            fewest=3,
            most=8,
            explore_ppm=_EXPLORED,
        ),
        NEWCOMERS,
        truth=_new,
        rivals=_new,
    ),
    Contest(
        Scene(
            name="400 jobs, reputation learns",
            fewest=3,
            most=6,
            jobs=400,
            learns=True,
            explore_ppm=_EXPLORED,
        ),
        LEARNING,
        truth=_exploring,
        rivals=_exploring,
        weight=0.02,
    ),
    Contest(
        Scene(
            name="400 jobs, nobody known, reputation learns",
            fewest=3,
            most=6,
            jobs=400,
            learns=True,
            fresh=True,
            explore_ppm=_EXPLORED,
        ),
        (_TWICE, _HALF),
        truth=_exploring,
        rivals=_exploring,
        weight=0.02,
    ),
    Contest(
        Scene(name="200 jobs, slots fill up", fewest=3, most=6, jobs=200, tight=True),
        SLOTS,
        weight=0.02,
    ),
    *(
        Contest(
            Scene(name=f"{market}, all 25 % high; alone is paid its {paid}", fewest=few, most=most),
            LIVE,
            truth=_high_then(_FULL_DISCOUNT, 1.0),
            rivals=_high_then(_FULL_DISCOUNT, 1.0),
            weight=0.5,
            clear=clear,
        )
        for market, few, most in (("alone", 1, 1), ("two", 2, 2), ("three to eight", 3, 8))
        for paid, clear in (("offer", rule.clear), ("bid", lone_at_bid))
    ),
)
