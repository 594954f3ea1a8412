"""Reads a document: its blocks, the marks above them, its links and headings.

A mark is an HTML comment on the line before a fenced block:

    <!-- run -->                      run it; it must succeed
    <!-- run: exit 2 -->              run it; it must end with that code
    <!-- run: until "some text" -->   start it, go on once it has printed the text; ended by Ctrl-C
                                      after the last page
    <!-- file: NAME -->               write the block to that file
    <!-- output -->                   its lines were printed by the block run before, in this order;
                                      numbers may differ, and `…` stands for anything

A document that begins with `<!-- after: PAGE -->` goes on in the folder which that page left.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

ROOT: Final = Path(__file__).parents[2]
_BLOCK: Final = re.compile(
    r"^(?:<!-- (?P<mark>run|file|output)(?:: (?P<argument>.+?))? -->\n)?"
    r"^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_AFTER: Final = re.compile(r"\A<!-- after: (?P<page>\S+) -->\n")
_LINK: Final = re.compile(
    r"\]\((?P<target>[^)\s]+)\)|(?:src|srcset|href)=\"(?P<attribute>[^\"]+)\""
)
_HEADING: Final = re.compile(r"^#{1,6} (?P<title>.+)$", re.MULTILINE)
_NOT_IN_ANCHOR: Final = re.compile(r"[^\w\- ]")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `mark` is None where nothing is said about it."""

    language: str
    text: str
    mark: str | None
    argument: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """One document of the tree; `name` is its path from the root."""

    name: str
    text: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """The document in a file of the tree."""
        return cls(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))

    @property
    def after(self) -> str | None:
        """The page in whose folder this one goes on."""
        found = _AFTER.match(self.text)
        return found["page"] if found else None

    @property
    def blocks(self) -> list[Block]:
        """All fenced blocks, in order."""
        return [
            Block(found["language"], found["text"], found["mark"], found["argument"])
            for found in _BLOCK.finditer(self.text)
        ]

    @property
    def marked(self) -> list[Block]:
        """The blocks that something is done with."""
        return [block for block in self.blocks if block.mark]

    @property
    def links(self) -> set[str]:
        """Targets of all links and pictures outside fenced blocks."""
        prose = _BLOCK.sub("", self.text)
        return {found["target"] or found["attribute"] for found in _LINK.finditer(prose)}

    @property
    def anchors(self) -> set[str]:
        """What a link's `#…` may name: headings as hosts of Markdown turn them into ids."""
        prose = _BLOCK.sub("", self.text)
        titles = (found["title"] for found in _HEADING.finditer(prose))
        return {_NOT_IN_ANCHOR.sub("", title.lower()).replace(" ", "-") for title in titles}


def documents() -> list[Page]:
    """Every document of the tree, README first."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    names = sorted(paths, key=lambda path: (path.name != "README.md", str(path)))
    return [Page.read(path) for path in names]
