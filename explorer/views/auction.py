"""The auction of a request as a picture: offers, bids, scores, winner and clearing price.

Drawn from the published transcript, replayed with the rule of `pinaivu.auction`. Whether replay and
receipt agree is V7; this only shows.
"""

from typing import Any, Final

import altair as alt
import streamlit as st
from msgspec import Struct

from explorer.formats import CALL, CLEARING, MILLION, amount, count, duration, short
from explorer.pieces import Html, heading, join, note, party, source, table, tag
from explorer.proof import Proof
from explorer.site import Site
from pinaivu.auction import rule
from pinaivu.auction.replay import Replay, read_transcript
from pinaivu.auction.rule import Entrant, Market
from pinaivu.auction.transcript import Header
from pinaivu.codes import Clearing
from pinaivu.encoding import from_hex
from pinaivu.errors import PinaivuError
from pinaivu.keys import checksum
from pinaivu.messages import Receipt, Segment
from pinaivu.typed_data import Domain
from pinaivu.verify.contents import Contents, read_contents

_SCALE: Final = 10**12  # scores are base units × 10⁶
_MOST_SHOWN: Final = 12


class Picture(Struct, frozen=True):
    """A replayed auction."""

    replay: Replay
    market: Market

    @property
    def ranked(self) -> list[rule.Ranked]:
        """Eligible entrants, best first."""
        return rule.rank(self.market, self.replay.entrants)


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
    shown = picture.ranked[:_MOST_SHOWN]
    if shown:
        left, right = st.columns(2)
        with left:
            st.caption(f"Price per million output tokens, {site.symbol}")
            st.altair_chart(_prices(shown, winners), width="stretch")
        with right:
            st.caption(f"Score, {site.symbol}: the lowest wins")
            st.altair_chart(_scores(picture.market, shown), width="stretch")
    st.html(_numbers(site, picture, winners))
    st.html(
        source(
            "the auction's published transcript, replayed here (V7): offers and bids are signed by "
            "the nodes, success and calibration are the coordinator's measurements"
        )
    )


def _replay(proof: Proof, domain: Domain) -> Picture:
    if not proof.document:
        raise _NotShown(proof.problem or "the bundle does not open")
    contents: Contents = read_contents(proof.document)
    if contents.transcript is None:
        raise _NotShown("the bundle holds no transcript")
    header = Header.from_bytes(from_hex(contents.transcript.get("header")))
    epochs = {part.number: part.parameters for part in contents.epochs}
    if header.epoch not in epochs:
        raise _NotShown(f"the bundle lacks the parameters of epoch {header.epoch}")
    job, grant = contents.job.message, contents.grant.message
    replay, market = read_transcript(contents.transcript, domain, job, grant, epochs[header.epoch])
    return Picture(replay, market)


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


def _numbers(site: Site, picture: Picture, winners: dict[bytes, Segment]) -> Html:
    ranked = picture.ranked
    scores = {place.entrant.row.node: place.score for place in ranked}
    places = {place.entrant.row.node: number for number, place in enumerate(ranked, 1)}
    calls = {call.node: call.outcome for call in picture.replay.calls}
    entrants = sorted(
        picture.replay.entrants, key=lambda e: places.get(e.row.node, len(places) + 1)
    )
    cells = []
    for entrant in entrants[:_MOST_SHOWN]:
        node, row = entrant.row.node, entrant.row
        won = winners.get(node)
        cells.append(
            [
                str(places.get(node, "not eligible")),
                party("node", node),
                _price(entrant.offer.price_out),
                _price(entrant.bid.price_out)
                if entrant.bid
                else CALL.get(calls[node], "?")
                if node in calls
                else "not called",
                f"{duration(entrant.offer.ttft_ms)}, {entrant.offer.tps_milli / 1000:.1f}/s",
                f"{row.success_ppm / 10_000:.2f} %",
                f"{row.busy} / {entrant.offer.slots}",
                amount(scores[node] // MILLION) if node in scores else "–",
                tag("b", _price(won.price_out)) if won else "",
            ]
        )
    columns = ["Place#", "Node", "Offer#", "Bid#", "Promises", "Success#", "Busy / slots#"]
    return table([*columns, f"Score {site.symbol}#", "Clears at#"], cells)


def _point(node: str, kind: str, price: int) -> dict[str, object]:
    return {"node": node, "kind": kind, "price": price / MILLION}


def _name(entrant: Entrant) -> str:
    return short(entrant.row.node) if entrant.row.node else checksum(entrant.row.node)


def _price(units_per_mtok: int) -> str:
    return amount(units_per_mtok)


def _height(ranked: list[rule.Ranked]) -> int:
    return 70 + 42 * len(ranked)
