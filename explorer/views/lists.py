"""Lists that several pages show: receipts, batches, events, with their sources and pages."""

import json
from collections.abc import Sequence
from typing import Final

import streamlit as st

from explorer.formats import amount, count, reason, request_id, second, status
from explorer.pieces import (
    Html,
    Mark,
    join,
    link,
    mark,
    marked,
    party,
    source,
    table,
    tag,
    transaction,
)
from explorer.reading import PAGE, Listed
from explorer.site import Site
from pinaivu.keys import checksum
from pinaivu.store.explorer import BatchRow, EventRow, SettlementRow

_HOLDS: Final = "signed by its epoch's key, under a verified checkpoint, and its counters follow"
_AMOUNTS: Final = frozenset(
    {"amount", "balance", "debtRepaid", "debited", "fees", "covered", "uncovered", "requested"}
)
_LONG: Final = 66


def receipts(site: Site, rows: Sequence[Listed], query: dict[str, str], *, paged: bool) -> None:
    """A list of receipts; with `paged` also the links to what is older."""
    columns = ["", "Request", "When", "Model", "Node", "Tokens in/out#", f"Cost {site.symbol}#"]
    cells = [
        [
            marked(listed.row.trouble, _HOLDS),
            request(listed),
            second(listed.row.closed_ms),
            listed.row.model,
            party("node", listed.row.node),
            f"{count(listed.row.prompt_tokens)} / {count(listed.row.output_tokens)}",
            amount(int(listed.row.total)),
            outcome(listed),
            settled_in(listed),
        ]
        for listed in rows
    ]
    st.html(table([*columns, "Outcome", "Settled in"], cells, empty="no receipt yet"))
    if paged:
        _pager(rows, query)
    st.html(
        source(
            "receipts of the log, checked by this explorer's indexer (the mark says for what); "
            "the block from the chain's events"
        )
    )


def request(listed: Listed) -> Html:
    """A link to the receipt's request page."""
    shown = request_id(listed.row.job_id)
    return tag("code", link(shown, request=shown, gateway=checksum(listed.row.gateway)))


def outcome(listed: Listed) -> str:
    """What became of the job, and why where it isn't well."""
    why = reason(listed.row.reason)
    return f"{status(listed.row.status)} ({why})" if why else status(listed.row.status)


def settled_in(listed: Listed) -> Html:
    """The block, or how far the receipt has come."""
    if listed.settlement is not None:
        sequence = str(listed.settlement.sequence)
        hint = f"batch {sequence}"
        return link(f"block {count(listed.settlement.block_number)}", hint, batch=sequence)
    if listed.batch is not None:
        return link(
            f"batch {listed.batch.sequence}, not on chain yet", batch=str(listed.batch.sequence)
        )
    return Html("in the log")


def batches(rows: Sequence[BatchRow], settled: dict[int, SettlementRow]) -> Html:
    """A table of batches and their anchors."""
    cells = []
    for row in rows:
        on_chain = settled.get(row.sequence)
        cells.append(
            [
                marked(row.trouble, "rows and statements are what the receipts give"),
                link(f"batch {row.sequence}", batch=str(row.sequence)),
                f"{count(row.new_size - row.prev_size)}",
                second(row.time_ms),
                anchor_mark(row, on_chain),
                count(on_chain.block_number) if on_chain else "not yet",
                transaction(on_chain.transaction) if on_chain else "–",
            ]
        )
    columns = ["", "Batch", "Leaves#", "Signed", "Anchor", "Block#", "Transaction"]
    return table(columns, cells, empty="no batch yet")


def anchor_mark(row: BatchRow, on_chain: SettlementRow | None) -> Html:
    """Whether the chain settled this very batch."""
    if on_chain is None:
        return mark(Mark.LACKS, "the chain has not settled it yet")
    if on_chain.batch_digest != row.digest:
        return mark(Mark.BAD, "the chain settled another batch of this number")
    return mark(Mark.OK, "the chain settled this very batch")


def events(site: Site, rows: Sequence[EventRow]) -> Html:
    """A table of contract events."""
    cells = [
        [
            count(row.block_number),
            tag("span", second(row.block_ms), class_="pnv-nowrap"),
            tag("span", f"{row.contract} · {row.name}", class_="pnv-nowrap"),
            _arguments(site, row),
            transaction(row.transaction),
        ]
        for row in rows
    ]
    return table(["Block#", "Time", "Event", "Values", "Transaction"], cells, empty="no event yet")


def event_amount(row: EventRow) -> int:
    """The amount an event is about, base units; 0 where it has none."""
    return int(json.loads(row.arguments).get("amount", 0))


def event_number(row: EventRow, name: str) -> int:
    """An integer argument of an event."""
    return int(json.loads(row.arguments)[name])


def _arguments(site: Site, row: EventRow) -> Html:
    said: dict[str, object] = json.loads(row.arguments)
    parts = []
    for name, value in said.items():
        text = str(value)
        if name in _AMOUNTS:
            text = f"{amount(int(text))} {site.symbol}"
        shown = text if len(text) <= _LONG else f"{text[:_LONG]}…"
        parts.append(join(tag("span", f"{name} ", class_="pnv-name"), tag("code", shown)))
    return join(*parts, between=" · ")


def _pager(rows: Sequence[Listed], query: dict[str, str]) -> None:
    links = []
    if "before" in query:
        rest = {name: value for name, value in query.items() if name != "before"}
        links.append(link("« newest", **rest))
    if len(rows) == PAGE:
        links.append(link("older »", **query | {"before": str(rows[-1].row.position)}))
    if links:
        st.html(tag("div", *links, class_="pnv-pager"))
