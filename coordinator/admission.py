"""Which jobs are accepted: everything that must hold before a nonce is drawn and money reserved.

A refusal here leaves no trace in the log: a stranger can't write into a payer's sequence.
"""

from functools import lru_cache
from itertools import pairwise

from msgspec import Struct

from coordinator.errors import JobRefused
from coordinator.ports import ModelRecord, PayerRecord
from pinaivu.books import Books
from pinaivu.codes import Feature, JobKind, Mode
from pinaivu.keys import BadSignature
from pinaivu.manifest import Parameters
from pinaivu.messages import Grant, Job
from pinaivu.metering import reserve
from pinaivu.typed_data import Domain, Signed

_MAX_LISTED = 64
_ANY = bytes(32)
_KIND_FEATURE = {
    JobKind.CHAT: Feature.KIND_CHAT,
    JobKind.COMPLETION: Feature.KIND_COMPLETION,
    JobKind.EMBEDDING: Feature.KIND_EMBEDDING,
}
_LIMITED_RETRY_MS = 60_000
_KINDS = Feature.KIND_CHAT | Feature.KIND_COMPLETION | Feature.KIND_EMBEDDING


class Money(Struct, frozen=True):
    """What of a payer's money is spoken for in this log, and how much all its payers may spend."""

    payer: PayerRecord
    unsettled: int
    reserved: int
    reserved_under_grant: int
    reserved_for_account: int
    debitable: int  # by the log's batches, as the debit limiter stands
    promised: int  # of it: unsettled receipts and reservations of all payers

    @property
    def available(self) -> int:
        """Finalised balance less what is leaving, unsettled receipts and reservations."""
        spoken_for = self.payer.leaving + self.unsettled + self.reserved
        return max(0, self.payer.balance - spoken_for)


class Desk(Struct, frozen=True):
    """The fixed side of admission."""

    domain: Domain
    log_id: bytes
    parameters: Parameters

    def check(
        self,
        job: Signed[Job],
        grant: Signed[Grant],
        gateway: bytes,
        model: ModelRecord | None,
        money: Money,
        books: Books,
        now_ms: int,
    ) -> int:
        """The job's reserve in base units; `JobRefused` says what does not hold."""
        self._signatures(job, grant, gateway)
        _require_all(self._form(job.message, now_ms))
        _require_all(_grant_terms(job.message, grant.message, self.log_id, now_ms))
        if model is None:
            raise JobRefused("unknown_model", f"model {job.message.model!r} is not registered")
        if job.message.fingerprint not in (_ANY, model.fingerprint):
            raise JobRefused(
                "other_fingerprint",
                f"model {job.message.model!r} is registered with other weights than demanded",
            )
        needed = reserve_of(job.message, grant.message)
        _require_all(_money_terms(job.message, grant.message, money, books, needed, now_ms))
        _require_settleable(money, needed)
        return needed

    def _signatures(self, job: Signed[Job], grant: Signed[Grant], gateway: bytes) -> None:
        try:
            job.require(self.domain, gateway)
            digest = _grant_digest(self.domain, grant)
        except BadSignature as error:
            raise JobRefused("bad_signature", str(error)) from error
        if job.message.gateway != gateway:
            raise JobRefused("foreign_job", "the job names another gateway than who submits it")
        if digest != job.message.grant_digest:
            raise JobRefused("wrong_grant", "the job names another grant")

    def _form(self, job: Job, now_ms: int) -> list[tuple[bool, str, str]]:
        skew = self.parameters.job_skew_ms
        kind_feature = _KIND_FEATURE.get(job.kind)  # type: ignore[call-overload]
        return [
            (job.log_id == self.log_id, "foreign_log", "the job is for another log"),
            (
                abs(job.created_ms - now_ms) <= skew,
                "clock_skew",
                f"the job was created more than {skew} ms away: check the gateway's clock",
            ),
            (job.deadline_ms > now_ms, "deadline_passed", "the job's deadline has passed"),
            (
                kind_feature is not None and job.features & _KINDS == kind_feature,
                "bad_features",
                "a job's features name exactly its own kind",
            ),
            (job.mode in (Mode.LIVE, Mode.STANDING), "bad_mode", f"no auction mode {job.mode}"),
            (
                1 <= len(job.anchors) <= self.parameters.max_ranks,
                "bad_anchors",
                f"a job has 1 to {self.parameters.max_ranks} anchors",
            ),
            (
                _ascending(job.allow) and _ascending(job.deny),
                "bad_lists",
                f"allow and deny lists are strictly ascending, at most {_MAX_LISTED}",
            ),
        ]


