"""An auction rerun from its published transcript, by anyone.

`read_transcript` checks roots, digests and signatures; `Replay.clear` reruns the clearing for each
rank. Not proven here: that M and the reputations are fair (replay of all receipts), that a row is
missing which should be there (the chain's registrations), or the moment of closing.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from msgspec import Struct

from pinaivu.auction import rule
from pinaivu.auction.rule import Cleared, Entrant, Market
from pinaivu.auction.transcript import CallEntry, Header, Row, bids_root, book_root
from pinaivu.codes import CallOutcome
from pinaivu.encoding import from_hex, to_hex
from pinaivu.errors import InvalidEncoding, PeerFault
from pinaivu.keys import BadSignature, require_signer
from pinaivu.manifest import Parameters
from pinaivu.messages import Bid, Grant, Job, Offer
from pinaivu.typed_data import Domain, Signed, signed_from_json

MOST_ROWS_INSIDE: Final = 256
"""Above so many rows a published transcript leaves them out and names the book by its root."""

_ZERO = bytes(32)
MOST_SLOTS = 1 << 16
"""A transcript is read before anything of it is believed: its size is bounded here."""


class TranscriptFault(PeerFault):
    """A transcript contradicts itself or the job it is about."""


class BookFault(TranscriptFault):
    """Rows or offers are not those that the header's root commits to.

    That contradicts a transcript that holds them. Of a book that came from elsewhere it only says
    that it is another one.
    """


class Book(Struct, frozen=True):
    """A book's slots under a header's root, and each node's offer as the node signed it."""

    slots: Sequence[Row | None]
    offers: Mapping[bytes, Offer]


class Replay(Struct, frozen=True, kw_only=True):
    """A transcript that agrees with itself."""

    header: Header
    calls: Sequence[CallEntry]
    entrants: Sequence[Entrant]
    root: bytes

    def clear(self, market: Market, excluded: frozenset[bytes]) -> Cleared | None:
        """The rank that follows once `excluded` are out."""
        return rule.clear(market, self.entrants, excluded)


def market_of(header: Header, job: Job, grant: Grant, parameters: Parameters) -> Market:
    """The market that header, job, grant and parameters define."""
    return Market(
        log_id=header.log_id,
        nonce=header.nonce,
        model=job.model,
        fingerprint=header.fingerprint,
        ratio_ppm=header.ratio_ppm,
        features=job.features,
        prompt_tokens=header.prompt_tokens,
        expected_tokens=header.expected_tokens,
        max_output_tokens=header.max_output_tokens,
        value_of_time=header.value_of_time,
        limit_in=min(job.max_price_in, grant.max_price_in),
        limit_out=min(job.max_price_out, grant.max_price_out),
        reserve=header.reserve,
        allow=frozenset(job.allow),
        deny=frozenset(job.deny),
        close_ms=header.close_ms,
        discount_ppm=parameters.discount_ppm,
        uplift_ppm=parameters.max_uplift_ppm,
        explore_ppm=parameters.explore_ppm,
    )


def require_valid_bid(
    signed: Signed[Bid],
    domain: Domain,
    offer: Offer,
    offer_digest: bytes,
    market: Market,
    job_digest: bytes,
) -> bytes:
    """The bid's digest, if it is its node's, for this call, and only lowers the price in bounds."""
    bid = signed.message
    digest = signed.require(domain, offer.node)
    said = (bid.job_digest, bid.nonce, bid.offer_digest, bid.node, bid.ttft_ms, bid.tps_milli)
    due = (job_digest, market.nonce, offer_digest, offer.node, offer.ttft_ms, offer.tps_milli)
    if said != due:
        raise TranscriptFault("the bid is for another call or changes a promise")
    lowest = rule.lowest_bid(offer.price_out, market.discount_ppm)
    if not lowest <= bid.price_out <= offer.price_out:
        raise TranscriptFault(
            f"a bid lies within {lowest} and {offer.price_out}, not {bid.price_out}"
        )
    return digest


def transcript_document(
    header: Header, calls: Sequence[tuple[CallEntry, Signed[Bid] | None]]
) -> dict[str, Any]:
    """The published JSON form: header, calls with bids; `rows` stand beside them, or apart."""
    return {
        "header": to_hex(header.to_bytes()),
        "calls": [
            {"entry": to_hex(entry.to_bytes())} | ({"bid": bid.to_json()} if bid else {})
            for entry, bid in calls
        ],
    }


def rows_document(rows: Iterable[tuple[int, Row, Signed[Offer]]]) -> list[dict[str, Any]]:
    """The published JSON form of a book: slot, row and the offer that the row names."""
    return [
        {"slot": slot, "row": to_hex(row.to_bytes()), "offer": offer.to_json()}
        for slot, row, offer in rows
    ]


