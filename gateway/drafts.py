"""From a demand to a signed job, with the secrets that stay here: salts and acknowledgements.

A draft is made of values only; nothing is sent or stored. The job holds no prompt: it commits to
the request by a salt that the node gets with its dispatch, and to one chain of acknowledgements
for each attempt that the log's parameters allow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from gateway.accounts import Account
from gateway.demands import Demand
from pinaivu.commitments import AckChain, Salts, request_commitment
from pinaivu.encoding import from_hex
from pinaivu.fields import MAX_U64, MAX_U96, MAX_U128
from pinaivu.keys import SecretKey
from pinaivu.messages import Grant, Job
from pinaivu.metering import at_most
from pinaivu.typed_data import Domain, Signed

_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signs, for which chain."""

    key: SecretKey
    domain: Domain

    @property
    def address(self) -> bytes:
        """The gateway's address."""
        return self.key.address


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A job ready to be submitted, and what only the gateway knows of it."""

    job: Signed[Job]
    job_digest: bytes
    grant: Signed[Grant]
    salts: Salts
    chains: tuple[AckChain, ...]

    @property
    def request_id(self) -> str:
        """The job id as people see it."""
        return str(UUID(bytes=self.job.message.job_id))


def uuid7(now_ms: int, random: Callable[[int], bytes]) -> bytes:
    """The 16 bytes of a UUIDv7 (RFC 9562): 48 bits of time, the rest random."""
    drawn = bytearray(now_ms.to_bytes(6) + random(10))
    drawn[6] = 0x70 | drawn[6] & 0x0F
    drawn[8] = 0x80 | drawn[8] & 0x3F
    return bytes(drawn)


def draft_job(
    demand: Demand,
    grant: Signed[Grant],
    identity: Identity,
    *,
    attempts: int,
    units_left: int | None,
    deadline_after_ms: int,
    now_ms: int,
    random: Callable[[int], bytes],
    account: Account | None = None,
) -> Draft:
    """Sign a job for `demand` under `grant`, for up to `attempts` nodes in turn.

    The job is for the grant's log. `units_left` is the most it may cost for the key's sake,
    `account` a hosted key's sub-account. The caller's limits are never above the grant's.
    """
    job_id, salts = uuid7(now_ms, random), Salts(random(_SECRET_BYTES))
    chains = tuple(
        AckChain(job_id, rank, demand.max_output_tokens, random(_SECRET_BYTES))
        for rank in range(1, attempts + 1)
    )
    terms, most = demand.terms, grant.message
    job = Job(
        log_id=grant.message.log_id,
        job_id=job_id,
        gateway=identity.address,
        grant_digest=grant.digest(identity.domain),
        account=account.at(most.payer) if account else bytes(32),
        account_limit=account.limit_units if account else MAX_U128,
        kind=int(demand.request.kind),
        fingerprint=from_hex(terms.fingerprint) if terms.fingerprint else bytes(32),
        features=int(demand.request.features),
        prompt_tokens=demand.prompt_tokens,
        max_output_tokens=demand.max_output_tokens,
        max_price_in=_least(terms.max_price_in, most.max_price_in),
        max_price_out=_least(terms.max_price_out, most.max_price_out),
        max_cost=_least(terms.max_cost_units, most.max_per_job, units_left, MAX_U96),
        value_of_time=MAX_U64 if terms.value_of_time is None else terms.value_of_time,
        mode=int(terms.mode),
        session=bytes(32),
        request_commitment=request_commitment(salts.request, demand.digest),
        created_ms=now_ms,
        deadline_ms=now_ms + deadline_after_ms,
        model=demand.model.name,
        allow=_addresses(terms.allow),
        deny=_addresses(terms.deny),
        anchors=tuple(chain.anchor for chain in chains),
    )
    signed = Signed.by(identity.key, identity.domain, job)
    return Draft(
        job=signed,
        job_digest=signed.digest(identity.domain),
        grant=grant,
        salts=salts,
        chains=chains,
    )


def most_units(demand: Demand, grant: Grant) -> int:
    """The most that a job for `demand` under `grant` may cost; `metering.reserve` of that job."""
    terms = demand.terms
    price_in = _least(terms.max_price_in, grant.max_price_in)
    price_out = _least(terms.max_price_out, grant.max_price_out)
    most = at_most(demand.prompt_tokens, demand.max_output_tokens, price_in, price_out)
    return _least(terms.max_cost_units, grant.max_per_job, most)


def _least(*limits: int | None) -> int:
    return min(limit for limit in limits if limit is not None)


def _addresses(listed: list[str]) -> tuple[bytes, ...]:
    """Strictly ascending, as a job has them."""
    return tuple(sorted({bytes.fromhex(text[2:]) for text in listed}))
