"""The part of the log's tree that was proven here: roots of full tiles, leaf hashes of the last.

One hash per 256 leaves is kept, so a million leaves are 4,000 hashes, and the root of any size
takes them and at most 255 leaf hashes. What a new checkpoint says is compared with a tree that
begins with these very hashes: a log that rewrote its history can't match.
"""

from collections.abc import Sequence

from pinaivu.merkle.hashing import EMPTY_ROOT, fold, root_of_leaves
from pinaivu.merkle.tiles import TILE_HEIGHT, TILE_WIDTH
from pinaivu.merkle.tree import Tree


class Prefix:
    """Full tiles' roots and the leaf hashes behind them."""

    def __init__(self, tiles: Sequence[bytes] = (), tail: Sequence[bytes] = ()) -> None:
        self._tree = Tree(tiles)  # the roots of full tiles are nodes of height 8
        self.tail = list(tail)

    @property
    def tiles(self) -> int:
        """Number of full tiles."""
        return len(self._tree)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self.tiles * TILE_WIDTH + len(self.tail)

    def tile_roots(self) -> list[bytes]:
        """The roots of all full tiles."""
        return self._tree.hashes(0, 0, self.tiles)

    def root(self) -> bytes:
        """The root over all leaves."""
        return self.root_at(self.tiles, self.tail)

    def root_at(self, tiles: int, tail: Sequence[bytes]) -> bytes:
        """The root over the first `tiles` full tiles and the leaf hashes `tail` after them."""
        perfect = self._perfect(tiles)
        if tail:
            perfect.append(root_of_leaves(tail))
        return fold(perfect) if perfect else EMPTY_ROOT

    def extended(self, tiles: Sequence[bytes], tail: Sequence[bytes]) -> "Prefix":
        """This prefix with `tiles` after its full tiles, and `tail` instead of its own."""
        return Prefix([*self.tile_roots(), *tiles], tail)

    def append(self, leaf: bytes) -> bytes | None:
        """Add a leaf hash; the root of the tile that it fills, if it fills one."""
        self.tail.append(leaf)
        if len(self.tail) < TILE_WIDTH:
            return None
        root = root_of_leaves(self.tail)
        self._tree.append(root)
        self.tail = []
        return root

    def _perfect(self, tiles: int) -> list[bytes]:
        """Roots of the perfect subtrees over the first full tiles, largest first."""
        found, start = list[bytes](), 0
        for height in range(tiles.bit_length() - 1, -1, -1):
            if tiles >> height & 1:
                found += self._tree.hashes(height, start >> height, (start >> height) + 1)
                start += 1 << height
        return found


def split_size(size: int) -> tuple[int, int]:
    """A size as its number of full tiles and the leaves after them."""
    return size >> TILE_HEIGHT, size & (TILE_WIDTH - 1)