def read_transcript(
    document: object,
    domain: Domain,
    job: Job,
    grant: Grant,
    parameters: Parameters,
    book: Book | None = None,
) -> tuple[Replay, Market]:
    """Read a published transcript; `TranscriptFault` or `InvalidEncoding` where it doesn't hold.

    With a `book`, which `read_book` has read for this header, it is one without rows of its own.
    """
    parts = _members(document, {"header", "calls"} if book else {"header", "calls", "rows"})
    header = Header.from_bytes(from_hex(parts["header"]))
    market = market_of(header, job, grant, parameters)
    book = book or read_book(parts["rows"], header, domain)
    entries, bids = _read_calls(parts["calls"], header, book.offers, domain, market)
    rows = [row for row in book.slots if row is not None]
    digests = {row.node: row.offer_digest for row in rows}
    if any(entry.offer_digest != digests[entry.node] for entry in entries):
        raise TranscriptFault("a call was about another offer than the book's")
    entrants = [Entrant(row, book.offers[row.node], bids.get(row.node)) for row in rows]
    if rule.count_eligible(market, entrants) != header.eligible:
        raise TranscriptFault("the number of eligible offers is not the header's")
    return Replay(
        header=header, calls=entries, entrants=entrants, root=bids_root(header, entries)
    ), market


def read_book(raw: object, header: Header, domain: Domain) -> Book:
    """Read published rows (``[{slot, row, offer}]``) under the root of `header`.

    `BookFault` where they are others than the root's, `TranscriptFault` where the root's own are no
    book, `InvalidEncoding` where they can't be read.
    """
    if header.book_size > MOST_SLOTS:
        raise TranscriptFault(f"a book of {header.book_size} slots; {MOST_SLOTS} are read")
    slots: list[Row | None] = [None] * header.book_size
    signed: list[Signed[Offer]] = []
    free = 0  # rows come in the order of their slots
    for item in _items(raw):
        parts = _members(item, {"slot", "row", "offer"})
        slot, row = parts["slot"], Row.from_bytes(from_hex(parts["row"]))
        if type(slot) is not int or not free <= slot < len(slots):
            raise BookFault(f"no free book slot {slot!r}")
        free = slot + 1
        slots[slot] = row
        signed.append(signed_from_json(Offer, parts["offer"]))
    if book_root(slots) != header.book_root:
        raise BookFault("the book's rows do not give its root")
    return Book(slots, _offers([row for row in slots if row], signed, domain))


def _offers(
    rows: Sequence[Row], signed: Sequence[Signed[Offer]], domain: Domain
) -> dict[bytes, Offer]:
    """Each row's offer, signed by its node."""
    offers: dict[bytes, Offer] = {}
    for row, offer in zip(rows, signed, strict=True):
        digest = offer.digest(domain)
        if digest != row.offer_digest:
            raise BookFault("a row names another offer")
        if row.node in offers or offer.message.node != row.node:
            raise TranscriptFault("a node stands in the book at most once, with its own offer")
        try:
            require_signer(digest, offer.signature, row.node, "an offer")
        except BadSignature as error:
            raise BookFault(str(error)) from error
        offers[row.node] = offer.message
    return offers


def _read_calls(
    raw: object, header: Header, offers: Mapping[bytes, Offer], domain: Domain, market: Market
) -> tuple[list[CallEntry], dict[bytes, Bid]]:
    entries: list[CallEntry] = []
    bids: dict[bytes, Bid] = {}
    for item in _items(raw):
        parts = _members(item, {"entry"}, {"bid"})
        entry = CallEntry.from_bytes(from_hex(parts["entry"]))
        if entry.node not in offers or entry.node in {e.node for e in entries}:
            raise TranscriptFault("a called node has one offer and is called once")
        entries.append(entry)
        if (entry.outcome == CallOutcome.BID) != ("bid" in parts):
            raise TranscriptFault("a bid belongs to the outcome bid, and to no other")
        if "bid" not in parts:
            if entry.bid_digest != _ZERO:
                raise TranscriptFault("a call without a bid names one")
            continue
        signed = signed_from_json(Bid, parts["bid"])
        digest = require_valid_bid(
            signed, domain, offers[entry.node], entry.offer_digest, market, header.job_digest
        )
        if digest != entry.bid_digest:
            raise TranscriptFault("a call names another bid")
        bids[entry.node] = signed.message
    if len(entries) != header.called:
        raise TranscriptFault("the number of calls is not the header's")
    return entries, bids


def _members(raw: object, needed: set[str], optional: AbstractSet[str] = frozenset()) -> Any:
    if not isinstance(raw, dict) or not needed <= raw.keys() <= needed | optional:
        raise InvalidEncoding(f"not exactly the members {', '.join(sorted(needed))}")
    return raw


def _items(raw: object) -> list[Any]:
    if not isinstance(raw, list):
        raise InvalidEncoding("not a list")
    return raw
