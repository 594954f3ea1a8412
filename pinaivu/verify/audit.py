"""`audit`: the whole state of a log re-proven by an outsider, from leaves, evidence and chain.

Every leaf's signature by the epoch whose range holds it; the tree behind every checkpoint and
batch; every receipt from the books before it and from its own evidence; every batch's rows,
statements and fees from its leaves; every settlement and every node's credit on chain from the
batches. The first contradiction ends it with an `AuditFailed` that names it.

Not proven: V4, V5 and V9 of each request (they take its holder's copies), and that leaves, bundles
and chain answers given are the newest there are.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from msgspec import Struct

from pinaivu.books import Books
from pinaivu.checkpoints import verify_note
from pinaivu.errors import InvalidEncoding, PeerFault
from pinaivu.merkle.hashing import EMPTY_ROOT, leaf_hash
from pinaivu.merkle.tree import Tree
from pinaivu.messages import Batch, EpochStart, Lost, Receipt
from pinaivu.settlement import net, unpack_rows
from pinaivu.typed_data import Signed
from pinaivu.verify.contents import EpochPart
from pinaivu.verify.facts import ChainFacts, SettlementFact
from pinaivu.verify.findings import Outcome, Refuted, require, require_equal, shown
from pinaivu.verify.logged import anchor_word
from pinaivu.verify.policy import Policy
from pinaivu.verify.settled import require_settled
from pinaivu.verify.verifier import Verifier

Leaf = Signed[Receipt] | Signed[EpochStart] | Signed[Lost]
_ALWAYS = ("bundle", "V1", "V2", "V3", "V6", "V7", "V8")
_ONCE_SETTLED = ("V10", "V11", "V12")


class AuditFailed(PeerFault):
    """The state contradicts itself or the chain; the message says where first."""


class State(Struct, frozen=True, kw_only=True):
    """Everything public about one log, as an outsider fetched it.

    `leaves` in log order from 0; `notes` every checkpoint seen; `batches` every signed batch in
    order of sequence; `bundles` by receipt digest; `sole_log` says that the deployment has no other
    log, so that nodes' credit must be this log's to the unit.
    """

    log_id: bytes
    leaves: Sequence[Leaf]
    notes: Sequence[str]
    batches: Sequence[Signed[Batch]]
    epochs: Mapping[int, EpochPart]
    bundles: Mapping[bytes, bytes]
    chain: ChainFacts
    sole_log: bool = True


class Audited(Struct, frozen=True, kw_only=True):
    """What held, in numbers; amounts in base units. `simulated`: no code was attested."""

    leaves: int
    receipts: int
    checkpoints: int
    batches: int
    settled: int
    unsettled_receipts: int
    billed: int
    credited: int
    fees: int
    simulated: bool


def audit(policy: Policy, state: State) -> Audited:
    """Re-prove `state`; `AuditFailed` names the first contradiction."""
    return _Auditor(policy, state).run()


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Raise what contradicts inside as an `AuditFailed` that begins with `what`."""
    try:
        yield
    except (PeerFault, InvalidEncoding) as error:
        raise AuditFailed(f"{what}: {error}") from error


