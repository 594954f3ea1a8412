"""What is kept of a log's receipts: evidence on nodes by pairs, on gateways, and answers' lengths.

All sums are integers in millionths of a sample and fade with each further sample. Nothing fades
with time: a clock could be lied about, and a quiet month says nothing.
"""

from typing import Final

from msgspec import Struct, field

from pinaivu.manifest import Parameters
from pinaivu.messages import Receipt
from pinaivu.reputation.pools import (
    MILLION,
    Mean,
    Pool,
    Word,
    add,
    first_times,
    lower_median,
    pooled,
    successes,
    token_times,
    within_shares,
)
from pinaivu.reputation.samples import Finding, Sample

_FARTHEST: Final = 4  # a time counts from a quarter to four times the typical one
_REFRESH: Final = 64  # samples after which a model's typical figures are taken anew
_MOVED: Final = 16  # and adopted where they moved by more than one part in this many


class Rules(Struct, frozen=True):
    """The parameters that matter here. `prior` and `prior_good` in millionths of a sample."""

    prior: int
    prior_good: int
    decay_ppm: int
    share_ppm: int
    newcomer_ppm: int

    @classmethod
    def of(cls, parameters: Parameters) -> "Rules":
        """Those of an epoch."""
        return cls(
            prior=(parameters.prior_a + parameters.prior_b) * MILLION,
            prior_good=parameters.prior_a * MILLION,
            decay_ppm=parameters.decay_ppm,
            share_ppm=parameters.party_share_ppm,
            newcomer_ppm=parameters.newcomer_ppm,
        )

    @property
    def start_ppm(self) -> int:
        """Success of whom nothing is known."""
        return self.prior_good * MILLION // max(1, self.prior)

    @property
    def kept_ppm(self) -> int:
        """What one more sample leaves of what its gateway said of the node before."""
        return max(0, MILLION - (MILLION - self.decay_ppm) * MILLION // max(1, self.share_ppm))

    def fade(self, amount: int) -> int:
        """What is left of an amount after one more sample."""
        return amount * self.decay_ppm // MILLION


class Gateway(Struct):
    """How often a gateway's word agreed with the node's and the clock's."""

    agreed: int = 0
    contradicted: int = 0

    def judge(self, finding: Finding, rules: Rules) -> None:
        """Count an agreement or a contradiction; a reported fault is neither."""
        if finding not in (Finding.WELL, Finding.CONTRADICTION):
            return
        self.agreed = rules.fade(self.agreed)
        self.contradicted = rules.fade(self.contradicted)
        if finding == Finding.WELL:
            self.agreed += MILLION
        else:
            self.contradicted += MILLION

    def weight(self, rules: Rules) -> int:
        """What its next sample weighs: the Beta mean of its agreeing."""
        seen = rules.prior + self.agreed + self.contradicted
        return (rules.prior_good + self.agreed) * MILLION // max(1, seen)


class Typical(Struct):
    """A node's own figures, or a model's: the medians over nodes with evidence. 0: none yet."""

    success_ppm: int = 0
    first_ms: int = 0
    token_us: int = 0


class Node(Struct):
    """One node's evidence for one model, by gateway and payer."""

    pool: Pool = field(default_factory=dict)

    def add(self, receipt: Receipt, sample: Sample, weight: int, rules: Rules) -> None:
        """One more sample from the receipt's gateway, on its payer's job."""
        add(self.pool, receipt.gateway, receipt.payer, sample, weight, rules.kept_ppm)

    def read(self, rules: Rules) -> "Reading":
        """What the evidence comes to."""
        return Reading(rules, within_shares(list(self.pool.values()), rules.prior, rules.share_ppm))


class Reading(Struct, frozen=True):
    """A node's evidence with every party within its share; a time of 0 is unknown."""

    rules: Rules
    words: list[Word]

    @property
    def weight(self) -> int:
        """What all evidence weighs, the prior apart."""
        return sum(word.weight for word in self.words)

    def success(self) -> int:
        """Parts per million of samples that went well."""
        return self._pooled(successes(self.words), self.rules.start_ppm)

    def first_ms(self, typical: int) -> int:
        """Time to the first token."""
        return self._pooled(_near(typical, first_times(self.words)), typical)

    def token_us(self, typical: int) -> int:
        """Time per token."""
        return self._pooled(_near(typical, token_times(self.words)), typical)

    def own(self) -> Typical:
        """Its success, and what the middle gateway measured."""
        return Typical(
            self.success(), _middle(first_times(self.words)), _middle(token_times(self.words))
        )

    def _pooled(self, heard: list[Mean], start: int) -> int:
        return pooled(heard, self.rules.prior, start, self.rules.share_ppm)


class Model(Struct):
    """One model's nodes, what is typical of them, and how long its answers are.

    `lengths`: by bit length of an answer's tokens, faded count and faded sum of tokens. `_summary`
    and `_stale` follow from the rest: each node's own figures, and whose are to be read again.
    """

    samples: int = 0
    nodes: dict[bytes, Node] = field(default_factory=dict)
    typical: Typical = field(default_factory=Typical)
    lengths: dict[int, tuple[int, int]] = field(default_factory=dict)
    _summary: dict[bytes, Typical] = field(default_factory=dict)
    _stale: set[bytes] = field(default_factory=set)

    def add(self, receipt: Receipt, sample: Sample, weight: int, rules: Rules) -> bool:
        """One more sample; whether the typical figures moved with it."""
        self.samples += 1
        self.nodes.setdefault(sample.node, Node()).add(receipt, sample, weight, rules)
        self._stale.add(sample.node)
        return self._refresh(rules)

    def answered(self, tokens: int, rules: Rules) -> None:
        """One more whole answer of so many tokens."""
        self.lengths = {
            bits: (rules.fade(count), rules.fade(total))
            for bits, (count, total) in self.lengths.items()
        }
        count, total = self.lengths.get(tokens.bit_length(), (0, 0))
        self.lengths[tokens.bit_length()] = (count + MILLION, total + MILLION * tokens)

    def expected_output(self, most: int) -> int:
        """The mean length, each answer cut at `most` tokens; half of that before the first one.

        At least 1, except where `most` is 0.
        """
        count = sum(number for number, _ in self.lengths.values())
        total = sum(min(tokens, number * most) for number, tokens in self.lengths.values())
        mean = total // count if count else most // 2
        return min(max(1, mean), most)

    def _refresh(self, rules: Rules) -> bool:
        """Take the medians anew at 1, 2, 4 … 64 samples and every 64; whether one moved."""
        if self.samples % _REFRESH and self.samples & (self.samples - 1):
            return False
        self._summary |= {node: self.nodes[node].read(rules).own() for node in self._stale}
        self._stale.clear()
        moved = False
        for figure in Typical.__struct_fields__:
            known = [getattr(figures, figure) for figures in self._summary.values()]
            old, new = getattr(self.typical, figure), lower_median([n for n in known if n])
            if new and abs(new - old) * _MOVED > old:
                setattr(self.typical, figure, new)
                moved = True
        return moved


def _middle(times: list[Mean]) -> int:
    return lower_median([time for time, _ in times if time])


def _near(typical: int, times: list[Mean]) -> list[Mean]:
    """Times of which none is so far from the typical one that it decides alone."""
    least, most = typical // _FARTHEST, typical * _FARTHEST
    return [(min(max(least, time or typical), most), weight) for time, weight in times]
