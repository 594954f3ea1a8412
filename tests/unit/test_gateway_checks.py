"""What a gateway believes of coordinator and nodes: everything signed, nothing that doesn't fit."""

from typing import Any

import msgspec
import pytest

from gateway.checks import (
    Before,
    Evidence,
    charges_of,
    discrepancies,
    require_award,
    require_completion,
    require_receipt,
)
from gateway.errors import AttemptFailed, CoordinatorFault
from pinaivu.codes import Outcome, Reason
from pinaivu.messages import Award, Completion, Delivery, Part, Receipt, Segment
from pinaivu.metering import Attempt, Tolerance
from tests.unit.gateway_facts import (
    DOMAIN,
    EPOCH,
    FINGERPRINT,
    NODE,
    NOW,
    OTHER,
    PRICE,
    RATIO_PPM,
    award_for,
    completion_for,
    draft,
    failure_of,
    order_for,
    rules,
    signed_award,
    with_flipped,
)

COORDINATORS_CHOICE = {"epoch", "node", "bid_digest", "clearing", "nonce", "bids_root"}
"""What an award says that the job doesn't fix (prices and times have limits instead)."""


def check(award: Award, before: list[Before] | None = None, **more: Any) -> bytes:
    signed = signed_award(award, more.pop("key", EPOCH))
    found = more.pop("draft", None) or draft()
    return require_award(signed, EPOCH.address, DOMAIN, found, RATIO_PPM, before or [])


def test_right_award_is_taken_with_its_digest() -> None:
    award = award_for(draft())
    assert check(award) == signed_award(award).digest(DOMAIN)


@pytest.mark.parametrize("name", sorted(set(Award.__struct_fields__) - COORDINATORS_CHOICE))
def test_award_with_any_other_field_changed_is_refused(name: str) -> None:
    award = award_for(draft())
    changes = {
        "expires_ms": draft().job.message.deadline_ms + 1,
        "awarded_ms": award.expires_ms,
        "price_out": 10**6 + 4,
        "prior": b"\x01" * 32,
    }
    changed = with_flipped(award, name)
    if name in changes:
        changed = msgspec.structs.replace(award, **{name: changes[name]})
    with pytest.raises(CoordinatorFault):
        check(changed)


@pytest.mark.parametrize(
    ("listed", "allowed"),
    [({"allow": [OTHER.address]}, False), ({"deny": [NODE.address]}, False),
     ({"allow": [NODE.address]}, True), ({"deny": [OTHER.address]}, True)],
)  # fmt: skip
def test_awards_node_is_one_the_caller_admits(listed: dict[str, Any], *, allowed: bool) -> None:
    terms = {name: ["0x" + a.hex() for a in addresses] for name, addresses in listed.items()}
    found = draft(pinaivu=terms)
    if allowed:
        check(award_for(found), draft=found)
    else:
        with pytest.raises(CoordinatorFault, match="list"):
            check(award_for(found), draft=found)


def test_award_above_a_limit_is_refused_even_in_ratio() -> None:
    with pytest.raises(CoordinatorFault, match="output price"):
        check(award_for(draft(), price_out=1_000_004, price_in=250_001))
    found = draft(pinaivu={"max_price_in": 99_999})
    with pytest.raises(CoordinatorFault, match="input price"):
        check(award_for(found), draft=found)


def test_award_by_another_key_is_refused() -> None:
    with pytest.raises(CoordinatorFault, match="signed by"):
        check(award_for(draft()), key=OTHER)


def test_later_rank_goes_on_where_the_failure_says() -> None:
    """Tokens, money, start and prior follow from the failures; node, nonce and root don't move."""
    found = draft()
    first = signed_award(award_for(found))
    failure = failure_of(first, acks=2, output_tokens=40, end_byte=77)
    before = [Before(first.message, first.digest(DOMAIN), failure)]
    good: dict[str, Any] = {
        "rank": 2,
        "prior": first.digest(DOMAIN),
        "node": OTHER.address,
        "max_output_tokens": found.job.message.max_output_tokens - 32,
        "max_amount": first.message.max_amount - -(-32 * PRICE // 10**6),
        "start_byte": 77,
        "anchor": found.job.message.anchors[1],
    }
    check(award_for(found, **good), before)
    bad: list[dict[str, Any]] = [
        {"node": NODE.address},
        {"nonce": bytes(32)},
        {"bids_root": bytes(32)},
        {"start_byte": 76},
        {"max_output_tokens": found.job.message.max_output_tokens},
        {"max_amount": first.message.max_amount},
        {"prior": bytes(32)},
        {"rank": 3},
    ]
    for change in bad:
        with pytest.raises(CoordinatorFault):
            check(award_for(found, **good | change), before)


def complete(key: Any = NODE, released: int = 2, **changes: Any) -> Completion:
    order = order_for(draft())
    signed = completion_for(order, b"Hello", 2, key, **changes)
    return require_completion(
        signed,
        order.award.message,
        order.award_digest,
        DOMAIN,
        order.draft.job.message,
        FINGERPRINT,
        released,
    )


def test_true_completion_is_taken() -> None:
    assert complete().output_tokens > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"award_digest": bytes(32)},
        {"node": OTHER.address},
        {"fingerprint": bytes(32)},
        {"start_byte": 1},
        {"last_preimage": bytes(32)},
        {"acks": 1},
        {"acks": 0},
    ],
)
def test_completion_of_something_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(AttemptFailed) as caught:
        complete(**changes)
    assert caught.value.reason == Reason.PROTOCOL_VIOLATION