class _Auditor:
    """One pass over a state."""

    def __init__(self, policy: Policy, state: State) -> None:
        self._domain = policy.domain
        self._state = state
        self._verifier = Verifier(policy, state.chain)
        self._tree = Tree()
        self._books = Books()
        self._jobs: set[tuple[bytes, bytes]] = set()
        self._epoch = 0
        self._credits: dict[bytes, int] = defaultdict(int)
        self._settled_size = 0
        self._simulated = False

    def run(self) -> Audited:
        """Leaves, checkpoints, batches, credits, evidence, in this order."""
        state = self._state
        for index, leaf in enumerate(state.leaves):
            with _naming(f"leaf {index}"):
                self._leaf(index, leaf)
        for number, note in enumerate(state.notes):
            with _naming(f"checkpoint {number}"):
                self._checkpoint(note)
        settled = 0
        for number, batch in enumerate(state.batches, start=1):
            with _naming(f"batch {number}"):
                settled += self._batch(number, batch)
        with _naming("the chain"):
            self._require_no_more_settled()
            self._require_credits()
        receipts = self._receipts()
        for index, signed in receipts:
            with _naming(f"the evidence of leaf {index}"):
                self._evidence(index, signed)
        return Audited(
            leaves=len(state.leaves),
            receipts=len(receipts),
            checkpoints=len(state.notes),
            batches=len(state.batches),
            settled=settled,
            unsettled_receipts=sum(index >= self._settled_size for index, _ in receipts),
            billed=sum(signed.message.total for _, signed in receipts),
            credited=sum(self._credits.values()),
            fees=sum(batch.message.fees for batch in state.batches),
            simulated=self._simulated,
        )

    def _receipts(self) -> list[tuple[int, Signed[Receipt]]]:
        return [
            (index, leaf)
            for index, leaf in enumerate(self._state.leaves)
            if isinstance(leaf.message, Receipt)
        ]

    # Leaves

    def _leaf(self, index: int, leaf: Leaf) -> None:
        message = leaf.message
        require_equal(message.log_id, self._state.log_id, "its log")
        if isinstance(message, EpochStart):
            self._epoch_start(index, message)
        require_equal(message.epoch, self._epoch, "its epoch, by the starts before it")
        digest = leaf.require(self._domain, self._epoch_part(message.epoch).signer)
        if isinstance(message, Receipt):
            job = (message.gateway, message.job_id)
            require(job not in self._jobs, "the job has a receipt already")
            self._jobs.add(job)
            self._books.post(message)
        self._tree.append(leaf_hash(digest))

    def _epoch_start(self, index: int, start: EpochStart) -> None:
        require(start.epoch > self._epoch, f"epoch {start.epoch} after {self._epoch}")
        said = (start.size, start.root)
        require_equal(said, (index, self._tree.root()), "size and root at an epoch's start")
        part = self._epoch_part(start.epoch)
        require_equal(start.manifest_digest, part.manifest_digest, "its manifest's digest")
        self._epoch = start.epoch

    def _epoch_part(self, number: int) -> EpochPart:
        part = self._state.epochs.get(number)
        if part is None:
            raise Refuted(f"nothing is known of epoch {number}")
        return part

    # Checkpoints

    def _checkpoint(self, note: str) -> None:
        checkpoint = None
        for part in self._state.epochs.values():  # the note's own lines say which epoch's it is
            try:
                checkpoint = verify_note(note, self._domain, self._state.log_id, part.keys).message
            except PeerFault:
                continue
            require_equal(checkpoint.epoch, part.number, "the epoch of its signer")
        if checkpoint is None:
            raise Refuted("no epoch of the log signed it")
        within = checkpoint.size <= len(self._tree)
        require(within, f"it covers {checkpoint.size} leaves of {len(self._tree)}")
        root = self._tree.root(checkpoint.size)
        require_equal(checkpoint.root, root, f"the root over {checkpoint.size} leaves")

    # Batches

    def _batch(self, number: int, signed: Signed[Batch]) -> bool:
        """Whether the batch is settled on chain."""
        batch = signed.message
        previous = self._state.batches[number - 2].message if number > 1 else None
        size, root = (previous.new_size, previous.new_root) if previous else (0, EMPTY_ROOT)
        said = (batch.log_id, batch.sequence, batch.prev_size, batch.prev_root)
        require_equal(said, (self._state.log_id, number, size, root), "what it follows")
        within = batch.prev_size < batch.new_size <= len(self._tree)
        require(within, f"leaves [{batch.prev_size}, {batch.new_size}) of {len(self._tree)}")
        require_equal(batch.new_root, self._tree.root(batch.new_size), "its root")
        digest = signed.require(self._domain, self._epoch_part(batch.epoch).signer)
        self._require_netting(batch)
        word = self._state.chain.anchor_word(batch.log_id, batch.sequence)
        if word is None:
            return False
        require_equal(word, anchor_word(batch, digest), "the anchor on chain")
        fact = self._state.chain.settlement(batch.log_id, batch.sequence)
        if fact is None:
            raise Refuted("the chain has its anchor and not its event")
        require_settled(batch, digest, fact)
        self._credit(batch, fact)
        self._settled_size = batch.new_size
        return True

    def _require_netting(self, batch: Batch) -> None:
        leaves = self._state.leaves[batch.prev_size : batch.new_size]
        due = net(leaf.message for leaf in leaves if isinstance(leaf.message, Receipt))
        pairs = (
            ("debits", batch.debits, due.debits),
            ("credits", batch.credits, due.credits),
            ("fees", batch.fees, due.fees),
            ("parties", batch.parties, len(due.statements)),
            ("statement root", batch.statement_root, due.statement_root),
        )
        for name, found, expected in pairs:
            require_equal(found, expected, f"its {name}")

    def _credit(self, batch: Batch, fact: SettlementFact) -> None:
        for node, amount in unpack_rows(batch.credits).items():
            whole = fact.backed == fact.due
            self._credits[node] += amount if whole else amount * fact.backed // fact.due

    def _require_no_more_settled(self) -> None:
        following = len(self._state.batches) + 1
        word = self._state.chain.anchor_word(self._state.log_id, following)
        require(word is None, f"it has settled batch {following}, which the log does not show")

    def _require_credits(self) -> None:
        for node in self._books.nodes:
            credited, earned = self._credits[node], self._state.chain.earnings(node)
            name = shown(node)
            holds = earned.lifetime == credited or (
                not self._state.sole_log and earned.lifetime > credited
            )
            require(holds, f"{name} was credited {earned.lifetime}, batches give {credited}")
            paid = sum(payout.amount for payout in earned.payouts)
            require_equal(paid + earned.credit, earned.lifetime, f"payouts and credit of {name}")
            for payout in earned.payouts:
                require_equal(payout.wallet, payout.registered, f"a payout of {name} went to")

    # Evidence

    def _evidence(self, index: int, signed: Signed[Receipt]) -> None:
        digest = signed.digest(self._domain)
        raw = self._state.bundles.get(digest)
        if raw is None:
            raise Refuted("there is no bundle of it")
        report = self._verifier.verify(raw)
        require(not report.failed, f"{report.verdict}: {[s.evidence for s in report.failed]}")
        require_equal(report.subject["receipt_digest"], shown(digest), "the bundle's receipt")
        needed = _ALWAYS + (_ONCE_SETTLED if index < self._settled_size else ())
        for step in (report.step(name) for name in needed):
            simulated = step.outcome == Outcome.SIMULATED
            self._simulated |= simulated
            holds = simulated or step.outcome == Outcome.PASSED
            require(holds, f"{step.id} {step.outcome}: {step.evidence}")
