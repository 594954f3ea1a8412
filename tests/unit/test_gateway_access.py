# ruff: noqa: D102 - doubles implement methods that are documented where they belong
"""Keys and grants against a real database."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from sqlmodel import select

from gateway.access import Access, Holder
from gateway.errors import ApiError
from gateway.ledger import Conclusion, Ledger
from gateway.seals import Seal
from pinaivu.errors import Misconfigured
from pinaivu.keys import BadSignature
from pinaivu.store.database import Database, StorageFailed, open_database
from pinaivu.store.gateway import KeyRow, RequestRow
from pinaivu.store.gateway_keys import (
    KEY_PREFIX,
    add_grant,
    create_key,
    list_grants,
    list_keys,
    revoke_key,
)
from pinaivu.store.gateway_policy import Policy
from pinaivu.store.writer import open_writer
from pinaivu.terms import Terms
from pinaivu.typed_data import Signed
from tests.unit.gateway_facts import (
    DOMAIN,
    GATEWAY,
    LOG,
    MODEL,
    NOW,
    OTHER,
    PAYER,
    Drawn,
    grant,
)

SEAL = Seal.of("sk-pnv-1")
HOLDER = Holder("key-1", (PAYER.address,), SEAL)


class Clock:
    """A clock the test sets."""

    def __init__(self) -> None:
        self.ms = NOW

    def __call__(self) -> int:
        return self.ms


@asynccontextmanager
async def access(folder: Path) -> AsyncGenerator[tuple[Access, Database, Ledger, Clock]]:
    database, clock = open_database(f"sqlite:///{folder / 'g.db'}", "gateway"), Clock()
    async with open_writer(database) as writer:
        ledger = Ledger(writer)
        yield Access(ledger, GATEWAY.address, {LOG}, clock), database, ledger, clock
    database.close()


def new_key(database: Database, **more: Any) -> str:
    made = create_key(database, payer=PAYER.address, label="l", random=Drawn(), now_ms=NOW, **more)
    return made.secret


def request_row(number: int, *, tokens: int, at_ms: int = NOW) -> RequestRow:
    return RequestRow(
        job_id=number.to_bytes(16),
        key_id=HOLDER.key_id,
        model=MODEL,
        job=b"",
        grant=b"",
        salt_root=b"",
        state="open",
        created_ms=at_ms,
        prompt_tokens=tokens,
    )


async def test_key_is_shown_once_and_stored_as_a_hash(tmp_path: Path) -> None:
    async with access(tmp_path) as (found, database, _, _clock):
        secret = new_key(database, policy=Policy(daily_tokens=5))
        assert secret.startswith(KEY_PREFIX)
        holder = await found.authenticate(f"Bearer {secret}")
        assert holder.payers == (PAYER.address,)
        assert holder.policy == Policy(daily_tokens=5)
        (info,) = list_keys(database)
        assert info.shown.removesuffix("…") in secret
    for path in tmp_path.iterdir():  # noqa: ASYNC240 - a few kilobytes
        assert secret.encode() not in path.read_bytes()


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "sk-pnv-x"])
async def test_header_without_a_key_says_how_to_send_one(
    tmp_path: Path, header: str | None
) -> None:
    async with access(tmp_path) as (found, *_):
        with pytest.raises(ApiError, match="Authorization") as caught:
            await found.authenticate(header)
        assert (caught.value.status, caught.value.code) == (401, "missing_api_key")


async def test_revoked_key_is_out_within_two_seconds(
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with access(tmp_path) as (found, database, _, _clock):
        secret = new_key(database)
        await found.authenticate(f"bearer {secret}")
        revoke_key(database, list_keys(database)[0].key_id, NOW + 5)
        await trio.sleep(2.0)
        with pytest.raises(ApiError, match="revoked"):
            await found.authenticate(f"bearer {secret}")
        with pytest.raises(Misconfigured, match="no key"):
            revoke_key(database, "key-nobody", NOW)


@pytest.mark.parametrize(
    ("policy", "scope", "status", "code"),
    [
        (Policy(expires_ms=NOW), "inference", 401, "expired_api_key"),
        (Policy(expires_ms=NOW + 1), "inference", 200, ""),
        (Policy(scopes=("usage",)), "inference", 403, "scope_missing"),
        (Policy(scopes=("usage",)), "usage", 200, ""),
        (Policy(scopes=("usage",)), None, 200, ""),
        (Policy(), "admin", 403, "scope_missing"),
        (Policy(scopes=("admin",)), "admin", 200, ""),
        (Policy(scopes=("admin",)), "inference", 403, "scope_missing"),
        (Policy(scopes=("admin",)), None, 403, "scope_missing"),
    ],
)
async def test_key_opens_what_its_scopes_say_until_it_expires(
    tmp_path: Path, policy: Policy, scope: Any, status: int, code: str
) -> None:
    async with access(tmp_path) as (found, database, _, _clock):
        secret = new_key(database, policy=policy)
        answer = (200, "")
        try:
            await found.authenticate(f"Bearer {secret}", scope)
        except ApiError as error:
            answer = (error.status, error.code)
        assert answer == (status, code)


async def test_key_for_some_models_opens_no_other(tmp_path: Path) -> None:
    async with access(tmp_path) as (found, database, _, _clock):
        add_grant(database, DOMAIN, grant(), NOW)
        holder = Holder("key-1", (PAYER.address,), SEAL, Policy(models=("other", "third")))
        with pytest.raises(ApiError, match="other, third") as caught:
            await found.grants(holder, MODEL)
        assert (caught.value.status, caught.value.code) == (403, "model_not_allowed")
        assert await found.grants(holder, "other")


async def test_policy_of_a_newer_version_lets_nobody_in(tmp_path: Path) -> None:
    """A limit that this version doesn't know must not be overlooked."""
    async with access(tmp_path) as (found, database, _, _clock):
        secret = new_key(database)
        with database.begin() as session:
            (row,) = session.exec(select(KeyRow)).all()
            row.policy = '{"phase_of_the_moon":"new"}'
        with pytest.raises(StorageFailed, match="newest version"):
            await found.authenticate(f"Bearer {secret}")


