"""A log with its tree, books, checkpoints and batches, in memory, signed by its epochs' keys."""

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from pinaivu.books import Books, OutOfSequence
from pinaivu.checkpoints import CheckpointSigner
from pinaivu.merkle.hashing import EMPTY_ROOT, leaf_hash
from pinaivu.merkle.tree import Tree
from pinaivu.messages import Batch, Checkpoint, EpochStart, Receipt
from pinaivu.settlement import Netting, net
from pinaivu.testing.lies import TRUTH, Lies
from pinaivu.testing.parties import EpochParty
from pinaivu.typed_data import Domain, Signed


class Settled(Struct, frozen=True, kw_only=True):
    """A signed batch and what it nets."""

    batch: Signed[Batch]
    netting: Netting


class Ledger:
    """The coordinator's log as a value that grows; `epoch` is the one that signs."""

    def __init__(self, domain: Domain, log_id: bytes, now_ms: Callable[[], int]) -> None:
        self.domain = domain
        self.log_id = log_id
        self.tree = Tree()
        self.books = Books()
        self.leaves: list[Signed[Receipt] | Signed[EpochStart]] = []
        self.starts: dict[int, Signed[EpochStart]] = {}
        self.batches: list[Settled] = []
        self.checkpoints: list[tuple[Signed[Checkpoint], str]] = []
        self._now_ms = now_ms

    def start(self, epoch: EpochParty) -> None:
        """Append the first leaf of an epoch."""
        start = EpochStart(
            log_id=self.log_id,
            epoch=epoch.number,
            size=len(self.tree),
            root=self.tree.root(),
            manifest_digest=epoch.manifest.digest(),
            time_ms=self._now_ms(),
        )
        self.starts[epoch.number] = signed = Signed.by(epoch.key, self.domain, start)
        self._append(signed)

    def append(self, receipt: Signed[Receipt], *, lies: bool = False) -> int:
        """Append a receipt; its index. One that `lies` need not follow from the books."""
        try:
            self.books.post(receipt.message)
        except OutOfSequence:
            if not lies:
                raise
        return self._append(receipt)

    def _append(self, signed: Signed[Receipt] | Signed[EpochStart]) -> int:
        self.leaves.append(signed)
        return self.tree.append(leaf_hash(signed.digest(self.domain)))

    def checkpoint(self, epoch: EpochParty) -> tuple[Signed[Checkpoint], str]:
        """A signed checkpoint over all leaves, and its note."""
        checkpoint = Checkpoint(
            log_id=self.log_id,
            epoch=epoch.number,
            size=len(self.tree),
            root=self.tree.root(),
            time_ms=self._now_ms(),
        )
        signer = CheckpointSigner(self.domain, self.log_id, epoch.key, epoch.note_secret)
        found = Signed.by(epoch.key, self.domain, checkpoint), signer.sign(checkpoint)
        self.checkpoints.append(found)
        return found

    def settle(self, epoch: EpochParty, lies: Lies = TRUTH) -> Settled:
        """A signed batch over all leaves that none covers yet."""
        last = self.batches[-1].batch.message if self.batches else None
        prev_size = last.new_size if last else 0
        receipts = [leaf.message for leaf in self.leaves[prev_size:]]
        netting = net(r for r in receipts if isinstance(r, Receipt))
        stated = tuple(lies.statement(statement) for statement in netting.statements)
        netting = replace(netting, statements=stated)
        batch = Batch(
            log_id=self.log_id,
            epoch=epoch.number,
            sequence=last.sequence + 1 if last else 1,
            prev_size=prev_size,
            new_size=len(self.tree),
            prev_root=last.new_root if last else EMPTY_ROOT,
            new_root=self.tree.root(),
            parties=len(netting.statements),
            statement_root=netting.statement_root,
            fees=netting.fees,
            time_ms=self._now_ms(),
            debits=netting.debits,
            credits=netting.credits,
        )
        settled = Settled(
            batch=Signed.by(epoch.key, self.domain, lies.batch(batch)), netting=netting
        )
        self.batches.append(settled)
        return settled

    def batch_over(self, index: int) -> Settled | None:
        """The batch that settles a leaf."""
        return next((b for b in self.batches if b.batch.message.new_size > index), None)
