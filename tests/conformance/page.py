"""The matrix as its page has it: which feature was shown with which client, on which engine."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "conformance.md"
COLUMNS: Final = ("Python SDK", "Node.js SDK", "llama.cpp", "vLLM")
_BEGIN, _END = "<!-- matrix -->\n", "<!-- end of the matrix -->\n"
Try = tuple[str, bool, bool]
"""A feature, whether the answer was streamed, and whether it was what it had to be."""


def matrix(tried: Mapping[str, Iterable[Try]]) -> str:
    """The table by column; a cell says in which ways all cases of a feature passed."""
    cells: dict[str, dict[str, dict[str, bool]]] = defaultdict(lambda: defaultdict(dict))
    for column in COLUMNS:
        for feature, streams, passed in tried.get(column, ()):
            ways, way = cells[feature][column], "streaming" if streams else "whole"
            ways[way] = ways.get(way, True) and passed
    lines = [f"| feature | {' | '.join(COLUMNS)} |", "| --- |" + " --- |" * len(COLUMNS)]
    for feature, row in cells.items():
        shown = (sorted(way for way, passed in row[column].items() if passed) for column in COLUMNS)
        lines.append(f"| {feature} | {' | '.join(', '.join(ways[::-1]) for ways in shown)} |")
    return "\n".join(lines) + "\n"


def tries(column: str) -> list[Try]:
    """What the page's table says of a column: tries that all passed."""
    head, _, *rows = ([cell.strip() for cell in line.split("|")] for line in on_page().splitlines())
    place = head.index(column)
    ways = ((row[1], way) for row in rows for way in row[place].split(", ") if way)
    return [(feature, way == "streaming", True) for feature, way in ways]


def on_page() -> str:
    """The table that the page has now."""
    text = PAGE.read_text(encoding="utf-8")
    return text[text.index(_BEGIN) + len(_BEGIN) : text.index(_END)]


def write(table: str) -> None:
    """Put a table into the page."""
    text = PAGE.read_text(encoding="utf-8")
    start, end = text.index(_BEGIN) + len(_BEGIN), text.index(_END)
    PAGE.write_text(text[:start] + table + text[end:], encoding="utf-8")
