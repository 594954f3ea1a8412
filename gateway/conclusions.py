"""What a request came to: its delivery, signed, with what it costs and what is stored beside it."""

import logging
from collections.abc import Callable, Mapping, Sequence

from gateway.checks import charges_of, discrepancies
from gateway.counts import differences
from gateway.deliveries import Leg, delivery_frame, evidence_of, sign_delivery
from gateway.drafts import Draft, Identity
from gateway.ledger import Conclusion
from pinaivu.codes import Outcome
from pinaivu.commitments import response_commitment, response_digest
from pinaivu.encoding import jcs
from pinaivu.manifest import Parameters
from pinaivu.messages import Delivery
from pinaivu.metering import Tolerance
from pinaivu.p2p import wire

_log = logging.getLogger(__name__)


def conclusion_of(
    identity: Identity,
    draft: Draft,
    rules: Parameters,
    prompt_tokens: int,
    legs: Sequence[Leg],
    outcome: Outcome,
    choices: Sequence[Mapping[str, object]],
    *,
    keep: Callable[[bytes], bytes | None],
    now_ms: int,
) -> Conclusion:
    """The conclusion of a job after its last award; `choices` are the answer, `keep` seals it.

    Its units are base units by this gateway's own count, until the receipt says what they were.
    """
    job_id, domain = draft.job.message.job_id, identity.domain
    whole = response_commitment(draft.salts.response, response_digest(choices))
    delivery = sign_delivery(identity, draft.job_digest, draft.salts, legs, outcome, whole, now_ms)
    if outcome == Outcome.COMPLETE:
        _say_what_differs(draft.request_id, delivery.message, legs[-1], prompt_tokens, rules)
    frame = delivery_frame(delivery, draft.job, draft.grant, legs)
    return Conclusion(
        job_id=job_id,
        frame=wire.encode(frame),
        output_tokens=output_tokens_of(draft, legs),
        units=sum(charge.amount for charge in charges_of(evidence_of(frame, domain), rules)),
        completions={leg.award_digest: leg.completion.to_bytes() for leg in legs if leg.completion},
        response=keep(jcs({"choices": choices})),
        now_ms=now_ms,
        differences=differences(job_id, legs, prompt_tokens, now_ms),
    )


def output_tokens_of(draft: Draft, legs: Sequence[Leg]) -> int:
    """By this gateway's own count over all awards, and never more than the job asked for."""
    counted = sum(leg.output_tokens for leg in legs)
    return min(counted, draft.job.message.max_output_tokens)


def _say_what_differs(
    request_id: str, delivery: Delivery, leg: Leg, prompt_tokens: int, rules: Parameters
) -> None:
    if leg.completion is None:
        return
    tolerance = Tolerance(rules.tolerance_tokens, rules.tolerance_ppm)
    said, part = leg.completion.message, delivery.parts[-1]
    for found in discrepancies(said, part, delivery, prompt_tokens, tolerance):
        _log.warning("request %s: the node's completion differs: %s", request_id, found)