async def test_forged_grant_is_not_stored(tmp_path: Path) -> None:
    async with access(tmp_path) as (_, database, _, _clock):
        forged = Signed.by(OTHER, DOMAIN, grant().message)
        with pytest.raises(BadSignature):
            add_grant(database, DOMAIN, forged, NOW)
        assert list_grants(database) == []


async def test_newest_grant_that_fits_is_taken(tmp_path: Path) -> None:
    async with access(tmp_path) as (found, database, _, _clock):
        old, new = grant(max_total=1), grant(max_total=2)
        add_grant(database, DOMAIN, old, NOW)
        add_grant(database, DOMAIN, new, NOW + 1)
        add_grant(database, DOMAIN, new, NOW + 2)
        assert await found.grants(HOLDER, MODEL) == [new]
        assert list_grants(database) == [new, old]


@pytest.mark.parametrize(
    "changes",
    [
        {"gateway": OTHER.address},
        {"log_id": bytes(32)},
        {"not_before_ms": NOW + 1},
        {"not_after_ms": NOW},
        {"models": ("another",)},
    ],
)
async def test_grant_that_does_not_fit_pays_for_nothing(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    async with access(tmp_path) as (found, database, _, _clock):
        add_grant(database, DOMAIN, grant(**changes), NOW)
        with pytest.raises(ApiError, match="have the payer sign one") as caught:
            await found.grants(HOLDER, MODEL)
        assert caught.value.status == 403


async def test_nobody_is_let_in_when_the_database_fails(tmp_path: Path) -> None:
    class Broken(Ledger):
        async def key(self, key_hash: bytes) -> Any:
            raise StorageFailed(key_hash.hex())

        async def grants(self, payer: bytes) -> Any:
            raise StorageFailed(payer.hex())

    async with access(tmp_path) as (_, _, ledger, clock):
        found = Access(Broken(ledger._writer), GATEWAY.address, {LOG}, clock)
        with pytest.raises(StorageFailed):
            await found.authenticate("Bearer sk-pnv-x")
        with pytest.raises(StorageFailed):
            await found.grants(HOLDER, MODEL)


def conclusion(number: int, **changes: Any) -> Conclusion:
    fields: dict[str, Any] = {
        "job_id": number.to_bytes(16),
        "frame": b"frame",
        "output_tokens": 5,
        "units": 7,
        "completions": {},
        "response": None,
        "now_ms": NOW,
    }
    return Conclusion(**fields | changes)


def test_key_rows_hold_what_is_listed(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'g.db'}", "gateway")
    policy = Policy(daily_tokens=1, models=("m",), terms=Terms(auction="standing"))
    new_key(database, policy=policy)
    (info,) = list_keys(database)
    assert msgspec.structs.asdict(info) | {"key_id": "", "shown": ""} == {
        "key_id": "",
        "shown": "",
        "label": "l",
        "payer": PAYER.address,
        "policy": policy,
        "created_ms": NOW,
        "revoked_ms": None,
    }
    database.close()
