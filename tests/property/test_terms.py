"""A caller's limits: wherever they are said, no award keeps and no receipt exceeds them."""

from typing import Any

import msgspec
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.checks import require_award
from gateway.drafts import Draft, draft_job, most_units
from gateway.errors import CoordinatorFault
from pinaivu.auction import rule
from pinaivu.auction.rule import Entrant, Market
from pinaivu.codes import Clearing
from pinaivu.encoding import InvalidParameter
from pinaivu.messages import Award, Part
from pinaivu.metering import Attempt, Tolerance, charge_attempts, reserve
from pinaivu.terms import HEADER_PREFIX, Terms, combined, terms_from_headers
from tests.property.auction_markets import LOG, NODES, rounds
from tests.unit.gateway_facts import (
    EPOCH,
    FINGERPRINT,
    IDENTITY,
    NOW,
    Drawn,
    award_for,
    completion_for,
    demand,
    grant,
    order_for,
    signed_award,
)

NAMES = ["0x" + node.hex() for node in NODES]
prices = st.sampled_from([None, None, None, 250_000, 600_000, 900_000, 2_000_000])
nobody: st.SearchStrategy[list[str]] = st.just([])
listed = nobody | st.lists(st.sampled_from(NAMES), min_size=4, unique=True)
terms = st.just(Terms()) | st.builds(
    Terms,
    max_price_in=prices,
    max_price_out=prices,
    max_cost_units=st.sampled_from([None, None, 0, 40, 100, 150, 5_000]),
    value_of_time=st.none() | st.integers(0, 10**6),
    auction=st.sampled_from([None, "live", "standing"]),
    allow=listed,
    deny=st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
    fingerprint=st.sampled_from([None, "0x" + FINGERPRINT.hex()]),
)
Three = tuple[Terms, Terms, Terms]


@st.composite
def drafts(draw: Any) -> tuple[Draft, Three, int | None]:
    """A signed job, the terms of key, headers and body behind it, and what the key had left."""
    three = draw(terms), draw(terms), draw(terms)
    try:
        together = combined(*three)
    except InvalidParameter:
        assume(False)
    asked = replace(demand(max_tokens=draw(st.sampled_from([1, 64, 200]))), terms=together)
    permit = grant(
        max_per_job=draw(st.sampled_from([30, 120, 10**6, 10**6])),
        max_price_in=draw(st.sampled_from([300_000, 10**6])),
        max_price_out=draw(st.sampled_from([700_000, 2 * 10**6])),
    )
    left = draw(st.sampled_from([None, None, 5, 90, 10**6]))
    draft = draft_job(
        asked,
        permit,
        IDENTITY,
        attempts=1,
        units_left=left,
        deadline_after_ms=60_000,
        now_ms=NOW,
        random=Drawn(),
    )
    job = draft.job.message
    held = reserve(job, permit.message.max_per_job, job.max_price_in, job.max_price_out)
    assert held <= most_units(asked, permit.message)
    return draft, three, left


def market_for(draft: Draft, market: Market) -> Market:
    """An auction of this job under its grant."""
    job, permit = draft.job.message, draft.grant.message
    limit_in = min(job.max_price_in, permit.max_price_in)
    limit_out = min(job.max_price_out, permit.max_price_out)
    return replace(
        market,
        fingerprint=b"F" * 32,
        ratio_ppm=250_000,
        prompt_tokens=job.prompt_tokens,
        expected_tokens=min(market.expected_tokens, job.max_output_tokens),
        max_output_tokens=job.max_output_tokens,
        limit_in=limit_in,
        limit_out=limit_out,
        reserve=reserve(job, permit.max_per_job, limit_in, limit_out),
        allow=frozenset(job.allow),
        deny=frozenset(job.deny),
    )


def charged(draft: Draft, award: Award, claimed: int, counted: int, acks: int) -> int:
    """What a receipt charges, whatever node and gateway say that was done."""
    order = replace_award(draft, award)
    acks = min(acks, order.chain.length)
    done = completion_for(order, b"text", acks, output_tokens=claimed)
    part = Part(
        award_digest=order.award_digest,
        completion_digest=bytes(32),
        segment_commitment=done.message.segment_commitment,
        start_byte=0,
        end_byte=4,
        output_tokens=counted,
        acks=acks,
        result=0,
        first_token_ms=NOW,
        finished_ms=NOW,
    )
    attempt = Attempt(
        award=award,
        completion=done.message,
        completion_digest=bytes(32),
        failure=None,
        part=part,
    )
    job, permit = draft.job.message, draft.grant.message
    held = reserve(job, permit.max_per_job, job.max_price_in, job.max_price_out)
    charges = charge_attempts(
        job, [attempt], None, reserve_units=held, fee_bps=[100], tolerance=Tolerance(2, 10_000)
    )
    return sum(charge.amount for charge in charges)


def replace_award(draft: Draft, award: Award) -> Any:
    return order_for(draft, **msgspec.structs.asdict(award))


