"""What can become of a request, as values: one `Turn` for each node that was chosen.

Scenario(turns=(Turn.BROKEN, Turn.SERVED))   # dies in mid-stream, the second rank goes on
"""

from enum import Enum, auto
from typing import Final

from msgspec import Struct

from pinaivu.codes import Mode


class Turn(Enum):
    """How one chosen node did."""

    SERVED = auto()
    REFUSED = auto()
    BROKEN = auto()
    """Dies after part of the text, and signs nothing."""
    BROKEN_SIGNED = auto()
    """Dies after part of the text, and still signs what it did."""
    PASSED_OVER = auto()
    CLIENT_GONE = auto()
    UNREPORTED = auto()
    """Serves everything; the gateway never reports."""
    DISPUTED = auto()
    """Serves, and commits to another text than the gateway."""
    UNENDED = auto()
    """Says as much as the job allows, breaks off before the end, and signs nothing."""
    UNSIGNED = auto()
    """Serves everything and never signs a completion."""


class Scenario(Struct, frozen=True, kw_only=True):
    """A request: its auction and its turns. No turns: nobody could serve it."""

    turns: tuple[Turn, ...] = (Turn.SERVED,)
    mode: Mode = Mode.LIVE
    nodes: int = 3
    silent: int = 0
    """How many of the called nodes, from the last, give no answer."""
    within_limits: bool = True
    with_account: bool = False
    output_tokens: int = 70


SCENARIOS: Final[dict[str, Scenario]] = {
    "live": Scenario(),
    "standing": Scenario(mode=Mode.STANDING),
    "lone": Scenario(nodes=1),
    "silent bidder": Scenario(silent=1),
    "second rank": Scenario(turns=(Turn.REFUSED, Turn.SERVED)),
    "continued": Scenario(turns=(Turn.BROKEN, Turn.SERVED)),
    "continued, signed": Scenario(turns=(Turn.BROKEN_SIGNED, Turn.SERVED)),
    "passed over": Scenario(turns=(Turn.PASSED_OVER, Turn.SERVED)),
    "client gone": Scenario(turns=(Turn.CLIENT_GONE,)),
    "undelivered": Scenario(turns=(Turn.UNREPORTED,)),
    "disputed": Scenario(turns=(Turn.DISPUTED,)),
    "whole without an end": Scenario(turns=(Turn.UNENDED,), output_tokens=128),
    "no completion": Scenario(turns=(Turn.UNSIGNED,)),
    "all refused": Scenario(turns=(Turn.REFUSED, Turn.REFUSED, Turn.REFUSED)),
    "unserved": Scenario(turns=(), nodes=0),
    "beyond limits": Scenario(turns=(), within_limits=False),
    "sub-account": Scenario(with_account=True),
}
"""One of each kind, by name."""
