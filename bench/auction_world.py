"""Simulated machines and jobs for `bench.auction_economics`: who could serve, and what is asked.

Everything here is drawn from a seed and is an assumption, not a measurement: machines whose costs
(median 2 per million output tokens), speeds and reliability scatter around a median, jobs of
lognormal prompts and Beta-distributed answers. A machine's cost per token is what one more token
costs its owner; the ratio of input to output cost is the registry's unless a scene says otherwise,
so that one price can be true for every job.
"""

import math
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Final

MILLION: Final = 10**6
RATIO_PPM: Final = 250_000
FEE_PPM: Final = 25_000
"""The log's fee out of a node's credit, as in the local parameters (250 bps)."""
MEDIAN_COST: Final = 2_000_000
_SHARE: Final = (1.2, 2.2)
_MEAN_SHARE: Final = _SHARE[0] / sum(_SHARE)
_MOST_TOKENS: Final = (256, 1024, 2048)
_PATIENCE: Final = (0, 20, 20, 20, 200)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a node really is: base units per million tokens, ms, tokens per 1,000 s."""

    number: int
    cost_in: float
    cost_out: float
    ttft_ms: int
    tps_milli: int
    success: float
    slots: int

    def cost(self, prompt_tokens: int, output_tokens: float) -> float:
        """What serving costs the owner, base units."""
        return (prompt_tokens * self.cost_in + output_tokens * self.cost_out) / MILLION

    def break_even(self, prompt_tokens: int, output_tokens: float) -> int:
        """The price at which a job of these sizes earns nothing, fee included, rounded up."""
        weight = (prompt_tokens * RATIO_PPM / MILLION + output_tokens) * (1 - FEE_PPM / MILLION)
        return math.ceil(self.cost(prompt_tokens, output_tokens) * MILLION / weight)

    def takes_ms(self, output_tokens: int) -> float:
        """How long an answer occupies a slot."""
        return self.ttft_ms + output_tokens * MILLION / self.tps_milli


@dataclass(frozen=True, slots=True)
class Task:
    """One job, with what nobody knows beforehand: its answer's length and who would fail."""

    nonce: bytes
    at_ms: float
    prompt_tokens: int
    max_output_tokens: int
    expected_tokens: int
    output_tokens: int
    value_of_time: int
    limit_out: int

    @property
    def limit_in(self) -> int:
        """The payer's ceiling on the input price: the same multiple of the ratio."""
        return self.limit_out * RATIO_PPM // MILLION

    @property
    def reserve(self) -> int:
        """The most the job may cost: both counts at the ceilings."""
        most = self.prompt_tokens * self.limit_in + self.max_output_tokens * self.limit_out
        return -(-most // MILLION)

    def completes(self, machine: Machine) -> bool:
        """Whether the machine would see this job through: the same answer under any strategy."""
        drawn = int.from_bytes(sha256(b"fate" + self.nonce + bytes([machine.number])).digest()[:7])
        return drawn < machine.success * (1 << 56)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A kind of market. `own` of the machines are the strategist's.

    `cost_ratio` multiplies the input cost away from the registry's ratio; `length_factor` makes the
    answers longer or shorter than the coordinator's M. With `tight` slots bind; else they never do.
    `learns` takes success and calibrations from experience instead of the truth; rivals have a past
    then, unless all are `fresh`.
    """

    name: str
    fewest: int
    most: int
    own: int = 1
    jobs: int = 1
    cost_ratio: float = 1.0
    length_factor: float = 1.0
    tight: bool = False
    learns: bool = False
    fresh: bool = False
    explore_ppm: int = 0


@dataclass(frozen=True, slots=True)
class Episode:
    """One draw of a scene: the strategist's machines come first."""

    scene: Scene
    machines: tuple[Machine, ...]
    tasks: tuple[Task, ...]


def draw(scene: Scene, seed: int) -> Episode:
    """The episode of a seed: the same one for every strategy."""
    random = Random(f"{scene.name} {seed}")  # noqa: S311 - repeatable on purpose, secures nothing
    count = scene.own + random.randint(scene.fewest, scene.most) - 1
    machines = tuple(_machine(random, number, scene) for number in range(count))
    tasks, now = [], 0.0
    for _ in range(scene.jobs):
        now += random.expovariate(1 / 800)
        tasks.append(_task(random, now, scene))
    return Episode(scene, machines, tuple(tasks))


def _machine(random: Random, number: int, scene: Scene) -> Machine:
    cost = MEDIAN_COST * random.lognormvariate(0, 0.3)
    return Machine(
        number=number,
        cost_in=cost * RATIO_PPM / MILLION * scene.cost_ratio,
        cost_out=cost,
        ttft_ms=round(400 * random.lognormvariate(0, 0.5)),
        tps_milli=round(60_000 * random.lognormvariate(0, 0.4)),
        success=max(0.85, min(0.999, 1 - random.expovariate(50))),
        slots=random.randint(1, 3) if scene.tight else 1_000,
    )


def _task(random: Random, at_ms: float, scene: Scene) -> Task:
    most = random.choice(_MOST_TOKENS)
    length = most * random.betavariate(*_SHARE) * scene.length_factor
    return Task(
        nonce=random.randbytes(32),
        at_ms=at_ms,
        prompt_tokens=min(20_000, round(500 * random.lognormvariate(0, 1))),
        max_output_tokens=most,
        expected_tokens=round(most * _MEAN_SHARE),
        output_tokens=max(1, min(most, round(length))),
        value_of_time=random.choice(_PATIENCE),
        limit_out=round(3 * MEDIAN_COST * random.lognormvariate(0, 0.3)),
    )
