"""An engine as a child process: started under its tether, its output in a file, ended for certain.

It promises that the engine's processes are gone when `stop` returns, and soon after this process is
gone, however it ended (see `tether.py`). It knows nothing of HTTP.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import trio

from node.engines.errors import EngineStartFailed

_TETHER: Final = Path(__file__).with_name("tether.py")
_TETHER_MARGIN_S: Final = 5.0
_TAIL_BYTES: Final = 4096
_TAIL_LINES: Final = 20
_ROTATE_BYTES: Final = 8 << 20
_OWNER_ONLY: Final = 0o600


class EngineProcess:
    """A started engine. Make one with `start`."""

    def __init__(
        self, process: trio.Process, log_path: Path, log_start: int, grace_s: float
    ) -> None:
        self._process = process
        self._log_path = log_path
        self._log_start = log_start
        self._grace_s = grace_s

    @classmethod
    async def start(
        cls, argv: Sequence[str], env: Mapping[str, str], log_path: Path, grace_s: float
    ) -> Self:
        """Start `argv` with exactly the environment `env`; output is appended to `log_path`.

        The log is readable by its owner only and moved to `….1` once it is larger than 8 MiB.
        `grace_s` is the time between SIGTERM and SIGKILL when it has to end. Raises
        `EngineStartFailed` when the log can't be written; a command that can't be run shows as a
        process that ended with code 127.
        """
        log = _open_log(log_path)
        log_start = os.fstat(log).st_size
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-I", "-S", str(_TETHER), str(grace_s), *argv],
                env=env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at a terminal is for the node, which stops us
            )
            return cls(process, log_path, log_start, grace_s)
        finally:
            os.close(log)

    @property
    def pid(self) -> int:
        """The tether's process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The engine's exit code, 128 + signal when one ended it, or None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for the engine's end; its exit code."""
        return await self._process.wait()

    async def stop(self) -> None:
        """End the engine and everything it started; returns when it is gone. Can be repeated.

        Not to be cancelled: takes `grace_s` and a few seconds at the most.
        """
        assert self._process.stdin is not None
        with trio.CancelScope(shield=True):
            await self._process.stdin.aclose()
            with trio.move_on_after(self._grace_s + _TETHER_MARGIN_S):
                await self._process.wait()
                return
            self._process.kill()
            await self._process.wait()

    def log_tail(self) -> str:
        """The last lines that this run wrote to the log, at most 20."""
        try:
            with self._log_path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - _TAIL_BYTES))
                text = log.read(_TAIL_BYTES).decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-_TAIL_LINES:])


def _open_log(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _ROTATE_BYTES:
            path.replace(path.with_name(path.name + ".1"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, _OWNER_ONLY)
    except OSError as error:
        raise EngineStartFailed(f"cannot write the engine's log {path}: {error}") from error
