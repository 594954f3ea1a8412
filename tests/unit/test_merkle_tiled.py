"""Roots and proofs from published tiles alone."""

import pytest

from pinaivu.errors import InvalidEncoding
from pinaivu.merkle.hashing import leaf_hash
from pinaivu.merkle.tiled import TiledTree
from pinaivu.merkle.tiles import Tile, hash_tile
from pinaivu.merkle.tree import Tree

TREE = Tree(leaf_hash(b"%d" % i) for i in range(70_000))
SIZES = [1, 2, 3, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 66_049, 70_000]


@pytest.mark.parametrize("size", SIZES)
def test_what_tiles_say_is_what_the_tree_says(size: int) -> None:
    """From every earlier size, reading only tiles that a log of this size has."""

    def read(tile: Tile) -> bytes:
        assert tile.exists_at(size)
        return hash_tile(TREE, tile)

    assert TiledTree(size, read).root() == TREE.root(size)
    for old in (o for o in SIZES if o <= size):
        found = TiledTree(size, read).consistency_proof(old, size)
        assert found == TREE.consistency_proof(old, size)


def test_few_tiles_are_read_and_each_once() -> None:
    """A proof in a log of 70,000 leaves takes five of its 275 tiles at most."""
    seen: list[Tile] = []

    def read(tile: Tile) -> bytes:
        seen.append(tile)
        return hash_tile(TREE, tile)

    TiledTree(70_000, read).consistency_proof(69_000, 70_000)
    assert len(seen) == len(set(seen)) <= 5


def test_a_tile_of_another_width_is_refused() -> None:
    with pytest.raises(InvalidEncoding):
        TiledTree(300, lambda tile: hash_tile(TREE, tile) + bytes(32)).root()
