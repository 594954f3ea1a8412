"""A request and its answer, made up word by word, and the signed job that asks for it."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

from msgspec import Struct

from pinaivu.codes import Feature, JobKind
from pinaivu.commitments import (
    AckChain,
    Salts,
    account_of,
    request_commitment,
    request_digest,
    response_commitment,
    response_digest,
)
from pinaivu.fields import MAX_U64, MAX_U128
from pinaivu.messages import Job
from pinaivu.openai import canonical_choices
from pinaivu.testing.lies import Lies
from pinaivu.testing.parties import MODEL, Parties
from pinaivu.testing.scenarios import Scenario
from pinaivu.testing.sources import SpaceCounter
from pinaivu.typed_data import Signed

MAX_OUTPUT_TOKENS: Final = 128
_RANKS: Final = 4
_ACCOUNT_LIMIT: Final = 10**9


class Request(Struct, frozen=True, kw_only=True, dict=True):
    """A signed job and what only its gateway knows."""

    job: Signed[Job]
    body: dict[str, Any]
    salts: Salts
    chains: tuple[AckChain, ...]
    account_secret: bytes | None
    words: tuple[str, ...]

    @cached_property
    def pieces(self) -> tuple[bytes, ...]:
        """The answer's tokens, each a word and its space."""
        return tuple(f"{word} ".encode() for word in self.words)

    def text(self, start: int, stop: int) -> bytes:
        """Tokens [start, stop) of the whole answer."""
        return b"".join(self.pieces[start:stop])

    def response(self, tokens: int, *, finish: str | None) -> dict[str, Any]:
        """What a client has after so many tokens, as an SDK gives it."""
        message = {"role": "assistant", "content": self.text(0, tokens).decode()}
        return {"choices": [{"index": 0, "finish_reason": finish, "message": message}]}

    def response_commitment(self, tokens: int, *, finish: str | None) -> bytes:
        """The commitment to `response`."""
        choices = canonical_choices(JobKind.CHAT, self.response(tokens, finish=finish))
        return response_commitment(self.salts.response, response_digest(choices))


def make_request(
    scenario: Scenario,
    parties: Parties,
    random: Callable[[int], bytes],
    now_ms: int,
    lies: Lies,
) -> Request:
    """A chat request under the parties' grant; beyond all offers where the scenario says so."""
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"say {random(4).hex()} in other words"}],
        "max_tokens": MAX_OUTPUT_TOKENS,
        "temperature": 0.5,
        "stream": True,
        "pinaivu": {"auction": "live" if scenario.mode == 1 else "standing"},
    }
    body = lies.body(body)
    job_id, salts = _uuid7(now_ms, random), Salts(random(32))
    chains = tuple(
        AckChain(job_id, rank, MAX_OUTPUT_TOKENS, random(32)) for rank in range(1, _RANKS + 1)
    )
    secret = b"\x5e" * 32 if scenario.with_account else None
    most, price_most = parties.grant.message, 10**6 if scenario.within_limits else 1_000
    job = Job(
        log_id=parties.log_id,
        job_id=job_id,
        gateway=parties.gateway.address,
        grant_digest=parties.grant.digest(parties.domain),
        account=account_of(most.payer, secret) if secret else bytes(32),
        account_limit=_ACCOUNT_LIMIT if secret else MAX_U128,
        kind=JobKind.CHAT,
        fingerprint=bytes(32),
        features=int(Feature.KIND_CHAT),
        prompt_tokens=SpaceCounter().count_prompt(body),
        max_output_tokens=MAX_OUTPUT_TOKENS,
        max_price_in=price_most,
        max_price_out=price_most,
        max_cost=10**6,
        value_of_time=MAX_U64,
        mode=scenario.mode,
        session=bytes(32),
        request_commitment=request_commitment(salts.request, request_digest(body)),
        created_ms=now_ms,
        deadline_ms=now_ms + 300_000,
        model=MODEL,
        allow=(),
        deny=(),
        anchors=tuple(chain.anchor for chain in chains),
    )
    return Request(
        job=Signed.by(parties.gateway, parties.domain, lies.job(job)),
        body=body,
        salts=salts,
        chains=chains,
        account_secret=secret,
        words=tuple(f"wörd{number}" for number in range(scenario.output_tokens)),
    )


def _uuid7(now_ms: int, random: Callable[[int], bytes]) -> bytes:
    drawn = bytearray(now_ms.to_bytes(6) + random(10))
    drawn[6] = 0x70 | drawn[6] & 0x0F
    drawn[8] = 0x80 | drawn[8] & 0x3F
    return bytes(drawn)
