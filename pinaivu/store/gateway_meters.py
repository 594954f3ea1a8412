"""Meters: what a key's requests use up, counted once for all processes that serve the key.

Each function is one step of a transaction that touches one key and takes its meter's lock first.
So two processes never overshoot a limit together, and no two of these transactions can wait for
each other in a circle. The promise, at every commit:

    a meter = what the key's requests have used + the most that its reservations may use

A request is dispatched only after its own row was stored, in a transaction in which its
reservation still stood (`bind`). So whatever happens to the process that serves it, a reservation
without a request has used nothing, and one with a request is exchanged for what the request's
receipt says (`resolve`). A reservation is exchanged by whoever deletes it, once.

None of these transactions has to be durable by itself: the request's is, and comes after them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct
from sqlalchemy import bindparam, delete, func, insert, update
from sqlmodel import Session, col, select

from pinaivu.store.gateway import METADATA, MeterRow, ProcessRow, RequestRow, ReservationRow
from pinaivu.store.gateway_policy import Policy
from pinaivu.store.rows import Rows

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
_CLOSED: Final = ("receipted", "refused")
_NOBODY: Final = b""
_METER: Final = METADATA.tables["meter"]
_RESERVATION: Final = METADATA.tables["reservation"]
_READ: Final = (
    select(*(column for column in _METER.c if column.name != "key_id"))
    .where(_METER.c.key_id == bindparam("key"))
    .with_for_update()
)
_WRITE: Final = update(_METER).where(_METER.c.key_id == bindparam("key"))
_TAKE: Final = (
    delete(_RESERVATION)
    .where(_RESERVATION.c.reservation_id == bindparam("reservation"))
    .returning(*(_RESERVATION.c[n] for n in ("job_id", "begun_ms", "tokens", "units", "streams")))
)


class Meter(Struct, kw_only=True):
    """What a key has used and reserved, in the windows of a time; handed out, never changed."""

    minute: int
    minute_requests: int
    minute_tokens: int
    day: int
    day_tokens: int
    day_units: int
    month: int
    month_tokens: int
    month_units: int
    streams: int


class _Reserved(Struct, frozen=True):
    """A reservation that has just been taken out."""

    job_id: bytes | None
    begun_ms: int
    tokens: int
    units: int
    streams: int


class Limited(Exception):
    """A limit doesn't hold the request; nothing was changed.

    `limit` is the policy's member, `wanted` and `left` are in its unit, `ends_ms` is when the
    limit is whole again (0: when another request ends), `meter` says how things stand.
    """

    def __init__(self, limit: str, wanted: int, left: int, ends_ms: int, meter: Meter) -> None:
        super().__init__(f"{limit}: {wanted} wanted, {left} left")
        self.limit = limit
        self.wanted = wanted
        self.left = left
        self.ends_ms = ends_ms
        self.meter = meter


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A request that is to be let in, and the most it may use."""

    reservation_id: bytes
    key_id: str
    process_id: bytes
    tokens: int
    units: int
    now_ms: int


