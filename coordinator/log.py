"""The log as this coordinator holds it: Merkle tree, running totals, and what is not yet settled.

In memory, rebuilt from the store at boot, where every leaf's signature and counter is checked
again. `commit` is called only after the leaves are durable. A history that is behind the chain's
last anchor, or differs from it, is never served.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from coordinator.errors import LogDiverged
from coordinator.ports import AnchorRecord
from pinaivu.books import Books
from pinaivu.errors import PinaivuError
from pinaivu.merkle.hashing import leaf_hash
from pinaivu.merkle.tree import Tree
from pinaivu.messages import Batch, EpochStart, Receipt
from pinaivu.remembered import Remembered
from pinaivu.settlement import Netting, net, unpack_rows
from pinaivu.typed_data import Domain, Signed


class Leaf(Struct, frozen=True):
    """One durable entry of the log: a signed receipt or an epoch's start."""

    signed: Signed[Receipt] | Signed[EpochStart]
    digest: bytes
    closed_ms: int

    @property
    def receipt(self) -> Receipt | None:
        """The receipt, where the leaf is one."""
        message = self.signed.message
        return message if isinstance(message, Receipt) else None


class Log:
    """Tree, books and the tail of leaves that no final batch covers."""

    def __init__(self, domain: Domain, log_id: bytes, *, recent_ms: int) -> None:
        self.domain = domain
        self.log_id = log_id
        self.tree = Tree()
        self.books = Books()
        self.recent: Remembered[tuple[bytes, bytes]] = Remembered()
        """Jobs that were receipted within `recent_ms`, by (gateway, job id)."""
        self._recent_ms = recent_ms
        self.epoch_starts: dict[int, int] = {}  # epoch → index of its EpochStart
        self._tail: list[Leaf] = []  # leaves from `_tail_from` on
        self._tail_from = 0
        self._batched_size = 0
        self._final_payer_totals: dict[bytes, int] = {}
        self._final_total = 0
        self._total = 0  # of all receipts

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self.tree)

    @property
    def batched_size(self) -> int:
        """Leaves covered by a signed batch."""
        return self._batched_size

    def commit(self, leaf: Leaf, *, posted: bool = False) -> int:
        """Take in a durable leaf; its index. `posted`: the books already have its receipt."""
        if leaf.receipt is not None and not posted:
            self.books.post(leaf.receipt)
        elif isinstance(leaf.signed.message, EpochStart):
            self.epoch_starts[leaf.signed.message.epoch] = self.size
        if leaf.receipt is not None:
            self._total += leaf.receipt.total
            key = (leaf.receipt.gateway, leaf.receipt.job_id)
            until_ms = leaf.closed_ms + self._recent_ms
            self.recent.note(key, until_ms=until_ms, now_ms=leaf.closed_ms)
        self._tail.append(leaf)
        return self.tree.append(leaf_hash(leaf.digest))

    def replay(self, leaves: Iterable[Leaf], signers: dict[int, bytes]) -> None:
        """Rebuild from the store; `LogDiverged` where a leaf isn't what its epoch signed.

        `signers` are the keys that the chain has activated for this log, by epoch.
        """
        for leaf in leaves:
            try:
                self._check(leaf, signers)
                self.commit(leaf)
            except (PinaivuError, KeyError) as error:
                raise LogDiverged(
                    f"leaf {self.size} of the stored log does not hold: {error}. Restore the "
                    "database from a copy that is at least as new as the last anchor"
                ) from error

    def _check(self, leaf: Leaf, signers: dict[int, bytes]) -> None:
        """A leaf's digest, signature, log, and that its epoch is the one it lies in."""
        message = leaf.signed.message
        if leaf.signed.require(self.domain, signers[message.epoch]) != leaf.digest:
            raise LogDiverged("it is stored under another digest")
        if message.log_id != self.log_id:
            raise LogDiverged("it belongs to another log")
        current = max(self.epoch_starts, default=0)
        if not isinstance(message, EpochStart):
            if message.epoch != current:
                raise LogDiverged(f"epoch {message.epoch} signed it within epoch {current}")
        elif message.epoch <= current:
            raise LogDiverged(f"epoch {message.epoch} starts after epoch {current}")
        elif (message.size, message.root) != (self.size, self.tree.root()):
            raise LogDiverged("it starts an epoch on another history")

    def check_against(self, anchor: AnchorRecord) -> None:
        """Refuse to go on where the chain has anchored another or a longer history."""
        if anchor.size > self.size:
            raise LogDiverged(
                f"the chain has anchored {anchor.size} leaves, the database holds {self.size}: "
                "restore a newer copy of the database"
            )
        if anchor.sequence and self.tree.root(anchor.size) != anchor.root:
            raise LogDiverged(
                f"the database's first {anchor.size} leaves are not the ones anchored on chain"
            )

    def pending(self) -> Sequence[Leaf]:
        """Leaves that no batch covers yet, in order."""
        return self._tail[self._batched_size - self._tail_from :]

    def leaves(self, start: int, stop: int) -> Sequence[Leaf]:
        """Leaves `start` to `stop`, none of which a final batch covers."""
        return self._tail[start - self._tail_from : stop - self._tail_from]

    def netting(self, prev_size: int, new_size: int) -> Netting:
        """Rows and statements of a range of leaves that no final batch covers."""
        return net(leaf.receipt for leaf in self.leaves(prev_size, new_size) if leaf.receipt)

    def mark_batched(self, new_size: int) -> None:
        """Durable, signed batches cover all leaves below `new_size`, perhaps fewer than before."""
        self._batched_size = new_size

    def mark_final(self, batch: Batch) -> None:
        """The next batch is final on chain: its payers owe that much less."""
        del self._tail[: batch.new_size - self._tail_from]
        self._tail_from = batch.new_size
        for payer, debit in unpack_rows(batch.debits).items():
            self._final_payer_totals[payer] = self._final_payer_totals.get(payer, 0) + debit
            self._final_total += debit

    def settled(self, payer: bytes) -> int:
        """What final batches have debited from a payer, base units; it never falls."""
        return self._final_payer_totals.get(payer, 0)

    def unsettled(self, payer: bytes) -> int:
        """Receipts of a payer that no final batch has debited yet, base units."""
        return self.books.payer(payer).total - self.settled(payer)

    def all_settled(self) -> int:
        """What final batches have debited from all payers, base units; it never falls."""
        return self._final_total

    def all_unsettled(self) -> int:
        """Receipts of all payers that no final batch has debited yet, base units."""
        return self._total - self._final_total

    def oldest_unsettled_ms(self) -> int | None:
        """When the oldest receipt was closed that no final batch covers; None without one."""
        return next((leaf.closed_ms for leaf in self._tail if leaf.receipt), None)
