"""The Streamlit script: header with search box, and the page that the query parameters name.

Run by `python -m explorer`, once per view; the configuration file is its only argument. Pages are
addresses: ``?request=…``, ``?node=…``, ``?payer=…``, ``?gateway=…``, ``?batch=…``, ``?tx=…``.
"""

import sys
from pathlib import Path

import streamlit as st

from explorer.config import load_config
from explorer.formats import count, duration
from explorer.pieces import Mark, join, link, mark, note, style, tag
from explorer.search import find
from explorer.site import Site, open_site
from explorer.views import chain, missing, overview, parties, request
from pinaivu.errors import PinaivuError

_SILENT_MS = 30_000
_TASKS = {"log": "log", "batches": "list of batches", "chain": "chain"}


def main() -> None:
    """Draw the page."""
    st.set_page_config(page_title="Pinaivu explorer", layout="wide", menu_items={})
    st.html(style())
    try:
        site = _site(sys.argv[1])
        query = dict(st.query_params)
        header(site, query)
        show(site, query)
    except PinaivuError as error:
        st.html(note(mark(Mark.LACKS), f" The explorer can't show this now: {error}", kind="bad"))


@st.cache_resource(show_spinner=False)
def _site(path: str) -> Site:
    return open_site(load_config(Path(path)))


def show(site: Site, query: dict[str, str]) -> None:
    """The page that the query names; the overview without one."""
    if "q" in query:
        _search(site, query["q"])
    elif "request" in query:
        request.show(site, query)
    elif "batch" in query:
        chain.show_batch(site, query)
    elif "tx" in query:
        chain.show_transaction(site, query)
    elif kind := next((kind for kind in ("node", "payer", "gateway") if kind in query), ""):
        parties.show(site, kind, query)
    elif "list" in query:
        overview.show_list(site, query)
    else:
        overview.show(site, query)


def header(site: Site, query: dict[str, str]) -> None:
    """Name, search box, and whatever keeps these pages from being true and new."""
    left, right = st.columns([2, 3], vertical_alignment="center")
    with left:
        place = f"log {site.config.log_id[:10]}… on chain {site.client.deployment.chain_id}"
        brand = tag("a", "Pinaivu explorer", class_="pnv-brand pnv-link", href="?")
        st.html(tag("div", brand, tag("span", place, class_="pnv-place"), class_="pnv-bar"))
    with right, st.form("search", border=False):
        field, button = st.columns([5, 1], vertical_alignment="bottom")
        typed = field.text_input(
            "Search",
            value=query.get("q", ""),
            placeholder="request id, node, payer, gateway, transaction, batch number",
            label_visibility="collapsed",
        )
        if button.form_submit_button("Search", width="stretch") and typed.strip():
            st.query_params.from_dict({"q": typed.strip()})
            st.rerun()
    st.fragment(_show_faults, run_every="5s")(site)


def _show_faults(site: Site) -> None:
    for shown in _faults(site):
        st.html(shown)


def _faults(site: Site) -> list[str]:
    """What keeps the indexer from being level with log and chain, if anything does."""
    rows, now = site.reader.progress(), site.now_ms()
    found = []
    for task, name in _TASKS.items():
        row = rows.get(task)
        if row is None:
            continue
        if row.fault and row.refuted:
            text = f" The {name} was refuted: {row.fault}"
            found.append(note(mark(Mark.BAD, row.fault), text, kind="bad"))
        elif row.fault:
            age = duration(max(0, now - row.looked_ms)) if row.looked_ms else "ever"
            text = f" The {name} can't be read (last read {age} ago): {row.fault}"
            found.append(note(mark(Mark.LACKS), text, kind="lacks"))
        elif now - row.looked_ms > _SILENT_MS:
            age = duration(now - row.looked_ms)
            text = f" The indexer has not looked at the {name} for {age}: these pages may be old."
            found.append(note(mark(Mark.LACKS), text, kind="lacks"))
    return list(found) or ([] if rows else [note("The indexer is starting.", kind="lacks")])


def _search(site: Site, text: str) -> None:
    pages = find(text, site.reader)
    if len(pages) == 1:
        st.query_params.from_dict(pages[0])
        st.rerun()
    elif not pages:
        missing.nothing(text)
    else:
        choices = [
            tag("li", link(f"{kind} {value}", **{kind: value}))
            for page in pages
            for kind, value in page.items()
        ]
        words = f"This address is known as {count(len(pages))} kinds of party:"
        st.html(note(join(words, tag("ul", *choices))))


if __name__ == "__main__":  # Streamlit runs the script under this name
    main()
