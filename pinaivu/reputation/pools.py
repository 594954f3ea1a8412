"""Weighing what several parties say, so that none of them says more than its share.

Weights are millionths of a sample. A `Pool` keeps what each gateway said of a node, and for each of
the payers whose jobs it was about, their part of it: what one pair says changes no other gateway's
sums. A gateway's sample fades what that gateway said before, and nothing of the others: nobody can
talk evidence away. It fades by (1 − decay) / share, so a gateway remembers share / (1 − decay)
samples, and as many gateways as have a full share together 1 / (1 − decay).

Read, every gateway is cut to one ceiling and then every payer: the largest ceiling that is at most
`share` of the prior and all that is left. Then each gateway has one word, and a share at either end
is left out of their mean. So gateways that serve one payer have one share together, and a gateway
that serves many payers spoils no word but its own.

Kept are the gateways heard last, and for each the payers heard last; the part of those before them
counts for their gateway alone.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct, field

from pinaivu.reputation.samples import Finding, Sample

MILLION: Final = 10**6
MOST_GATEWAYS: Final = 32
MOST_PAYERS: Final = 8
"""Payers known by gateway: to hide one behind others takes so many that the share is theirs."""
_MOST_TRIMMED_PPM: Final = 250_000


class Cell(Struct):
    """What was said of one node: faded sums."""

    weight: int = 0
    good: int = 0
    timed: int = 0
    first_ms: int = 0  # weight · milliseconds
    token_us: int = 0  # weight · microseconds

    def fade(self, kept_ppm: int, *, times: bool) -> None:
        """Let older samples count for less; those with times only when a timed one comes."""
        self.weight = self.weight * kept_ppm // MILLION
        self.good = self.good * kept_ppm // MILLION
        if times:
            self.timed = self.timed * kept_ppm // MILLION
            self.first_ms = self.first_ms * kept_ppm // MILLION
            self.token_us = self.token_us * kept_ppm // MILLION

    def add(self, sample: Sample, weight: int) -> None:
        """Count one sample."""
        self.weight += weight
        if sample.finding == Finding.WELL:
            self.good += weight
        if sample.times is not None:
            self.timed += weight
            self.first_ms += weight * sample.times.first_ms
            self.token_us += weight * sample.times.token_us

    def less(self, part: "Cell", most: int, whole: int) -> "Cell":
        """Without what `part` of it has over `most` parts in `whole`."""
        names, over = self.__struct_fields__, whole - most
        return Cell(*(getattr(self, n) - getattr(part, n) * over // whole for n in names))


class Row(Struct):
    """What one gateway said of one node, and the parts of it on the jobs of the last payers."""

    total: Cell = field(default_factory=Cell)
    payers: dict[bytes, Cell] = field(default_factory=dict)  # the one heard last comes last

    def add(self, payer: bytes, sample: Sample, weight: int, kept_ppm: int) -> None:
        """Fade what the gateway said before and add one sample."""
        part = self.payers.pop(payer, None) or Cell()
        self.payers[payer] = part
        if len(self.payers) > MOST_PAYERS:
            del self.payers[next(iter(self.payers))]
        for cell in (self.total, *self.payers.values()):
            cell.fade(kept_ppm, times=sample.times is not None)
        self.total.add(sample, weight)
        part.add(sample, weight)

    def within(self, most: int, over: Mapping[bytes, int]) -> Cell:
        """What is left with payers cut to `most` who have more, `over`, from all gateways."""
        left = self.total
        for payer in over.keys() & self.payers.keys():
            left = left.less(self.payers[payer], most, over[payer])
        return left


Pool = dict[bytes, Row]
"""By gateway; the one heard last comes last."""


def add(pool: Pool, gateway: bytes, payer: bytes, sample: Sample, weight: int, kept: int) -> None:
    """Add a sample; the gateway heard longest ago gives way to one too many. `kept` in ppm."""
    row = pool.pop(gateway, None) or Row()
    pool[gateway] = row
    if len(pool) > MOST_GATEWAYS:
        del pool[next(iter(pool))]
    row.add(payer, sample, weight, kept)


class Word(Struct, frozen=True):
    """One gateway's say: how much it weighs, and the sums that its means are taken from."""

    weight: int
    said: Cell


