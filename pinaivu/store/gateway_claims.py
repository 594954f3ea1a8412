"""Claims: which request an `Idempotency-Key` stands for, so that it runs and is billed once.

A claim belongs to an API key, is durable before the job is submitted, and names the job in the
transaction that stores the request (`bind`), before anything is dispatched. So if the process that
holds a claim ends, whoever asks next can tell: without a job nothing ran, and the claim can be
taken over; with one, it may have run, and never runs again.
"""

from dataclasses import dataclass
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import bindparam, delete, update
from sqlmodel import Session, col, select

from pinaivu.store.gateway import ClaimRow, KeyRow, ProcessRow, RequestRow
from pinaivu.store.rows import Rows

VALID_MS: Final = 24 * 3_600_000
"""For how long a claim stands, from its request on."""

_MINE: Final = (
    col(ClaimRow.key_id) == bindparam("key"),
    col(ClaimRow.name) == bindparam("held_name"),
    col(ClaimRow.process_id) == bindparam("process"),
    col(ClaimRow.begun_ms) == bindparam("begun"),
    col(ClaimRow.ended_ms).is_(None),
)
_ONE_AT_A_TIME: Final = (
    select(KeyRow.key_id).where(KeyRow.key_id == bindparam("key")).with_for_update()
)
_BIND: Final = (
    update(ClaimRow).where(*_MINE).values(job_id=bindparam("job")).returning(col(ClaimRow.job_id))
)
_END: Final = (
    update(ClaimRow).where(*_MINE).values(ended_ms=bindparam("now"), answer=bindparam("whole"))
)
_RELEASE: Final = delete(ClaimRow).where(*_MINE)
_NEVER_RAN: Final = ("unserved", "refused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An `Idempotency-Key` of an API key, held by a process for one request.

    No two claims of a process begin in the same millisecond: what is done late for one that no
    longer stands isn't done to the next claim of its name.
    """

    key_id: str
    name: bytes
    body_digest: bytes
    process_id: bytes
    begun_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What the name stands for already; `job_id` and `answer` as far as there are any."""

    same_body: bool
    running: bool
    job_id: bytes | None
    answer: bytes | None


def claim(rows: Rows, wanted: Claim) -> Earlier | None:
    """Take the name: None where it is the caller's now, or what it stands for."""
    now_ms = wanted.begun_ms
    # One at a time for a key: two requests of one name can't both find it free.
    rows.run(_ONE_AT_A_TIME, key=wanted.key_id)
    found = _found(rows, wanted)
    if found is not None and found.begun_ms > now_ms - VALID_MS:
        earlier = _earlier(rows, found, wanted, now_ms)
        if earlier is not None:
            return earlier
    rows.remove(ClaimRow, (wanted.key_id, wanted.name))
    rows.insert(
        ClaimRow,
        key_id=wanted.key_id,
        name=wanted.name,
        body_digest=wanted.body_digest,
        process_id=wanted.process_id,
        begun_ms=wanted.begun_ms,
    )
    return None


def bind(rows: Rows, held: Claim, job_id: bytes) -> bool:
    """The claim's request is this job; False where the claim is another's by now."""
    return bool(rows.run(_BIND, **_held(held), job=job_id))


def end(rows: Rows, held: Claim, answer: bytes | None, now_ms: int) -> None:
    """The request is over, with its whole answer where that is kept; it never runs again."""
    rows.run(_END, **_held(held), now=now_ms, whole=answer)


def release(rows: Rows, held: Claim) -> None:
    """Nothing ran: the name is free again."""
    rows.run(_RELEASE, **_held(held))


def forget(session: Session, answers_before_ms: int, before_ms: int) -> None:
    """Empty answers of claims made before the one time, remove claims made before the other."""
    old = update(ClaimRow).where(
        col(ClaimRow.begun_ms) < answers_before_ms, col(ClaimRow.answer).is_not(None)
    )
    session.execute(old.values(answer=None))
    session.execute(delete(ClaimRow).where(col(ClaimRow.begun_ms) < before_ms))


class _Found(Struct, frozen=True):
    """A claim as it stands."""

    body_digest: bytes
    process_id: bytes
    job_id: bytes | None
    begun_ms: int
    ended_ms: int | None
    answer: bytes | None


def _held(held: Claim) -> dict[str, Any]:
    return {
        "key": held.key_id,
        "held_name": held.name,
        "process": held.process_id,
        "begun": held.begun_ms,
    }


def _found(rows: Rows, wanted: Claim) -> _Found | None:
    found = rows.find(ClaimRow, (wanted.key_id, wanted.name), *_Found.__struct_fields__)
    return _Found(*found) if found else None


def _earlier(rows: Rows, found: _Found, wanted: Claim, now_ms: int) -> Earlier | None:
    """What a claim that still stands says; None where its request never ran and never will."""
    process = rows.find(ProcessRow, found.process_id, "until_ms")
    running = found.ended_ms is None and process is not None and process[0] >= now_ms
    if found.ended_ms is None and not running:
        request = rows.find(RequestRow, found.job_id, "state") if found.job_id else None
        if request is None or request[0] in _NEVER_RAN:
            return None
    return Earlier(
        same_body=found.body_digest == wanted.body_digest,
        running=running,
        job_id=found.job_id,
        answer=found.answer,
    )
