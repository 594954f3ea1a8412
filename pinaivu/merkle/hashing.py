"""Leaf and node hashes, and the root of a list of entries (RFC 9162, section 2.1.1, SHA-256).

Leaves are hashed under a 0x00 byte and nodes under 0x01, so no node can pass for an entry.

    >>> root_of([]) == EMPTY_ROOT
    True
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()
"""Root of the tree without leaves."""


def leaf_hash(entry: bytes) -> bytes:
    """``SHA-256(0x00 ‖ entry)``."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """``SHA-256(0x01 ‖ left ‖ right)``."""
    return sha256(b"\x01" + left + right).digest()


def root_of(entries: Iterable[bytes]) -> bytes:
    """The root over entries of any length, in their order; `EMPTY_ROOT` over none."""
    return root_of_leaves(leaf_hash(entry) for entry in entries)


def root_of_leaves(leaves: Iterable[bytes]) -> bytes:
    """The root over leaf hashes, in one pass and O(log n) memory."""
    perfect: list[tuple[int, bytes]] = []  # (height, root) from the left, heights falling
    for leaf in leaves:
        height, root = 0, leaf
        while perfect and perfect[-1][0] == height:
            root = node_hash(perfect.pop()[1], root)
            height += 1
        perfect.append((height, root))
    return fold([root for _, root in perfect])


def fold(perfect: list[bytes]) -> bytes:
    """Join the roots of neighbouring perfect subtrees, largest first, into their tree's root."""
    if not perfect:
        return EMPTY_ROOT
    root = perfect[-1]
    for left in reversed(perfect[:-1]):
        root = node_hash(left, root)
    return root
