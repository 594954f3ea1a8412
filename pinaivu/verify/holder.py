"""V4 and V5: the request is the holder's, the response is what the holder got."""

from typing import Any, Final

import msgspec
from msgspec import Struct

from pinaivu.codes import JobKind, Mode, Outcome, Status
from pinaivu.commitments import (
    account_of,
    request_commitment,
    request_digest,
    response_commitment,
    response_digest,
    segment_commitment,
)
from pinaivu.encoding import from_hex
from pinaivu.errors import InvalidEncoding
from pinaivu.messages import Job, Segment
from pinaivu.openai import canonical_choices, read_request
from pinaivu.openai import text as text_of
from pinaivu.verify.case import ZERO, Case
from pinaivu.verify.findings import Finding, Lacks, Refuted, require, require_equal
from pinaivu.verify.recomposed import require_composed

_KINDS: Final = frozenset(JobKind)
_AUCTIONS: Final = {"live": Mode.LIVE, "standing": Mode.STANDING}


class Terms(Struct, frozen=True, kw_only=True):
    """The caller's own terms in a body's `pinaivu` member, as far as a job must keep them."""

    max_price_in: int | None = None
    max_price_out: int | None = None
    max_cost_units: int | None = None
    value_of_time: int | None = None
    auction: str | None = None
    allow: list[str] = []
    deny: list[str] = []
    fingerprint: str | None = None


def request_is_mine(case: Case) -> Finding:
    """V4: the committed request is the holder's body, and the job keeps what the body demands.

    Not proven: that the node ran this request and no other (a node that did not could still answer
    well), nor that nobody else read it.
    """
    require_composed(case, "V4")
    for award in case.contents.awards:
        commitment = award.message.request_commitment
        require_equal(commitment, case.job.request_commitment, "an award's request commitment")
    _require_account(case)
    body, salts = case.request, case.salts
    found = request_commitment(salts.request, request_digest(body))
    require_equal(found, case.receipt.request_commitment, "the commitment to the body")
    _require_asked(case.job, body)
    return Finding(
        evidence="the body and its salt open the commitment; the job keeps the body's limits",
        facts={"model": case.job.model, "own_copy": case.copies.request is not None},
    )


def response_is_mine(case: Case) -> Finding:
    """V5: the committed response is the holder's, and the segments are its text, end to end.

    An answer that was cut (client gone, failed, never reported) may differ from what the client
    kept; that is `lacking`, not refuted. Not proven: that the text is a good answer, or which
    segment's node computed a wrong word.
    """
    require_composed(case, "V5")
    end = _require_tiling(case)
    _require_same_as_node(case)
    if case.receipt.response_commitment == ZERO and not end:
        return Finding(evidence="nothing was answered, and the receipt says so")
    try:
        _require_response(case, end)
    except (Refuted, InvalidEncoding) as error:
        if _cut(case):
            raise Lacks(
                f"the answer was cut, and the copy is not what was delivered: {error}"
            ) from error
        raise
    return Finding(
        evidence=f"response and salt open the commitment; the segments tile its {end} bytes",
        facts={"bytes": end, "segments": len(case.work)},
    )


def _require_account(case: Case) -> None:
    secret = case.account_secret
    if secret is not None:
        account = account_of(case.receipt.payer, secret)
        require_equal(case.receipt.account, account, "the sub-account")


def _require_asked(job: Job, body: Any) -> None:
    """The job asks for what the body asks for, within the limits the body sets."""
    require(job.kind in _KINDS, f"{job.kind} is no kind of job")
    request = read_request(JobKind(job.kind), body)
    require_equal(job.model, request.model, "the job's model")
    require_equal(job.features, int(request.features), "the job's features")
    if per_choice := request.tokens_per_choice(0):
        due = request.choices * per_choice
        require_equal(job.max_output_tokens, due, "the job's output limit")
    try:
        terms = msgspec.convert(request.pinaivu or {}, Terms)
    except msgspec.ValidationError as error:
        raise InvalidEncoding(f"the body's pinaivu member: {error}") from error
    _require_terms(job, terms)


def _require_terms(job: Job, terms: Terms) -> None:
    limits = (
        ("max_price_in", job.max_price_in, terms.max_price_in),
        ("max_price_out", job.max_price_out, terms.max_price_out),
        ("max_cost_units", job.max_cost, terms.max_cost_units),
    )
    for name, found, most in limits:
        holds = most is None or found <= most
        require(holds, f"the job's {name} is {found}, above the body's {most}")
    if terms.value_of_time is not None:
        require_equal(job.value_of_time, terms.value_of_time, "the job's value of time")
    if terms.auction is not None:
        require_equal(job.mode, _AUCTIONS.get(terms.auction), "the job's auction mode")
    if terms.fingerprint is not None:
        require_equal(job.fingerprint, from_hex(terms.fingerprint, 32), "the job's fingerprint")
    for name, listed, asked in (("allow", job.allow, terms.allow), ("deny", job.deny, terms.deny)):
        require_equal(set(listed), {_address(text) for text in asked}, f"the job's {name} list")


def _address(text: str) -> bytes:
    return from_hex(text.lower(), 20)


def _require_tiling(case: Case) -> int:
    """Length of the text that the segments tile; `Refuted` where they don't."""
    end = 0
    for work in case.work:
        segment = work.segment
        require_equal(segment.start_byte, end, f"the start of segment {segment.rank}")
        require(segment.end_byte >= end, f"segment {segment.rank} ends before it starts")
        end = segment.end_byte
    return end


def _require_same_as_node(case: Case) -> None:
    """The last node saw the same whole response, unless it was stopped or the receipt disputes."""
    delivery, receipt = case.contents.delivery, case.receipt
    completion = case.work[-1].completion if case.work else None
    complete = delivery and delivery.message.outcome == Outcome.COMPLETE
    if not completion or not complete or receipt.status == Status.DISPUTED:
        return
    whole = completion.message.response_commitment
    if whole != ZERO:
        require_equal(whole, receipt.response_commitment, "the node's response commitment")


def _require_response(case: Case, end: int) -> None:
    require(case.job.kind in _KINDS, f"{case.job.kind} is no kind of job")
    choices = canonical_choices(JobKind(case.job.kind), case.response)
    salts, text = case.salts, text_of(choices)
    found = response_commitment(salts.response, response_digest(choices))
    require_equal(found, case.receipt.response_commitment, "the commitment to the response")
    require_equal(end, len(text), "the end of the last segment")
    for work in case.work:
        _require_segment(work.segment, salts.segment(work.segment.rank), text)


def _require_segment(segment: Segment, salt: bytes, text: bytes) -> None:
    part = text[segment.start_byte : segment.end_byte]
    try:
        part.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refuted(f"segment {segment.rank} is cut within a character") from error
    if segment.segment_commitment == ZERO:
        if part:
            raise Lacks(f"segment {segment.rank} has a range and no commitment to its text")
        return
    found = segment_commitment(salt, part)
    require_equal(found, segment.segment_commitment, f"the commitment to segment {segment.rank}")


def _cut(case: Case) -> bool:
    delivery = case.contents.delivery
    return delivery is None or delivery.message.outcome != Outcome.COMPLETE
