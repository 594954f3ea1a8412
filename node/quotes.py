"""Prices this node has signed: standing offers and the bids below them.

An award names what it accepts by digest only, so the node must remember what it signed. Quotes are
kept for a while beyond their offer's expiry, for awards of later ranks; after a restart none are
left, and an award for an older one is refused, which costs the buyer one attempt.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from node.errors import JobRefused
from pinaivu.codes import Reason
from pinaivu.messages import Offer

KEPT_MS: Final = 600_000


@dataclass(frozen=True, slots=True)
class Quote:
    """An offer, or a bid on it: `digest` is of the signed message, `price_out` what it names."""

    digest: bytes
    offer: Offer
    price_out: int


class Quotes:
    """What was signed, by digest."""

    def __init__(self, kept_ms: int = KEPT_MS) -> None:
        self._kept_ms = kept_ms
        self._quotes: OrderedDict[bytes, Quote] = OrderedDict()

    def __len__(self) -> int:
        return len(self._quotes)

    def remember(self, quote: Quote, now_ms: int) -> None:
        """Keep a quote; forget those whose time is over, oldest first."""
        self._quotes[quote.digest] = quote
        while self._quotes:
            oldest = next(iter(self._quotes.values()))
            if oldest.offer.expires_ms + self._kept_ms > now_ms:
                break
            del self._quotes[oldest.digest]

    def find(self, digest: bytes) -> Quote:
        """The quote with this digest; `JobRefused` if this node doesn't remember one."""
        quote = self._quotes.get(digest)
        if quote is None:
            raise JobRefused(Reason.REFUSED, "the award names no bid or offer of this node")
        return quote
