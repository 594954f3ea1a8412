"""Admission: every condition refuses alone, with its code; what holds gives the reserve."""

from typing import Any

import pytest

from coordinator.admission import Desk, Money
from coordinator.errors import JobRefused
from coordinator.ports import PayerRecord
from pinaivu.books import Books, Running
from pinaivu.codes import Feature
from pinaivu.messages import Grant, Job
from pinaivu.typed_data import Signed, digest
from tests.unit.coordinator_world import MODEL_RECORD, RULES
from tests.unit.ledger_support import (
    DOMAIN,
    GATEWAY,
    LOG,
    NODES,
    NOW,
    PAYER,
    RESERVE,
    grant,
    job,
)

DESK = Desk(DOMAIN, LOG, RULES)
ACCOUNT = b"\x0a" * 32
PLENTY = Money(
    payer=PayerRecord(LOG, 10**9, 0, 0),
    unsettled=0,
    reserved=0,
    reserved_under_grant=0,
    reserved_for_account=0,
    debitable=10**9,
    promised=0,
)


def _check(
    of: Job | None = None,
    under: Grant | None = None,
    money: Money = PLENTY,
    books: Books | None = None,
) -> int:
    terms = under or grant()
    signed = Signed.by(GATEWAY, DOMAIN, of or job(grant_digest=digest(DOMAIN, terms)))
    return DESK.check(
        signed,
        Signed.by(PAYER, DOMAIN, terms),
        GATEWAY.address,
        MODEL_RECORD,
        money,
        books or Books(),
        NOW,
    )


def _refused(*arguments: Any, **more: Any) -> str:
    with pytest.raises(JobRefused) as caught:
        _check(*arguments, **more)
    return caught.value.code


def test_what_holds_gives_the_reserve() -> None:
    assert _check() == RESERVE


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"log_id": bytes(32)}, "foreign_log"),
        ({"created_ms": NOW - RULES.job_skew_ms - 1}, "clock_skew"),
        ({"created_ms": NOW + RULES.job_skew_ms + 1}, "clock_skew"),
        ({"deadline_ms": NOW}, "deadline_passed"),
        ({"kind": 9}, "bad_features"),
        ({"features": Feature.KIND_COMPLETION}, "bad_features"),
        ({"features": Feature.KIND_CHAT | Feature.KIND_COMPLETION}, "bad_features"),
        ({"mode": 3}, "bad_mode"),
        ({"anchors": ()}, "bad_anchors"),
        ({"anchors": (bytes(32),) * (RULES.max_ranks + 1)}, "bad_anchors"),
        ({"allow": (NODES[0].address,) * 2}, "bad_lists"),
        ({"deny": tuple(bytes(19) + bytes((n,)) for n in range(65))}, "bad_lists"),
        ({"fingerprint": b"\x01" * 32}, "other_fingerprint"),
        ({"grant_digest": bytes(32)}, "wrong_grant"),
        ({"max_price_out": 10**8 + 1}, "above_grant"),
        ({"account": ACCOUNT, "account_limit": 0}, "bad_account"),
        ({"account": ACCOUNT, "account_limit": RESERVE - 1}, "account_exhausted"),
    ],
)
def test_a_jobs_terms(change: dict[str, Any], code: str) -> None:
    assert _refused(job(**change)) == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"gateway": NODES[0].address}, "wrong_grant"),
        ({"log_id": bytes(32)}, "wrong_grant"),
        ({"not_after_ms": NOW}, "grant_expired"),
        ({"not_before_ms": NOW + 1}, "grant_expired"),
        ({"models": ("another",)}, "model_not_granted"),
        ({"grant_epoch": 1}, "grant_revoked"),
        ({"max_total": RESERVE - 1}, "grant_exhausted"),
        ({"max_per_day": RESERVE - 1}, "grant_exhausted_today"),
    ],
)
def test_a_grants_terms(change: dict[str, Any], code: str) -> None:
    assert _refused(None, grant(**change)) == code


@pytest.mark.parametrize(
    ("money", "code"),
    [
        ({"payer": PayerRecord(bytes(32), 10**9, 0, 0)}, "not_assigned"),
        ({"payer": PayerRecord(LOG, RESERVE - 1, 0, 0)}, "insufficient_balance"),
        ({"payer": PayerRecord(LOG, 2 * RESERVE, RESERVE + 1, 0)}, "insufficient_balance"),
        ({"unsettled": 10**9}, "insufficient_balance"),
        ({"reserved": 10**9}, "insufficient_balance"),
        ({"reserved_under_grant": 10**9 - RESERVE + 1}, "grant_exhausted"),
        ({"reserved_under_grant": 10**8 - RESERVE + 1}, "grant_exhausted_today"),
    ],
)
def test_money_that_is_spoken_for(money: dict[str, Any], code: str) -> None:
    terms = {name: getattr(PLENTY, name) for name in PLENTY.__struct_fields__}
    assert _refused(money=Money(**(terms | money))) == code


def test_no_more_is_promised_than_one_batch_may_debit() -> None:
    """Whosever money it is, to the unit; the gateway is told to come back later."""
    terms = {name: getattr(PLENTY, name) for name in PLENTY.__struct_fields__}
    limited = terms | {"debitable": 3 * RESERVE}
    assert _check(money=Money(**(limited | {"promised": 2 * RESERVE}))) == RESERVE
    with pytest.raises(JobRefused) as caught:
        _check(money=Money(**(limited | {"promised": 2 * RESERVE + 1})))
    refusal = caught.value.frame()
    assert (refusal.code, refusal.reason) == ("debit_limit", 0)
    assert refusal.retry_after_ms > 0


def test_what_open_jobs_reserve_counts_against_a_sub_account() -> None:
    """Else two jobs at once could exceed the limit that `verify` checks."""
    of = job(account=ACCOUNT, account_limit=2 * RESERVE)
    terms = {name: getattr(PLENTY, name) for name in PLENTY.__struct_fields__}
    busy = Money(**(terms | {"reserved_for_account": RESERVE + 1}))
    assert _check(of) == RESERVE
    assert _refused(of, money=busy) == "account_exhausted"


def test_what_was_receipted_counts() -> None:
    books = Books()
    books.grant_spent[digest(DOMAIN, grant())] = 10**9 - RESERVE + 1
    assert _refused(books=books) == "grant_exhausted"
    books = Books()
    books.accounts[PAYER.address, ACCOUNT] = Running(1, 1)
    assert _refused(job(account=ACCOUNT, account_limit=RESERVE), books=books) == "account_exhausted"


def test_strangers_signatures() -> None:
    """The job is the gateway's whose stream it came on, the grant the payer's it names."""
    signed, terms = job(), grant()
    cases = (
        (Signed.by(NODES[0], DOMAIN, signed), Signed.by(PAYER, DOMAIN, terms)),
        (Signed.by(GATEWAY, DOMAIN, signed), Signed.by(GATEWAY, DOMAIN, terms)),
    )
    for one, other in cases:
        with pytest.raises(JobRefused) as caught:
            DESK.check(one, other, GATEWAY.address, MODEL_RECORD, PLENTY, Books(), NOW)
        assert caught.value.code == "bad_signature"


def test_an_unregistered_model() -> None:
    signed, terms = Signed.by(GATEWAY, DOMAIN, job()), Signed.by(PAYER, DOMAIN, grant())
    with pytest.raises(JobRefused) as caught:
        DESK.check(signed, terms, GATEWAY.address, None, PLENTY, Books(), NOW)
    assert caught.value.code == "unknown_model"