def test_completion_by_another_key_is_refused() -> None:
    with pytest.raises(AttemptFailed, match="signed by"):
        complete(key=OTHER)


def test_completion_cannot_claim_what_was_not_released() -> None:
    with pytest.raises(AttemptFailed, match="not released"):
        complete(released=1)


def evidence() -> Evidence:
    """One whole answer of one node."""
    found = draft()
    order = order_for(found)
    signed = completion_for(order, b"Hello", 1)
    part = Part(
        award_digest=order.award_digest,
        completion_digest=signed.digest(DOMAIN),
        segment_commitment=signed.message.segment_commitment,
        start_byte=0,
        end_byte=5,
        output_tokens=signed.message.output_tokens,
        acks=1,
        result=0,
        first_token_ms=NOW + 3,
        finished_ms=NOW + 4,
    )
    delivery = Delivery(
        job_digest=found.job_digest,
        gateway=found.job.message.gateway,
        response_commitment=b"\x88" * 32,
        outcome=int(Outcome.COMPLETE),
        delivered_ms=NOW + 5,
        parts=(part,),
    )
    return Evidence(
        job=found.job.message,
        job_digest=found.job_digest,
        grant=found.grant.message,
        delivery=delivery,
        delivery_digest=b"\x77" * 32,
        attempts=[
            Attempt(
                award=order.award.message,
                completion=signed.message,
                completion_digest=signed.digest(DOMAIN),
                part=part,
            )
        ],
    )


def receipt_of(held: Evidence, **changes: Any) -> Receipt:
    """The receipt that follows, but for `changes`; `segment` changes its only segment."""
    (charge,) = charges_of(held, rules())
    award, part = held.attempts[0].award, held.delivery.parts[0]
    segment = Segment(
        node=award.node,
        rank=1,
        award_digest=part.award_digest,
        completion_digest=part.completion_digest,
        segment_commitment=part.segment_commitment,
        start_byte=0,
        end_byte=5,
        price_in=award.price_in,
        price_out=award.price_out,
        clearing=1,
        node_counter=1,
        node_total=charge.amount - charge.fee,
        **msgspec.structs.asdict(charge),
    )
    segment = msgspec.structs.replace(segment, **changes.pop("segment", {}))
    zeros: dict[str, Any] = dict.fromkeys(Receipt.__struct_fields__, 0)
    fields = {
        "account": held.job.account,
        "log_id": held.job.log_id,
        "job_id": held.job.job_id,
        "gateway": held.job.gateway,
        "payer": held.grant.payer,
        "job_digest": held.job_digest,
        "grant_digest": held.job.grant_digest,
        "delivery_digest": held.delivery_digest,
        "request_commitment": held.job.request_commitment,
        "response_commitment": held.delivery.response_commitment,
        "model": held.job.model,
        "total": segment.amount,
        "segments": (segment,),
    }
    return Receipt(**zeros | fields | changes)


def test_receipt_by_the_rule_is_taken() -> None:
    held = evidence()
    assert require_receipt(receipt_of(held), held, rules()).total > 0


@pytest.mark.parametrize(
    "name",
    ["log_id", "job_id", "gateway", "payer", "job_digest", "grant_digest", "delivery_digest",
     "request_commitment", "response_commitment", "model", "total", "account", "account_limit"],
)  # fmt: skip
def test_receipt_of_something_else_is_refused(name: str) -> None:
    held = evidence()
    with pytest.raises(CoordinatorFault, match=name):
        require_receipt(with_flipped(receipt_of(held), name), held, rules())


@pytest.mark.parametrize("name", ["prompt_billed", "output_billed", "acks", "fee", "result"])
def test_receipt_with_another_charge_is_refused(name: str) -> None:
    held = evidence()
    wrong = with_flipped(receipt_of(held).segments[0], name)
    with pytest.raises(CoordinatorFault, match=name):
        require_receipt(receipt_of(held, segments=(wrong,)), held, rules())


def test_receipt_for_more_than_the_job_may_cost_is_refused() -> None:
    held = evidence()
    most = held.grant.max_per_job
    with pytest.raises(CoordinatorFault, match="above the limit"):
        require_receipt(receipt_of(held, segment={"amount": most + 1}), held, None)


def test_charges_are_not_recomputed_without_the_completion_they_rest_on() -> None:
    """A completion that reached the coordinator alone: its count is not ours to judge."""
    held = evidence()
    found = receipt_of(held, segment={"completion_digest": b"\x01" * 32, "output_node": 99})
    require_receipt(found, held, rules())


def test_discrepancies_are_named_one_by_one() -> None:
    held = evidence()
    said = held.attempts[0].completion
    part = held.delivery.parts[0]
    assert said
    assert discrepancies(said, part, held.delivery, said.prompt_tokens, Tolerance(2, 0)) == []
    other = msgspec.structs.replace(
        said,
        end_byte=6,
        segment_commitment=b"\x01" * 32,
        response_commitment=b"\x01" * 32,
        output_tokens=said.output_tokens + 3,
        prompt_tokens=said.prompt_tokens + 3,
    )
    found = discrepancies(other, part, held.delivery, said.prompt_tokens, Tolerance(2, 0))
    assert len(found) == 5