def within_shares(rows: Sequence[Row], prior: int, share_ppm: int) -> list[Word]:
    """The gateways' words, cut so that no gateway and no payer has more than its share of all.

    All is the prior and what is left. Newton's method from above, on a ceiling of which what is
    left is a concave function: with `fixed` what the ceiling doesn't cut, and the rest growing as
    it does, the next is share·fixed / (1 − share·rest/ceiling). At most one step for each party.
    """
    most = (prior + sum(row.total.weight for row in rows)) * share_ppm // MILLION
    while True:
        words, uncut = _cut(rows, most)
        whole, fixed = prior + sum(word.weight for word in words), prior + uncut
        if most * MILLION <= whole * share_ppm:
            return words
        slope = most * MILLION - (whole - fixed) * share_ppm
        most = min(most - 1, fixed * share_ppm * most // max(1, slope))


def _cut(rows: Sequence[Row], most: int) -> tuple[list[Word], int]:
    """Words with every gateway cut to `most`, then every payer; and the weight of the uncut."""
    over = _over(rows, most)
    words, uncut = [], 0
    for row in rows:
        left, whole = row.within(most, over), row.total.weight
        words.append(Word(_part(left.weight, most, whole), left))
        if whole <= most:
            uncut += whole - sum(row.payers[p].weight for p in over.keys() & row.payers.keys())
    return words, uncut


def _over(rows: Sequence[Row], most: int) -> dict[bytes, int]:
    """The payers who have more than `most` from gateways cut to it, and what they have."""
    paid = defaultdict[bytes, int](int)
    for row in rows:
        whole = row.total.weight
        for payer, part in row.payers.items():
            paid[payer] += _part(part.weight, most, whole)
    return {payer: weight for payer, weight in paid.items() if weight > most}


def _part(weight: int, most: int, whole: int) -> int:
    return weight if whole <= most else weight * most // whole


Mean = tuple[int, int]
"""A gateway's mean, and what it weighs."""


def successes(words: Sequence[Word]) -> list[Mean]:
    """Each gateway's share of good samples, parts per million."""
    return [(w.said.good * MILLION // w.said.weight, w.weight) for w in words if w.weight]


def first_times(words: Sequence[Word]) -> list[Mean]:
    """Each gateway's mean time to first token, milliseconds; 0 where it timed nothing."""
    return [(w.said.first_ms // max(1, w.said.timed), w.weight) for w in words if w.weight]


def token_times(words: Sequence[Word]) -> list[Mean]:
    """Each gateway's mean time per token, microseconds; 0 where it timed nothing."""
    return [(w.said.token_us // max(1, w.said.timed), w.weight) for w in words if w.weight]


def pooled(heard: Sequence[Mean], prior: int, start: int, share_ppm: int) -> int:
    """The trimmed mean of `start`, weighing `prior`, and all gateways within their shares.

    As much of the lowest and of the highest as one party can weigh is left out, up to a quarter
    each: a lone party's word is heard where it lies among the others'.
    """
    whole = prior + sum(weight for _, weight in heard)
    atoms = sorted([(start, prior), *heard])
    return _trimmed(atoms, whole, min(share_ppm, _MOST_TRIMMED_PPM)) if whole else start


def _trimmed(atoms: Sequence[tuple[int, int]], whole: int, trim_ppm: int) -> int:
    """The mean of ascending (value, weight) between two quantiles, `trim_ppm` from each end."""
    low = whole * trim_ppm // MILLION
    high = whole - low
    passed = total = 0
    for value, weight in atoms:
        total += value * max(0, min(passed + weight, high) - max(passed, low))
        passed += weight
    return total // (high - low)


def lower_median(values: Sequence[int]) -> int:
    """The middle value, of two the lower; 0 where there is none."""
    return sorted(values)[(len(values) - 1) // 2] if values else 0
