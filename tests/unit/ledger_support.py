"""Builders of evidence for the pure ledger tests: valid by default, one field changed at a time.

Keys follow from small numbers. Nothing is signed unless a test signs it.
"""

from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from pinaivu.codes import Clearing, Feature, Finish, JobKind, Mode, Outcome, Reason
from pinaivu.commitments import AckChain
from pinaivu.fields import MAX_U64, MAX_U128
from pinaivu.keys import SecretKey
from pinaivu.messages import Award, Completion, Delivery, Failure, Grant, Job, Offer, Part
from pinaivu.metering import Attempt, Tolerance
from pinaivu.receipts import Case, Held, Origin, PassedOver
from pinaivu.typed_data import Domain, digest

DOMAIN: Final = Domain(31337, b"\x51" * 20)
LOG: Final = b"\x11" * 32
MODEL: Final = "made-up/model"
FINGERPRINT: Final = b"\x22" * 32
NONCE: Final = b"\x33" * 32
ROOT: Final = b"\x44" * 32
ZERO: Final = bytes(32)
NOW: Final = 1_800_000_000_000
TOLERANCE: Final = Tolerance(tokens=2, ppm=10_000)
FEE_BPS: Final = 250
RESERVE: Final = 10_000


def secret(number: int) -> SecretKey:
    """A key that follows from a number."""
    return SecretKey(number.to_bytes(32))


PAYER, GATEWAY, EPOCH = secret(1), secret(2), secret(3)
NODES: Final = [secret(10 + number) for number in range(4)]


def job_id(number: int) -> bytes:
    """The 16 bytes of a UUIDv7-like id."""
    return b"\x01\x90\xa0\xb0\xc0\xd0\x70\x00\x80" + number.to_bytes(7)


def chain(number: int = 1, rank: int = 1, max_output_tokens: int = 100) -> AckChain:
    """The acknowledgements of a job's attempt."""
    return AckChain(job_id(number), rank, max_output_tokens, bytes((rank,)) * 32)


def grant(**more: Any) -> Grant:
    made = Grant(
        log_id=LOG,
        payer=PAYER.address,
        gateway=GATEWAY.address,
        grant_epoch=0,
        max_total=10**9,
        max_per_job=10**6,
        max_per_day=10**8,
        max_price_in=10**8,
        max_price_out=10**8,
        not_before_ms=0,
        not_after_ms=MAX_U64,
        salt=ZERO,
        models=(),
    )
    return replace(made, **more)


def job(number: int = 1, **more: Any) -> Job:
    most = more.get("max_output_tokens", 100)
    made = Job(
        log_id=LOG,
        job_id=job_id(number),
        gateway=GATEWAY.address,
        grant_digest=digest(DOMAIN, grant()),
        account=ZERO,
        account_limit=MAX_U128,
        kind=JobKind.CHAT,
        fingerprint=ZERO,
        features=Feature.KIND_CHAT,
        prompt_tokens=10,
        max_output_tokens=100,
        max_price_in=10**8,
        max_price_out=10**8,
        max_cost=RESERVE,
        value_of_time=0,
        mode=Mode.LIVE,
        session=ZERO,
        request_commitment=b"\x66" * 32,
        created_ms=NOW,
        deadline_ms=NOW + 300_000,
        model=MODEL,
        allow=(),
        deny=(),
        anchors=tuple(chain(number, rank, most).anchor for rank in (1, 2, 3)),
    )
    return replace(made, **more)


def offer(by: SecretKey, price_out: int = 1_000_000, **more: Any) -> Offer:
    made = Offer(
        log_id=LOG,
        node=by.address,
        fingerprint=FINGERPRINT,
        features=Feature.KIND_CHAT,
        context_tokens=4096,
        price_out=price_out,
        ttft_ms=100,
        tps_milli=50_000,
        slots=1,
        sequence=1,
        issued_ms=NOW,
        expires_ms=NOW + 15_000,
        model=MODEL,
    )
    return replace(made, **more)


