"""Identities in a simulated market: what a node says of itself, and what is known of it.

What is known comes from a `Memory`: the truth (`Frozen`), or the log's own `Reputation`, fed with a
receipt for each job (`Learning`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

from bench.auction_world import MILLION, Machine, Task
from pinaivu.auction.rule import Cleared
from pinaivu.codes import Reason
from pinaivu.manifest import Parameters
from pinaivu.messages import Offer
from pinaivu.reputation import Reputation, Standing
from pinaivu.testing.receipts import attempted, receipt_of

MODEL: Final = "m"
_PARTIES: Final = 20
_PAST: Final = 40
_PAST_TOKENS: Final = 300


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


class Attempt(NamedTuple):
    """One award and what became of it."""

    node: bytes
    face: Face
    completed: bool


class Memory(Protocol):
    """What the coordinator knows of a node."""

    def standing(self, offer: Offer, face: Face) -> Standing:
        """Its success, calibrations and whether it is new."""

    def learn(self, task: Task, attempts: Sequence[Attempt]) -> None:
        """One more job, with its awards by rank."""


class Frozen:
    """Success is known as it is, promises are believed, nothing is learnt."""

    def standing(self, offer: Offer, face: Face) -> Standing:  # noqa: ARG002 - the port's signature
        """The machine's true success; a newcomer's is a tenth lower."""
        success = int(face.machine.success * MILLION)
        return Standing(success * 9 // 10 if face.newcomer else success, 1000, 1000, face.newcomer)

    def learn(self, task: Task, attempts: Sequence[Attempt]) -> None:
        """Nothing."""


class Learning:
    """The log's `Reputation`, from a made-up receipt for each job; times on it are the machine's.

    `veterans` begin with a past of forty jobs each, everybody else unknown. Jobs come from twenty
    gateways, each with a payer of its own, so that no party's share is cut by much.
    """

    def __init__(self, parameters: Parameters, veterans: Sequence[Face] = ()) -> None:
        self._reputation = Reputation(parameters)
        for number in range(_PAST):
            for face in veterans:
                completed = number < round(face.machine.success * _PAST)
                attempt = Attempt(wallet(face.name), face, completed)
                self._take(number % _PARTIES, _PAST_TOKENS, [attempt])

    def standing(self, offer: Offer, face: Face) -> Standing:  # noqa: ARG002 - the port's signature
        """`Reputation`'s own."""
        return self._reputation.standing(offer)

    def learn(self, task: Task, attempts: Sequence[Attempt]) -> None:
        """Hand `Reputation` the job's receipt."""
        self._take(task.nonce[0] % _PARTIES, task.output_tokens, attempts)

    def _take(self, party: int, output: int, attempts: Sequence[Attempt]) -> None:
        segments = [
            attempted(
                attempt.node,
                Reason.NONE if attempt.completed else Reason.ENGINE_ERROR,
                output=output,
                rank=rank,
            )
            for rank, attempt in enumerate(attempts, 1)
        ]
        machine = attempts[-1].face.machine
        receipt = receipt_of(
            *segments,
            gateway=wallet(f"gateway {party}"),
            payer=wallet(f"payer {party}"),
            model=MODEL,
            first_ms=machine.ttft_ms,
            streamed_ms=round((output - 1) * MILLION / machine.tps_milli),
        )
        self._reputation.learn(receipt)
