"""Weighing what several parties say, so that none of them says more than its share.

Weights are millionths of a sample. A `Pool` keeps for each party what it said. A party's sample
fades what that party said before, and nothing of the others: nobody can talk evidence away. It
fades by `1 − decay` times the number of parties, so all of them together remember as many samples
as one alone would: 1 / (1 − decay). When the pool is read, every party's weight is cut so that it
is at most `share` of the whole, the prior included. A pool holds the parties heard last, 32 at
most.

`bounded` reads the same evidence once by gateway and once by payer, and takes the value nearer to
the start: what counts must hold whichever way the evidence is grouped.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from pinaivu.reputation.samples import Finding, Sample

MILLION: Final = 10**6
MOST_PARTIES: Final = 32


class Cell(Struct):
    """What one party said of one node: faded sums. `heard` orders parties by when they spoke."""

    heard: int = 0
    weight: int = 0
    good: int = 0
    timed: int = 0
    first_ms: int = 0  # weight · milliseconds
    token_us: int = 0  # weight · microseconds

    def add(self, sample: Sample, weight: int, kept_ppm: int, now: int) -> None:
        """Fade what was said before and add one sample."""
        self.heard = now
        self.weight = self.weight * kept_ppm // MILLION + weight
        self.good = self.good * kept_ppm // MILLION
        if sample.finding == Finding.WELL:
            self.good += weight
        if sample.times is not None:
            self.timed = self.timed * kept_ppm // MILLION + weight
            self.first_ms = self.first_ms * kept_ppm // MILLION + weight * sample.times.first_ms
            self.token_us = self.token_us * kept_ppm // MILLION + weight * sample.times.token_us


class Said(Struct, frozen=True):
    """One party's word: a mean and the weight behind it."""

    weight: int
    mean: int


Pool = dict[bytes, Cell]


def add(pool: Pool, party: bytes, sample: Sample, weight: int, decay_ppm: int, now: int) -> None:
    """Add a party's sample; the party heard longest ago gives way to a thirty-third one."""
    cell = pool.get(party)
    if cell is None:
        if len(pool) == MOST_PARTIES:
            del pool[min(pool, key=lambda known: pool[known].heard)]
        cell = pool[party] = Cell()
    kept_ppm = max(0, MILLION - (MILLION - decay_ppm) * len(pool))
    cell.add(sample, weight, kept_ppm, now)


def successes(pool: Pool) -> list[Said]:
    """Each party's share of good samples, parts per million."""
    return [Said(c.weight, c.good * MILLION // c.weight) for c in pool.values() if c.weight]


def first_times(pool: Pool) -> list[Said]:
    """Each party's mean time to first token, milliseconds."""
    return [Said(c.timed, c.first_ms // c.timed) for c in pool.values() if c.timed]


def token_times(pool: Pool) -> list[Said]:
    """Each party's mean time per token, microseconds."""
    return [Said(c.timed, c.token_us // c.timed) for c in pool.values() if c.timed]


def ceiling(weights: Sequence[int], prior: int, share_ppm: int) -> int:
    """The largest weight of one party: `share_ppm` of the prior and all weights cut to it.

    With j parties above it and `rest` the prior and the weights of the others, it is
    floor(share·rest / (1 − j·share)). At most 1/share parties are ever cut.
    """
    rest, cut = prior + sum(weights), 0
    most = rest * share_ppm // MILLION
    if not weights or max(weights) <= most:
        return most
    left = sorted(weights)
    while left and left[-1] > most:
        rest -= left.pop()
        cut += 1
        most = rest * share_ppm // (MILLION - cut * share_ppm)
    return most


def pooled(said: Sequence[Said], prior: int, start: int, share_ppm: int) -> tuple[int, int]:
    """The mean of `start`, weighing `prior`, and all parties; and the parties' weight in it."""
    most = ceiling([word.weight for word in said], prior, share_ppm)
    weight = total = 0
    for word in said:
        counted = min(word.weight, most)
        weight += counted
        total += counted * word.mean
    if prior + weight == 0:
        return start, 0
    return (prior * start + total) // (prior + weight), weight


def bounded(
    by_gateway: Sequence[Said], by_payer: Sequence[Said], prior: int, start: int, share_ppm: int
) -> tuple[int, int]:
    """The reading nearer to the start, or the start where they lie on both sides of it.

    With it the lesser of both weights.
    """
    one, one_weight = pooled(by_gateway, prior, start, share_ppm)
    other, other_weight = pooled(by_payer, prior, start, share_ppm)
    return sorted((start, one, other))[1], min(one_weight, other_weight)


def lower_median(values: Sequence[int]) -> int:
    """The middle value, of two the lower; 0 where there is none."""
    return sorted(values)[(len(values) - 1) // 2] if values else 0
