"""An append-only Merkle tree in memory that answers for every size it ever had.

It keeps the hash of each perfect subtree: 64 bytes per leaf, O(1) amortised per append, O(log n)
per root and proof. It is not durable and not locked: one writer appends a leaf after it is durable
elsewhere, and at start-up the tree is rebuilt from the stored leaves.

    >>> tree = Tree([bytes(32)] * 3)
    >>> tree.root(1) == tree.leaf(0), len(tree.inclusion_proof(0, 3))
    (True, 2)
"""

from collections.abc import Iterable, Iterator

from pinaivu.errors import InvalidEncoding
from pinaivu.merkle.hashing import HASH_BYTES, fold, node_hash


class Tree:
    """Leaves 0 to `len(tree) - 1`, and roots and proofs of every prefix of them."""

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[bytearray] = [bytearray()]
        for leaf in leaves:
            self.append(leaf)

    def __len__(self) -> int:
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf: bytes) -> int:
        """Add a leaf hash (`hashing.leaf_hash` of the entry); its index."""
        if len(leaf) != HASH_BYTES:
            raise InvalidEncoding(f"a leaf hash has {HASH_BYTES} bytes, not {len(leaf)}")
        index, node = len(self), leaf
        position = index
        for level in self._levels:
            level.extend(node)
            if not position & 1:
                return index
            node = node_hash(bytes(level[-2 * HASH_BYTES : -HASH_BYTES]), node)
            position >>= 1
        self._levels.append(bytearray(node))
        return index

    def leaf(self, index: int) -> bytes:
        """The leaf hash at `index`."""
        return self.hashes(0, index, index + 1)[0]

    def hashes(self, height: int, start: int, stop: int) -> list[bytes]:
        """Roots of the perfect subtrees of 2^height leaves, number `start` up to `stop`."""
        available = len(self._levels[height]) // HASH_BYTES if height < len(self._levels) else 0
        if height < 0 or not 0 <= start <= stop <= available:
            raise InvalidEncoding(
                f"subtrees [{start}, {stop}) of height {height}: the tree has {available}"
            )
        return [self._perfect(height, number) for number in range(start, stop)]

    def root(self, size: int | None = None) -> bytes:
        """The root over the first `size` leaves; over all without."""
        return self._range_root(0, self._checked(len(self) if size is None else size))

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Siblings from leaf `index` up to the root over `size` leaves (RFC 9162, 2.1.3.1)."""
        if not 0 <= index < self._checked(size):
            raise InvalidEncoding(f"no leaf {index} in a tree of {size}")
        proof = []
        start, stop = 0, size
        while stop - start > 1:
            middle = start + _split(stop - start)
            if index < middle:
                proof.append(self._range_root(middle, stop))
                stop = middle
            else:
                proof.append(self._range_root(start, middle))
                start = middle
        return proof[::-1]

    def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        """Hashes that show the first `old_size` of `new_size` leaves unchanged (RFC 9162, 2.1.4.1).

        Empty from the empty tree and between equal sizes.
        """
        if not 0 <= old_size <= self._checked(new_size):
            raise InvalidEncoding(f"a tree does not grow from {old_size} to {new_size} leaves")
        if old_size in (0, new_size):
            return []
        proof = []
        start, stop = 0, new_size
        while stop != old_size:
            middle = start + _split(stop - start)
            if old_size <= middle:
                proof.append(self._range_root(middle, stop))
                stop = middle
            else:
                proof.append(self._range_root(start, middle))
                start = middle
        if start:  # else the old tree is a perfect subtree, whose root the verifier has
            proof.append(self._range_root(start, stop))
        return proof[::-1]

    def _checked(self, size: int) -> int:
        if not 0 <= size <= len(self):
            raise InvalidEncoding(f"size {size} of a tree of {len(self)} leaves")
        return size

    def _range_root(self, start: int, stop: int) -> bytes:
        """The root over a subtree's leaves; `start` is a multiple of the subtree's full width."""
        return fold(list(self._perfect_subtrees(start, stop)))

    def _perfect_subtrees(self, start: int, stop: int) -> Iterator[bytes]:
        """Roots of the perfect subtrees that make up a subtree, largest first."""
        while start < stop:
            height = (stop - start).bit_length() - 1
            yield self._perfect(height, start >> height)
            start += 1 << height

    def _perfect(self, height: int, number: int) -> bytes:
        at = number * HASH_BYTES
        return bytes(self._levels[height][at : at + HASH_BYTES])


def _split(width: int) -> int:
    """The largest power of two below `width` (which is at least 2)."""
    return 1 << ((width - 1).bit_length() - 1)
