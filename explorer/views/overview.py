"""The front page: is everything settled, what happened last, who takes part, what is on offer."""

import streamlit as st

from explorer.formats import amount, count, duration, second
from explorer.pieces import Html, Mark, cards, heading, join, link, mark, note, party, source, table
from explorer.reading import Settling
from explorer.site import Site
from explorer.views import lists
from pinaivu.chain.records import NodeCredit
from pinaivu.errors import PinaivuError
from pinaivu.store.explorer import RunningRow, TotalsRow

_RECENT = 10
_RECENT_BATCHES = 6
_NODES = 25


def show(site: Site, _query: dict[str, str]) -> None:
    """The page; its numbers are read anew every few seconds."""
    st.fragment(_live, run_every="5s")(site)


def _live(site: Site) -> None:
    totals, settling = site.reader.totals(), site.reader.settling()
    st.html(_settled(site, totals, settling))
    _numbers(site, totals, settling)
    st.html(heading("Recent requests"))
    lists.receipts(site, site.reader.receipts(limit=_RECENT), {"list": "receipts"}, paged=False)
    if totals.receipts > _RECENT:
        st.html(link("all requests »", list="receipts"))
    _batches(site)
    _nodes(site)
    _models(site)


def _settled(site: Site, totals: TotalsRow, settling: Settling) -> Html:
    if totals.troubles:
        wrong = f"{count(totals.troubles)} of {count(totals.receipts)} receipts do not hold. "
        return note(mark(Mark.BAD), " ", wrong, "Their rows are marked ✗ and say why.", kind="bad")
    if not totals.receipts:
        return note("No receipt yet. The first request through the network will appear here.")
    if settling.waiting:
        age = duration(max(0, site.now_ms() - settling.oldest_ms))
        text = (
            f" {count(settling.waiting)} of {count(totals.receipts)} receipts wait for settlement,"
            f" the oldest for {age}."
        )
        return note(mark(Mark.LACKS), text, kind="lacks")
    text = f" Everything is settled: all {count(totals.receipts)} receipts lie in blocks."
    return note(mark(Mark.OK), text, kind="ok")


def _numbers(site: Site, totals: TotalsRow, settling: Settling) -> None:
    progress = site.reader.progress()
    log, chain = progress.get("log"), progress.get("chain")
    tokens = f"{count(totals.prompt_tokens)} / {count(totals.output_tokens)}"
    st.html(
        cards(
            [
                ("Requests", count(totals.receipts), "receipts in the log"),
                ("Tokens in / out", tokens, "billed, by the receipts"),
                (f"Charged, {site.symbol}", amount(int(totals.charged)), "sum of the receipts"),
                ("Log", f"{count(log.position if log else 0)} leaves", "checkpoint, verified here"),
                ("Settled", f"{count(settling.size)} leaves", "chain events"),
                ("Block", count(chain.position if chain else 0), "newest read from the chain"),
            ]
        )
    )


def _batches(site: Site) -> None:
    rows = site.reader.batches(limit=_RECENT_BATCHES)
    settled = site.reader.settlements([row.sequence for row in rows])
    st.html(heading("Recent batches and anchors"))
    st.html(lists.batches(rows, settled))
    if rows and rows[0].sequence > _RECENT_BATCHES:
        st.html(link("all batches »", list="batches"))
    st.html(source("signed batches of the log, recomputed from their receipts here; chain events"))


def _nodes(site: Site) -> None:
    rows = site.reader.busiest("node", _NODES)
    credits_ = _credits(site, rows)
    cells = []
    for row, credit in zip(rows, credits_, strict=True):
        cells.append(
            [
                _node_mark(row),
                party("node", row.key),
                count(row.counter),
                amount(int(row.total)),
                amount(credit.lifetime) if credit else "–",
                amount(credit.lifetime - credit.credit) if credit else "–",
                amount(credit.credit) if credit else "–",
            ]
        )
    unit = site.symbol
    columns = ["", "Node", "Jobs#", f"Earned {unit}#", "Credited#", "Paid out#", "Credit left#"]
    st.html(heading("Nodes"))
    st.html(table(columns, cells, empty="no node has served yet"))
    st.html(
        source(
            "jobs and earnings (net of fees) from the receipts; credited, paid out and credit from "
            "the chain"
            if all(credits_)
            else "receipts; the chain does not answer now"
        )
    )


def _node_mark(row: RunningRow) -> Html:
    if row.troubles:
        return mark(Mark.BAD, f"{row.troubles} of its receipts do not hold")
    return mark(Mark.OK, "its counters are gapless and its totals add up")


def _credits(site: Site, rows: list[RunningRow]) -> list[NodeCredit | None]:
    try:
        return [*site.client.node_credits([row.key for row in rows])] if rows else []
    except PinaivuError:
        return [None] * len(rows)


def _models(site: Site) -> None:
    st.html(heading("Models on offer"))
    try:
        market = site.log.market()
    except PinaivuError as error:
        st.html(note("The log's server does not answer: ", str(error), kind="lacks"))
        return
    cells = []
    for model, offers in sorted(market.items()):
        registered = _registered(site, model)
        cells.append([model, count(offers), *registered])
    columns = ["Model", "Standing offers#", "Context#", "Input price ÷ output price#", "Weights"]
    st.html(table(columns, cells, empty="nothing is on offer now"))
    st.html(source("offers: the coordinator's market page, now; the rest: model registry on chain"))
    if epochs := site.reader.epochs():
        newest = epochs[-1]
        words = mark(Mark.BAD, newest.trouble) if newest.trouble else mark(Mark.OK, "registered")
        st.html(
            source(
                join("all marks rest on the key of epoch ", str(newest.number), " ", words),
                ", registered on chain; whether attested code holds it is V1 of each request",
            )
        )


def _registered(site: Site, model: str) -> list[str]:
    try:
        record = site.client.model(model)
    except PinaivuError:
        return ["–", "–", "the chain does not answer"]
    if record is None:
        return ["–", "–", "not registered"]
    ratio = f"{record.ratio_ppm / 10_000:.2f} %"
    return [count(record.context_tokens), ratio, f"0x{record.fingerprint.hex()[:16]}…"]


def show_list(site: Site, query: dict[str, str]) -> None:
    """All receipts or all batches, a page at a time."""
    before = int(query["before"]) if query.get("before", "").isdigit() else None
    if query.get("list") == "batches":
        st.html(heading("Batches and anchors", level=2))
        rows = site.reader.batches(before=before)
        st.html(lists.batches(rows, site.reader.settlements([row.sequence for row in rows])))
        if rows and rows[-1].sequence > 1:
            st.html(link("older »", list="batches", before=str(rows[-1].sequence)))
        return
    st.html(heading("Requests", level=2))
    found = site.reader.receipts(before=before)
    lists.receipts(site, found, {"list": "receipts"} | _only(query, "before"), paged=True)
    if found:
        st.html(source(f"times are UTC; oldest on this page: {second(found[-1].row.closed_ms)}"))


def _only(query: dict[str, str], name: str) -> dict[str, str]:
    return {name: query[name]} if name in query else {}
