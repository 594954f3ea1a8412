"""Offers and bids: what is signed, remembered and answered."""

from typing import Any

import msgspec
import pytest

from node.errors import JobRefused
from node.logs import LogWatch
from node.models import ServedModel
from node.offers import OfferDesk
from node.pricing import FixedPrice, IdleDiscount, Pricing
from node.quotes import KEPT_MS, Quote, Quotes
from pinaivu.auction.rule import lowest_bid
from pinaivu.messages import Bid, Offer
from pinaivu.p2p import wire
from pinaivu.typed_data import Signed, signed_from_bytes
from tests.unit import node_support as n


class Stand:
    """An offer desk and what it works with."""

    def __init__(self, pricing: Pricing | None = None) -> None:
        self.now_ms = n.NOW
        self.quotes = Quotes()
        self.log: LogWatch = n.log_watch()
        self.model: ServedModel = n.served_model(pricing=pricing or IdleDiscount(100_000))
        self.desk = OfferDesk(
            n.NODE,
            n.DOMAIN,
            log=self.log,
            models={n.MODEL: self.model},
            quotes=self.quotes,
            now_ms=lambda: self.now_ms,
        )

    def offer(self, *, open_for_work: bool = True) -> Signed[Offer]:
        """The next standing offer."""
        return self.desk.offer(self.model, open_for_work=open_for_work)

    def call(self, offer: Signed[Offer], **changes: Any) -> wire.AuctionCall:
        """A call on an offer."""
        values = wire.AuctionCall(
            job_digest=b"\x41" * 32,
            nonce=b"\x42" * 32,
            offer_digest=offer.digest(n.DOMAIN),
            model=n.MODEL,
            prompt_tokens=20,
            max_output_tokens=100,
            expected_output_tokens=50,
            features=0,
            window_ms=150,
        )
        return msgspec.structs.replace(values, **changes)


def test_an_offer_says_what_is_served_and_is_signed() -> None:
    """Fifteen seconds of validity at the most; all slots of this log."""
    stand = Stand()
    signed = stand.offer()
    signed.require(n.DOMAIN, n.NODE.address)
    offer = signed.message
    assert (offer.log_id, offer.node, offer.model) == (n.LOG, n.NODE.address, n.MODEL)
    assert (offer.fingerprint, offer.price_out, offer.slots) == (n.FINGERPRINT, n.PRICE, 2)
    assert offer.expires_ms - offer.issued_ms == 15_000


def test_the_sequence_rises_even_when_the_clock_does_not() -> None:
    """It starts from the clock, so a restarted node goes on above its former self."""
    stand = Stand()
    found = [stand.offer().message.sequence for _ in range(3)]
    stand.now_ms -= 10_000
    found.append(stand.offer().message.sequence)
    assert found == [n.NOW, n.NOW + 1, n.NOW + 2, n.NOW + 3]
    stand.now_ms += 60_000
    assert stand.offer().message.sequence == n.NOW + 50_000


def test_an_offer_names_all_slots_of_the_log_also_the_busy_ones() -> None:
    """The coordinator subtracts what it awarded; a second subtraction would idle the node."""
    stand = Stand()
    with stand.model.slots.hold(n.LOG):
        assert stand.offer().message.slots == 2


def test_a_withdrawal_is_an_offer_of_no_slots() -> None:
    """And is remembered like any other."""
    assert Stand().offer(open_for_work=False).message.slots == 0


def test_an_offer_can_be_awarded_as_soon_as_it_is_signed() -> None:
    """What is sent is known already."""
    stand = Stand()
    signed = stand.offer()
    assert stand.quotes.find(signed.digest(n.DOMAIN)).price_out == n.PRICE


def test_a_bid_lowers_the_price_and_nothing_else() -> None:
    """It is bound to the job by its nonce and to the offer by its digest."""
    stand = Stand()
    offer = stand.offer()
    raw = stand.desk.answer(stand.call(offer)).bid
    assert raw is not None
    signed = signed_from_bytes(Bid, raw)
    signed.require(n.DOMAIN, n.NODE.address)
    bid = signed.message
    assert (bid.job_digest, bid.nonce) == (b"\x41" * 32, b"\x42" * 32)
    assert bid.offer_digest == offer.digest(n.DOMAIN)
    assert bid.price_out == lowest_bid(n.PRICE, 100_000)
    assert (bid.ttft_ms, bid.tps_milli) == (offer.message.ttft_ms, offer.message.tps_milli)
    assert stand.quotes.find(signed.digest(n.DOMAIN)).price_out == bid.price_out


def test_a_bid_answers_the_offer_that_was_called_not_the_latest() -> None:
    """A renewed offer may cross a call on the wire."""
    stand = Stand()
    first = stand.offer()
    stand.now_ms += 4000
    stand.offer()
    raw = stand.desk.answer(stand.call(first)).bid
    assert raw is not None
    assert signed_from_bytes(Bid, raw).message.offer_digest == first.digest(n.DOMAIN)


@pytest.mark.parametrize(
    "changes", [{"offer_digest": b"\x01" * 32}, {"model": "other"}], ids=["offer", "model"]
)
def test_a_call_about_something_else_gets_no_bid(changes: dict[str, Any]) -> None:
    """A node signs prices only for what it has offered."""
    stand = Stand()
    assert stand.desk.answer(stand.call(stand.offer(), **changes)).bid is None


def test_a_fixed_price_stands() -> None:
    """No bid is no refusal: the offer takes part."""
    stand = Stand(FixedPrice())
    assert stand.desk.answer(stand.call(stand.offer())).bid is None


def test_another_logs_offer_is_not_bid_on() -> None:
    """Each log's coordinator may only call on what it was offered."""
    stand = Stand()
    foreign = n.offer(log_id=b"\x12" * 32)
    signed = Signed.by(n.NODE, n.DOMAIN, foreign)
    stand.quotes.remember(Quote(signed.digest(n.DOMAIN), foreign, n.PRICE), n.NOW)
    assert stand.desk.answer(stand.call(signed)).bid is None


def test_quotes_are_forgotten_in_time() -> None:
    """An award for an offer of the day before is refused, and memory stays bounded."""
    quotes = Quotes()
    old, new = n.offer(n.NOW), n.offer(n.NOW + KEPT_MS + 15_000)
    quotes.remember(Quote(b"\x01" * 32, old, 1), n.NOW)
    quotes.remember(Quote(b"\x02" * 32, new, 1), n.NOW + KEPT_MS + 14_999)
    assert len(quotes) == 2
    quotes.remember(Quote(b"\x03" * 32, new, 1), n.NOW + KEPT_MS + 15_000)
    assert len(quotes) == 2
    with pytest.raises(JobRefused):
        quotes.find(b"\x01" * 32)
