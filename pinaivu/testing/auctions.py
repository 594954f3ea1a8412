"""Auctions held in one process: real offers, bids, rows and transcripts, no network."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from pinaivu.auction import rule
from pinaivu.auction.replay import market_of, rows_document, transcript_document
from pinaivu.auction.rule import Entrant, Market
from pinaivu.auction.transcript import CallEntry, Header, Row, bids_root, book_root
from pinaivu.codes import CallOutcome, Feature, Mode
from pinaivu.messages import Bid, Job, Offer
from pinaivu.testing.lies import Lies
from pinaivu.testing.parties import CARD, MODEL, MODEL_KEY, RATIO_PPM, EpochParty, Parties
from pinaivu.testing.scenarios import Scenario
from pinaivu.typed_data import Signed

_ZERO = bytes(32)


class Auction(Struct, frozen=True, kw_only=True):
    """A finished auction, its published transcript without rows, and the rows."""

    market: Market
    entrants: Sequence[Entrant]
    header: Header
    root: bytes
    document: dict[str, Any]
    rows: list[dict[str, Any]]


def hold(
    scenario: Scenario,
    job: Signed[Job],
    parties: Parties,
    epoch: EpochParty,
    reserve_units: int,
    random: Callable[[int], bytes],
    now_ms: Callable[[], int],
    lies: Lies,
) -> Auction:
    """Hold the scenario's auction; lies change rows and header before their roots are taken."""
    open_ms = now_ms()
    offers = [_offer(parties, number, open_ms) for number in range(scenario.nodes)]
    book = lies.book(
        [
            (_row(parties, number, offer.digest(parties.domain)), offer)
            for number, offer in enumerate(offers)
        ]
    )
    rows = [row for row, _ in book]
    slots: list[Row | None] = [*rows, None] if rows else []  # with a slot nobody uses any more
    job_digest = job.digest(parties.domain)
    header = _header(job.message, job_digest, epoch, reserve_units, random(32), open_ms)
    header = replace(header, close_ms=now_ms(), book_root=book_root(slots), book_size=len(slots))
    market = market_of(header, job.message, parties.grant.message, epoch.parameters)
    entrants = [Entrant(row, offer.message) for row, offer in book]
    calls = _calls(scenario, market, entrants, parties, job_digest, header)
    bids = {bid.message.node: bid.message for _, bid in calls if bid}
    entrants = [Entrant(e.row, e.offer, bids.get(e.row.node)) for e in entrants]
    header = lies.header(
        replace(header, eligible=rule.count_eligible(market, entrants), called=len(calls))
    )
    return Auction(
        market=market,
        entrants=entrants,
        header=header,
        root=bids_root(header, [entry for entry, _ in calls]),
        document=transcript_document(header, calls),
        rows=rows_document((n, row, offer) for n, (row, offer) in enumerate(book)),
    )


def _offer(parties: Parties, number: int, now_ms: int) -> Signed[Offer]:
    node = parties.nodes[number]
    offer = Offer(
        log_id=parties.log_id,
        node=node.key.address,
        fingerprint=CARD.fingerprint,
        features=int(Feature.KIND_CHAT | Feature.CONTINUES),
        context_tokens=CARD.context_tokens,
        price_out=node.price_out,
        ttft_ms=200,
        tps_milli=50_000,
        slots=4,
        sequence=now_ms,
        issued_ms=now_ms - 1_000,
        expires_ms=now_ms + 14_000,
        model=MODEL,
    )
    return Signed.by(node.key, parties.domain, offer)


def _row(parties: Parties, number: int, offer_digest: bytes) -> Row:
    node = parties.nodes[number]
    return Row(
        offer_digest=offer_digest,
        node=node.key.address,
        payout=node.payout,
        bond_funder=bytes(20),
        success_ppm=900_000,
        cal_t=1_000,
        cal_s=1_000,
        busy=0,
    )


def _header(
    job: Job,
    job_digest: bytes,
    epoch: EpochParty,
    reserve_units: int,
    nonce: bytes,
    open_ms: int,
) -> Header:
    return Header(
        job_digest=job_digest,
        log_id=job.log_id,
        epoch=epoch.number,
        nonce=nonce,
        model_key=MODEL_KEY,
        fingerprint=CARD.fingerprint,
        ratio_ppm=RATIO_PPM,
        prompt_tokens=job.prompt_tokens,
        expected_tokens=min(64, job.max_output_tokens),
        max_output_tokens=job.max_output_tokens,
        value_of_time=epoch.parameters.value_of_time,
        mode=job.mode,
        parameters_digest=epoch.parameters.digest(),
        open_ms=open_ms,
        close_ms=0,
        book_root=_ZERO,
        book_size=0,
        chain_block=100,
        reserve=reserve_units,
        eligible=0,
        called=0,
    )


def _calls(
    scenario: Scenario,
    market: Market,
    entrants: Sequence[Entrant],
    parties: Parties,
    job_digest: bytes,
    header: Header,
) -> list[tuple[CallEntry, Signed[Bid] | None]]:
    if scenario.mode == Mode.STANDING:
        return []
    opening = replace(market, close_ms=header.open_ms)
    asked = rule.to_call(opening, entrants, live_all=16, live_best=8)
    silent = asked[len(asked) - scenario.silent :]
    calls = []
    for entrant in asked:
        bid = None if entrant in silent else _bid(parties, entrant, job_digest, market)
        entry = CallEntry(
            node=entrant.row.node,
            offer_digest=entrant.row.offer_digest,
            outcome=CallOutcome.BID if bid else CallOutcome.SILENT,
            bid_digest=bid.digest(parties.domain) if bid else _ZERO,
            at_ms=header.close_ms,
        )
        calls.append((entry, bid))
    return calls


def _bid(parties: Parties, entrant: Entrant, job_digest: bytes, market: Market) -> Signed[Bid]:
    """A bid a tenth below the standing offer."""
    bid = Bid(
        job_digest=job_digest,
        nonce=market.nonce,
        offer_digest=entrant.row.offer_digest,
        node=entrant.row.node,
        price_out=entrant.offer.price_out * 9 // 10,
        ttft_ms=entrant.offer.ttft_ms,
        tps_milli=entrant.offer.tps_milli,
    )
    key = next(n.key for n in parties.nodes if n.key.address == entrant.row.node)
    return Signed.by(key, parties.domain, bid)