def award(rank: int = 1, number: int = 1, **more: Any) -> Award:
    """A million base units per million output tokens: a token costs one unit, of input half."""
    terms = job(number)
    made = Award(
        log_id=LOG,
        epoch=1,
        job_id=terms.job_id,
        job_digest=digest(DOMAIN, terms),
        gateway=GATEWAY.address,
        node=NODES[rank - 1].address,
        rank=rank,
        prior=ZERO,
        bid_digest=b"\x77" * 32,
        clearing=Clearing.SECOND_SCORE,
        price_in=500_000,
        price_out=1_000_000,
        prompt_tokens=terms.prompt_tokens,
        max_output_tokens=terms.max_output_tokens,
        max_amount=RESERVE,
        start_byte=0,
        request_commitment=terms.request_commitment,
        anchor=terms.anchors[rank - 1],
        nonce=NONCE,
        bids_root=ROOT,
        lease=ZERO,
        awarded_ms=NOW,
        expires_ms=NOW + 60_000,
    )
    return replace(made, **more)


def completion(of: Award, acks: int = 3, **more: Any) -> Completion:
    made = Completion(
        award_digest=digest(DOMAIN, of),
        node=of.node,
        fingerprint=FINGERPRINT,
        segment_commitment=b"\x88" * 32,
        response_commitment=b"\x99" * 32,
        start_byte=of.start_byte,
        end_byte=of.start_byte + 400,
        prompt_tokens=of.prompt_tokens,
        output_tokens=80,
        acks=acks,
        last_preimage=ZERO,
        finish=Finish.STOP,
        started_ms=NOW + 1,
        first_token_ms=NOW + 20,
        finished_ms=NOW + 900,
        audit_commitment=ZERO,
    )
    return replace(made, **more)


def failure(of: Award, reason: int = Reason.STREAM_BROKEN, **more: Any) -> Failure:
    made = Failure(
        award_digest=digest(DOMAIN, of),
        gateway=of.gateway,
        reason=reason,
        acks=0,
        output_tokens=0,
        end_byte=of.start_byte,
        reported_ms=NOW + 500,
    )
    return replace(made, **more)


def part(of: Award, done: Completion | None = None, **more: Any) -> Part:
    """The gateway's view, agreeing with the node's completion where there is one."""
    made = Part(
        award_digest=digest(DOMAIN, of),
        completion_digest=digest(DOMAIN, done) if done else ZERO,
        segment_commitment=done.segment_commitment if done else ZERO,
        start_byte=of.start_byte,
        end_byte=done.end_byte if done else of.start_byte,
        output_tokens=done.output_tokens if done else 0,
        acks=done.acks if done else 0,
        result=0,
        first_token_ms=NOW + 30,
        finished_ms=NOW + 950,
    )
    return replace(made, **more)


def delivery(*parts: Part, of: Job | None = None, **more: Any) -> Delivery:
    made = Delivery(
        job_digest=digest(DOMAIN, of or job()),
        gateway=GATEWAY.address,
        response_commitment=b"\x99" * 32,
        outcome=Outcome.COMPLETE,
        delivered_ms=NOW + 1_000,
        parts=parts,
    )
    return replace(made, **more)


ORIGIN: Final = Origin(
    log_id=LOG, epoch=1, measurement=b"\xaa" * 32, parameters_digest=b"\xbb" * 32
)


def case(
    line: Sequence[Attempt | PassedOver],
    delivered: Delivery | None,
    of: Job | None = None,
    **more: Any,
) -> Case:
    """All evidence of one job, as `receipts.compose` takes it."""
    terms = of or job()
    digests = [digest(DOMAIN, e.award) for e in line if isinstance(e, Attempt)]
    made = Case(
        job=terms,
        job_digest=digest(DOMAIN, terms),
        grant=grant(),
        held=Held(fingerprint=FINGERPRINT, nonce=NONCE, bids_root=ROOT, bids=3),
        line=line,
        award_digests=digests,
        delivery=delivered,
        delivery_digest=digest(DOMAIN, delivered) if delivered else ZERO,
        unserved_reason=0,
        received_ms=NOW,
        closed_ms=NOW + 2_000,
        reserve_units=RESERVE,
        fee_bps=[FEE_BPS] * len(digests),
        tolerance=TOLERANCE,
    )
    return replace(made, **more)


def attempt(
    of: Award,
    done: Completion | None = None,
    failed: Failure | None = None,
    said: Part | None = None,
) -> Attempt:
    return Attempt(
        award=of,
        completion=done,
        completion_digest=digest(DOMAIN, done) if done else ZERO,
        failure=failed,
        part=said,
    )
