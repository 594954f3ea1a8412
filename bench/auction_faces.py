"""Identities in a simulated market: what a node says of itself, and what is known of it.

What is known comes from a `Memory`: the truth (`Frozen`), or the coordinator's own `Reputation`
with simulated calibrations (`Learning`).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Final, Protocol

from msgspec.structs import replace

from bench.auction_world import MILLION, Machine, Task
from coordinator.reputation import Reputation, Standing
from pinaivu.auction.rule import Cleared
from pinaivu.codes import Reason
from pinaivu.fields import Fixed, ListOf, Text
from pinaivu.manifest import Parameters
from pinaivu.messages import Receipt, Segment
from pinaivu.typed_data import M, schema

_DECAY: Final = 0.95
_PAST: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One identity in the market: what it says, and the machine that it really is.

    `bid` gives a live bid for a job, held within the rule's bounds; None lets the offer stand.
    `refuses` lets an award go to the next rank. After `renew_after` awards the face registers anew,
    as somebody nobody knows; 0 never.
    """

    name: str
    machine: Machine
    price: int
    ttft_ms: int
    tps_milli: int
    slots: int
    payout: bytes
    funder: bytes = bytes(20)
    bid: Callable[[Task], int] | None = None
    explores: bool = False
    newcomer: bool = False
    refuses: Callable[[Cleared], bool] | None = None
    renew_after: int = 0


@cache
def wallet(name: str) -> bytes:
    """The address that belongs to a name."""
    return sha256(name.encode()).digest()[:20]


def truthful(machine: Machine, price: int) -> Face:
    """A face that says what is so."""
    return Face(
        name=f"node {machine.number}",
        machine=machine,
        price=price,
        ttft_ms=machine.ttft_ms,
        tps_milli=machine.tps_milli,
        slots=machine.slots,
        payout=wallet(f"payout {machine.number}"),
    )


class Memory(Protocol):
    """What the coordinator knows of a node."""

    def standing(self, node: bytes, face: Face) -> Standing:
        """Its success, calibrations and whether it is new."""

    def learn(self, node: bytes, face: Face, *, completed: bool) -> None:
        """One more award of it."""


class Frozen:
    """Success is known as it is, promises are believed, nothing is learnt."""

    def standing(self, node: bytes, face: Face) -> Standing:  # noqa: ARG002 - the port's signature
        """The machine's true success; a newcomer's is a tenth lower."""
        success = int(face.machine.success * MILLION)
        return Standing(success * 9 // 10 if face.newcomer else success, 1000, 1000, face.newcomer)

    def learn(self, node: bytes, face: Face, *, completed: bool) -> None:
        """Nothing."""


class Learning:
    """The coordinator's `Reputation`, fed with made-up receipts; calibrations are simulated here.

    `veterans` begin with a past of fifty awards, everybody else unknown.
    Simulated: `cal_t` and `cal_s` are means of measured ÷ promised that decay by a twentieth with
    each job completed and begin at 1; what is measured is the machine's true speed, without noise.
    """

    def __init__(self, parameters: Parameters, veterans: Sequence[Face] = ()) -> None:
        self._reputation = Reputation(parameters)
        self._calibration: dict[bytes, tuple[float, float]] = defaultdict(lambda: (1.0, 1.0))
        for face in veterans:
            done = round(face.machine.success * _PAST)
            for number in range(_PAST):
                self.learn(wallet(face.name), face, completed=number < done)

    def standing(self, node: bytes, face: Face) -> Standing:  # noqa: ARG002 - the port's signature
        """`Reputation`'s success and newcomer mark, with the calibrations learnt so far."""
        known = self._reputation.standing(node)
        first, rest = self._calibration[node]
        return Standing(known.success_ppm, round(first * 1000), round(rest * 1000), known.newcomer)

    def learn(self, node: bytes, face: Face, *, completed: bool) -> None:
        """Hand `Reputation` a receipt with this one award, and calibrate."""
        result = Reason.NONE if completed else Reason.ENGINE_ERROR
        segment = replace(_SEGMENT, node=node, rank=1, result=result)
        self._reputation.learn(replace(_RECEIPT, segments=(segment,)))
        if completed:
            first, rest = self._calibration[node]
            real = face.machine
            self._calibration[node] = (
                _DECAY * first + (1 - _DECAY) * real.ttft_ms / face.ttft_ms,
                _DECAY * rest + (1 - _DECAY) * face.tps_milli / real.tps_milli,
            )


def _blank(cls: type[M]) -> M:
    """A message of zeros: only the members that `Reputation` reads are filled in above."""
    kinds = schema(cls).kinds.items()
    return cls(
        **{
            name: bytes(kind.size)
            if isinstance(kind, Fixed)
            else ""
            if isinstance(kind, Text)
            else ()
            if isinstance(kind, ListOf)
            else 0
            for name, kind in kinds
        }
    )


_SEGMENT: Final = _blank(Segment)
_RECEIPT: Final = _blank(Receipt)
