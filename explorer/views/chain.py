"""Pages of a batch and of a transaction."""

import streamlit as st

from explorer.formats import amount, count, moment
from explorer.pieces import (
    Html,
    Mark,
    heading,
    join,
    mark,
    marked,
    note,
    pairs,
    party,
    source,
    table,
    tag,
    transaction,
)
from explorer.reading import batch_message
from explorer.site import Site
from explorer.views import lists, missing
from pinaivu.encoding import from_hex, to_hex
from pinaivu.errors import InvalidEncoding
from pinaivu.settlement import unpack_rows
from pinaivu.store.explorer import SettlementRow

_MOST_ROWS = 100


def show_batch(site: Site, query: dict[str, str]) -> None:
    """A batch: what it nets, where it is anchored, which receipts it settles."""
    text = query["batch"]
    row, settled = site.reader.batch(int(text)) if text.isdigit() else (None, None)
    if row is None:
        if settled is not None:
            st.html(_only_on_chain(settled))
        missing.batch(site, text[:20])
        return
    message = batch_message(row)
    st.html(tag("div", tag("small", "Batch"), f"batch {row.sequence}", class_="pnv-title"))
    if row.trouble:
        st.html(note(mark(Mark.BAD), f" {row.trouble}", kind="bad"))
    if settled is not None and settled.batch_digest != row.digest:
        st.html(
            note(mark(Mark.BAD), " The chain settled another batch of this number.", kind="bad")
        )
    recomputed = marked(row.trouble, "recomputed from its receipts: rows, fees, statements, roots")
    st.html(
        pairs(
            {
                "Recomputed": join(recomputed, " rows, fees, statements and roots"),
                "Leaves": f"{count(row.prev_size)} to {count(row.new_size - 1)}",
                "Signed": moment(row.time_ms),
                "Anchor": join(lists.anchor_mark(row, settled), _anchored(settled)),
                "Block": _block(settled),
                "Transaction": transaction(settled.transaction) if settled else "–",
                "Root": tag("code", to_hex(message.new_root)),
                "Digest": tag("code", to_hex(row.digest)),
            }
        )
    )
    _rows(site, message.debits, message.credits, message.fees)
    st.html(heading("Receipts it settles"))
    before = query.get("before", "")
    within = (row.prev_size, row.new_size)
    found = site.reader.receipts(before=int(before) if before.isdigit() else None, within=within)
    lists.receipts(site, found, {"batch": str(row.sequence)}, paged=True)


def show_transaction(site: Site, query: dict[str, str]) -> None:
    """What our contracts did in one transaction."""
    text = query["tx"]
    try:
        digest = from_hex(text.strip().lower(), 32)
    except InvalidEncoding:
        missing.transaction(site, repr(text[:80]))
        return
    rows = site.reader.transaction(digest)
    if not rows:
        missing.transaction(site, to_hex(digest))
        return
    st.html(tag("div", tag("small", "Transaction"), to_hex(digest), class_="pnv-title"))
    st.html(pairs({"Block": f"{count(rows[0].block_number)}, {moment(rows[0].block_ms)}"}))
    st.html(heading("What it did"))
    st.html(lists.events(site, rows))
    st.html(source("events of this network's contracts in the transaction"))
    for row in rows:
        if row.name == "BatchSettled":
            sequence = str(lists.event_number(row, "sequence"))
            show_batch(site, {"batch": sequence})


def _rows(site: Site, debits: bytes, credits_: bytes, fees: int) -> None:
    st.html(heading("What it moves"))
    sides = (("payer", "debit", unpack_rows(debits)), ("node", "credit", unpack_rows(credits_)))
    for kind, word, rows in sides:
        cells = [
            [party(kind, address), amount(units)]
            for address, units in list(rows.items())[:_MOST_ROWS]
        ]
        total = amount(sum(rows.values()))
        columns = [kind.capitalize(), f"{word.capitalize()} {site.symbol}#"]
        st.html(table(columns, [*cells, [tag("b", f"{len(rows)} in all"), tag("b", total)]]))
    st.html(source(f"the signed batch; fees {amount(fees)} {site.symbol}; debits = credits + fees"))


def _anchored(settled: SettlementRow | None) -> str:
    return " compared with the chain's event" if settled else " not on chain yet"


def _block(settled: SettlementRow | None) -> str:
    if settled is None:
        return "not on chain yet"
    return f"{count(settled.block_number)}, {moment(settled.block_ms)}"


def _only_on_chain(settled: SettlementRow) -> Html:
    words = f" The chain settled batch {settled.sequence} in block {settled.block_number}, and "
    return note(mark(Mark.LACKS), words, "the log has not shown it here yet.", kind="lacks")
