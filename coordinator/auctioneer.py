"""The auction: the live round over kept-open streams, clearing, and the transcript.

Only what could still change winner or runner-up is waited for, and never longer than the window.
A node that doesn't answer takes part at its standing price, so slowing it down gains nothing.
"""

from collections.abc import Awaitable, Callable, Sequence

import trio
from msgspec import Struct
from msgspec.structs import replace

from coordinator.book import Slot
from pinaivu.auction import rule
from pinaivu.auction.replay import require_valid_bid
from pinaivu.auction.rule import Entrant, Market
from pinaivu.auction.transcript import CallEntry, Header, bids_root, book_root
from pinaivu.codes import CallOutcome
from pinaivu.errors import InvalidEncoding, PeerFault, PinaivuError
from pinaivu.messages import Bid
from pinaivu.p2p import wire
from pinaivu.typed_data import Domain, Signed, signed_from_bytes

_ZERO = bytes(32)
Ask = Callable[[bytes, wire.AuctionCall], Awaitable[wire.BidReply]]


class Answered(Struct, frozen=True):
    """One call's outcome."""

    outcome: CallOutcome
    bid: Signed[Bid] | None
    at_ms: int


class Held(Struct, frozen=True, kw_only=True):
    """A finished auction."""

    market: Market
    entrants: Sequence[Entrant]
    header: Header
    calls: Sequence[CallEntry]
    bids: Sequence[Signed[Bid] | None]  # beside `calls`
    slots: Sequence[Slot | None]

    @property
    def bids_root(self) -> bytes:
        """What award and receipt commit to."""
        return bids_root(self.header, list(self.calls))


class Auctioneer:
    """Holds auctions; asks nodes through `ask`, reads the clock through `now_ms`."""

    def __init__(
        self,
        domain: Domain,
        ask: Ask,
        now_ms: Callable[[], int],
        *,
        window_ms: int,
        live_all: int,
        live_best: int,
    ) -> None:
        self._domain = domain
        self._ask = ask
        self._now_ms = now_ms
        self._window_ms = window_ms
        self._live_all = live_all
        self._live_best = live_best

    async def hold(
        self,
        market: Market,
        slots: Sequence[Slot | None],
        header: Header,
        *,
        live: bool,
    ) -> Held:
        """Hold one auction; `header`'s close, roots and counts are filled in here.

        Whom the live round asks follows from the book alone: a node that isn't connected is asked
        in vain, and the transcript says so.
        """
        entrants = [slot.entrant for slot in slots if slot]
        market = replace(market, close_ms=header.open_ms)  # who counts as there, until it closes
        called: list[Entrant] = []
        if live:
            called = rule.to_call(
                market, entrants, live_all=self._live_all, live_best=self._live_best
            )
        answers = await self._live_round(market, entrants, called, header.job_digest)
        close_ms = self._now_ms()
        market = replace(market, close_ms=close_ms)
        final = [_with_bid(e, answers.get(e.row.node)) for e in entrants]
        calls = [self._entry(e, answers.get(e.row.node), close_ms) for e in called]
        rows = [slot.entrant.row if slot else None for slot in slots]
        header = replace(
            header,
            close_ms=close_ms,
            book_root=book_root(rows),
            book_size=len(rows),
            eligible=rule.count_eligible(market, final),
            called=len(calls),
        )
        bids = [_bid_of(answers.get(e.row.node)) for e in called]
        return Held(
            market=market, entrants=final, header=header, calls=calls, bids=bids, slots=slots
        )

    async def _live_round(
        self, market: Market, entrants: list[Entrant], called: list[Entrant], job_digest: bytes
    ) -> dict[bytes, Answered]:
        answers: dict[bytes, Answered] = {}
        with trio.move_on_after(self._window_ms / 1000):
            async with trio.open_nursery() as nursery:

                async def ask(entrant: Entrant) -> None:
                    answers[entrant.row.node] = await self._one(market, entrant, job_digest)
                    if _decided(market, entrants, called, answers):
                        nursery.cancel_scope.cancel()

                for entrant in called:
                    nursery.start_soon(ask, entrant)
        return answers

    async def _one(self, market: Market, entrant: Entrant, job_digest: bytes) -> Answered:
        call = wire.AuctionCall(
            job_digest=job_digest,
            nonce=market.nonce,
            offer_digest=entrant.row.offer_digest,
            model=market.model,
            prompt_tokens=market.prompt_tokens,
            max_output_tokens=market.max_output_tokens,
            expected_output_tokens=market.expected_tokens,
            features=market.features,
            window_ms=self._window_ms,
        )
        try:
            reply = await self._ask(entrant.row.node, call)
            bid = self._checked(reply, market, entrant, job_digest)
        except (PeerFault, InvalidEncoding):
            return Answered(CallOutcome.INVALID, None, self._now_ms())
        except PinaivuError:  # the stream broke: the standing price holds
            return Answered(CallOutcome.SILENT, None, self._now_ms())
        outcome = CallOutcome.BID if bid else CallOutcome.SILENT
        return Answered(outcome, bid, self._now_ms())

    def _checked(
        self, reply: wire.BidReply, market: Market, entrant: Entrant, job_digest: bytes
    ) -> Signed[Bid] | None:
        if reply.bid is None:
            return None
        signed = signed_from_bytes(Bid, reply.bid)
        require_valid_bid(
            signed,
            self._domain,
            entrant.offer,
            entrant.row.offer_digest,
            market,
            job_digest,
        )
        return signed

    def _entry(self, entrant: Entrant, answered: Answered | None, close_ms: int) -> CallEntry:
        bid = _bid_of(answered)
        return CallEntry(
            node=entrant.row.node,
            offer_digest=entrant.row.offer_digest,
            outcome=answered.outcome if answered else CallOutcome.SILENT,
            bid_digest=bid.digest(self._domain) if bid else _ZERO,
            at_ms=answered.at_ms if answered else close_ms,
        )


def _decided(
    market: Market,
    entrants: list[Entrant],
    called: list[Entrant],
    answers: dict[bytes, Answered],
) -> bool:
    """Whether no outstanding answer, at its best possible, could change winner or runner-up."""
    outstanding = [e for e in called if e.row.node not in answers]
    if not outstanding:
        return True
    order = rule.rank(market, [_with_bid(e, answers.get(e.row.node)) for e in entrants])
    rival = rule.runner_up(order)
    if rival is None:
        return False
    best = [_at_best(market, entrant) for entrant in outstanding]
    return all(ranked.key > rival.key for ranked in rule.rank(market, best))


def _at_best(market: Market, entrant: Entrant) -> Entrant:
    lowest = rule.lowest_bid(entrant.offer.price_out, market.discount_ppm)
    return Entrant(entrant.row, replace(entrant.offer, price_out=lowest))


def _with_bid(entrant: Entrant, answered: Answered | None) -> Entrant:
    bid = _bid_of(answered)
    return Entrant(entrant.row, entrant.offer, bid.message) if bid else entrant


def _bid_of(answered: Answered | None) -> Signed[Bid] | None:
    return answered.bid if answered else None
