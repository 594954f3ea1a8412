"""A tree over entries that change in place, filled with empty entries up to a power of two.

    >>> tree = PaddedTree()
    >>> tree[2] = b"entry"
    >>> tree.root() == root_of([b"", b"", b"entry", b""])
    True

Hashing waits until the root is asked for, and takes what lies above the changed entries: O(log n)
for each. The width never falls; a smaller tree is a new one.
"""

from typing import Final

from pinaivu.merkle.hashing import leaf_hash, node_hash

_BLANK: Final = leaf_hash(b"")


class PaddedTree:
    """Entries by place, from 0; a place never written is the empty entry."""

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[_BLANK]]  # leaf hashes first, the root last
        self._blanks: list[bytes] = [_BLANK]  # roots of empty subtrees, by level
        self._changed: dict[int, bytes] = {}

    def __setitem__(self, place: int, entry: bytes) -> None:
        self._changed[place] = entry
        while place >= len(self._levels[0]):
            self._double()

    def root(self) -> bytes:
        """The root over all entries, hashing what has changed since it was last asked for."""
        leaves = self._levels[0]
        for place, entry in self._changed.items():
            leaves[place] = leaf_hash(entry)
        stale = set(self._changed)
        self._changed.clear()
        for below, level in zip(self._levels, self._levels[1:], strict=False):
            stale = {place >> 1 for place in stale}
            for place in stale:
                level[place] = node_hash(below[2 * place], below[2 * place + 1])
        return self._levels[-1][0]

    def _double(self) -> None:
        for level, blank in zip(self._levels, self._blanks, strict=True):
            level.extend([blank] * len(level))
        left, right = self._levels[-1]
        self._levels.append([node_hash(left, right)])
        self._blanks.append(node_hash(right, right))