def month_of(at_ms: int) -> int:
    """A time's month, counted from the year 0, UTC."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.year * 12 + at.month - 1


def month_start_ms(month: int) -> int:
    """When a month begins."""
    return int(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp()) * 1000


def begin(session: Session, policy: Policy, want: Wanted) -> tuple[int, Meter]:
    """Let a request in: the units reserved for it (what is left, at most), and the meter then.

    Raises `Limited` where any limit of `policy` doesn't hold it.
    """
    meter = _locked(session, want.key_id, want.now_ms)
    units = _units(policy, meter, want.units)
    _require_room(policy, meter, want.tokens)
    meter.minute_requests += 1
    meter.minute_tokens += want.tokens
    meter.day_tokens += want.tokens
    meter.day_units += units
    meter.month_tokens += want.tokens
    meter.month_units += units
    meter.streams += 1
    _store(session, want.key_id, meter)
    reserved = {
        "reservation_id": want.reservation_id,
        "key_id": want.key_id,
        "process_id": want.process_id,
        "job_id": None,
        "begun_ms": want.now_ms,
        "tokens": want.tokens,
        "units": units,
        "streams": 1,
    }
    session.connection().execute(insert(_RESERVATION), reserved)
    return units, meter


def bind(rows: Rows, reservation_id: bytes, job_id: bytes) -> bool:
    """The reservation is for this job from now on; False where it has been given away."""
    return bool(rows.change(ReservationRow, reservation_id, job_id=job_id))


def settle(
    session: Session, key_id: str, reservation_id: bytes, tokens: int, units: int, now_ms: int
) -> Meter | None:
    """Exchange a reservation for what its request used; None where that was done before."""
    meter = _locked(session, key_id, now_ms)
    if not _exchange(session, meter, reservation_id, tokens, units):
        return None
    _store(session, key_id, meter)
    return meter


def abandon(session: Session, key_id: str, reservation_id: bytes, now_ms: int) -> None:
    """The request is over, and only its receipt will say what it used: `resolve` waits for it."""
    mine = col(ReservationRow.reservation_id) == reservation_id
    session.execute(update(ReservationRow).where(mine).values(process_id=_NOBODY))
    resolve(session, key_id, reservation_id, now_ms)


def read_meter(session: Session, key_id: str, now_ms: int) -> Meter:
    """The meter now."""
    return _locked(session, key_id, now_ms)


def forget(session: Session, key_id: str) -> None:
    """Have the key's meter counted again at its next use, as after a change of its limits."""
    meter = session.get(MeterRow, key_id, with_for_update=True)
    if meter is None:
        session.add(MeterRow(key_id=key_id))
    else:
        meter.minute = meter.day = meter.month = -1


# Processes that ended without settling


def alive(session: Session, process_id: bytes, until_ms: int) -> None:
    """The process serves until `until_ms` at least."""
    session.merge(ProcessRow(process_id=process_id, until_ms=until_ms))


def abandoned(session: Session, now_ms: int, most: int) -> list[tuple[str, bytes]]:
    """Keys and ids of what ended processes left and `resolve` can do something about."""
    running = select(ProcessRow.process_id).where(col(ProcessRow.until_ms) >= now_ms)
    closed = select(RequestRow.job_id).where(col(RequestRow.state).in_(_CLOSED))
    query = (
        select(ReservationRow.key_id, ReservationRow.reservation_id)
        .where(
            col(ReservationRow.process_id).not_in(running),
            col(ReservationRow.job_id).is_(None)
            | (col(ReservationRow.streams) == 1)
            | col(ReservationRow.job_id).in_(closed),
        )
        .order_by(col(ReservationRow.begun_ms))
        .limit(most)
    )
    return [(key_id, identity) for key_id, identity in session.exec(query).all()]


def resolve(session: Session, key_id: str, reservation_id: bytes, now_ms: int) -> None:
    """Count what an ended process's request has used, as far as that is known.

    Nothing where nothing was dispatched, its receipt's figures where there is one; until then the
    most it may use stays reserved.
    """
    meter = _locked(session, key_id, now_ms)
    row = session.get(ReservationRow, reservation_id, with_for_update=True)
    if row is None:
        return
    meter.streams -= row.streams
    row.streams = 0
    session.flush()
    request = session.get(RequestRow, row.job_id) if row.job_id else None
    if request is None:
        _exchange(session, meter, reservation_id, 0, 0)
    elif request.state in _CLOSED:
        used = request.prompt_tokens + request.output_tokens
        _exchange(session, meter, reservation_id, used, request.units)
    _store(session, key_id, meter)


# The meter itself. These statements run for every request: plain ones, no mapped objects.


def _locked(session: Session, key_id: str, now_ms: int) -> Meter:
    """The key's meter, locked, in the windows of `now_ms`; a window that ended begins at zero."""
    found = session.connection().execute(_READ, {"key": key_id}).one_or_none()
    if found is None:
        session.add(MeterRow(key_id=key_id))
        session.flush()
        found = session.connection().execute(_READ, {"key": key_id}).one()
    meter = Meter(**found._mapping)  # noqa: SLF001 - a public name of SQLAlchemy's
    minute, day, month = now_ms // MINUTE_MS, now_ms // DAY_MS, month_of(now_ms)
    if -1 in (meter.minute, meter.day, meter.month):
        _recount(session, key_id, meter, now_ms)
    if minute > meter.minute:
        meter.minute, meter.minute_requests, meter.minute_tokens = minute, 0, 0
    if day > meter.day:
        meter.day, meter.day_tokens, meter.day_units = day, 0, 0
    if month > meter.month:
        meter.month, meter.month_tokens, meter.month_units = month, 0, 0
    return meter


