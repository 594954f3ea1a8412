"""The auction of a request as a picture: offers, bids, scores, winner and clearing price.

Drawn from the published transcript, replayed with the rule of `pinaivu.auction`. Whether replay and
receipt agree is V7; this only shows.
"""

from functools import cached_property
from typing import Any, Final

import altair as alt
import streamlit as st
from msgspec import Struct

from explorer.formats import CALL, CLEARING, MILLION, amount, count, duration, short
from explorer.pieces import Html, heading, join, note, party, source, table, tag
from explorer.proof import Proof
from explorer.site import Site
from pinaivu.auction import rule
from pinaivu.auction.placing import Placing, placings
from pinaivu.auction.replay import Replay
from pinaivu.auction.rule import Entrant, Market
from pinaivu.codes import Clearing
from pinaivu.encoding import to_hex
from pinaivu.errors import PinaivuError
from pinaivu.keys import checksum
from pinaivu.messages import Receipt, Segment
from pinaivu.typed_data import Domain
from pinaivu.verify.contents import read_contents
from pinaivu.verify.rerun import rerun

_SCALE: Final = 10**12  # scores are base units × 10⁶
_MOST_DRAWN: Final = 12
_PER_PAGE: Final = 25


class Picture(Struct, frozen=True, dict=True):
    """A replayed auction."""

    replay: Replay
    market: Market

    @cached_property
    def ranked(self) -> list[rule.Ranked]:
        """Eligible entrants, best first."""
        return rule.rank(self.market, self.replay.entrants)

    @cached_property
    def placings(self) -> list[Placing]:
        """Everybody in the book: by place, then who could not take part."""
        return placings(self.replay, self.market)

    @cached_property
    def rival(self) -> bytes:
        """Who sets the first rank's price; empty without one."""
        found = rule.runner_up(self.ranked)
        return found.entrant.row.node if found else b""


def show(site: Site, receipt: Receipt, proof: Proof) -> None:
    """The picture and its numbers, or why there is none."""
    st.html(heading("Auction"))
    if not any(receipt.bids_root):
        st.html(note("No auction was held for this request."))
        return
    try:
        picture = _replay(proof, site.policy.domain)
    except PinaivuError as error:
        st.html(note("The auction can't be shown: ", str(error), kind="lacks"))
        return
    winners = {s.node: s for s in receipt.segments if s.rank}
    st.html(_words(site, picture, receipt, winners))
    shown = picture.ranked[:_MOST_DRAWN]
    if shown:
        left, right = st.columns(2)
        with left:
            st.caption(f"Price per million output tokens, {site.symbol}")
            st.altair_chart(_prices(shown, winners), width="stretch")
        with right:
            st.caption(f"Score, {site.symbol}: the lowest wins")
            st.altair_chart(_scores(picture.market, shown), width="stretch")
    _table(site, picture, winners)
    st.html(
        source(
            "the auction's published transcript, replayed here (V7): offers and bids are signed by "
            "the nodes, success and calibration are the coordinator's measurements"
        )
    )


def _replay(proof: Proof, domain: Domain) -> Picture:
    if not proof.document:
        raise _NotShown(proof.problem or "the bundle does not open")
    return Picture(*rerun(read_contents(proof.document), domain, proof.book))


class _NotShown(PinaivuError):
    """There is nothing to draw from."""


def _words(site: Site, picture: Picture, receipt: Receipt, winners: dict[bytes, Segment]) -> Html:
    header = picture.replay.header
    bids = sum(entrant.bid is not None for entrant in picture.replay.entrants)
    held = (
        f"{count(receipt.bids)} eligible offers, {count(header.called)} nodes called, {bids} bids, "
        f"closed after {duration(header.close_ms - header.open_ms)}. "
    )
    if not winners:
        return tag("p", held, "Nobody won.")
    won = [
        join(
            f"Rank {segment.rank}: ",
            party("node", node),
            f" at {_price(segment.price_out)} {site.symbol} out, {_price(segment.price_in)} in, "
            f"per million tokens ({CLEARING.get(Clearing(segment.clearing), '?')}). ",
        )
        for node, segment in winners.items()
    ]
    return tag("p", held, *won)


