"""How a request ended, in signed form: one part for each award, and the frame that carries it all.

Used by the exchange when an answer ends, and after a restart for answers of which nothing but
the ledger's rows is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from gateway.checks import Evidence
from gateway.drafts import Identity
from gateway.store_forms import award_of, completion_of, failure_of
from pinaivu.codes import Outcome, Reason
from pinaivu.commitments import Salts, segment_commitment, tokens_acknowledged
from pinaivu.messages import Award, Completion, Delivery, Failure, Grant, Job, Part
from pinaivu.metering import Attempt
from pinaivu.p2p import wire
from pinaivu.store.gateway import AttemptRow
from pinaivu.typed_data import Domain, Signed, signed_from_bytes

_ZERO = bytes(32)


@dataclass(slots=True, kw_only=True)
class Leg:
    """What came of one award. `result` is 0, 10–18 or 30; `text` is what arrived under it."""

    award: Signed[Award]
    award_digest: bytes
    result: int
    text: bytes | None = b""  # None: it arrived in an earlier life of this process
    output_tokens: int = 0
    acks: int = 0
    end_byte: int = 0
    first_token_ms: int = 0
    finished_ms: int = 0
    completion: Signed[Completion] | None = None
    failure: Signed[Failure] | None = None
    detail: str = field(default="", compare=False)
    engine_status: int = field(default=0, compare=False)

    def part(self, identity: Identity, salts: Salts) -> Part:
        """The delivery's view of this award."""
        award = self.award.message
        commitment = _ZERO
        if self.text is not None:
            commitment = segment_commitment(salts.segment(award.rank), self.text)
        return Part(
            award_digest=self.award_digest,
            completion_digest=(
                self.completion.digest(identity.domain) if self.completion else _ZERO
            ),
            segment_commitment=commitment,
            start_byte=award.start_byte,
            end_byte=self.end_byte,
            output_tokens=self.output_tokens,
            acks=self.acks,
            result=int(self.result),
            first_token_ms=self.first_token_ms,
            finished_ms=self.finished_ms,
        )


def recovered_leg(row: AttemptRow, job: Job) -> Leg:
    """A leg from what was durable: never fewer acknowledgements and tokens than were released.

    The text is gone, so its commitment is zero and the segment ends where the failure says, or
    where it began. Without a signed failure it was this gateway that let go of the node, whatever
    the node did: the client is gone, and no node is blamed.
    """
    award, failure = award_of(row), failure_of(row)
    said = failure.message if failure else None
    acks = said.acks if said else row.acks_ceiling
    return Leg(
        award=award,
        award_digest=row.award_digest,
        result=said.reason if said else Reason.CLIENT_GONE,
        text=None,
        output_tokens=(
            said.output_tokens if said else tokens_acknowledged(acks, job.max_output_tokens)
        ),
        acks=acks,
        end_byte=said.end_byte if said else award.message.start_byte,
        completion=completion_of(row),
        failure=failure,
        detail="the gateway was restarted",
    )


def sign_failure(identity: Identity, leg: Leg, now_ms: int) -> Signed[Failure]:
    """The signed account of an award that came to nothing: what the next rank may go on from."""
    failure = Failure(
        award_digest=leg.award_digest,
        gateway=identity.address,
        reason=int(leg.result),
        acks=leg.acks,
        output_tokens=leg.output_tokens,
        end_byte=leg.end_byte,
        reported_ms=now_ms,
    )
    return Signed.by(identity.key, identity.domain, failure)


def sign_delivery(
    identity: Identity,
    job_digest: bytes,
    salts: Salts,
    legs: Sequence[Leg],
    outcome: Outcome,
    response_commitment: bytes,
    now_ms: int,
) -> Signed[Delivery]:
    """The signed account of what the client got."""
    delivery = Delivery(
        job_digest=job_digest,
        gateway=identity.address,
        response_commitment=response_commitment,
        outcome=int(outcome),
        delivered_ms=now_ms,
        parts=tuple(leg.part(identity, salts) for leg in legs),
    )
    return Signed.by(identity.key, identity.domain, delivery)


def delivery_frame(
    delivery: Signed[Delivery], job: Signed[Job], grant: Signed[Grant], legs: Sequence[Leg]
) -> wire.Deliver:
    """The delivery with all evidence, as it is stored and sent."""
    return wire.Deliver(
        delivery=delivery.to_bytes(),
        job=job.to_bytes(),
        grant=grant.to_bytes(),
        awards=[leg.award.to_bytes() for leg in legs],
        completions=[leg.completion.to_bytes() for leg in legs if leg.completion],
        failures=[leg.failure.to_bytes() for leg in legs if leg.failure],
    )


def with_further_award(
    frame: wire.Deliver, award: Signed[Award], identity: Identity, salts: Salts
) -> wire.Deliver:
    """A delivery signed anew with an award that came to be known after it, and was never used.

    Nobody waited for an answer any more: that is no fault of its node.
    """
    leg = Leg(
        award=award,
        award_digest=award.digest(identity.domain),
        result=Reason.CLIENT_GONE,
        end_byte=award.message.start_byte,
    )
    said = signed_from_bytes(Delivery, frame.delivery).message
    delivery = replace(said, parts=(*said.parts, leg.part(identity, salts)))
    signed = Signed.by(identity.key, identity.domain, delivery)
    return replace(frame, delivery=signed.to_bytes(), awards=[*frame.awards, award.to_bytes()])


def evidence_of(frame: wire.Deliver, domain: Domain) -> Evidence:
    """All that this gateway holds of a job, for metering it and for checking its receipt."""
    job = signed_from_bytes(Job, frame.job)
    grant = signed_from_bytes(Grant, frame.grant).message
    delivery = signed_from_bytes(Delivery, frame.delivery)
    awards = [signed_from_bytes(Award, raw) for raw in frame.awards]
    completions = [signed_from_bytes(Completion, raw) for raw in frame.completions]
    failures = [signed_from_bytes(Failure, raw) for raw in frame.failures]
    by_award = {signed.message.award_digest: signed for signed in completions}
    failed = {signed.message.award_digest: signed.message for signed in failures}
    attempts = []
    for award, part in zip(awards, delivery.message.parts, strict=True):
        completion = by_award.get(part.award_digest)
        attempts.append(
            Attempt(
                award=award.message,
                completion=completion.message if completion else None,
                completion_digest=part.completion_digest,
                failure=failed.get(part.award_digest),
                part=part,
            )
        )
    return Evidence(
        job=job.message,
        job_digest=job.digest(domain),
        grant=grant,
        delivery=delivery.message,
        delivery_digest=delivery.digest(domain),
        attempts=attempts,
    )