def _store(session: Session, key_id: str, meter: Meter) -> None:
    session.connection().execute(_WRITE, {"key": key_id, **msgspec.structs.asdict(meter)})


def _recount(session: Session, key_id: str, meter: Meter, now_ms: int) -> None:
    """Count the meter from what it is a cache of."""
    minute, day, month = now_ms // MINUTE_MS, now_ms // DAY_MS, month_of(now_ms)
    meter.minute, meter.day, meter.month = minute, day, month
    meter.minute_requests, meter.minute_tokens, _ = _count(session, key_id, minute * MINUTE_MS)
    _, meter.day_tokens, meter.day_units = _count(session, key_id, day * DAY_MS)
    _, meter.month_tokens, meter.month_units = _count(session, key_id, month_start_ms(month))


def _count(session: Session, key_id: str, from_ms: int) -> tuple[int, int, int]:
    """Requests, tokens and units since a time: of what is reserved, and of all other requests."""
    reserved = select(
        func.count(),
        func.coalesce(func.sum(col(ReservationRow.tokens)), 0),
        func.coalesce(func.sum(col(ReservationRow.units)), 0),
    ).where(ReservationRow.key_id == key_id, col(ReservationRow.begun_ms) >= from_ms)
    bound = select(ReservationRow.job_id).where(
        ReservationRow.key_id == key_id, col(ReservationRow.job_id).is_not(None)
    )
    tokens = col(RequestRow.prompt_tokens) + col(RequestRow.output_tokens)
    used = select(
        func.count(),
        func.coalesce(func.sum(tokens), 0),
        func.coalesce(func.sum(col(RequestRow.units)), 0),
    ).where(
        RequestRow.key_id == key_id,
        col(RequestRow.created_ms) >= from_ms,
        col(RequestRow.job_id).not_in(bound),
    )
    both = zip(session.exec(reserved).one(), session.exec(used).one(), strict=True)
    requests, tokens_sum, units = (int(one) + int(other) for one, other in both)
    return requests, tokens_sum, units


def _units(policy: Policy, meter: Meter, wanted: int) -> int:
    """How many of the units wanted can be had; `Limited` where there are none."""
    granted = wanted
    for limit, gone, ends_ms in (
        ("daily_units", meter.day_units, (meter.day + 1) * DAY_MS),
        ("monthly_units", meter.month_units, month_start_ms(meter.month + 1)),
    ):
        most = getattr(policy, limit)
        if most is None:
            continue
        if gone >= most:
            raise Limited(limit, wanted, 0, ends_ms, meter)
        granted = min(granted, most - gone)
    return granted


def _require_room(policy: Policy, meter: Meter, tokens: int) -> None:
    minute_ends, day_ends = (meter.minute + 1) * MINUTE_MS, (meter.day + 1) * DAY_MS
    month_ends = month_start_ms(meter.month + 1)
    for limit, gone, wanted, ends_ms in (
        ("streams", meter.streams, 1, 0),
        ("requests_per_minute", meter.minute_requests, 1, minute_ends),
        ("tokens_per_minute", meter.minute_tokens, tokens, minute_ends),
        ("daily_tokens", meter.day_tokens, tokens, day_ends),
        ("monthly_tokens", meter.month_tokens, tokens, month_ends),
    ):
        most = getattr(policy, limit)
        if most is not None and gone + wanted > most:
            raise Limited(limit, wanted, max(0, most - gone), ends_ms, meter)


def _exchange(
    session: Session, meter: Meter, reservation_id: bytes, tokens: int, units: int
) -> bool:
    """Count what was used in the place of the most, in the windows that was counted in."""
    found = session.connection().execute(_TAKE, {"reservation": reservation_id}).one_or_none()
    if found is None:
        return False
    row = _Reserved(*found)
    begun, more, dearer = row.begun_ms, tokens - row.tokens, units - row.units
    if begun // MINUTE_MS == meter.minute:
        meter.minute_tokens += more
        meter.minute_requests -= row.job_id is None  # it came to nothing before it was stored
    if begun // DAY_MS == meter.day:
        meter.day_tokens += more
        meter.day_units += dearer
    if month_of(begun) == meter.month:
        meter.month_tokens += more
        meter.month_units += dearer
    meter.streams -= row.streams
    return True
