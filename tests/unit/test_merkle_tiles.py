"""Tile paths and contents."""

import pytest

from pinaivu.errors import InvalidEncoding
from pinaivu.merkle import tiles
from pinaivu.merkle.hashing import leaf_hash, root_of_leaves
from pinaivu.merkle.tiles import Level, Tile
from pinaivu.merkle.tree import Tree
from tests.unit import naive_merkle as naive

SIZE = 70_000
LEAVES = [leaf_hash(b"%d" % i) for i in range(SIZE)]


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree(LEAVES)


PATHS: list[tuple[Tile, str]] = [
    (Tile(0, 0), "tile/0/000"),
    (Tile(0, 0, 1), "tile/0/000.p/1"),
    (Tile(1, 999, 255), "tile/1/999.p/255"),
    (Tile(2, 1000), "tile/2/x001/000"),
    (Tile(0, 1234067), "tile/0/x001/x234/067"),
    (Tile(7, 0, 255), "tile/7/000.p/255"),
    (Tile("entries", 1234067, 8), "tile/entries/x001/x234/067.p/8"),
    (Tile("receipts", 67), "tile/receipts/067"),
    (Tile(0, (1 << 56) - 1), "tile/0/x072/x057/x594/x037/x927/935"),
]


@pytest.mark.parametrize(("tile", "path"), PATHS)
def test_a_path_names_its_tile(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert Tile.from_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/tile/0/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/8/000",
        "tile/00/000",
        "tile/-1/000",
        "tile/data/000",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/X001/000",
        "tile/0/x001/x000",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p/",
        "tile/0/000.p/1/",
        "tile/0/000/",
        "tile/0/000\n",
        "tile/0/\u0660\u0660\u0660",
        "tile/0/x072/x057/x594/x037/x927/936",
        "tile/0/" + "x999/" * 6 + "999",
        "tile/0/../0/000",
    ],
)
def test_a_path_in_another_spelling_is_refused(path: str) -> None:
    with pytest.raises(InvalidEncoding):
        Tile.from_path(path)


@pytest.mark.parametrize(
    ("level", "index", "width"),
    [(8, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 1 << 56, 1), (0, 0, 0), (0, 0, 257)],
)
def test_a_tile_that_cannot_be_is_refused(level: Level, index: int, width: int) -> None:
    with pytest.raises(InvalidEncoding):
        Tile(level, index, width)


COVERED = [0, 1, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, SIZE]


@pytest.mark.parametrize("size", COVERED)
def test_tiles_hold_each_perfect_subtree_once(tree: Tree, size: int) -> None:
    for level in range(3):
        found: list[bytes] = []
        for tile in tiles.tiles_at(level, size):
            assert tile.exists_at(size)
            content = tiles.hash_tile(tree, tile)
            found += tiles.read_hash_tile(content, tile.width)
        width = 256**level
        assert len(found) == size // width
        for number in {0, len(found) - 1} if found else ():
            expected = root_of_leaves(LEAVES[number * width : (number + 1) * width])
            assert found[number] == expected


def test_the_leaves_in_the_tiles_give_the_root(tree: Tree) -> None:
    for size in (1, 300, 1000):
        leaves = [
            leaf
            for tile in tiles.tiles_at(0, size)
            for leaf in tiles.read_hash_tile(tiles.hash_tile(tree, tile), tile.width)
        ]
        assert root_of_leaves(leaves) == tree.root(size)


@pytest.mark.parametrize(
    ("level", "since", "size", "expected"),
    [
        (0, 0, 0, []),
        (0, 5, 5, []),
        (0, 256, 256, []),
        (0, 0, 3, ["tile/0/000.p/3"]),
        (0, 3, 5, ["tile/0/000.p/5"]),
        (0, 255, 257, ["tile/0/000", "tile/0/001.p/1"]),
        (0, 256, 257, ["tile/0/001.p/1"]),
        ("entries", 255, 512, ["tile/entries/000", "tile/entries/001"]),
        (1, 0, 255, []),
        (1, 255, 256, ["tile/1/000.p/1"]),
        (1, 257, 511, []),
        (1, 65_535, 65_536, ["tile/1/000"]),
        (2, 65_535, 65_536, ["tile/2/000.p/1"]),
    ],
)
def test_growth_names_the_tiles_that_changed(
    level: Level, since: int, size: int, expected: list[str]
) -> None:
    assert [tile.path for tile in tiles.tiles_at(level, size, since)] == expected


def test_a_tile_beyond_the_tree_is_refused(tree: Tree) -> None:
    last = SIZE // 256
    assert Tile(0, last, SIZE % 256).exists_at(SIZE)
    for tile in (
        Tile(0, last, SIZE % 256 + 1),
        Tile(0, last + 1, 1),
        Tile(1, 1, 18),
        Tile(3, 0, 1),
    ):
        assert not tile.exists_at(SIZE)
        with pytest.raises(InvalidEncoding, match="the tree has"):
            tiles.hash_tile(tree, tile)


def test_a_bundle_has_no_hashes(tree: Tree) -> None:
    with pytest.raises(InvalidEncoding, match="is a bundle"):
        tiles.hash_tile(tree, Tile("entries", 0, 1))


@pytest.mark.parametrize("length", [0, 31, 33, 63, 96])
def test_a_tile_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidEncoding, match="a tile of 2"):
        tiles.read_hash_tile(bytes(length), 2)


def test_an_entry_bundle_is_length_and_entry() -> None:
    entries = [bytes([i]) * 32 for i in range(3)]
    raw = tiles.entry_bundle(entries)
    assert raw == b"".join(b"\x00\x20" + entry for entry in entries)
    assert tiles.read_entry_bundle(raw, 3) == entries


@pytest.mark.parametrize(
    ("raw", "width"),
    [
        (b"", 1),
        (b"\x00\x20" + bytes(32), 2),
        (b"\x00\x20" + bytes(33), 1),
        (b"\x00\x21" + bytes(32), 1),
        (b"\x00\x20" + bytes(32) + b"\x20\x00" + bytes(32), 2),
    ],
)
def test_another_entry_bundle_is_refused(raw: bytes, width: int) -> None:
    with pytest.raises(InvalidEncoding):
        tiles.read_entry_bundle(raw, width)


def test_an_entry_that_is_no_digest_is_not_bundled() -> None:
    with pytest.raises(InvalidEncoding, match="32 bytes"):
        tiles.entry_bundle([bytes(32), bytes(31)])


def test_the_naive_root_agrees_with_a_tile_level(tree: Tree) -> None:
    """Level 1's first hash is the root the definition gives for 256 entries."""
    entries = [b"%d" % i for i in range(256)]
    assert tiles.hash_tile(tree, Tile(1, 0, 1)) == naive.tree_hash(entries)
