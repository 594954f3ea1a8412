"""Runs the blocks of pages as a reader would type them: one bash, one folder, real programs.

The programs are those of the tree that the pages are in, whichever one is installed.

Exported variables last from block to block. What was started in the background is ended by Ctrl-C
in `close`, the last started first, and must end well.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.docs.pages import ROOT, Block

_WITHIN_S: Final = 180.0
_STARTS_WITHIN_S: Final = 400.0  # a whole network, three engines measured
_POLL_S: Final = 0.2
_SHOWN: Final = 4_000
_VALUE: Final = re.compile(r"0x[0-9a-f]*…?|\b[0-9a-f]{8}-[0-9a-f-]{27}\b|[0-9]+", re.IGNORECASE)


class BlockFailed(AssertionError):
    """A block did not do what its page says."""


class Terminal:
    """A folder with a shell environment; `home` must be empty."""

    def __init__(self, home: Path, state: Path) -> None:
        self._home = home
        self._exports = state / "exports.sh"
        self._exports.touch()
        self._log = state / "output.txt"
        self._printed = ""
        self._background: list[tuple[str, subprocess.Popen[bytes]]] = []
        scripts = str(Path(sys.executable).parent)
        self._environment = {
            "PATH": f"{scripts}:{os.environ['PATH']}",
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
        }

    def do(self, block: Block) -> None:
        """What the block's mark says; `BlockFailed` where the page is wrong."""
        argument = block.argument or ""
        if block.mark == "file":
            (self._home / argument).write_text(block.text, encoding="utf-8")
        elif block.mark == "output":
            self._compare(block.text)
        elif argument.startswith("until "):
            self._start(block.text, argument.removeprefix("until ").strip('"'))
        else:
            self._run(block.text, int(argument.removeprefix("exit ") or 0))

    def close(self) -> None:
        """End what runs in the background, as Ctrl-C does."""
        for text, process in reversed(self._background):
            process.send_signal(signal.SIGINT)
            try:
                code = process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise BlockFailed(f"Ctrl-C did not end:\n{text}") from None
            if code:
                raise BlockFailed(f"ended by Ctrl-C with code {code}:\n{text}{self._tail()}")

    def _run(self, text: str, expected: int) -> None:
        script = f". {self._exports}\ntrap 'export -p >{self._exports}' EXIT\n{text}"
        with self._log.open("wb") as log:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=self._home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=_WITHIN_S,
                check=False,
            )
        self._printed = self._log.read_text(encoding="utf-8", errors="replace")
        if done.returncode != expected:
            raise BlockFailed(f"code {done.returncode}, not {expected}, from\n{text}{self._tail()}")

    def _start(self, text: str, sign: str) -> None:
        """Start one command and wait until it has printed `sign`."""
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                # A test run started with `&` ignores SIGINT, which programs then inherit.
                ["env", "--default-signal=INT", "bash", "-c", f"exec {text}"],
                cwd=self._home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        self._background.append((text, process))
        log_file, self._log = self._log, self._log.with_suffix(f".{process.pid}.txt")
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while sign not in self._printed:
            self._printed = log_file.read_text(encoding="utf-8", errors="replace")
            if process.poll() is not None or time.monotonic() > deadline:
                raise BlockFailed(f"{sign!r} was not printed by\n{text}{self._tail()}")
            time.sleep(_POLL_S)

    def _compare(self, shown: str) -> None:
        """Each line shown is among those printed, in order; numbers and `…` may be anything."""
        printed = iter([_VALUE.sub("#", line.strip()) for line in self._printed.splitlines()])
        for line in filter(str.strip, shown.splitlines()):
            pattern = re.compile(re.escape(_VALUE.sub("#", line.strip())).replace("…", ".*"))
            if not any(pattern.fullmatch(found) for found in printed):
                raise BlockFailed(f"not printed (here): {line}{self._tail()}")

    def _tail(self) -> str:
        return f"\n--- printed:\n{self._printed[-_SHOWN:]}"
