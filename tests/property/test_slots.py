"""Two coordinators sell one node's slots at once: never one slot twice, never one too few.

Node's slots and coordinators' dockets are the real ones; between them stands the order in which
things happen: each coordinator awards while it knows of a free slot, the gateway dispatches, the
node finishes, the coordinator hears of it. A coordinator knows of its own awards only.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import combinations
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.docket import Awarded, Docket, OpenJob
from node.slots import Slots
from pinaivu.messages import Award, Job
from pinaivu.receipts import Held
from pinaivu.typed_data import Signed
from tests.unit import ledger_support as facts

ONE, TWO = b"\x11" * 32, b"\x12" * 32
LOGS: Final = (ONE, TWO)
NODE: Final = facts.NODES[0].address
SEAL: Final = bytes(65)  # nobody looks at signatures here
GRANT: Final = Signed(facts.grant(), SEAL)
COMPLETION: Final = Signed(facts.completion(facts.award()), SEAL)
HELD: Final = Held(fingerprint=bytes(32), nonce=bytes(32), bids_root=bytes(32), bids=1)
Step = tuple[bytes, int]  # which log, which of its jobs: its next step is taken
AWARD, DISPATCH, FINISH, DONE = range(4)


@cache
def _job(number: int) -> tuple[Signed[Job], Signed[Award]]:
    return Signed(facts.job(number), SEAL), Signed(facts.award(1, number), SEAL)


class Coordinator:
    """One log's coordinator, as far as it counts the node's load."""

    def __init__(self) -> None:
        self._docket = Docket()

    def award(self, number: int, offered: int) -> Awarded | None:
        """An award for a job, where the node has a slot left by what this coordinator knows."""
        if self._docket.busy(NODE) >= offered:
            return None
        signed, award = _job(number)
        job = OpenJob(
            job=signed,
            job_digest=award.message.job_digest,
            grant=GRANT,
            received_ms=0,
            reserve_units=0,
            held=HELD,
        )
        self._docket.open(job)
        self._docket.award(job, award, number.to_bytes(32))
        return job.awards[0]

    def hear(self, awarded: Awarded) -> None:
        """The node's completion has come."""
        self._docket.complete(awarded, COMPLETION)


class Market:
    """One node's slots and two coordinators; `take` takes a job's next step."""

    def __init__(self, slots: int) -> None:
        self.slots = Slots(slots, LOGS)
        self.running = 0
        self.most = 0
        self.unserved = 0
        self._coordinators = {log_id: Coordinator() for log_id in LOGS}
        self._awards: dict[Step, Awarded] = {}
        self._work: dict[Step, ExitStack] = {}
        self._at: dict[Step, int] = {}

    def take(self, step: Step) -> None:
        """Award, dispatch or finish; a job that got no award has no further steps."""
        at = self._at.get(step, AWARD)
        self._at[step] = at + 1
        log_id, number = step
        if at == AWARD:
            awarded = self._coordinators[log_id].award(number, self.slots.share(log_id))
            if awarded is None:
                self.unserved += 1
                self._at[step] = DONE
            else:
                self._awards[step] = awarded
        elif at == DISPATCH:
            self._work[step] = ExitStack()
            self._work[step].enter_context(self.slots.hold(log_id))  # never a refusal
            self.running += 1
            self.most = max(self.most, self.running)
            assert self.running <= self.slots.total
        elif at == FINISH:
            self._work.pop(step).close()
            self.running -= 1
            self._coordinators[log_id].hear(self._awards[step])


def _orders(one: Sequence[Step], two: Sequence[Step]) -> Iterator[list[Step]]:
    """Every way to interleave two sequences."""
    for places in combinations(range(len(one) + len(two)), len(one)):
        first, second, chosen = iter(one), iter(two), set(places)
        yield [next(first if i in chosen else second) for i in range(len(one) + len(two))]


SHAPES: Final = {
    "both at once": (1, 2, 1, 2, 1, 2),
    "one inside the other": (1, 2, 2, 2, 1, 1),
    "one after the other": (1, 1, 1, 2, 2, 2),
}
"""Of which job each of a coordinator's steps is."""


@pytest.mark.parametrize("slots", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_in_whatever_order_two_coordinators_call(slots: int, shape: tuple[int, ...]) -> None:
    """All interleavings: an award within the offer is never refused, no slot is held twice."""
    for order in _orders([(ONE, job) for job in shape], [(TWO, job) for job in shape]):
        market = Market(slots)
        for step in order:
            market.take(step)
        assert market.running == 0
        assert [market.slots.free(log) for log in LOGS] == [market.slots.share(log) for log in LOGS]


@given(
    slots=st.integers(1, 6),
    steps=st.lists(st.tuples(st.sampled_from(LOGS), st.integers(1, 6)), max_size=80),
)
@settings(max_examples=300, deadline=None)
def test_in_any_long_run(slots: int, steps: list[Step]) -> None:
    """More jobs than slots, stopped anywhere."""
    market = Market(slots)
    for step in steps:
        market.take(step)
    assert market.most <= slots


def test_every_slot_can_be_sold() -> None:
    """Shares add up: the two coordinators together fill the engine."""
    for total in range(1, 9):
        market = Market(total)
        jobs = [(log_id, number) for number in range(1, total + 1) for log_id in LOGS]
        for _ in (AWARD, DISPATCH):
            for job in jobs:
                market.take(job)
        assert market.running == total
