"""The receipt again, from its evidence, and which step answers for which of its fields.

`receipts.compose` is what the coordinator signs by. Composed anew from the bundle, every field must
come out as it was signed. Times of the coordinator's own clock (received, closed), the counters
before this receipt and, for a job that was never awarded, the auction's reason are taken from the
receipt: other steps hold them to their bounds.
"""

from collections.abc import Iterable
from typing import Final

from pinaivu.books import Books, Running
from pinaivu.codes import Outcome, Status
from pinaivu.messages import Receipt, Segment
from pinaivu.metering import Attempt, Tolerance
from pinaivu.receipts import Case as Evidence
from pinaivu.receipts import Held, Origin, PassedOver, compose
from pinaivu.verify.case import ZERO, Case
from pinaivu.verify.findings import require, require_equal

RECEIPT_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "V1": ("measurement", "parameters_digest"),
    "V2": ("log_id", "epoch", "closed_ms", "supersedes"),
    "V3": (
        *("job_id", "gateway", "payer", "account"),
        *("job_digest", "grant_digest", "delivery_digest"),
    ),
    "V4": ("request_commitment",),
    "V5": ("response_commitment",),
    "V6": ("model", "segments"),
    "V7": ("fingerprint", "nonce", "bids_root", "bids"),
    "V8": (
        *("status", "reason", "total", "account_limit", "grant_spent", "grant_spent_day"),
        *("received_ms", "awarded_ms", "first_token_ms", "finished_ms"),
    ),
    "V11": ("payer_counter", "payer_total", "account_counter", "account_total"),
}
"""Receipt field → the one step that compares it with the evidence; others may read it too."""

SEGMENT_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "V3": ("award_digest", "completion_digest"),
    "V6": (
        *("node", "rank", "segment_commitment", "start_byte", "end_byte"),
        *("price_in", "price_out", "clearing"),
    ),
    "V8": (
        *("prompt_billed", "output_billed", "output_node", "output_gateway", "acks"),
        *("result", "amount", "fee"),
    ),
    "V11": ("node_counter", "node_total"),
}
"""Segment field → the one step that compares it."""


def require_composed(case: Case, step: str) -> None:
    """Raise `Refuted` unless the fields `step` answers for are those the evidence gives."""
    found, due = case.receipt, recomposed(case)
    for name in RECEIPT_FIELDS.get(step, ()):
        if name != "segments":
            require_equal(getattr(found, name), getattr(due, name), f"the receipt's {name}")
    require_equal(len(found.segments), len(due.segments), "the number of segments")
    for number, (one, other) in enumerate(zip(found.segments, due.segments, strict=True)):
        for name in SEGMENT_FIELDS.get(step, ()):
            require_equal(getattr(one, name), getattr(other, name), f"segment {number}'s {name}")


def recomposed(case: Case) -> Receipt:
    """The receipt that follows from the bundle's evidence; `Refuted` where none can."""
    known = case.__dict__.get("recomposed")
    if not isinstance(known, Receipt):
        known = case.__dict__["recomposed"] = _compose(case)
    return known


def _compose(case: Case) -> Receipt:
    receipt, delivery = case.receipt, case.contents.delivery
    if delivery:
        known = delivery.message.outcome in set(Outcome)
        require(known, f"{delivery.message.outcome} is no outcome of a delivery")
    rules = [case.parameters(work.award.message.epoch) for work in case.work]
    newest = rules[-1] if rules else case.parameters(receipt.epoch)
    evidence = Evidence(
        job=case.job,
        job_digest=case.digest(case.contents.job),
        grant=case.grant,
        held=Held(
            fingerprint=receipt.fingerprint,
            nonce=receipt.nonce,
            bids_root=receipt.bids_root,
            bids=receipt.bids,
        ),
        line=_line(case),
        award_digests=[case.digest(work.award) for work in case.work],
        delivery=delivery.message if delivery else None,
        delivery_digest=case.digest(delivery) if delivery else ZERO,
        unserved_reason=receipt.reason if receipt.status == Status.UNSERVED else 0,
        received_ms=receipt.received_ms,
        closed_ms=receipt.closed_ms,
        reserve_units=case.reserve_units,
        fee_bps=[rule.fee_bps for rule in rules],
        tolerance=Tolerance(newest.tolerance_tokens, newest.tolerance_ppm),
        supersedes=case.digest(case.contents.superseded) if case.contents.superseded else ZERO,
    )
    origin = Origin(
        log_id=receipt.log_id,
        epoch=receipt.epoch,
        measurement=receipt.measurement,
        parameters_digest=receipt.parameters_digest,
    )
    return compose(evidence, origin, _books_before(receipt, case.grant.payer))


def _line(case: Case) -> list[Attempt | PassedOver]:
    work = iter(case.work)
    line: list[Attempt | PassedOver] = []
    for segment in case.receipt.segments:
        if not segment.rank:
            line.append(PassedOver(segment.node))
            continue
        entry = next(work)
        completion = entry.completion
        line.append(
            Attempt(
                award=entry.award.message,
                completion=completion.message if completion else None,
                completion_digest=case.digest(completion) if completion else ZERO,
                failure=entry.failure.message if entry.failure else None,
                part=entry.part,
            )
        )
    return line


def _books_before(receipt: Receipt, payer: bytes) -> Books:
    """Running totals one receipt earlier, if this receipt says the truth about itself.

    `compose` adds what the evidence gives, so a receipt whose counter and amount don't belong
    together comes out different.
    """
    books = Books()
    books.payers[payer] = _before(receipt.payer_counter, receipt.payer_total, receipt.total)
    if any(receipt.account):
        key = (payer, receipt.account)
        books.accounts[key] = _before(receipt.account_counter, receipt.account_total, receipt.total)
    books.nodes.update(_nodes_before(receipt.segments))
    books.grant_spent[receipt.grant_digest] = receipt.grant_spent - receipt.total
    day = (receipt.grant_digest, receipt.received_ms // 86_400_000)
    books.grant_spent_day[day] = receipt.grant_spent_day - receipt.total
    return books


def _nodes_before(segments: Iterable[Segment]) -> dict[bytes, Running]:
    return {
        s.node: _before(s.node_counter, s.node_total, s.amount - s.fee) for s in segments if s.rank
    }


def _before(counter: int, total: int, amount: int) -> Running:
    require(counter >= 1 and total >= amount, f"counter {counter} and total {total} of {amount}")
    return Running(counter - 1, total - amount)
