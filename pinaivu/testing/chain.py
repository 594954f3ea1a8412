"""`ChainStandIn`: chain facts in memory, written by a test instead of by contracts.

It answers like `pinaivu.verify.ChainFacts` over a chain on which everything is final. It checks
nothing: what is put in comes out.
"""

from collections import defaultdict

from pinaivu.keys import ZERO_ADDRESS
from pinaivu.messages import Batch
from pinaivu.settlement import unpack_rows
from pinaivu.typed_data import Domain, Signed
from pinaivu.verify.facts import (
    Earnings,
    EpochFact,
    ModelFact,
    NodeFact,
    Payout,
    SettlementFact,
)
from pinaivu.verify.logged import anchor_word


class ChainStandIn:
    """Epochs, anchors, settlements, registrations and credits of one deployment, as dicts."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.epochs: dict[tuple[bytes, int], EpochFact] = {}
        self.anchors: dict[tuple[bytes, int], bytes] = {}
        self.settlements: dict[tuple[bytes, int], SettlementFact] = {}
        self.nodes: dict[bytes, NodeFact] = {}
        self.models: dict[bytes, ModelFact] = {}
        self.grant_epochs: dict[bytes, int] = {}
        self.credits: dict[bytes, int] = defaultdict(int)
        self.payouts: dict[bytes, list[Payout]] = defaultdict(list)
        self.block = 100

    def settle(self, signed: Signed[Batch], *, backed_ppm: int = 1_000_000) -> None:
        """Take a batch as the contract would; less than all `backed_ppm` scales credits down."""
        batch, digest = signed.message, signed.digest(self.domain)
        self.block += 1
        debits, credited = unpack_rows(batch.debits), unpack_rows(batch.credits)
        due = sum(debits.values())
        backed = due * backed_ppm // 1_000_000
        for node, amount in credited.items():
            self.credits[node] += amount * backed // due if due else amount
        short = due - backed
        payer = next(iter(debits), ZERO_ADDRESS)
        self.anchors[batch.log_id, batch.sequence] = anchor_word(batch, digest)
        self.settlements[batch.log_id, batch.sequence] = SettlementFact(
            block=self.block,
            prev_size=batch.prev_size,
            new_size=batch.new_size,
            new_root=batch.new_root,
            batch_digest=digest,
            debited=due - short,
            fees=batch.fees * backed // due if due else batch.fees,
            due=due,
            backed=backed,
            shorts={payer: (0, short)} if short else {},
        )

    def pay_out(self, node: bytes) -> None:
        """Pay a node's credit to its registered wallet."""
        self.block += 1
        wallet, amount = self.nodes[node].payout, self.earnings(node).credit
        self.payouts[node].append(
            Payout(block=self.block, wallet=wallet, registered=wallet, amount=amount)
        )

    def epoch(self, log_id: bytes, number: int) -> EpochFact | None:
        """See `ChainFacts.epoch`."""
        return self.epochs.get((log_id, number))

    def anchor_word(self, log_id: bytes, sequence: int) -> bytes | None:
        """See `ChainFacts.anchor_word`."""
        return self.anchors.get((log_id, sequence))

    def settlement(self, log_id: bytes, sequence: int) -> SettlementFact | None:
        """See `ChainFacts.settlement`."""
        return self.settlements.get((log_id, sequence))

    def node(self, node: bytes, block: int | None = None) -> NodeFact | None:  # noqa: ARG002
        """See `ChainFacts.node`; here a registration never changes."""
        return self.nodes.get(node)

    def model(self, model_key: bytes, block: int) -> ModelFact | None:
        """See `ChainFacts.model`; here nothing is registered before block 100."""
        return self.models.get(model_key) if 100 <= block <= self.block else None  # noqa: PLR2004

    def grant_epoch(self, payer: bytes, at_ms: int) -> frozenset[int]:  # noqa: ARG002
        """See `ChainFacts.grant_epoch`; here it never changes."""
        return frozenset({self.grant_epochs.get(payer, 0)})

    def earnings(self, node: bytes) -> Earnings:
        """See `ChainFacts.earnings`."""
        paid = self.payouts[node]
        lifetime = self.credits[node]
        credit = lifetime - sum(payout.amount for payout in paid)
        return Earnings(lifetime=lifetime, credit=credit, payouts=tuple(paid))
