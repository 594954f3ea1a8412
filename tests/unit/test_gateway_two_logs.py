# ruff: noqa: D102 - doubles implement methods that are documented where they belong
"""Which log a request is put to, and how soon another one is, by a virtual clock.

Markets and control streams are real; hosts and coordinators are simulated, liveness too: the stream
to a frozen peer breaks after `Liveness.bound`, as `test_p2p_processes` shows of the real one.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.config import Limits
from gateway.errors import CoordinatorUnreachable
from gateway.logs import Log, Logs
from gateway.market import Market
from pinaivu.errors import PinaivuError
from pinaivu.messages import Grant
from pinaivu.p2p import PeerId, wire
from pinaivu.p2p.calls import Calls
from pinaivu.p2p.errors import ConnectFailed
from pinaivu.p2p.frames import FrameLimits, FrameStream
from pinaivu.p2p.host import Liveness
from pinaivu.store.batches import BatchKeeper
from pinaivu.typed_data import Signed
from tests.unit.gateway_facts import (
    DOMAIN,
    GATEWAY,
    award_for,
    draft,
    failure_of,
    grant,
    signed_award,
)
from tests.unit.p2p_pipes import PEER, Rig

ONE, TWO = b"\x11" * 32, b"\x12" * 32
GRANTS: Final = [grant(log_id=ONE), grant(log_id=TWO)]
WITHIN_S: Final = 5.0
"""A request is with the second log this soon after the first has gone away."""


class SimulatedCoordinator:
    """Answers every job with an empty award, through a simulated host, until it is taken away."""

    def __init__(self, liveness_s: float) -> None:
        self.jobs = 0
        self._liveness_s = liveness_s
        self._there = trio.Event()
        self._there.set()
        self._up = True
        self._streams: list[FrameStream] = []
        self.nursery: trio.Nursery

    # As a host

    async def connect(self, _address: str) -> PeerId:
        await trio.lowlevel.checkpoint()
        if not self._up:
            raise ConnectFailed("nobody listens")
        return PEER

    async def open_stream(self, _peer: PeerId, _protocol: str, _limits: FrameLimits) -> FrameStream:
        await trio.lowlevel.checkpoint()
        ours, theirs = Rig(), Rig()
        ours.pipe.other, theirs.pipe.other = theirs.pipe, ours.pipe
        calls = Calls(theirs.stream, on_call=self._answer)
        for run in (ours.stream.run, theirs.stream.run, calls.run):
            self.nursery.start_soon(_to_its_end, run)
        self._streams.append(ours.stream)
        return ours.stream

    async def _answer(self, payload: bytes) -> bytes:
        await self._there.wait()
        frame = wire.read_gateway_to_coordinator(payload)
        if isinstance(frame, wire.Hello):
            return wire.encode(wire.Done())
        self.jobs += isinstance(frame, wire.SubmitJob)
        return wire.encode(wire.Awarded(award=b"", peer=bytes(64), tps_milli=1, ttft_ms=1))

    # As what happens to it

    def hold(self) -> None:
        """It hears everything, answers nothing, and is there."""
        self._there = trio.Event()

    def kill(self) -> None:
        self._up = False
        self._break()

    def freeze(self) -> None:
        """It says nothing more; its peers notice by their liveness."""
        self._there = trio.Event()
        self._up = False
        self.nursery.start_soon(self._notice)

    async def _notice(self) -> None:
        await trio.sleep(self._liveness_s)
        self._break()

    def come_back(self) -> None:
        self._there.set()
        self._up = True

    def _break(self) -> None:
        for stream in self._streams:
            stream.reset("its peer is away")
        self._streams.clear()


async def _to_its_end(run: Any) -> None:
    with suppress(PinaivuError):  # streams end as the test makes them
        await run()


class Desk:
    """Two logs, and requests that go the gateway's way."""

    def __init__(self, coordinators: Sequence[SimulatedCoordinator], logs: Logs) -> None:
        self.one, self.two = coordinators
        self.logs = logs
        self._job = draft().job

    async def ask(self) -> tuple[bytes, float]:
        """The log that awards a request now, and after how many seconds."""
        started = trio.current_time()
        ways = self.logs.ways(GRANTS)
        for place, way in enumerate(ways, start=1):
            log_id = way.message.log_id
            try:
                market = self.logs[log_id].market
                await market.submit(self._job, way, patient=place == len(ways))
            except CoordinatorUnreachable:
                continue
            return log_id, trio.current_time() - started
        raise AssertionError("nobody awards")


@asynccontextmanager
async def opened(folder: Path, liveness_s: float = Liveness().bound) -> AsyncGenerator[Desk]:
    coordinators = [SimulatedCoordinator(liveness_s) for _ in range(2)]
    async with trio.open_nursery() as nursery:
        logs = Logs([_log(c, i, folder) for c, i in zip(coordinators, (ONE, TWO), strict=True)])
        for coordinator in coordinators:
            coordinator.nursery = nursery
        for log in logs.values():
            nursery.start_soon(log.market.run)
            await log.market.wait_connected()
        yield Desk(coordinators, logs)
        nursery.cancel_scope.cancel()


def _log(coordinator: SimulatedCoordinator, log_id: bytes, folder: Path) -> Log:
    async def address() -> str:
        await trio.lowlevel.checkpoint()
        return "/ip4/192.0.2.1/tcp/1"

    nothing: Any = None
    host: Any = coordinator
    market = Market(
        host,
        address,
        wire.Hello(owner=GATEWAY.address, log_id=log_id),
        BatchKeeper(folder, DOMAIN, log_id, nothing),
        within_s=Limits().submit_within_s,
        random=lambda: 0.5,
    )
    return Log(log_id=log_id, market=market, registry=nothing, public=nothing, outbox=nothing)


