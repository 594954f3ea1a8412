"""One bundle under one policy, with what the verifier has beside it; what all steps share.

Digests are computed once, under the policy's domain, and evidence is found by the award it is
about. Nothing here is checked but what a lookup needs: the steps do that.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

from msgspec import Struct

from pinaivu.checkpoints import CheckpointKeys
from pinaivu.commitments import Salts
from pinaivu.keys import require_signer
from pinaivu.manifest import Parameters
from pinaivu.messages import Award, Completion, Failure, Grant, Job, Part, Receipt, Segment
from pinaivu.metering import reserve
from pinaivu.typed_data import Domain, Signed
from pinaivu.verify.attestations import Attestations
from pinaivu.verify.contents import Contents, EpochPart
from pinaivu.verify.facts import ChainFacts
from pinaivu.verify.findings import Lacks, Refuted
from pinaivu.verify.policy import Policy

ZERO = bytes(32)


class TokenCounter(Protocol):
    """What V9 needs of a tokenizer; `pinaivu.tokens.Tokenizer` is one."""

    digest: bytes

    def count_prompt(self, body: Mapping[str, Any]) -> int:
        """Tokens of a chat's prompt under the model's template; `InvalidEncoding` if none."""
        ...

    def count_text(self, text: str) -> int:
        """Tokens of a text alone."""
        ...


class Copies(Struct, frozen=True, kw_only=True):
    """What the holder of the key kept; members not given are taken from the bundle's `holder`.

    `request` is the body as it was sent, parsed by `pinaivu.encoding.parse_json`; `response` the
    whole response (an SDK's `model_dump()`, or the aggregated stream); `salt` the job's salt root.
    `account_secret` opens a hosted key's sub-account, `account_limit` is the limit (base units)
    that its holder was promised.
    `book` is what the log serves as `/books/{root}`, for an auction whose transcript leaves it out.
    """

    request: Mapping[str, Any] | None = None
    response: Mapping[str, Any] | None = None
    salt: bytes | None = None
    account_secret: bytes | None = None
    account_limit: int | None = None
    tokenizer: TokenCounter | None = None
    book: object = None


class Work(Struct, frozen=True, kw_only=True):
    """One segment with an award, and all evidence about it."""

    segment: Segment
    award: Signed[Award]
    completion: Signed[Completion] | None
    failure: Signed[Failure] | None
    part: Part | None


class Case(Struct, frozen=True, kw_only=True, dict=True):
    """Everything a step may look at. `chain` None: no chain was asked."""

    policy: Policy
    contents: Contents
    chain: ChainFacts | None
    copies: Copies
    attestations: Attestations

    @property
    def domain(self) -> Domain:
        """The policy's domain: digests never depend on what the bundle says of its chain."""
        return self.policy.domain

    @property
    def receipt(self) -> Receipt:
        """The receipt."""
        return self.contents.receipt.message

    @property
    def job(self) -> Job:
        """The job."""
        return self.contents.job.message

    @property
    def grant(self) -> Grant:
        """The grant."""
        return self.contents.grant.message

    @cached_property
    def _digests(self) -> dict[int, bytes]:
        return {}

    @cached_property
    def _signed_by(self) -> set[tuple[int, bytes]]:
        return set()

    def digest(self, signed: Signed[Any]) -> bytes:
        """The digest of a message of this bundle, computed once."""
        known = self._digests
        found = known.get(id(signed))
        if found is None:
            found = known[id(signed)] = signed.digest(self.domain)
        return found

    def require_signed(self, signed: Signed[Any], signer: bytes, what: str) -> None:
        """Raise `BadSignature` naming `what` unless `signer` signed; looked at once."""
        key = (id(signed), signer)
        if key not in self._signed_by:
            require_signer(self.digest(signed), signed.signature, signer, what)
            self._signed_by.add(key)

    @cached_property
    def epochs(self) -> dict[int, EpochPart]:
        """The bundle's epochs by number; of two with one number the first."""
        return {part.number: part for part in reversed(self.contents.epochs)}

    def epoch(self, number: int) -> EpochPart:
        """An epoch of the bundle; `Refuted` where it has none of that number."""
        try:
            return self.epochs[number]
        except KeyError:
            raise Refuted(f"the bundle names epoch {number} and does not hold it") from None

    def parameters(self, number: int) -> Parameters:
        """An epoch's parameters."""
        return self.epoch(number).parameters

    def keys(self, number: int) -> CheckpointKeys:
        """An epoch's signing and note key, as its manifest has them."""
        return self.epoch(number).keys

    def signer(self, number: int) -> bytes:
        """The address an epoch signs with, by its manifest."""
        return self.epoch(number).signer

    @cached_property
    def work(self) -> tuple[Work, ...]:
        """Segments with an award, beside their awards in rank order; `Refuted` where they differ.

        Evidence about an award is looked up by its digest; what is about no award here is V3's.
        """
        served = [segment for segment in self.receipt.segments if segment.rank]
        awards = self.contents.awards
        if len(served) != len(awards):
            raise Refuted(f"{len(served)} segments name an award, the bundle holds {len(awards)}")
        done = {c.message.award_digest: c for c in self.contents.completions}
        failed = {f.message.award_digest: f for f in self.contents.failures}
        delivery = self.contents.delivery
        parts = {p.award_digest: p for p in delivery.message.parts} if delivery else {}
        return tuple(
            Work(
                segment=segment,
                award=award,
                completion=done.get(self.digest(award)),
                failure=failed.get(self.digest(award)),
                part=parts.get(self.digest(award)),
            )
            for segment, award in zip(served, awards, strict=True)
        )

    @property
    def auction_epoch(self) -> int:
        """The epoch whose parameters the auction and the charges follow: the awards', if any."""
        awards = self.contents.awards
        return awards[-1].message.epoch if awards else self.receipt.epoch

    @property
    def reserve_units(self) -> int:
        """The most the job could cost, base units (types.md, section 3)."""
        job, grant = self.job, self.grant
        limit_in = min(job.max_price_in, grant.max_price_in)
        limit_out = min(job.max_price_out, grant.max_price_out)
        return reserve(job, grant.max_per_job, limit_in, limit_out)

    @property
    def request(self) -> Mapping[str, Any]:
        """The holder's request body; `Lacks` without one."""
        body: Mapping[str, Any] = _given(
            self.copies.request, self._held("request"), "the request body"
        )
        return body

    @property
    def response(self) -> Mapping[str, Any]:
        """The holder's response; `Lacks` without one."""
        response: Mapping[str, Any] = _given(
            self.copies.response, self._held("response"), "the response"
        )
        return response

    @property
    def salts(self) -> Salts:
        """The job's salts; `Lacks` without their root."""
        root: bytes = _given(self.copies.salt, self._held("salt"), "the job's salt")
        return Salts(root)

    @property
    def account_secret(self) -> bytes | None:
        """The holder's secret of the sub-account, if there is one at hand."""
        secret: bytes | None = self.copies.account_secret or self._held("account_secret")
        return secret

    def _held(self, name: str) -> Any:
        return getattr(self.contents.holder, name) if self.contents.holder else None


def _given(own: Any, held: Any, what: str) -> Any:
    found = own if own is not None else held
    if found is None:
        raise Lacks(f"needs {what}")
    return found
