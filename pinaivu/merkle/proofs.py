"""Verification of inclusion and consistency proofs (RFC 9162, sections 2.1.3.2 and 2.1.4.2).

Both functions return nothing and raise `InvalidProof` unless the proof leads to the roots given
and is used up exactly: a proof with one hash too many is refused. They trust the roots and sizes
they are given; where those come from is the caller's business.
"""

from collections.abc import Sequence

from pinaivu.errors import PeerFault
from pinaivu.merkle.hashing import EMPTY_ROOT, HASH_BYTES, node_hash


class InvalidProof(PeerFault):
    """A proof does not lead from what it should prove to the root given."""


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Raise unless the leaf hash `leaf` stands at `index` in the tree of `size` leaves and `root`.

    `leaf` is `hashing.leaf_hash(entry)`, not the entry.
    """
    if not 0 <= index < size:
        raise InvalidProof(f"no leaf {index} in a tree of {size}")
    _require_hashes(leaf, root, *proof)
    position, last, computed = index, size - 1, leaf
    for sibling in proof:
        if not last:
            raise InvalidProof(f"{len(proof)} hashes are too many for leaf {index} of {size}")
        if position & 1 or position == last:
            computed = node_hash(sibling, computed)
            position, last = _skip_missing_siblings(position, last)
        else:
            computed = node_hash(computed, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise InvalidProof(f"{len(proof)} hashes are too few for leaf {index} of {size}")
    if computed != root:
        raise InvalidProof(f"leaf {index} of {size} leads to root {computed.hex()}, not the given")


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Raise unless the tree of `new_size` begins with the leaves of the tree of `old_size`.

    From the empty tree everything follows: `old_root` must be `EMPTY_ROOT` and the proof empty.
    Equal sizes need equal roots and an empty proof.
    """
    if not 0 <= old_size <= new_size:
        raise InvalidProof(f"a tree does not grow from {old_size} to {new_size} leaves")
    _require_hashes(old_root, new_root, *proof)
    if not old_size and old_root != EMPTY_ROOT:
        raise InvalidProof("the root of no leaves is not the empty tree's")
    if not new_size and new_root != EMPTY_ROOT:
        raise InvalidProof("the root of no leaves is not the empty tree's")
    if old_size == new_size and old_root != new_root:
        raise InvalidProof(f"two roots of one size {old_size}")
    if old_size in (0, new_size):
        if proof:
            raise InvalidProof(f"from {old_size} to {new_size} leaves the proof is empty")
        return
    _verify_growth(old_size, old_root, new_size, new_root, proof)


def _verify_growth(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """The case 0 < old_size < new_size."""
    position, last = old_size - 1, new_size - 1
    while position & 1:  # up to the root of the last perfect subtree of the old tree
        position, last = position >> 1, last >> 1
    rest = list(proof) if position else [old_root, *proof]  # a perfect old tree is its own start
    if not rest:
        raise InvalidProof("the consistency proof is empty")
    old = new = rest[0]
    for sibling in rest[1:]:
        if not last:
            raise InvalidProof(f"{len(proof)} hashes are too many from {old_size} to {new_size}")
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            position, last = _skip_missing_siblings(position, last)
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise InvalidProof(f"{len(proof)} hashes are too few from {old_size} to {new_size}")
    if old != old_root:
        raise InvalidProof(f"the proof starts from root {old.hex()}, not from the old one")
    if new != new_root:
        raise InvalidProof(f"the proof leads to root {new.hex()}, not to the new one")


def _skip_missing_siblings(position: int, last: int) -> tuple[int, int]:
    """Climb the levels on which the last node of a ragged tree has no sibling."""
    while position and not position & 1:
        position, last = position >> 1, last >> 1
    return position, last


def _require_hashes(*values: bytes) -> None:
    for value in values:
        if len(value) != HASH_BYTES:
            raise InvalidProof(f"a hash has {HASH_BYTES} bytes, not {len(value)}")
