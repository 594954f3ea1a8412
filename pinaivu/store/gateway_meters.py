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
from sqlalchemy import BindParameter, bindparam, delete, func
from sqlmodel import Session, col, select

from pinaivu.store.gateway import METADATA, MeterRow, ProcessRow, RequestRow, ReservationRow
from pinaivu.store.gateway_policy import Policy
from pinaivu.store.rows import Rows

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
MOST_UNITS: Final = 10**15
"""Of one request: a thousand million tokens of money, and thousands of such sums fit a column."""
_CLOSED: Final = ("receipted", "refused")
_NOBODY: Final = b""
_METER: Final = METADATA.tables["meter"]
_RESERVATION: Final = METADATA.tables["reservation"]
_REQUEST: Final = METADATA.tables["request"]
_KEY: Final[BindParameter[str]] = bindparam("key")
_SINCE: Final[BindParameter[int]] = bindparam("since")
_RESERVED: Final[BindParameter[bytes]] = bindparam("reservation")
_READ: Final = (
    select(*(column for column in _METER.c if column.name != "key_id"))
    .where(_METER.c.key_id == _KEY)
    .with_for_update()
)
_TAKE: Final = (
    delete(_RESERVATION)
    .where(_RESERVATION.c.reservation_id == _RESERVED)
    .returning(*(_RESERVATION.c[n] for n in ("job_id", "begun_ms", "tokens", "units", "streams")))
)
_LOOK: Final = (
    select(_RESERVATION.c.job_id, _RESERVATION.c.streams)
    .where(_RESERVATION.c.reservation_id == _RESERVED)
    .with_for_update()
)
_BOUND: Final = select(_RESERVATION.c.job_id).where(
    _RESERVATION.c.key_id == _KEY, _RESERVATION.c.job_id.is_not(None)
)
_COUNT_RESERVED: Final = select(
    func.count(),
    func.coalesce(func.sum(_RESERVATION.c.tokens), 0),
    func.coalesce(func.sum(_RESERVATION.c.units), 0),
).where(_RESERVATION.c.key_id == _KEY, _RESERVATION.c.begun_ms >= _SINCE)
_COUNT_USED: Final = select(
    func.count(),
    func.coalesce(func.sum(_REQUEST.c.prompt_tokens + _REQUEST.c.output_tokens), 0),
    func.coalesce(func.sum(_REQUEST.c.units), 0),
).where(
    _REQUEST.c.key_id == _KEY,
    _REQUEST.c.created_ms >= _SINCE,
    _REQUEST.c.job_id.not_in(_BOUND),
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


_NAMES: Final = tuple(column.name for column in _READ.selected_columns)


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


def begin(rows: Rows, policy: Policy, want: Wanted) -> tuple[int, Meter]:
    """Let a request in: the units reserved for it (what is left, at most), and the meter then.

    Never more than `MOST_UNITS`.

    Raises `Limited` where any limit of `policy` doesn't hold it.
    """
    meter = _locked(rows, want.key_id, want.now_ms)
    units = min(_units(policy, meter, want.units), MOST_UNITS)
    _require_room(policy, meter, want.tokens)
    meter.minute_requests += 1
    meter.minute_tokens += want.tokens
    meter.day_tokens += want.tokens
    meter.day_units += units
    meter.month_tokens += want.tokens
    meter.month_units += units
    meter.streams += 1
    _store(rows, want.key_id, meter)
    rows.insert(
        ReservationRow,
        reservation_id=want.reservation_id,
        key_id=want.key_id,
        process_id=want.process_id,
        begun_ms=want.now_ms,
        tokens=want.tokens,
        units=units,
    )
    return units, meter


def bind(rows: Rows, reservation_id: bytes, job_id: bytes) -> bool:
    """The reservation is for this job from now on; False where it has been given away."""
    return bool(rows.change(ReservationRow, reservation_id, job_id=job_id))


def settle(
    rows: Rows, key_id: str, reservation_id: bytes, tokens: int, units: int, now_ms: int
) -> Meter | None:
    """Exchange a reservation for what its request used; None where that was done before."""
    meter = _locked(rows, key_id, now_ms)
    if not _exchange(rows, meter, reservation_id, tokens, units):
        return None
    _store(rows, key_id, meter)
    return meter


def abandon(rows: Rows, key_id: str, reservation_id: bytes, now_ms: int) -> None:
    """The request is over, and only its receipt will say what it used: `resolve` waits for it."""
    meter = _locked(rows, key_id, now_ms)
    rows.change(ReservationRow, reservation_id, process_id=_NOBODY)
    _resolve(rows, key_id, meter, reservation_id)


def read_meter(rows: Rows, key_id: str, now_ms: int) -> Meter:
    """The meter now."""
    return _locked(rows, key_id, now_ms)


def forget(session: Session, key_id: str) -> None:
    """Have the key's meter counted again at its next use, as after a change of its limits."""
    meter = session.get(MeterRow, key_id, with_for_update=True)
    if meter is None:
        session.add(MeterRow(key_id=key_id))
    else:
        meter.minute = meter.day = meter.month = -1


# Processes that ended without settling


def alive(rows: Rows, process_id: bytes, until_ms: int) -> None:
    """The process serves until `until_ms` at least."""
    if not rows.change(ProcessRow, process_id, until_ms=until_ms):
        rows.insert(ProcessRow, process_id=process_id, until_ms=until_ms)


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


def resolve(rows: Rows, key_id: str, reservation_id: bytes, now_ms: int) -> None:
    """Count what an ended process's request has used, as far as that is known.

    Nothing where nothing was dispatched, its receipt's figures where there is one; until then the
    most it may use stays reserved.
    """
    _resolve(rows, key_id, _locked(rows, key_id, now_ms), reservation_id)


def _resolve(rows: Rows, key_id: str, meter: Meter, reservation_id: bytes) -> None:
    found = rows.run(_LOOK, reservation=reservation_id)
    if not found:
        return
    ((job_id, streams),) = found
    meter.streams -= streams
    rows.change(ReservationRow, reservation_id, streams=0)
    names = ("state", "prompt_tokens", "output_tokens", "units")
    request = rows.find(RequestRow, job_id, *names) if job_id else None
    if request is None:
        _exchange(rows, meter, reservation_id, 0, 0)
    else:
        state, prompt, output, units = request
        if state in _CLOSED:
            _exchange(rows, meter, reservation_id, prompt + output, units)
    _store(rows, key_id, meter)


# The meter itself.


def _locked(rows: Rows, key_id: str, now_ms: int) -> Meter:
    """The key's meter, locked, in the windows of `now_ms`; a window that ended begins at zero."""
    found = rows.run(_READ, key=key_id)
    if not found:
        rows.add_once(MeterRow, key_id=key_id)
        found = rows.run(_READ, key=key_id)
    meter = Meter(**dict(zip(_NAMES, found[0], strict=True)))
    minute, day, month = now_ms // MINUTE_MS, now_ms // DAY_MS, month_of(now_ms)
    if -1 in (meter.minute, meter.day, meter.month):
        _recount(rows, key_id, meter, now_ms)
    if minute > meter.minute:
        meter.minute, meter.minute_requests, meter.minute_tokens = minute, 0, 0
    if day > meter.day:
        meter.day, meter.day_tokens, meter.day_units = day, 0, 0
    if month > meter.month:
        meter.month, meter.month_tokens, meter.month_units = month, 0, 0
    return meter


def _store(rows: Rows, key_id: str, meter: Meter) -> None:
    rows.change(MeterRow, key_id, **msgspec.structs.asdict(meter))


def _recount(rows: Rows, key_id: str, meter: Meter, now_ms: int) -> None:
    """Count the meter from what it is a cache of."""
    minute, day, month = now_ms // MINUTE_MS, now_ms // DAY_MS, month_of(now_ms)
    meter.minute, meter.day, meter.month = minute, day, month
    meter.minute_requests, meter.minute_tokens, _ = _count(rows, key_id, minute * MINUTE_MS)
    _, meter.day_tokens, meter.day_units = _count(rows, key_id, day * DAY_MS)
    _, meter.month_tokens, meter.month_units = _count(rows, key_id, month_start_ms(month))


def _count(rows: Rows, key_id: str, from_ms: int) -> tuple[int, int, int]:
    """Requests, tokens and units since a time: of what is reserved, and of all other requests."""
    (reserved,) = rows.run(_COUNT_RESERVED, key=key_id, since=from_ms)
    (used,) = rows.run(_COUNT_USED, key=key_id, since=from_ms)
    requests, tokens, units = (int(a) + int(b) for a, b in zip(reserved, used, strict=True))
    return requests, tokens, units


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


def _exchange(rows: Rows, meter: Meter, reservation_id: bytes, tokens: int, units: int) -> bool:
    """Count what was used in the place of the most, in the windows that was counted in."""
    found = rows.run(_TAKE, reservation=reservation_id)
    if not found:
        return False
    row = _Reserved(*found[0])
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