async def test_the_first_payers_log_is_asked_while_it_is_there(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    del autojump_clock
    async with opened(tmp_path) as desk:
        assert await desk.ask() == (ONE, 0.0)
        assert (desk.one.jobs, desk.two.jobs) == (1, 0)


async def test_requests_leave_a_killed_coordinator_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    del autojump_clock
    async with opened(tmp_path) as desk:
        desk.one.kill()
        await wait_all_tasks_blocked()
        assert await desk.ask() == (TWO, 0.0)


async def test_requests_leave_a_frozen_coordinator_in_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """One a tenth of a second: each is awarded in time, and those after the bound at once."""
    del autojump_clock
    async with opened(tmp_path) as desk:
        desk.one.freeze()
        frozen_at = trio.current_time()
        took: dict[float, float] = {}

        async def ask() -> None:
            asked = trio.current_time() - frozen_at
            log_id, seconds = await desk.ask()
            assert log_id == TWO
            took[asked] = seconds

        async with trio.open_nursery() as nursery:
            for _ in range(80):
                nursery.start_soon(ask)
                await trio.sleep(0.1)
        assert len(took) == 80
        assert max(took.values()) <= WITHIN_S
        waited = [asked + seconds for asked, seconds in took.items() if asked < Liveness().bound]
        assert max(waited) < Liveness().bound + 0.2  # no longer than until it is known to be away
        assert {seconds for asked, seconds in took.items() if asked > Liveness().bound} == {0.0}


async def test_a_coordinator_that_says_nothing_on_a_living_stream_is_left_in_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It answers pings and no calls: a request waits for it no longer than submitting may."""
    del autojump_clock
    async with opened(tmp_path, liveness_s=10**6) as desk:
        desk.one.freeze()
        log_id, seconds = await desk.ask()
        assert log_id == TWO
        assert seconds <= WITHIN_S


async def test_requests_return_when_the_first_log_does(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    del autojump_clock
    async with opened(tmp_path) as desk:
        desk.one.kill()
        await wait_all_tasks_blocked()
        assert (await desk.ask())[0] == TWO
        desk.one.come_back()
        await desk.logs[ONE].market.wait_connected()
        assert await desk.ask() == (ONE, 0.0)


async def test_the_last_log_there_is_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    """With both away, or one payer only, a request waits for its log to come back, for a while."""
    del autojump_clock
    async with opened(tmp_path) as desk:
        desk.one.kill()
        desk.two.kill()
        await wait_all_tasks_blocked()
        assert desk.logs.ways(GRANTS) == GRANTS[:1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_after, 1.0, desk.one.come_back)
            log_id, seconds = await desk.ask()
        assert log_id == ONE
        assert 1.0 <= seconds <= WITHIN_S


async def _after(seconds: float, do: Any) -> None:
    await trio.sleep(seconds)
    do()


def test_grants_for_logs_that_are_away_are_passed_over() -> None:
    class Connected:
        def __init__(self, connected: bool) -> None:  # noqa: FBT001 - a double
            self.connected = connected

    def logs(*connected: bool) -> Logs:
        nothing: Any = None
        parts: list[Log] = []
        for log_id, there in zip((ONE, TWO), connected, strict=True):
            market: Any = Connected(there)
            parts.append(
                Log(log_id=log_id, market=market, registry=nothing, public=nothing, outbox=nothing)
            )
        return Logs(parts)

    grants: list[Signed[Grant]] = GRANTS
    assert logs(True, True).ways(grants) == grants
    assert logs(False, True).ways(grants) == grants[1:]
    assert logs(False, False).ways(grants) == grants[:1]
    assert logs(True, False).ways(grants[1:]) == grants[1:]


async def _report(desk: Desk, *, patient: bool) -> float:
    """Report a failure to the first log's coordinator; seconds until it counts as unanswered."""
    started = trio.current_time()
    failure = Signed.by(GATEWAY, DOMAIN, failure_of(signed_award(award_for(draft()))))
    with pytest.raises(CoordinatorUnreachable):
        await desk.logs[ONE].market.report(failure, patient=patient)
    return trio.current_time() - started


async def test_a_report_leaves_a_killed_coordinator_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """In flight when it dies, or sent after: the request may go to the next log."""
    del autojump_clock
    async with opened(tmp_path) as desk:
        desk.one.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_kill_when_blocked, desk.one)
            assert await _report(desk, patient=False) == pytest.approx(0.1)  # then it looks again
        assert await _report(desk, patient=False) == 0.0
        assert (await desk.ask())[0] == TWO


async def _kill_when_blocked(coordinator: SimulatedCoordinator) -> None:
    await wait_all_tasks_blocked()
    coordinator.kill()


async def test_a_report_leaves_a_frozen_coordinator_in_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """With or without a log to go to, the wait is bounded."""
    del autojump_clock
    for patient in (False, True):
        async with opened(tmp_path) as desk:
            desk.one.freeze()
            took = await _report(desk, patient=patient)
            assert Liveness().bound <= took <= WITHIN_S
            assert took == pytest.approx(WITHIN_S) or not patient


async def test_who_waits_is_served_by_a_coordinator_that_is_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """However long it was away, and whenever between two attempts to dial it comes."""
    del autojump_clock
    async with opened(tmp_path) as desk:
        market = desk.logs[ONE].market
        for number in range(20):
            desk.one.kill()
            await trio.sleep(30 + number * 0.37)
            desk.one.come_back()
            await market.submit(draft().job, GRANTS[0])
        assert desk.one.jobs == 20
