"""What a step finds: a pass with its evidence, a contradiction, or the lack of something.

Steps are functions of a `Case`. They return a `Finding` where the claim holds, raise `Refuted` (or
let any `PeerFault` or `InvalidEncoding` of the core through) where it doesn't, and raise `Lacks`
where they can't tell. Nothing here decides what an outcome means for the whole: the policy does.
"""

from enum import StrEnum
from typing import Any

from msgspec import Struct

from pinaivu.errors import PeerFault, PinaivuError


class Refuted(PeerFault):
    """A claim does not hold; the message is the evidence."""


class Lacks(PinaivuError):
    """A claim can't be judged; the message names what is missing."""


class Outcome(StrEnum):
    """How a step ended."""

    PASSED = "passed"
    FAILED = "failed"
    LACKING = "lacking"
    SIMULATED = "simulated"
    NOT_AUDITED = "not audited"


class Finding(Struct, frozen=True, kw_only=True):
    """A claim that holds: the evidence in a sentence, and the values behind it."""

    evidence: str
    facts: dict[str, Any] = {}
    outcome: Outcome = Outcome.PASSED


def require(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    """Raise `Refuted` with `otherwise` unless `holds`."""
    if not holds:
        raise Refuted(otherwise)


def require_equal(found: object, expected: object, what: str) -> None:
    """Raise `Refuted` naming both values unless they are equal."""
    if found != expected:
        raise Refuted(f"{what} is {shown(found)}, expected {shown(expected)}")


def shown(value: object) -> str:
    """A value as evidence shows it."""
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)
