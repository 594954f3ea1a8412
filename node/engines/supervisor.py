"""Keeps one engine running: start, readiness, watch, restart with growing pauses, end.

    supervisor = Supervisor(spec, log_path=path, report=print)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)      # returns when the engine serves
        async with supervisor.client.stream(JobKind.CHAT, body) as events: ...

*Ready* means that the health path answers, the engine lists the model, and one token of a real
completion came: an engine can be healthy and fail its first request. The first start must succeed,
because a wrong setting shows there; a running engine that ends or falls silent is started again
for as long as `run` runs, on a new port. Cancelling `run` ends the engine.

An attached engine is watched and waited for, never started or stopped.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from node.engines.client import PATHS, EngineClient, Patience
from node.engines.errors import (
    EngineDown,
    EngineStartFailed,
    EngineUnusable,
)
from node.engines.process import EngineProcess
from node.engines.spec import EngineSpec
from pinaivu.codes import JobKind
from pinaivu.errors import TransportFailure
from pinaivu.loopback import free_port

if TYPE_CHECKING:
    from trio_typing import TaskStatus  # the stubs that mypy finds lack trio.TaskStatus

_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and counts of a supervisor.

    `ready_s` from start to readiness, `grace_s` between SIGTERM and SIGKILL, pauses before a
    restart from `pause_s`, doubled up to `longest_pause_s` and forgotten after `steady_s` of
    service, a look at the engine's health every `probe_s`, given up after `misses` in a row.
    """

    ready_s: float = 300.0
    grace_s: float = 10.0
    pause_s: float = 1.0
    longest_pause_s: float = 30.0
    steady_s: float = 60.0
    probe_s: float = 5.0
    misses: int = 3


class EngineState(Enum):
    """What a supervisor reports."""

    STARTING = "starting"
    READY = "ready"
    LOST = "lost"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """A change, with what there is to say about it to whoever runs the node."""

    state: EngineState
    detail: str


class Supervisor:
    """Runs one engine. `report` is called on every change and must not block."""

    def __init__(
        self,
        spec: EngineSpec,
        *,
        log_path: Path,
        report: Callable[[EngineEvent], None],
        limits: Limits = Limits(),  # frozen
        patience: Patience = Patience(),  # noqa: B008  # frozen
    ) -> None:
        self.spec = spec
        self._log_path = log_path
        self._report = report
        self._limits = limits
        self._patience = patience
        self._client: EngineClient | None = None
        self._pid: int | None = None

    @property
    def client(self) -> EngineClient:
        """The running engine; ask anew for every request. Raises `EngineDown` when none is up."""
        if self._client is None:
            raise EngineDown("the engine is not running; a new one is being started")
        return self._client

    @property
    def pid(self) -> int | None:
        """Process id of the child's tether, while there is a child."""
        return self._pid

    async def run(
        self, *, task_status: "TaskStatus[EngineClient]" = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep the engine running until cancelled.

        Raises `EngineStartFailed` or `EngineUnusable` if the first start fails, never later.
        """
        pause_s = self._limits.pause_s
        served_before = False
        while True:
            since = trio.current_time()
            try:
                async with self._running() as (client, process):
                    since = trio.current_time()
                    if not served_before:
                        task_status.started(client)
                        served_before = True
                    lost = await self._watch(client, process)
            except (EngineStartFailed, EngineUnusable) as error:
                if not served_before:
                    raise
                lost = str(error)
            if trio.current_time() - since >= self._limits.steady_s:
                pause_s = self._limits.pause_s
            self._say(EngineState.LOST, f"{lost}; next start in {pause_s:g} s")
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._limits.longest_pause_s)

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[tuple[EngineClient, EngineProcess | None]]:
        """A ready engine, for as long as the block lasts."""
        started_at = trio.current_time()
        client, process = await self._start()
        try:
            await self._until_ready(client, process)
            self._client = client
            self._say(
                EngineState.READY,
                f"serves {self.spec.model} after {trio.current_time() - started_at:.1f} s",
            )
            yield client, process
        finally:
            self._client = self._pid = None
            if process is not None:
                await process.stop()
                self._say(EngineState.STOPPED, f"ended with code {process.returncode}")

    async def _start(self) -> tuple[EngineClient, EngineProcess | None]:
        spec = self.spec
        if spec.url is not None:
            self._say(EngineState.STARTING, f"waiting for {spec.url}")
            return EngineClient(spec.url, api_key=spec.api_key, patience=self._patience), None
        port = free_port()
        process = await EngineProcess.start(
            spec.command(port), spec.env, self._log_path, self._limits.grace_s
        )
        self._pid = process.pid
        self._say(EngineState.STARTING, f"{spec.kind} on port {port}, log in {self._log_path}")
        return EngineClient(f"http://127.0.0.1:{port}", patience=self._patience), process

    async def _until_ready(self, client: EngineClient, process: EngineProcess | None) -> None:
        with trio.move_on_after(self._limits.ready_s):
            while not await self._healthy(client):
                _check_alive(process)
                await trio.sleep(_POLL_S)
            await self._prove(client, process)
            _check_alive(process)  # else it was a stranger who answered on this port
            return
        raise EngineStartFailed(
            f"the engine was not ready within {self._limits.ready_s:g} s", _tail(process)
        )

    async def _prove(self, client: EngineClient, process: EngineProcess | None) -> None:
        """Have the engine name the model and give one token, or one embedding, of it."""
        embeds = self.spec.main_kind == JobKind.EMBEDDING
        body = self.spec.probe("Hello") | ({} if embeds else {"max_tokens": 1})
        try:
            names = await client.models()
            if self.spec.model not in names:
                raise EngineUnusable(
                    f"the engine at {client.url} serves {', '.join(names)}, not {self.spec.model}"
                )
            answer = json.loads(await client.post(PATHS[self.spec.main_kind], body))
            tokens = len(answer["data"]) if embeds else answer["usage"]["completion_tokens"]
        except TransportFailure as error:
            reason = f"the engine started, but its first completion failed: {error}"
            raise EngineStartFailed(reason, _tail(process)) from error
        except (ValueError, LookupError, TypeError) as error:
            why = "the engine's completion holds no usage report, or no embedding"
            raise EngineUnusable(why) from error
        if tokens != 1:
            what = "embeddings" if embeds else "tokens"
            raise EngineUnusable(f"the engine gave {tokens} {what} where 1 was asked for")

    async def _watch(self, client: EngineClient, process: EngineProcess | None) -> str:
        """Return why the engine has to be started again, once it has to."""
        misses = 0
        while misses < self._limits.misses:
            with trio.move_on_after(self._limits.probe_s):
                if process is None:
                    await trio.sleep_forever()
                else:
                    return f"the engine ended with code {await process.wait()}"
            misses = 0 if await self._healthy(client) else misses + 1
        return f"the engine did not answer {misses} times in a row"

    async def _healthy(self, client: EngineClient) -> bool:
        """Whether the health path answers 200. Anything else is a fact here, not an error."""
        try:
            await client.get(self.spec.health_path or "/v1/models")
        except TransportFailure:
            return False
        return True

    def _say(self, state: EngineState, detail: str) -> None:
        self._report(EngineEvent(state, detail))


def _check_alive(process: EngineProcess | None) -> None:
    if process is not None and process.returncode is not None:
        reason = f"the engine ended with code {process.returncode} while it was starting"
        raise EngineStartFailed(reason, process.log_tail())


def _tail(process: EngineProcess | None) -> str:
    return "" if process is None else process.log_tail()
