"""Signed batches over a tree of made-up leaves, with their proofs."""

from typing import Any

from msgspec.structs import replace

from pinaivu.batch_copies import BatchCopy
from pinaivu.keys import SecretKey
from pinaivu.merkle.hashing import EMPTY_ROOT, leaf_hash
from pinaivu.merkle.tree import Tree
from pinaivu.messages import Batch
from pinaivu.typed_data import Domain, Signed

DOMAIN = Domain(31337, b"\x51" * 20)
LOG = b"\x11" * 32
KEY = SecretKey(b"\x0e" * 32)
LEAVES_EACH = 7


def _tree() -> Tree:
    tree = Tree()
    for number in range(1500):
        tree.append(leaf_hash(number.to_bytes(32)))
    return tree


TREE = _tree()


def batch(sequence: int = 1, /, **changes: Any) -> Batch:
    """The log's batch of that number, seven leaves each, with some fields changed."""
    prev_size, new_size = LEAVES_EACH * (sequence - 1), LEAVES_EACH * sequence
    made = Batch(
        log_id=LOG,
        epoch=1,
        sequence=sequence,
        prev_size=prev_size,
        new_size=new_size,
        prev_root=TREE.root(prev_size) if prev_size else EMPTY_ROOT,
        new_root=TREE.root(new_size),
        parties=2,
        statement_root=b"\x21" * 32,
        fees=3,
        time_ms=1_790_000_000_000 + sequence,
        debits=b"\x31" * 20 + (100).to_bytes(12),
        credits=b"\x32" * 20 + (97).to_bytes(12),
    )
    return replace(made, **changes)


def copy(sequence: int = 1, /, *, key: SecretKey = KEY, **changes: Any) -> BatchCopy:
    """The same, signed, with its proof."""
    proof = TREE.consistency_proof(LEAVES_EACH * (sequence - 1), LEAVES_EACH * sequence)
    return BatchCopy(Signed.by(key, DOMAIN, batch(sequence, **changes)), tuple(proof))