def _prices(ranked: list[rule.Ranked], winners: dict[bytes, Segment]) -> Any:
    points = []
    for place in ranked:
        node = place.entrant.row.node
        name = _name(place.entrant)
        points.append(_point(name, "standing offer", place.entrant.offer.price_out))
        if place.entrant.bid:
            points.append(_point(name, "bid", place.entrant.bid.price_out))
        if node in winners:
            points.append(_point(name, "clearing price", winners[node].price_out))
    kinds = ["standing offer", "bid", "clearing price"]
    order = [_name(place.entrant) for place in ranked]
    base = alt.Chart(alt.InlineData(values=points)).encode(
        y=alt.Y("node:N", sort=order, title=None),
        x=alt.X("price:Q", title=None, scale=alt.Scale(zero=False, padding=20)),
    )
    line = base.mark_line(color="#94a3b8").encode(detail="node:N")
    dots = base.mark_point(filled=True, size=130, opacity=1).encode(
        color=alt.Color(
            "kind:N",
            title=None,
            scale=alt.Scale(domain=kinds, range=["#94a3b8", "#2563eb", "#1f9d55"]),
            legend=alt.Legend(orient="bottom"),
        ),
        shape=alt.Shape(
            "kind:N",
            title=None,
            scale=alt.Scale(domain=kinds, range=["square", "circle", "diamond"]),
        ),
        tooltip=["node:N", "kind:N", "price:Q"],
    )
    return (line + dots).properties(height=_height(ranked))


def _scores(market: Market, ranked: list[rule.Ranked]) -> Any:
    bars = []
    for place in ranked:
        cost = market.cost(place.entrant.price_out)
        delay = rule.delay(market, place.entrant)
        parts = {"expected cost": cost, "price of waiting": delay}
        parts["risk of failing"] = place.score - cost - delay
        bars += [
            {"node": _name(place.entrant), "part": part, "value": value / _SCALE, "order": number}
            for number, (part, value) in enumerate(parts.items())
        ]
    order = [_name(place.entrant) for place in ranked]
    return (
        alt.Chart(alt.InlineData(values=bars))
        .mark_bar(height={"band": 0.6})
        .encode(
            y=alt.Y("node:N", sort=order, title=None),
            x=alt.X("value:Q", title=None, stack=True),
            color=alt.Color(
                "part:N",
                title=None,
                sort=["expected cost", "price of waiting", "risk of failing"],
                scale=alt.Scale(
                    domain=["expected cost", "price of waiting", "risk of failing"],
                    range=["#2563eb", "#0891b2", "#d69e2e"],
                ),
                legend=alt.Legend(orient="bottom"),
            ),
            order=alt.Order("order:Q"),
            tooltip=["node:N", "part:N", "value:Q"],
        )
        .properties(height=_height(ranked))
    )


def _table(site: Site, picture: Picture, winners: dict[bytes, Segment]) -> None:
    """Everybody in the book, a page at a time, or the one that is looked for."""
    shown, size = picture.placings, len(picture.placings)
    if size > _PER_PAGE:
        left, right = st.columns(2)
        with left:
            starts = range(0, size, _PER_PAGE)
            start = st.selectbox("Offers", starts, format_func=lambda at: _range(at, size))
        with right:
            wanted = st.text_input("Find a node", placeholder="0x…").strip().lower()
        if wanted:
            shown = [p for p in shown if to_hex(p.entrant.row.node).startswith(wanted)]
        else:
            shown = shown[start : start + _PER_PAGE]
    columns = ["Place#", "Node", "Offer#", "Bid#", "Promises", "Success#", "Busy / slots#"]
    columns += [f"Score {site.symbol}#", "Outcome"]
    rows = [_row(picture, placing, winners) for placing in shown[:_PER_PAGE]]
    st.html(table(columns, rows, empty="no such node in this book"))


def _range(start: int, size: int) -> str:
    return f"{start + 1}–{min(start + _PER_PAGE, size)} of {size}"


def _row(picture: Picture, placing: Placing, winners: dict[bytes, Segment]) -> list[str]:
    """One offer: what it said, what the call brought, and where that led."""
    entrant = placing.entrant
    offer, row, won = entrant.offer, entrant.row, winners.get(entrant.row.node)
    score = "–" if placing.score is None else amount(placing.score // MILLION)
    outcome = "sets the price" if row.node == picture.rival else ""
    if won:
        outcome = tag("b", f"rank {won.rank} at {_price(won.price_out)}")
    elif placing.unmet:
        why = "; ".join(f"{u.name.replace('_', ' ')}: {u.detail}" for u in placing.unmet)
        outcome = f"not eligible: {why}"
    return [
        str(placing.place or "–"),
        party("node", row.node),
        _price(offer.price_out),
        _price(entrant.bid.price_out) if entrant.bid else _called(placing),
        f"{duration(offer.ttft_ms)}, {offer.tps_milli / 1000:.1f}/s",
        f"{row.success_ppm / 10_000:.2f} %",
        f"{row.busy} / {offer.slots}",
        score,
        outcome,
    ]


def _called(placing: Placing) -> str:
    return "not called" if placing.called is None else CALL.get(placing.called, "?")


def _point(node: str, kind: str, price: int) -> dict[str, object]:
    return {"node": node, "kind": kind, "price": price / MILLION}


def _name(entrant: Entrant) -> str:
    return short(entrant.row.node) if entrant.row.node else checksum(entrant.row.node)


def _price(units_per_mtok: int) -> str:
    return amount(units_per_mtok)


def _height(ranked: list[rule.Ranked]) -> int:
    return 70 + 42 * len(ranked)
