"""Public log resources: tile paths and contents (C2SP tlog-tiles; types.md, section 4).

A tile holds up to 256 hashes of one tile level: level L has the roots of the perfect subtrees of
256^L leaves. Entry and receipt bundles run beside the tiles of level 0. The path arithmetic needs
nothing but numbers; contents are made from a `Tree` and read back strictly. A tile read from a
stranger proves nothing until the root computed from it equals a signed one.

    >>> Tile(0, 1234067, 8).path
    'tile/0/x001/x234/067.p/8'
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal, Self, TypeAlias

from msgspec import Struct

from pinaivu.errors import InvalidEncoding
from pinaivu.merkle.hashing import HASH_BYTES
from pinaivu.merkle.tree import Tree

TILE_WIDTH: Final = 256
TILE_HEIGHT: Final = 8
MAX_LEVEL: Final = 7
"""A tree of 2^64 leaves has tiles on levels 0 to 7."""

Level: TypeAlias = int | Literal["entries", "receipts"]
"""A tile level, or a bundle that runs beside level 0."""

_BUNDLES: Final = ("entries", "receipts")
_MAX_INDEX: Final = (1 << 56) - 1
_PATH: Final = re.compile(
    r"tile/(?P<level>[0-7]|entries|receipts)"
    r"/(?P<index>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)
_ENTRY_LENGTH: Final = HASH_BYTES.to_bytes(2)


class Tile(Struct, frozen=True):
    """Names one tile or bundle: level, number on its level, and how many items it holds."""

    level: Level
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        level_known = self.level in _BUNDLES or (
            isinstance(self.level, int) and 0 <= self.level <= MAX_LEVEL
        )
        if not level_known or not 0 <= self.index <= _MAX_INDEX:
            raise InvalidEncoding(f"no tile {self.index} on level {self.level}")
        if not 1 <= self.width <= TILE_WIDTH:
            raise InvalidEncoding(f"a tile is 1 to {TILE_WIDTH} wide, not {self.width}")

    @property
    def path(self) -> str:
        """Where the resource is, relative to the log's address."""
        partial = f".p/{self.width}" if self.width < TILE_WIDTH else ""
        return f"tile/{self.level}/{_grouped(self.index)}{partial}"

    @classmethod
    def from_path(cls, path: str) -> Self:
        """The tile a path names; any other spelling than `path` gives is `InvalidEncoding`."""
        match = _PATH.fullmatch(path)
        if not match:
            raise InvalidEncoding(f"{path[:80]!r} names no tile")
        level: Level = _bundle_or_level(match["level"])
        index = int(match["index"].replace("/x", "").replace("/", "").removeprefix("x"))
        tile = cls(level, index, int(match["width"] or TILE_WIDTH))
        if tile.path != path:
            raise InvalidEncoding(f"{path[:80]!r} is written {tile.path}")
        return tile

    @property
    def height(self) -> int:
        """Height in the tree of the subtrees whose roots the tile holds."""
        return TILE_HEIGHT * self.level if isinstance(self.level, int) else 0

    @property
    def start(self) -> int:
        """Number, on the tile's height, of its first item."""
        return self.index * TILE_WIDTH

    @property
    def stop(self) -> int:
        """Number of the item after its last."""
        return self.start + self.width

    def exists_at(self, size: int) -> bool:
        """Whether a tree of `size` leaves fills the tile to its width."""
        return self.stop <= size >> self.height


def tiles_at(level: Level, size: int, since: int = 0) -> Iterator[Tile]:
    """The tiles on a level of a tree of `size` leaves, the last perhaps partial.

    With `since`, an earlier size, only those that hold something new.
    """
    height = TILE_HEIGHT * level if isinstance(level, int) else 0
    count, known = size >> height, since >> height
    for index in range(known // TILE_WIDTH, -(-count // TILE_WIDTH)):
        width = min(TILE_WIDTH, count - index * TILE_WIDTH)
        if index * TILE_WIDTH + width > known:
            yield Tile(level, index, width)


def hash_tile(tree: Tree, tile: Tile) -> bytes:
    """A tile's content: its hashes, joined. `InvalidEncoding` where the tree is too small."""
    if not isinstance(tile.level, int):
        raise InvalidEncoding(f"{tile.path} is a bundle, not a tile of hashes")
    return b"".join(tree.hashes(tile.height, tile.start, tile.stop))


def read_hash_tile(raw: bytes, width: int) -> list[bytes]:
    """The hashes of a tile that is `width` wide."""
    if len(raw) != width * HASH_BYTES:
        raise InvalidEncoding(f"a tile of {width} hashes does not have {len(raw)} bytes")
    return [raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)]


def entry_bundle(entries: Sequence[bytes]) -> bytes:
    """An entry bundle's content: each 32-byte log entry behind its length."""
    for entry in entries:
        if len(entry) != HASH_BYTES:
            raise InvalidEncoding(f"a log entry has {HASH_BYTES} bytes, not {len(entry)}")
    return b"".join(_ENTRY_LENGTH + entry for entry in entries)


def read_entry_bundle(raw: bytes, width: int) -> list[bytes]:
    """The entries of a bundle that is `width` wide."""
    step = len(_ENTRY_LENGTH) + HASH_BYTES
    if len(raw) != width * step:
        raise InvalidEncoding(f"a bundle of {width} entries does not have {len(raw)} bytes")
    rows = [raw[at : at + step] for at in range(0, len(raw), step)]
    if any(not row.startswith(_ENTRY_LENGTH) for row in rows):
        raise InvalidEncoding(f"a bundle holds an entry that is not {HASH_BYTES} bytes long")
    return [row[len(_ENTRY_LENGTH) :] for row in rows]


def _grouped(index: int) -> str:
    """A tile number in groups of three digits, all but the last marked by an x."""
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])


def _bundle_or_level(text: str) -> Level:
    if text == "entries":
        return "entries"
    return "receipts" if text == "receipts" else int(text)