@lru_cache(maxsize=4096)
def _grant_digest(domain: Domain, grant: Signed[Grant]) -> bytes:
    """A grant's digest, if its payer signed it; it comes with each job, and is checked once."""
    return grant.require(domain, grant.message.payer)


def reserve_of(job: Job, grant: Grant) -> int:
    """The most this job may cost under its grant, base units."""
    limit_in = min(job.max_price_in, grant.max_price_in)
    limit_out = min(job.max_price_out, grant.max_price_out)
    return reserve(job, grant.max_per_job, limit_in, limit_out)


def _grant_terms(job: Job, grant: Grant, log_id: bytes, now: int) -> list[tuple[bool, str, str]]:
    return [
        (grant.gateway == job.gateway, "wrong_grant", "the grant is for another gateway"),
        (grant.log_id == log_id, "wrong_grant", "the grant is for another log"),
        (
            grant.not_before_ms <= now < grant.not_after_ms,
            "grant_expired",
            "the grant is not valid now: have the payer sign a new one",
        ),
        (
            not grant.models or job.model in grant.models,
            "model_not_granted",
            f"the grant does not name model {job.model!r}",
        ),
        (
            job.max_price_in <= grant.max_price_in and job.max_price_out <= grant.max_price_out,
            "above_grant",
            "the job's price limits are above the grant's",
        ),
        (
            not any(job.account) or job.account_limit > 0,
            "bad_account",
            "a sub-account needs a limit",
        ),
    ]


def _money_terms(
    job: Job, grant: Grant, money: Money, books: Books, needed: int, now_ms: int
) -> list[tuple[bool, str, str]]:
    spent = books.spent(job.grant_digest) + money.reserved_under_grant
    today = books.spent_on_day(job.grant_digest, now_ms) + money.reserved_under_grant
    account = books.account(grant.payer, job.account).total + money.reserved_for_account
    return [
        (
            money.payer.log_id == job.log_id,
            "not_assigned",
            "the payer's balance is not assigned to this log",
        ),
        (
            money.payer.grant_epoch == grant.grant_epoch,
            "grant_revoked",
            "the payer has revoked this grant on chain",
        ),
        (
            spent + needed <= grant.max_total,
            "grant_exhausted",
            "the grant's total cap would be exceeded",
        ),
        (
            today + needed <= grant.max_per_day,
            "grant_exhausted_today",
            "the grant's daily cap would be exceeded",
        ),
        (
            not any(job.account) or account + needed <= job.account_limit,
            "account_exhausted",
            "the sub-account's limit would be exceeded",
        ),
        (
            needed <= money.available,
            "insufficient_balance",
            (
                f"the job may cost {needed} base units, {money.available} are available: "
                "deposit more or set max_tokens or a price limit"
            ),
        ),
    ]


def _require_settleable(money: Money, needed: int) -> None:
    """Promise no more than one batch could take now: what is beyond it might wait past its payer.

    The limiter refills while receipts wait. That is not counted, so no clock decides here.
    """
    if money.promised + needed > money.debitable:
        raise JobRefused(
            "debit_limit",
            f"the log's batches may debit {money.debitable} base units now, {money.promised} are "
            f"promised and the job may cost {needed}: the limit refills with time",
            retry_after_ms=_LIMITED_RETRY_MS,
        )


def _require_all(terms: list[tuple[bool, str, str]]) -> None:
    for holds, code, detail in terms:
        if not holds:
            raise JobRefused(code, detail)


def _ascending(addresses: tuple[bytes, ...]) -> bool:
    return len(addresses) <= _MAX_LISTED and all(a < b for a, b in pairwise(addresses))
