"""What `pinaivu verify --node` says of one node: its place and score, or why it took no part."""

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from pinaivu.auction.placing import Placing, placings, price_to_lead
from pinaivu.auction.replay import Replay
from pinaivu.auction.rule import Market, delay
from pinaivu.codes import CallOutcome, Clearing
from pinaivu.encoding import to_hex
from pinaivu.keys import checksum
from pinaivu.messages import Receipt, Segment
from pinaivu.typed_data import Domain
from pinaivu.verify.contents import Contents
from pinaivu.verify.rerun import rerun

Json = dict[str, Any]
_CALLS: Final = {
    None: "not called",
    CallOutcome.BID: "called, answered with a bid",
    CallOutcome.SILENT: "called, no bid: took part at its offer",
    CallOutcome.LATE: "called, answered too late: took part at its offer",
    CallOutcome.INVALID: "called, its answer was no valid bid: took part at its offer",
}
_CLEARINGS: Final = {
    Clearing.SECOND_SCORE: "by the runner-up's score",
    Clearing.LONE: "without a runner-up: at its offer",
    Clearing.EXPLORATION: "as the newcomer of an exploration job",
}


class Placed(Struct, frozen=True, kw_only=True):
    """A node in an auction; `placing` None where the book has no offer of it."""

    node: bytes
    replay: Replay
    market: Market
    order: Sequence[Placing]
    placing: Placing | None
    receipt: Receipt

    @property
    def segment(self) -> Segment | None:
        """What the receipt says of the node, if it stands there."""
        return next((s for s in self.receipt.segments if s.node == self.node), None)

    def to_text(self) -> str:
        """Some lines for people, LF at each line's end."""
        name, header = checksum(self.node), self.replay.header
        found = self.placing
        if found is None:
            return (
                f"node {name}: not in the book of this auction ({len(self.order)} offers, root "
                f"{to_hex(header.book_root)}), opened at {header.open_ms}\n"
            )
        if found.place is None:
            lines = [f"node {name}: not eligible, {self._outcome()}"]
            lines += [f"  {u.name:<24} {u.detail}" for u in found.unmet]
            return "\n".join([*lines, *self._terms(found)]) + "\n"
        lines = [f"node {name}: place {found.place} of {header.eligible}, {self._outcome()}"]
        return "\n".join([*lines, *self._terms(found), *self._score(found)]) + "\n"

    def _outcome(self) -> str:
        segment = self.segment
        if segment is None:
            return "not awarded"
        if not segment.rank:
            return "passed over: gone or full when it was its turn"
        clearing = _CLEARINGS[Clearing(segment.clearing)]
        return f"awarded as rank {segment.rank}, price {segment.price_out} {clearing}"

    def _terms(self, found: Placing) -> list[str]:
        offer, row, market = found.entrant.offer, found.entrant.row, self.market
        price = found.entrant.price_out
        bid = f", its bid below the offer of {offer.price_out}" if found.entrant.bid else ""
        return [
            f"  call      {_CALLS[found.called]}",
            f"  price     {price} out, {market.price_in(price)} in, per million tokens{bid}",
            f"  promises  first token in {offer.ttft_ms} ms, {offer.tps_milli / 1000:g} tokens/s",
            f"  measured  {row.cal_t / 1000:g} and {row.cal_s / 1000:g} times what was promised",
            f"  success   {row.success_ppm / 10_000:g} %{', a newcomer' * row.newcomer}",
            f"  load      {row.busy} of {offer.slots} slots busy",
        ]

    def _score(self, found: Placing) -> list[str]:
        cost, waiting = self.market.cost(found.entrant.price_out), delay(self.market, found.entrant)
        lines = [
            f"  score     {found.score} = ({cost} cost + {waiting} delay) / success; lowest wins"
        ]
        if found.place == 1:
            return lines
        first = self.order[0]
        lines.append(f"  first     {checksum(first.entrant.row.node)}, score {first.score}")
        price = price_to_lead(self.market, self.order, self.node)
        if price is None:
            return [*lines, "  to lead   at no price: its delay and success alone score higher"]
        return [*lines, f"  to lead   at most {price} per million output tokens"]

    def to_json(self) -> Json:
        """The same as a JSON value; scores as strings, in base units × 10⁶."""
        found, segment = self.placing, self.segment
        said: Json = {
            "node": to_hex(self.node),
            "in_book": found is not None,
            "offers": len(self.order),
            "eligible": self.replay.header.eligible,
            "awarded_rank": segment.rank if segment and segment.rank else None,
            "passed_over": segment is not None and not segment.rank,
        }
        return said | _placing_json(self.market, self.order, found) if found else said


def _placing_json(market: Market, order: Sequence[Placing], found: Placing) -> Json:
    entrant = found.entrant
    said: Json = {
        "place": found.place,
        "unmet": [{"name": u.name, "detail": u.detail} for u in found.unmet],
        "called": found.called.name.lower() if found.called else None,
        "offer_price_out": str(entrant.offer.price_out),
        "bid_price_out": str(entrant.bid.price_out) if entrant.bid else None,
        "success_ppm": entrant.row.success_ppm,
        "cal_t": entrant.row.cal_t,
        "cal_s": entrant.row.cal_s,
        "busy": entrant.row.busy,
        "slots": entrant.offer.slots,
    }
    if found.place is None:
        return said
    price = price_to_lead(market, order, entrant.row.node)
    return said | {
        "score": str(found.score),
        "cost": str(market.cost(entrant.price_out)),
        "delay": str(delay(market, entrant)),
        "first_score": str(order[0].score),
        "price_to_lead": None if price is None else str(price),
    }


def placed(contents: Contents, domain: Domain, book: object, node: bytes) -> Placed:
    """Rerun a bundle's auction and look for a node; raises as `pinaivu.verify.rerun.rerun` does."""
    replay, market = rerun(contents, domain, book)
    order = placings(replay, market)
    return Placed(
        node=node,
        replay=replay,
        market=market,
        order=order,
        placing=next((p for p in order if p.entrant.row.node == node), None),
        receipt=contents.receipt.message,
    )
