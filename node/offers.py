"""Standing offers of one log, and bids on them.

    desk = OfferDesk(key, domain, log, models, quotes, now_ms)
    signed = desk.offer(model, slots)     # signed, remembered, sequence rising
    reply = desk.answer(call)             # a bid for one job, or none

Everything signed is remembered before it is returned, so that no award for it can come too early.
A bid only ever lowers the price of the offer it names; promises stay the offer's. Offers are made
as often as the caller likes; each is firm until its expiry or the next one.
"""

from collections.abc import Mapping
from typing import Final

from node.errors import JobRefused
from node.logs import LogWatch
from node.models import ServedModel
from node.ports import NowMs
from node.pricing import Situation
from node.quotes import Quote, Quotes
from pinaivu.keys import SecretKey
from pinaivu.manifest import MAX_OFFER_TTL_MS
from pinaivu.messages import Bid, Offer
from pinaivu.p2p import wire
from pinaivu.typed_data import Domain, Signed

RENEW_S: Final = 4.0
"""Seconds between offers; the design asks for 5 at most."""


class OfferDesk:
    """Signs offers and bids of one node for one log."""

    def __init__(
        self,
        key: SecretKey,
        domain: Domain,
        *,
        log: LogWatch,
        models: Mapping[str, ServedModel],
        quotes: Quotes,
        now_ms: NowMs,
    ) -> None:
        self._key = key
        self._domain = domain
        self._log = log
        self._models = models
        self._quotes = quotes
        self._now_ms = now_ms
        self._sequence = 0

    def offer(self, model: ServedModel, *, open_for_work: bool) -> Signed[Offer]:
        """The next standing offer for a model; with `open_for_work` false it withdraws.

        `slots` is the log's whole share: its coordinator subtracts what it has awarded.
        """
        now = self._now_ms()
        self._sequence = max(self._sequence + 1, now)
        offer = Offer(
            log_id=self._log.log_id,
            node=self._key.address,
            fingerprint=model.record.fingerprint,
            features=int(model.features),
            context_tokens=model.context_tokens,
            price_out=model.price_out,
            ttft_ms=model.promise.ttft_ms,
            tps_milli=model.promise.tps_milli,
            slots=model.slots.share(self._log.log_id) if open_for_work else 0,
            sequence=self._sequence,
            issued_ms=now,
            expires_ms=now + self._validity_ms(),
            model=model.name,
        )
        signed = Signed.by(self._key, self._domain, offer)
        self._quotes.remember(Quote(signed.digest(self._domain), offer, offer.price_out), now)
        return signed

    def answer(self, call: wire.AuctionCall) -> wire.BidReply:
        """A bid below the offer the call names, or none, which lets the offer stand."""
        try:
            offer = self._quotes.find(call.offer_digest).offer
        except JobRefused:
            return wire.BidReply()
        model = self._models.get(offer.model)
        if model is None or offer.log_id != self._log.log_id or offer.model != call.model:
            return wire.BidReply()
        if not model.engine.ready:  # its withdrawal is on the way
            return wire.BidReply()
        price = model.pricing.bid(self._situation(call, offer, model))
        if price is None or price >= offer.price_out:
            return wire.BidReply()
        return wire.BidReply(self._bid(call, offer, price).to_bytes())

    def _bid(self, call: wire.AuctionCall, offer: Offer, price: int) -> Signed[Bid]:
        bid = Bid(
            job_digest=call.job_digest,
            nonce=call.nonce,
            offer_digest=call.offer_digest,
            node=self._key.address,
            price_out=price,
            ttft_ms=offer.ttft_ms,
            tps_milli=offer.tps_milli,
        )
        signed = Signed.by(self._key, self._domain, bid)
        quote = Quote(signed.digest(self._domain), offer, price)
        self._quotes.remember(quote, self._now_ms())
        return signed

    def _situation(self, call: wire.AuctionCall, offer: Offer, model: ServedModel) -> Situation:
        epoch = self._log.current
        return Situation(
            price_out=offer.price_out,
            prompt_tokens=call.prompt_tokens,
            expected_output_tokens=call.expected_output_tokens,
            free_slots=model.slots.free(self._log.log_id),
            slots=model.slots.share(self._log.log_id),
            discount_ppm=epoch.parameters.discount_ppm if epoch else 0,
        )

    def _validity_ms(self) -> int:
        epoch = self._log.current
        return min(MAX_OFFER_TTL_MS, epoch.parameters.offer_ttl_ms if epoch else MAX_OFFER_TTL_MS)
