"""The few HTML pieces that all pages are made of. Every text from outside is escaped here.

Pages are built from `Html`, a string that is known to be markup; plain strings are escaped when
they are joined with it. Links are query parameters, so every page has an address to pass on.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from html import escape
from importlib.resources import files
from urllib.parse import urlencode

from explorer.formats import short, short_hash
from pinaivu.encoding import to_hex
from pinaivu.keys import checksum
from pinaivu.verify import Outcome


class Html(str):
    """Markup that is safe to show as it is."""

    __slots__ = ()


class Mark(StrEnum):
    """What became of a check."""

    OK = "✓"
    BAD = "✗"
    LACKS = "?"
    SIMULATED = "SIMULATED"


_CLASSES = {Mark.OK: "ok", Mark.BAD: "bad", Mark.LACKS: "lacks", Mark.SIMULATED: "sim"}
_WORDS = {
    Mark.OK: "checked",
    Mark.BAD: "refuted",
    Mark.LACKS: "lacking",
    Mark.SIMULATED: "SIMULATED, not proven",
}
MARKS = {
    Outcome.PASSED: Mark.OK,
    Outcome.FAILED: Mark.BAD,
    Outcome.LACKING: Mark.LACKS,
    Outcome.NOT_AUDITED: Mark.LACKS,
    Outcome.SIMULATED: Mark.SIMULATED,
}


def join(*parts: str, between: str = "") -> Html:
    """Markup of parts, plain strings among them escaped."""
    return Html(_safe(between).join(_safe(part) for part in parts))


def tag(name: str, *parts: str, **attributes: str) -> Html:
    """An element; ``class_`` gives its class."""
    written = "".join(
        f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items() if value
    )
    return Html(f"<{name}{written}>{join(*parts)}</{name}>")


def style() -> Html:
    """The pages' style sheet."""
    return Html(f"<style>{(files('explorer') / 'style.css').read_text('utf-8')}</style>")


def link(text: str, hint: str = "", **query: str) -> Html:
    """A link to a page of the explorer; without a query to the overview."""
    return tag("a", text, href="?" + urlencode(query), title=hint, class_="pnv-link")


def party(kind: str, address: bytes) -> Html:
    """A link to a node's, payer's or gateway's page."""
    if not any(address):
        return Html("–")
    full = checksum(address)
    return tag("code", link(short(address), full, **{kind: full}))


def transaction(digest: bytes) -> Html:
    """A link to a transaction's page."""
    return tag("code", link(short_hash(digest), to_hex(digest), tx=to_hex(digest)))


def mark(value: Mark, why: str = "") -> Html:
    """A check's mark; what it means is its tooltip, and is read out."""
    said = f"{_WORDS[value]}: {why}" if why else _WORDS[value]
    return tag("span", value, class_=f"pnv-mark {_CLASSES[value]}", title=said)


def marked(trouble: str, holds: str) -> Html:
    """The mark of an indexed row: ✓ where there is no trouble."""
    return mark(Mark.BAD, trouble) if trouble else mark(Mark.OK, holds)


def source(*parts: str) -> Html:
    """Where the numbers above come from."""
    return tag("p", "Source: ", *parts, class_="pnv-source")


def note(*parts: str, kind: str = "") -> Html:
    """A paragraph that stands out; kind ok, bad, lacks or sim."""
    return tag("div", *parts, class_=f"pnv-note {kind}", role="status")


def heading(text: str, *, level: int = 3) -> Html:
    """A section's heading."""
    return tag(f"h{level}", text, class_="pnv-heading")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], empty: str = "none yet") -> Html:
    """A table; columns whose name ends in ``#`` hold numbers."""
    numeric = [name.endswith("#") for name in columns]
    head = [
        tag("th", name.rstrip("#"), class_="num" if number else "")
        for name, number in zip(columns, numeric, strict=True)
    ]
    body = [
        tag("tr", *(_cell(v, number) for v, number in zip(row, numeric, strict=True)))
        for row in rows
    ]
    if not body:
        body = [tag("tr", tag("td", empty, colspan=str(len(columns)), class_="pnv-empty"))]
    inner = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body), class_="pnv-table")
    return tag("div", inner, class_="pnv-scroll")


def pairs(items: Mapping[str, str]) -> Html:
    """Names and values below each other."""
    lines = [join(tag("dt", name), tag("dd", value)) for name, value in items.items()]
    return tag("dl", *lines, class_="pnv-pairs")


def cards(items: Iterable[tuple[str, str, str]]) -> Html:
    """Numbers in a row, each with its name and where it comes from."""
    made = [
        tag(
            "div",
            tag("div", name, class_="pnv-name"),
            tag("div", value, class_="pnv-value"),
            tag("div", origin, class_="pnv-origin"),
            class_="pnv-card",
        )
        for name, value, origin in items
    ]
    return tag("div", *made, class_="pnv-cards")


def first_line(items: Iterable[tuple[str, str, Mark, str, str]]) -> Html:
    """Facts in one line: name, value, mark, the step that gave it, and the step's evidence."""
    made = [
        tag(
            "span",
            tag("span", name, class_="pnv-name"),
            tag("span", value, class_="pnv-fact-value"),
            mark(found, f"{step} – {why}"),
            tag("span", step, class_="pnv-step"),
            class_="pnv-fact",
        )
        for name, value, found, step, why in items
    ]
    return tag("div", *made, class_="pnv-first", id="first-line")


def _cell(value: str, numeric: bool) -> Html:  # noqa: FBT001 - a column's kind, passed on
    return tag("td", value, class_="num" if numeric else "")


def _safe(part: str) -> str:
    return part if isinstance(part, Html) else escape(str(part))
