"""The state machine: standings of all nodes after the receipts learnt so far, in log order.

For each model and node, with prior weight a + b samples and start a/(a + b):

    success = trimmed mean over start and gateways, each within its share, of good / all samples
    time    = the same mean over the model's typical time and the gateways' times, each taken
              within a quarter and four times the typical one
    cal     = ceil(time · 1000 / promised)

So a calibration is measured ÷ promised by the offer that stands now: what a node promised before
doesn't matter, and nothing but receipts is needed. A node without evidence is taken to be typical,
whatever it promises; promises are believed only until the first answer of a model was measured. A
*newcomer*, whose evidence weighs less than the prior, is held below the model's median success.

State: for each pair of model and node that was ever judged a cell of five integers for each gateway
and payer, 288 at most, two integers for each gateway, and 33 pairs for each model. All of it
follows from receipts and parameters, so nothing is stored: a store could be tampered with, the log
can't.
"""

from typing import Final

from msgspec import Struct
from msgspec.structs import astuple

from pinaivu.manifest import Parameters
from pinaivu.messages import Offer, Receipt
from pinaivu.reputation.evidence import Gateway, Model, Node, Rules
from pinaivu.reputation.pools import MILLION, Pool
from pinaivu.reputation.samples import Finding, samples_of, whole_output

UNCALIBRATED: Final = 1000
MOST_TPS_MILLI: Final = 10**9
"""Tokens per 1000 s that an offer may promise: beyond it a calibration's 32 bits are too few."""
_MOST_CALIBRATION: Final = (1 << 32) - 1
_PER_MILLE_US: Final = 10**6  # µs per token · tokens per 1000 s · 10³ ÷ 10⁹


class Standing(Struct, frozen=True):
    """A node's inputs to the score, as in its book row."""

    success_ppm: int
    cal_t: int
    cal_s: int
    newcomer: bool


class Changed(Struct, frozen=True):
    """Whose standing for a model a receipt changed: these nodes', or that of all who offer it."""

    model: str
    nodes: frozenset[bytes]
    everyone: bool


class _Figures(Struct, frozen=True):
    """A node's standing before its offer is looked at; times are 0 where unknown."""

    success_ppm: int
    first_ms: int
    token_us: int
    newcomer: bool


class Reputation:
    """What the receipts learnt so far say; a function of them and the parameters alone."""

    def __init__(self, parameters: Parameters) -> None:
        self._rules = Rules.of(parameters)
        self._models: dict[str, Model] = {}
        self._gateways: dict[bytes, Gateway] = {}
        self._read: dict[str, dict[bytes, _Figures]] = {}  # follows from the state

    def learn(self, receipt: Receipt) -> Changed:
        """Take one more receipt, in log order; whose standing it changed."""
        model = self._models.setdefault(receipt.model, Model())
        output = whole_output(receipt)
        if output is not None:
            model.answered(output, self._rules)
        gateway = self._gateways.setdefault(receipt.gateway, Gateway())
        nodes, moved = set(), False
        for sample in samples_of(receipt):
            weight = gateway.weight(self._rules)
            gateway.judge(sample.finding, self._rules)
            if sample.finding not in (Finding.WELL, Finding.FAULT):
                continue
            moved |= model.add(receipt, sample, weight, self._rules)
            nodes.add(sample.node)
        changed = Changed(receipt.model, frozenset(nodes), everyone=moved)
        self._forget(changed)
        return changed

    def standing(self, offer: Offer) -> Standing:
        """The standing of the offer's node for its model, by what it promises now."""
        figures = self._figures(offer.model, offer.node)
        cal_t = -(-figures.first_ms * 1000 // max(1, offer.ttft_ms))
        cal_s = -(-figures.token_us * offer.tps_milli // _PER_MILLE_US)
        return Standing(
            figures.success_ppm,
            _calibration(cal_t),
            _calibration(cal_s),
            figures.newcomer,
        )

    def expected_output(self, model: str, max_output_tokens: int) -> int:
        """M, in tokens: how long an answer is, on the mean, within what the job allows."""
        return self._models.get(model, Model()).expected_output(max_output_tokens)

    def to_bytes(self) -> bytes:
        """The whole state: equal for two replays of the same receipts, whatever was read of it."""
        models = [(name, _plain(model)) for name, model in sorted(self._models.items())]
        gateways = [(key, seen.agreed, seen.contradicted) for key, seen in self._gateways.items()]
        return repr((models, sorted(gateways))).encode()

    def _forget(self, changed: Changed) -> None:
        read = self._read.setdefault(changed.model, {})
        if changed.everyone:
            read.clear()
        for node in changed.nodes:
            read.pop(node, None)

    def _figures(self, model: str, node: bytes) -> _Figures:
        read = self._read.setdefault(model, {})
        if node not in read:
            read[node] = self._find(self._models.get(model, Model()), node)
        return read[node]

    def _find(self, model: Model, address: bytes) -> _Figures:
        found, typical = model.nodes.get(address, Node()).read(self._rules), model.typical
        success, newcomer = found.success(), found.weight < self._rules.prior
        if newcomer and typical.success_ppm:
            success = min(success, typical.success_ppm * self._rules.newcomer_ppm // MILLION)
        return _Figures(
            min(max(1, success), MILLION),
            found.first_ms(typical.first_ms),
            found.token_us(typical.token_us),
            newcomer,
        )


def _plain(model: Model) -> tuple[object, ...]:
    """A model's state, nodes in an order of their own, parties in that of their words."""
    nodes = [(key, _rows(node.pool)) for key, node in sorted(model.nodes.items())]
    return (model.samples, astuple(model.typical), sorted(model.lengths.items()), nodes)


def _rows(pool: Pool) -> list[tuple[object, ...]]:
    return [
        (gateway, astuple(row.total), [(p, astuple(cell)) for p, cell in row.payers.items()])
        for gateway, row in pool.items()
    ]


def _calibration(measured: int) -> int:
    """Within 32 bits; as promised where nothing was measured."""
    return min(measured or UNCALIBRATED, _MOST_CALIBRATION)