def require_within(draft: Draft, three: Three, left: int | None, award: Award, total: int) -> None:
    """Every limit that anybody set, each by itself."""
    permit = draft.grant.message
    for said in three:
        assert said.max_price_in is None or award.price_in <= said.max_price_in
        assert said.max_price_out is None or award.price_out <= said.max_price_out
        assert said.max_cost_units is None or total <= said.max_cost_units
        assert not said.allow or "0x" + award.node.hex() in said.allow
        assert "0x" + award.node.hex() not in said.deny
        wanted = draft.job.message.fingerprint
        assert said.fingerprint is None or said.fingerprint == "0x" + wanted.hex()
    assert award.price_in <= permit.max_price_in
    assert award.price_out <= permit.max_price_out
    assert total <= permit.max_per_job
    assert left is None or total <= left


counts = st.sampled_from([0, 1, 31, 32, 64, 200, 10_000])


@settings(max_examples=300)
@given(drafts(), rounds(), counts, counts, st.integers(0, 8))
def test_no_receipt_of_an_auction_exceeds_what_anybody_set(
    drawn: tuple[Draft, Three, int | None],
    case: tuple[Market, list[Entrant]],
    claimed: int,
    counted: int,
    acks: int,
) -> None:
    """Job's limits, award by the rule, charge by the metering rule: one after the other."""
    draft, three, left = drawn
    market = market_for(draft, case[0])
    cleared = rule.clear(market, case[1])
    event("awarded" if cleared else "nobody")
    if cleared is None:
        return
    award = award_for(
        draft,
        log_id=LOG,
        node=cleared.entrant.row.node,
        price_in=cleared.price_in,
        price_out=cleared.price_out,
        clearing=int(cleared.clearing),
    )
    require_within(draft, three, left, award, charged(draft, award, claimed, counted, acks))


@settings(max_examples=300)
@given(
    drafts(),
    st.sampled_from(NODES),
    st.sampled_from([0, 1, 400_000, 700_000, 10**6, 10**9]),
    st.sampled_from([0, 1, 40, 10**6]),
    counts,
    st.integers(0, 8),
)
def test_no_award_beyond_them_is_accepted(
    drawn: tuple[Draft, Three, int | None],
    node: bytes,
    price_out: int,
    amount: int,
    claimed: int,
    acks: int,
) -> None:
    """Of a coordinator that lies: the gateway refuses, or nothing is exceeded."""
    draft, three, left = drawn
    ratio = 250_000
    award = award_for(
        draft,
        node=node,
        price_in=price_out * ratio // 10**6,
        price_out=price_out,
        max_amount=amount,
        clearing=int(Clearing.LONE),
    )
    signed = signed_award(award)
    try:
        require_award(signed, EPOCH.address, IDENTITY.domain, draft, ratio, [])
    except CoordinatorFault:
        event("refused")
        return
    event("accepted")
    require_within(draft, three, left, award, charged(draft, award, claimed, claimed, acks))


@given(terms, terms, terms)
def test_request_never_gets_above_its_key(key: Terms, headers: Terms, body: Terms) -> None:
    lists = [set(said.allow) for said in (key, headers, body) if said.allow]
    if lists and not set.intersection(*lists):
        with pytest.raises(InvalidParameter, match=r"pinaivu\.allow"):
            combined(key, headers, body)
        return
    found = combined(key, headers, body)
    assert set(found.allow) == (set.intersection(*lists) if lists else set())
    for name in ("max_price_in", "max_price_out", "max_cost_units"):
        limits = [getattr(one, name) for one in (key, headers, body)]
        given_ones = [limit for limit in limits if limit is not None]
        assert getattr(found, name) == (min(given_ones) if given_ones else None)
    assert found.deny == sorted({*key.deny, *headers.deny, *body.deny})
    for name in ("value_of_time", "auction", "fingerprint"):
        nearest = [getattr(one, name) for one in (body, headers, key)]
        said = [value for value in nearest if value is not None]
        assert getattr(found, name) == (said[0] if said else None)


@given(terms)
def test_headers_say_what_a_body_can(said: Terms) -> None:
    headers = [
        (
            HEADER_PREFIX + name.replace("_", "-"),
            ", ".join(value) if isinstance(value, list) else str(value),
        )
        for name, value in msgspec.structs.asdict(said).items()
        if value not in (None, [])
    ]
    assert terms_from_headers([("content-type", "x"), *headers]) == said


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("x-pinaivu-max-cost-units", "-1"),
        ("x-pinaivu-max-cost-units", "1.5"),
        ("x-pinaivu-max-cost-units", ""),
        ("x-pinaivu-auction", "dutch"),
        ("x-pinaivu-allow", "0x12"),
        ("x-pinaivu-max-price", "1"),
        ("x-pinaivu-fingerprint", "0x12"),
    ],
)
def test_header_that_sets_no_term_is_refused_by_name(header: str, text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        terms_from_headers([(header, text)])
    assert caught.value.parameter == header


def test_header_that_is_sent_twice_is_refused() -> None:
    twice = [("x-pinaivu-value-of-time", "1"), ("x-pinaivu-value-of-time", "2")]
    with pytest.raises(InvalidParameter, match="more than once"):
        terms_from_headers(twice)
