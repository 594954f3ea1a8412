"""What to do when something is not found: in words, with the next step."""

from uuid import UUID

import streamlit as st

from explorer.formats import count, second
from explorer.pieces import Html, Mark, join, mark, note, tag
from explorer.site import Site
from pinaivu.errors import PinaivuError


def request(site: Site, wanted: UUID) -> None:
    """No receipt of this id in the index: it is late, elsewhere or mistyped."""
    st.html(tag("div", tag("small", "Request"), str(wanted), class_="pnv-title"))
    st.html(
        note(
            mark(Mark.LACKS),
            " ",
            tag("b", "No receipt with this id is known here."),
            " ",
            _at_the_log(site, wanted),
            kind="lacks",
        )
    )
    st.html(
        _advice(
            "Just sent? A receipt appears within seconds of the answer's end: reload this page.",
            "Compare the id with the x-request-id header, or request_id in the answer's body.",
            "Ask the gateway that answered: GET /v1/receipts/{id} with the API key. While it says "
            "202, the receipt is on its way; with 404 it never took that request.",
            f"This explorer reads one log, {site.config.log_id}. A gateway may use another; its "
            "receipts are on that log's explorer.",
        )
    )
    _indexer(site)


def party(site: Site, kind: str, text: str) -> None:
    """No such node, payer or gateway."""
    st.html(
        note(
            mark(Mark.LACKS),
            f" No receipt of this log names {text} as {kind}, and the chain has no event of it.",
            kind="lacks",
        )
    )
    st.html(
        _advice(
            f"Check the address: 0x and 40 hex digits, the {kind}'s own key, not its wallet.",
            "A party appears here with its first receipt or registration.",
        )
    )
    _indexer(site)


def batch(site: Site, text: str) -> None:
    """No such batch."""
    st.html(note(mark(Mark.LACKS), f" This log has no batch {text} yet.", kind="lacks"))
    st.html(_advice("Batches are numbered from 1 without gaps; the newest are on the overview."))
    _indexer(site)


def transaction(site: Site, text: str) -> None:
    """No event of ours in such a transaction."""
    st.html(
        note(
            mark(Mark.LACKS),
            f" No event of this network's contracts is known from transaction {text}.",
            kind="lacks",
        )
    )
    st.html(
        _advice(
            "Check the hash: 0x and 64 hex digits.",
            "A transaction that failed, is not mined yet, or touches other contracts is not here.",
        )
    )
    _indexer(site)


def not_an_id(text: str) -> None:
    """Something that is no request id."""
    st.html(note(mark(Mark.LACKS), f" {text[:80]!r} is no request id.", kind="lacks"))
    st.html(_advice("A request id looks like 01a2014d-c89f-714e-aeb2-587aafeab715."))


def nothing(text: str) -> None:
    """A search that means nothing known."""
    st.html(note(mark(Mark.LACKS), f" Nothing is known under {text[:100]!r}.", kind="lacks"))
    st.html(
        _advice(
            "A request: its id, as 01a2014d-c89f-714e-aeb2-587aafeab715.",
            "A node, payer or gateway: its address, 0x and 40 hex digits.",
            "A transaction, a receipt or a batch: its hash, 0x and 64 hex digits.",
            "A batch: its number.",
        )
    )


def _at_the_log(site: Site, wanted: UUID) -> str:
    try:
        there = site.log.receipts(wanted)
    except PinaivuError as error:
        return f"The log could not be asked: {error}"
    if there:
        return "The log has it, though: the indexer takes it in with the next checkpoint; reload."
    return "The log does not have it either."


def _indexer(site: Site) -> None:
    row = site.reader.progress().get("log")
    if row is None:
        st.html(note("The indexer has not read the log yet.", kind="lacks"))
        return
    words = f"This explorer knows {count(row.position)} leaves of the log"
    st.html(tag("p", f"{words}; last look {second(row.looked_ms)}.", class_="pnv-source"))


def _advice(*steps: str) -> Html:
    lines = [tag("li", step) for step in steps]
    return join(tag("p", "What you can do:"), tag("ul", *lines))
