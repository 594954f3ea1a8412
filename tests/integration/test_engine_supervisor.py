"""Starting, watching and ending an engine process, whatever happens to it or to us."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from node.engines.client import EngineClient, Patience
from node.engines.errors import EngineDown, EngineStartFailed, EngineUnusable
from node.engines.process import EngineProcess
from node.engines.spec import EngineSpec, attached
from node.engines.supervisor import EngineEvent, EngineState, Limits, Supervisor
from pinaivu.codes import Feature

DOUBLE = Path(__file__).with_name("engine_double.py")
QUICK = Limits(ready_s=20, grace_s=0.3, pause_s=0.01, longest_pause_s=0.02, probe_s=0.05)
PATIENCE = Patience(answer_s=0.3)


def double(*options: str, env: dict[str, str] | None = None) -> EngineSpec:
    return EngineSpec(
        kind="double",
        model="double",
        slots=1,
        context_tokens=64,
        features=Feature.KIND_CHAT,
        argv=(sys.executable, str(DOUBLE), *options),
        env=env or {},
    )


class Reports(list[EngineEvent]):
    """What a supervisor reported; `seen` waits for a state to be reported a number of times."""

    def __init__(self) -> None:
        super().__init__()
        self._more = trio.Event()

    def __call__(self, event: EngineEvent) -> None:  # noqa: D102
        self.append(event)
        self._more.set()
        self._more = trio.Event()

    async def seen(self, state: EngineState, times: int) -> None:  # noqa: D102
        with trio.fail_after(20):
            while sum(event.state is state for event in self) < times:
                await self._more.wait()


@asynccontextmanager
async def running(
    spec: EngineSpec, directory: Path, limits: Limits = QUICK
) -> AsyncIterator[tuple[Supervisor, Reports]]:
    reports = Reports()
    supervisor = Supervisor(
        spec, log_path=directory / "log", report=reports, limits=limits, patience=PATIENCE
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        yield supervisor, reports
        nursery.cancel_scope.cancel()


async def failure(spec: EngineSpec, directory: Path, limits: Limits = QUICK) -> Exception:
    """What the first start fails with."""
    with pytest.raises((EngineStartFailed, EngineUnusable)) as caught:
        await Supervisor(
            spec,
            log_path=directory / "log",
            report=Reports(),
            limits=limits,
            patience=PATIENCE,
        ).run()
    return caught.value


async def gone(pid: int) -> None:
    """Wait until no process has this id."""
    with trio.fail_after(20):
        while alive(pid):  # noqa: ASYNC110  # another process sets no event of ours
            await trio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether it runs; one that nobody has reaped yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_a_ready_engine_answers_and_is_gone_after_the_end(tmp_path: Path) -> None:
    async with running(double(), tmp_path) as (supervisor, reports):
        assert await supervisor.client.models() == ["double"]
        tether = supervisor.pid
        assert tether is not None
        engine = children(tether)[0]
    assert not alive(tether)
    assert not alive(engine)
    assert supervisor.pid is None
    with pytest.raises(EngineDown):
        _ = supervisor.client
    states = [event.state for event in reports]
    assert states == [EngineState.STARTING, EngineState.READY, EngineState.STOPPED]


@pytest.mark.parametrize("how", ["engine killed", "tether killed", "engine ends", "engine is mute"])
async def test_a_lost_engine_is_started_again(tmp_path: Path, how: str) -> None:
    async with running(double("--ignore-term"), tmp_path) as (supervisor, reports):
        tether = supervisor.pid
        assert tether is not None
        engine = children(tether)[0]
        before = supervisor.client
        if how == "engine killed":
            os.kill(engine, signal.SIGKILL)
        elif how == "tether killed":
            os.kill(tether, signal.SIGKILL)
        else:
            with pytest.raises(Exception):  # noqa: B017, PT011  # whichever way it doesn't answer
                await before.get("/exit" if how == "engine ends" else "/mute")
        await reports.seen(EngineState.READY, 2)
        assert await supervisor.client.models() == ["double"]
        assert supervisor.client.url != before.url
        await gone(engine)
        await gone(tether)


async def test_the_reason_of_a_loss_is_reported(tmp_path: Path) -> None:
    async with running(double(), tmp_path) as (supervisor, reports):
        assert supervisor.pid is not None
        os.kill(children(supervisor.pid)[0], signal.SIGKILL)
        await reports.seen(EngineState.LOST, 1)
    lost = next(event for event in reports if event.state is EngineState.LOST)
    assert "ended with code 137" in lost.detail


async def test_workers_of_an_engine_end_with_it(tmp_path: Path) -> None:
    """VLLM leaves processes behind when its main one is killed."""
    worker = tmp_path / "worker"
    async with running(double("--worker", str(worker)), tmp_path) as (supervisor, reports):
        first = int(worker.read_text())
        assert supervisor.pid is not None
        os.kill(children(supervisor.pid)[0], signal.SIGKILL)
        await reports.seen(EngineState.READY, 2)
        await gone(first)
        second = int(worker.read_text())
        assert alive(second)
    assert not alive(second)


async def test_an_engine_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    async with running(double("--ignore-term"), tmp_path) as (supervisor, _):
        assert supervisor.pid is not None
        engine = children(supervisor.pid)[0]
        began = trio.current_time()
    assert QUICK.grace_s <= trio.current_time() - began < 5
    assert not alive(engine)


async def test_nothing_survives_a_parent_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL leaves the parent no moment to clean up, and this engine ignores SIGTERM."""
    parent = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-m", "tests.integration.engine_parent", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    line = await trio.to_thread.run_sync(parent.stdout.readline)
    tether = int(line.split()[0])
    pids = [tether, *children(tether), int((tmp_path / "worker").read_text())]
    assert len(pids) == 3
    assert all(alive(pid) for pid in pids)
    parent.kill()
    await trio.to_thread.run_sync(parent.wait)
    for pid in pids:
        await gone(pid)
    parent.stdout.close()


