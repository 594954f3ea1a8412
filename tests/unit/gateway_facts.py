"""What the unit tests of the gateway share: one demand, its signed job, an award, a completion."""

from functools import cache
from hashlib import sha256
from itertools import count
from typing import Any, Final

import msgspec

from gateway.demands import Demand, read_demand
from gateway.drafts import Draft, Identity, draft_job
from gateway.ports import ServedModel
from gateway.relay import Order
from pinaivu.codes import Clearing, Finish
from pinaivu.commitments import segment_commitment
from pinaivu.encoding import jcs
from pinaivu.keys import SecretKey
from pinaivu.manifest import Parameters, local_development_parameters
from pinaivu.messages import Award, Completion, Failure, Grant
from pinaivu.metering import Tolerance, reserve
from pinaivu.tokens import Tokenizer
from pinaivu.typed_data import Domain, Message, Signed
from tests.unit.tiny_tokenizer import TEMPLATE, tiny_tokenizer_json

NOW: Final = 1_790_000_000_000
DOMAIN: Final = Domain(31337, b"\x51" * 20)
LOG: Final = b"\x11" * 32
GATEWAY: Final = SecretKey(b"\x03" * 32)
PAYER: Final = SecretKey(b"\x04" * 32)
EPOCH: Final = SecretKey(b"\x05" * 32)
NODE: Final = SecretKey(b"\x06" * 32)
OTHER: Final = SecretKey(b"\x07" * 32)
IDENTITY: Final = Identity(GATEWAY, DOMAIN)
FINGERPRINT: Final = b"\x22" * 32
RATIO_PPM: Final = 250_000
PRICE: Final = 400_000
MODEL: Final = "tiny-chat"
BODY: Final[dict[str, Any]] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "The keeper's lamp isn't lit."}],
    "max_tokens": 100,
}


class Drawn:
    """Bytes that look random and are the same in every run."""

    def __init__(self) -> None:
        self._numbers = count()

    def __call__(self, size: int) -> bytes:
        """The next `size` bytes, at most 32."""
        return sha256(next(self._numbers).to_bytes(8)).digest()[:size]


@cache
def model() -> ServedModel:
    """A model with a real, small tokenizer."""
    return ServedModel(
        name=MODEL,
        fingerprint=FINGERPRINT,
        ratio_ppm=RATIO_PPM,
        context_tokens=2048,
        tokenizer=Tokenizer(tiny_tokenizer_json(), TEMPLATE),
    )


@cache
def rules() -> Parameters:
    """The parameters of the only epoch."""
    return local_development_parameters("http://127.0.0.1:8545")


def demand(**changes: Any) -> Demand:
    """A valid demand."""
    return read_demand(jcs(BODY | changes), {MODEL: model()}, default_output_tokens=64)


def grant(**changes: Any) -> Signed[Grant]:
    """A generous grant."""
    fields = Grant(
        log_id=LOG,
        payer=PAYER.address,
        gateway=GATEWAY.address,
        grant_epoch=0,
        max_total=10**12,
        max_per_job=10**6,
        max_per_day=10**12,
        max_price_in=10**6,
        max_price_out=10**6,
        not_before_ms=NOW - 1000,
        not_after_ms=NOW + 1000,
        salt=bytes(32),
        models=(),
    )
    return Signed.by(PAYER, DOMAIN, msgspec.structs.replace(fields, **changes))


def draft(**changes: Any) -> Draft:
    """A signed job for `demand(**changes)`, the same each time."""
    return drafted(demand(**changes))


def drafted(wanted: Demand) -> Draft:
    """A signed job, the same each time."""
    return draft_job(
        wanted,
        grant(),
        IDENTITY,
        attempts=3,
        units_left=None,
        deadline_after_ms=60_000,
        now_ms=NOW,
        random=Drawn(),
    )


def award_for(found: Draft, **changes: Any) -> Award:
    """The right first award of a job, but for `changes`."""
    job, terms = found.job.message, found.grant.message
    fields: dict[str, Any] = {
        "log_id": LOG,
        "epoch": 1,
        "job_id": job.job_id,
        "job_digest": found.job_digest,
        "gateway": GATEWAY.address,
        "node": NODE.address,
        "rank": 1,
        "prior": bytes(32),
        "bid_digest": b"\x33" * 32,
        "clearing": int(Clearing.SECOND_SCORE),
        "price_in": PRICE * RATIO_PPM // 10**6,
        "price_out": PRICE,
        "prompt_tokens": job.prompt_tokens,
        "max_output_tokens": job.max_output_tokens,
        "max_amount": reserve(job, terms.max_per_job, job.max_price_in, job.max_price_out),
        "start_byte": 0,
        "request_commitment": job.request_commitment,
        "anchor": job.anchors[0],
        "nonce": b"\x44" * 32,
        "bids_root": b"\x55" * 32,
        "lease": bytes(32),
        "awarded_ms": NOW + 1,
        "expires_ms": NOW + 30_000,
    }
    return Award(**fields | changes)


def signed_award(award: Award, key: SecretKey = EPOCH) -> Signed[Award]:
    """An award as its epoch signs it."""
    return Signed.by(key, DOMAIN, award)


def order_for(found: Draft, choices: int = 1, **changes: Any) -> Order:
    """An attempt under the first award, at an answer of so many choices."""
    signed = signed_award(award_for(found, **changes))
    return Order(
        award=signed,
        award_digest=signed.digest(DOMAIN),
        chain=found.chains[0],
        draft=found,
        model=model(),
        domain=DOMAIN,
        tolerance=Tolerance(rules().tolerance_tokens, rules().tolerance_ppm),
        body=jcs(BODY),
        prefix="",
        choices=choices,
    )


def completion_for(
    order: Order, text: bytes, held: int, key: SecretKey = NODE, **changes: Any
) -> Signed[Completion]:
    """A true completion of an order, but for `changes`."""
    fields: dict[str, Any] = {
        "award_digest": order.award_digest,
        "node": order.award.message.node,
        "fingerprint": FINGERPRINT,
        "segment_commitment": segment_commitment(order.draft.salts.segment(1), text),
        "response_commitment": bytes(32),
        "start_byte": 0,
        "end_byte": len(text),
        "prompt_tokens": order.award.message.prompt_tokens,
        "output_tokens": model().tokenizer.count_text(text.decode()),
        "acks": held,
        "last_preimage": order.chain.preimage(held) if held else bytes(32),
        "finish": int(Finish.STOP),
        "started_ms": NOW + 2,
        "first_token_ms": NOW + 3,
        "finished_ms": NOW + 4,
        "audit_commitment": bytes(32),
    }
    return Signed.by(key, DOMAIN, Completion(**fields | changes))


def failure_of(award: Signed[Award], **changes: Any) -> Failure:
    """A failure report of an award."""
    fields: dict[str, Any] = {
        "award_digest": award.digest(DOMAIN),
        "gateway": GATEWAY.address,
        "reason": 15,
        "acks": 0,
        "output_tokens": 0,
        "end_byte": 0,
        "reported_ms": NOW,
    }
    return Failure(**fields | changes)


def flipped(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    if isinstance(value, str):
        return value + "x"
    return value + 1


def with_flipped(message: Any, name: str) -> Any:
    """A message with one field changed."""
    assert isinstance(message, Message)
    return msgspec.structs.replace(message, **{name: flipped(getattr(message, name))})
