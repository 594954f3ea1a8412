"""How values are written for people: amounts, times, addresses, codes. Nothing is rounded away."""

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from pinaivu.codes import CallOutcome, Clearing, Reason, Status
from pinaivu.keys import checksum

MILLION: Final = 10**6
_SECOND_MS: Final = 1_000
_MINUTE_S: Final = 60
_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400

STATUS: Final = {
    Status.COMPLETED: "completed",
    Status.CANCELLED: "cancelled by the client",
    Status.FAILED: "failed",
    Status.UNSERVED: "nobody could serve it",
    Status.UNDELIVERED: "the gateway never reported",
    Status.DISPUTED: "disputed",
}
CLEARING: Final = {
    Clearing.SECOND_SCORE: "second score pays",
    Clearing.LONE: "lone bidder, at its standing offer",
    Clearing.EXPLORATION: "exploration of a newcomer",
}
CALL: Final = {
    CallOutcome.BID: "bid",
    CallOutcome.SILENT: "no answer",
    CallOutcome.LATE: "too late",
    CallOutcome.INVALID: "invalid bid",
}


def amount(units: int) -> str:
    """Base units as tokens, all six decimals."""
    sign = "−" if units < 0 else ""
    whole, part = divmod(abs(units), MILLION)
    return f"{sign}{whole:,}.{part:06d}"


def count(value: int) -> str:
    """A number with its thousands apart."""
    return f"{value:,}"


def moment(ms: int) -> str:
    """A time in UTC, to the millisecond; a dash where there is none."""
    if not ms:
        return "–"
    whole = datetime.fromtimestamp(ms // _SECOND_MS, UTC)
    return f"{whole:%Y-%m-%d %H:%M:%S}.{ms % _SECOND_MS:03d} UTC"


def second(ms: int) -> str:
    """A time in UTC, to the second."""
    return f"{datetime.fromtimestamp(ms // _SECOND_MS, UTC):%Y-%m-%d %H:%M:%S} UTC" if ms else "–"


def duration(ms: int) -> str:
    """A span in the unit people would use."""
    if abs(ms) < _SECOND_MS:
        return f"{ms} ms"
    seconds = ms / _SECOND_MS
    if abs(seconds) < _MINUTE_S:
        return f"{seconds:.2f} s"
    for unit, length in (("d", _DAY_S), ("h", _HOUR_S), ("min", _MINUTE_S)):
        if abs(seconds) >= length:
            return f"{seconds / length:.1f} {unit}"
    raise AssertionError("every span of a minute or more has a unit")


def request_id(job_id: bytes) -> str:
    """A job's id as people write it."""
    return str(UUID(bytes=job_id))


def short(address: bytes) -> str:
    """An address, enough of it to recognise."""
    text = checksum(address)
    return f"{text[:8]}…{text[-6:]}"


def short_hash(digest: bytes) -> str:
    """A hash, enough of it to recognise."""
    return f"0x{digest.hex()[:10]}…{digest.hex()[-6:]}"


def reason(code: int) -> str:
    """A reason's name in words; empty for none."""
    if not code:
        return ""
    try:
        return Reason(code).name.lower().replace("_", " ")
    except ValueError:
        return f"reason {code}"


def status(code: int) -> str:
    """A receipt's status in words."""
    try:
        return STATUS[Status(code)]
    except ValueError:
        return f"status {code}"
