"""The auction: the live round over kept-open streams, clearing, and the transcript.

Only what could still change winner or runner-up is waited for, and never longer than the window.
A node that doesn't answer takes part at its standing price, so slowing it down gains nothing.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property

import trio
from msgspec import Struct
from msgspec.structs import replace

from coordinator.field import BookView, Field, Ranking
from coordinator.round import Round
from pinaivu.auction.replay import require_valid_bid
from pinaivu.auction.rule import Entrant, Market
from pinaivu.auction.transcript import CallEntry, Header, bids_root
from pinaivu.codes import CallOutcome
from pinaivu.errors import InvalidEncoding, PeerFault, PinaivuError
from pinaivu.messages import Bid
from pinaivu.p2p import wire
from pinaivu.typed_data import Domain, Signed, signed_from_bytes

_ZERO = bytes(32)
Ask = Callable[[bytes, wire.AuctionCall], Awaitable[wire.BidReply]]


class Answered(Struct, frozen=True):
    """One call's outcome; `digest` is the bid's, zero without one."""

    outcome: CallOutcome
    at_ms: int
    bid: Signed[Bid] | None = None
    digest: bytes = _ZERO


class Held(Struct, frozen=True, kw_only=True, dict=True):
    """A finished auction."""

    ranking: Ranking
    header: Header
    calls: Sequence[CallEntry]
    bids: Sequence[Signed[Bid] | None]  # beside `calls`

    @cached_property
    def bids_root(self) -> bytes:
        """What award and receipt commit to."""
        return bids_root(self.header, list(self.calls))

    @property
    def market(self) -> Market:
        """The market as it closed."""
        return self.ranking.market

    @property
    def slots(self) -> BookView:
        """The book as it stood when the auction opened; it never changes."""
        return self.ranking.view


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

    async def hold(self, field: Field, header: Header, *, live: bool) -> Held:
        """Hold one auction; `header`'s close, roots and counts are filled in here.

        Whom the live round asks follows from the book alone: a node that isn't connected is asked
        in vain, and the transcript says so.
        """
        called: list[Entrant] = []
        if live:
            called = field.to_call(live_all=self._live_all, live_best=self._live_best)
        answers = await self._live_round(field, called, header.job_digest) if called else {}
        close_ms = self._now_ms()
        final = [_with_bid(e, answers.get(e.row.node)) for e in called]
        ranking = field.close(replace(field.market, close_ms=close_ms), final)
        header = replace(
            header,
            close_ms=close_ms,
            book_root=field.view.root,
            book_size=len(field.view),
            eligible=ranking.eligible,
            called=len(called),
        )
        return Held(
            ranking=ranking,
            header=header,
            calls=[_entry(e, answers.get(e.row.node), close_ms) for e in called],
            bids=[_bid_of(answers.get(e.row.node)) for e in called],
        )

    async def _live_round(
        self, field: Field, called: list[Entrant], job_digest: bytes
    ) -> dict[bytes, Answered]:
        answers: dict[bytes, Answered] = {}
        standings = Round(field, called)
        with trio.move_on_after(self._window_ms / 1000):
            async with trio.open_nursery() as nursery:

                async def ask(entrant: Entrant) -> None:
                    answered = await self._one(field.market, entrant, job_digest)
                    answers[entrant.row.node] = answered
                    standings.answered(_with_bid(entrant, answered))
                    if standings.decided():
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
            return self._answered(reply, market, entrant, job_digest)
        except (PeerFault, InvalidEncoding):
            return Answered(CallOutcome.INVALID, self._now_ms())
        except PinaivuError:  # the stream broke: the standing price holds
            return Answered(CallOutcome.SILENT, self._now_ms())

    def _answered(
        self, reply: wire.BidReply, market: Market, entrant: Entrant, job_digest: bytes
    ) -> Answered:
        if reply.bid is None:
            return Answered(CallOutcome.SILENT, self._now_ms())
        signed = signed_from_bytes(Bid, reply.bid)
        digest = require_valid_bid(
            signed,
            self._domain,
            entrant.offer,
            entrant.row.offer_digest,
            market,
            job_digest,
        )
        return Answered(CallOutcome.BID, self._now_ms(), signed, digest)


def _entry(entrant: Entrant, answered: Answered | None, close_ms: int) -> CallEntry:
    said = answered or Answered(CallOutcome.SILENT, close_ms)
    return CallEntry(
        node=entrant.row.node,
        offer_digest=entrant.row.offer_digest,
        outcome=said.outcome,
        bid_digest=said.digest,
        at_ms=said.at_ms,
    )


def _with_bid(entrant: Entrant, answered: Answered | None) -> Entrant:
    bid = _bid_of(answered)
    return Entrant(entrant.row, entrant.offer, bid.message) if bid else entrant


def _bid_of(answered: Answered | None) -> Signed[Bid] | None:
    return answered.bid if answered else None
