"""Pages of a node, a payer, a gateway: what receipts say of it, and what the chain says."""

import streamlit as st

from explorer.formats import amount, count, moment
from explorer.pieces import Html, Mark, cards, heading, join, mark, note, pairs, source, tag
from explorer.site import Site
from explorer.views import lists, missing
from pinaivu.encoding import from_hex
from pinaivu.errors import InvalidEncoding, PinaivuError
from pinaivu.keys import ADDRESS_BYTES, checksum
from pinaivu.store.explorer import EventRow, RunningRow


def show(site: Site, kind: str, query: dict[str, str]) -> None:
    """The page of the party that ``query[kind]`` names."""
    text = query[kind]
    try:
        address = from_hex(text.strip().lower(), ADDRESS_BYTES)
    except InvalidEncoding:
        missing.party(site, kind, repr(text[:80]))
        return
    running = site.reader.running(kind, address)
    events = site.reader.events(party=address)
    listed = site.reader.receipts(before=_before(query), **{kind: address})  # type: ignore[arg-type]
    if running is None and not events and not listed:
        missing.party(site, kind, checksum(address))
        return
    st.html(tag("div", tag("small", kind.capitalize()), checksum(address), class_="pnv-title"))
    if kind == "node":
        _node(site, address, running)
    elif kind == "payer":
        _payer(site, address, running, events)
    else:
        _gateway(site, address)
    st.html(heading("Its receipts"))
    kept = {kind: checksum(address)} | ({"before": query["before"]} if "before" in query else {})
    lists.receipts(site, listed, kept, paged=True)
    st.html(heading("Its events on chain"))
    st.html(lists.events(site, events))
    st.html(source("events of the contracts, newest first"))


def _node(site: Site, node: bytes, running: RunningRow | None) -> None:
    earned = int(running.total) if running else 0
    jobs = count(running.counter) if running else "0"
    settled = site.reader.settled_total("node", node, site.reader.settling().size)
    unit = site.symbol
    shown = [
        ("Jobs", jobs, "segments on receipts"),
        (f"Earned, {unit}", amount(earned), "receipts, net of fees"),
        (f"Of that settled, {unit}", amount(settled), "receipts below the last anchor"),
    ]
    try:
        (credit,) = site.client.node_credits([node])
        record = site.client.node(node)
    except PinaivuError as error:
        st.html(cards(shown))
        st.html(note(mark(Mark.LACKS), f" The chain does not answer: {error}", kind="lacks"))
        return
    shown += [
        (f"Credited, {unit}", amount(credit.lifetime), "chain"),
        (f"Paid out, {unit}", amount(credit.lifetime - credit.credit), "chain"),
        (f"Credit left, {unit}", amount(credit.credit), "chain"),
    ]
    st.html(cards(shown))
    st.html(_agreement("credited", settled, credit.lifetime, scaled=_was_scaled(site)))
    _troubles(running)
    if record is None:
        st.html(note(mark(Mark.LACKS), " The node registry does not know it.", kind="lacks"))
        return
    st.html(
        pairs(
            {
                "Registered": moment(record.registered_at_ms),
                "Payout wallet": tag("code", checksum(record.payout)),
                "Peer id": tag("code", record.peer_id),
            }
        )
    )
    st.html(source("node registry on chain, now"))


def _payer(site: Site, payer: bytes, running: RunningRow | None, events: list[EventRow]) -> None:
    charged = int(running.total) if running else 0
    settled = site.reader.settled_total("payer", payer, site.reader.settling().size)
    unit = site.symbol
    shown = [
        ("Requests", count(running.counter) if running else "0", "receipts"),
        (f"Charged, {unit}", amount(charged), "receipts"),
        (f"Of that settled, {unit}", amount(settled), "receipts below the last anchor"),
    ]
    try:
        state = site.client.payer(payer)
    except PinaivuError as error:
        st.html(cards(shown))
        st.html(note(mark(Mark.LACKS), f" The chain does not answer: {error}", kind="lacks"))
        return
    flow = _flow(events)
    shown += [
        (f"Deposited, {unit}", amount(flow["Deposited"]), "chain events"),
        (f"Withdrawn, {unit}", amount(flow["Withdrawn"]), "chain events"),
        (f"Balance, {unit}", amount(state.balance), "chain"),
    ]
    if state.debt:
        shown.append((f"Debt, {unit}", amount(state.debt), "chain"))
    st.html(cards(shown))
    debited = flow["Deposited"] - flow["Withdrawn"] - state.balance
    special = {event.name for event in events} & {"PayerShort", "Moved", "MoveRequested"}
    st.html(_agreement("debited", settled, debited, scaled=bool(special or state.debt)))
    _troubles(running)
    log = "this log" if state.log_id == site.config.log else f"log 0x{state.log_id.hex()}"
    st.html(
        pairs({"Assigned to": log, "Grant epoch": str(state.grant_epoch)}),
    )
    st.html(source("Settlement contract, now; grants of earlier epochs are revoked"))


def _gateway(site: Site, gateway: bytes) -> None:
    try:
        record = site.client.gateway(gateway)
    except PinaivuError as error:
        st.html(note(mark(Mark.LACKS), f" The chain does not answer: {error}", kind="lacks"))
        return
    if record is None:
        st.html(note(mark(Mark.LACKS), " The gateway registry does not know it.", kind="lacks"))
        return
    endpoints = join(*(tag("code", endpoint) for endpoint in record.endpoints), between=" · ")
    registered = moment(record.registered_at_ms)
    st.html(pairs({"Registered": registered, "Endpoints": endpoints}))
    st.html(source("gateway registry on chain, now"))


def _agreement(word: str, by_receipts: int, by_chain: int, *, scaled: bool) -> Html:
    """Whether settled receipts and chain give one sum; `scaled`: they need not."""
    if by_receipts == by_chain:
        text = f" Settled receipts and chain agree: {amount(by_chain)} {word}."
        return note(mark(Mark.OK), text, kind="ok")
    text = (
        f" The settled receipts add up to {amount(by_receipts)}, the chain has {word} "
        f"{amount(by_chain)}. "
    )
    if scaled:
        why = "Batches were scaled down, or balances moved or fell short: see the events below."
        return note(mark(Mark.LACKS), text, why, kind="lacks")
    why = "If this stays for longer than the indexer needs to catch up, one of them is wrong."
    return note(mark(Mark.BAD), text, why, kind="bad")


def _troubles(running: RunningRow | None) -> None:
    if running and running.troubles:
        text = f" {count(running.troubles)} of its receipts do not hold; the list says why."
        st.html(note(mark(Mark.BAD), text, kind="bad"))


def _was_scaled(site: Site) -> bool:
    return bool(site.reader.events(names=["BatchScaledDown"], limit=1))


def _flow(events: list[EventRow]) -> dict[str, int]:
    """Sums of the amounts of a payer's deposits and withdrawals."""
    return {
        name: sum(lists.event_amount(event) for event in events if event.name == name)
        for name in ("Deposited", "Withdrawn")
    }


def _before(query: dict[str, str]) -> int | None:
    before = query.get("before", "")
    return int(before) if before.isdigit() else None