async def test_a_failed_start_tells_the_end_of_the_log(tmp_path: Path) -> None:
    """Of this run only: what an earlier one wrote would mislead."""
    (tmp_path / "log").write_text("an older run\n")
    error = await failure(double("--fail", "no such weights"), tmp_path)
    assert isinstance(error, EngineStartFailed)
    assert error.reason == "the engine ended with code 3 while it was starting"
    assert error.log_tail == "loading weights\nno such weights"
    assert "no such weights" in str(error)


async def test_a_command_that_does_not_exist_is_a_failed_start(tmp_path: Path) -> None:
    error = await failure(replace(double(), argv=("/nonexistent/engine",)), tmp_path)
    assert "cannot start /nonexistent/engine" in str(error)


async def test_an_engine_that_never_serves_is_ended(tmp_path: Path) -> None:
    worker = tmp_path / "worker"
    limits = replace(QUICK, ready_s=1.0)
    error = await failure(double("--hang", "--worker", str(worker)), tmp_path, limits)
    assert "not ready within 1 s" in str(error)
    assert not alive(int(worker.read_text()))


async def test_an_engine_that_is_healthy_and_cannot_complete_is_not_ready(tmp_path: Path) -> None:
    error = await failure(double("--refuse"), tmp_path)
    assert "first completion failed" in str(error)


async def test_an_engine_with_another_model_is_not_ready(tmp_path: Path) -> None:
    error = await failure(replace(double(), model="other"), tmp_path)
    assert "serves double, not other" in str(error)


async def test_a_log_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = await failure(double(), tmp_path / "file")
    assert "cannot write the engine's log" in str(error)


async def test_a_large_log_is_moved_aside_and_only_its_owner_reads_the_new_one(
    tmp_path: Path,
) -> None:
    (tmp_path / "log").write_bytes(b"x" * ((8 << 20) + 1))
    async with running(double(), tmp_path):
        assert (tmp_path / "log").stat().st_size < 1000
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "log.1").stat().st_size == (8 << 20) + 1


async def test_a_child_sees_the_environment_of_its_spec_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_SECRET", "x")
    async with running(double(env={"SHOWN": "1"}), tmp_path) as (supervisor, _):
        seen = json.loads(await supervisor.client.get("/environ"))
    assert seen["SHOWN"] == "1"
    assert "NODE_SECRET" not in seen


async def test_an_attached_engine_is_watched_and_left_alone(tmp_path: Path) -> None:
    """It may go away and come back; we neither start nor end it."""
    async with running(double(), tmp_path / "other") as (other, _):
        spec = attached(other.client.url, "double", slots=1, context_tokens=64)
        async with running(spec, tmp_path) as (supervisor, reports):
            assert supervisor.pid is None
            assert await supervisor.client.models() == ["double"]
        assert await other.client.models() == ["double"]
        assert EngineState.STOPPED not in [event.state for event in reports]


async def test_pauses_between_starts_grow_to_their_bound(
    tmp_path: Path, autojump_clock: object
) -> None:
    """An engine that dies at every start is not started in a busy loop."""
    del autojump_clock
    limits = Limits(pause_s=1, longest_pause_s=4)
    supervisor = FailingAfterFirst(tmp_path, limits)
    with trio.move_on_after(30):
        await supervisor.run()
    starts = [round(b - a) for a, b in zip(supervisor.starts, supervisor.starts[1:], strict=False)]
    assert starts[:5] == [1, 2, 4, 4, 4]


class FailingAfterFirst(Supervisor):
    """Becomes ready once and is lost at once; every later start fails."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        super().__init__(double(), log_path=directory / "log", report=Reports(), limits=limits)
        self.starts: list[float] = []

    async def _start(self) -> tuple[EngineClient, EngineProcess | None]:
        self.starts.append(trio.current_time())
        if len(self.starts) > 1:
            raise EngineStartFailed("no")
        return EngineClient("http://127.0.0.1:1"), None

    async def _until_ready(self, *_: object) -> None:
        await trio.lowlevel.checkpoint()

    async def _watch(self, *_: object) -> str:
        await trio.lowlevel.checkpoint()
        return "lost"
