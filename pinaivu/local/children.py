"""Child processes of a local network: started with a log file, ready by a condition, ended by pid.

A child runs in its own process group and gets SIGTERM from the kernel when this process ends,
however it ends. Nothing is ever ended by name.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pinaivu.errors import Misconfigured, PinaivuError

_PR_SET_PDEATHSIG: Final = 1
_POLL_S: Final = 0.05
_TAIL: Final = 1_500


class ChildFailed(Misconfigured):
    """A process of the network ended or did not become ready; its last words are in the message."""


class Child:
    """One process of the network."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.command = list(command)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running child."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it is started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; its output is appended to the log."""
        parent = os.getpid()

        def tie() -> None:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=tie,  # noqa: PLW1509 - the launcher has no other threads here
            )

    def require_running(self) -> None:
        """`ChildFailed` with its last words when it has ended."""
        if not self.running:
            raise ChildFailed(f"{self.name} has ended:\n{self.last_words()}")

    def wait_until(self, ready: Callable[[], bool], *, within_s: float) -> None:
        """Return once `ready`; `ChildFailed` when it ends or takes too long."""
        deadline = time.monotonic() + within_s
        last: PinaivuError | None = None
        while time.monotonic() < deadline:
            if not self.running:
                raise ChildFailed(f"{self.name} ended at start:\n{self.last_words()}")
            try:
                if ready():
                    return
            except ChildFailed:
                raise
            except PinaivuError as error:
                last = error  # not yet
            time.sleep(_POLL_S)
        why = f" ({last})" if last else ""
        raise ChildFailed(
            f"{self.name} was not ready in {within_s:.0f} s{why}:\n{self.last_words()}"
        )

    def wait_until_done(self, *, within_s: float) -> None:
        """Return once it has ended well; `ChildFailed` otherwise."""
        assert self._process is not None
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            code = -signal.SIGKILL
        if code:
            raise ChildFailed(f"{self.name} ended with code {code}:\n{self.last_words()}")

    def stop(self, *, within_s: float = 15.0) -> None:
        """SIGTERM, then SIGKILL to its group."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def last_words(self) -> str:
        """The end of its log."""
        try:
            return self._log.read_bytes()[-_TAIL:].decode(errors="replace")
        except OSError:
            return f"(no log at {self._log})"
