"""A log's tree as far as its published tiles are needed: a mirror is enough, not the whole log.

Reads the few hash tiles that a root or proof takes, each once. What comes out is as true as the
tiles: check it against signed or anchored roots.
"""

from collections.abc import Callable

from pinaivu.merkle.hashing import root_of_leaves
from pinaivu.merkle.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, read_hash_tile
from pinaivu.merkle.tree import Tree


class TiledTree(Tree):
    """The tree over the first `size` leaves of a log. Nothing can be appended.

    `read` gives a tile's content, exactly as wide as asked for; its errors come through.
    """

    def __init__(self, size: int, read: Callable[[Tile], bytes]) -> None:
        super().__init__()
        self._size = size
        self._read = read
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def __len__(self) -> int:
        return self._size

    def _perfect(self, height: int, number: int) -> bytes:
        level, above = divmod(height, TILE_HEIGHT)
        index, first = divmod(number << above, TILE_WIDTH)
        return root_of_leaves(self._hashes(level, index)[first : first + (1 << above)])

    def _hashes(self, level: int, index: int) -> list[bytes]:
        known = self._tiles.get((level, index))
        if known is None:
            there = (self._size >> (TILE_HEIGHT * level)) - index * TILE_WIDTH
            tile = Tile(level, index, min(TILE_WIDTH, there))
            known = self._tiles[level, index] = read_hash_tile(self._read(tile), tile.width)
        return known
