"""Ties an engine's life to its parent's: `python tether.py GRACE_SECONDS COMMAND…`.

The parent holds the other end of standard input and never writes to it. When that end closes, by
intent or because the parent was killed, the command's whole process group gets SIGTERM, and SIGKILL
after the grace. Should the tether itself be killed, the kernel kills the command. The tether ends
with the command's exit code, or 128 + the signal that ended it, and leaves no process of the
group behind.

It runs as its own small process because the kernel's "signal on parent's death" watches a thread,
and a parent that starts processes from a pool of threads can't use that; this one has one thread.
Standard library only, nothing of this project: it is started by its path.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_CANNOT_START = 127


def main() -> int:
    """Run the command until it ends or the parent lets go."""
    grace_s, command = float(sys.argv[1]), sys.argv[2:]
    signalled = _pipe_of_signals()
    try:
        engine = subprocess.Popen(  # noqa: S603  # the parent's own command line
            command,
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=_dies_with(os.getpid()),  # noqa: PLW1509  # there is only this thread
        )
    except OSError as error:
        print(f"cannot start {command[0]}: {error}", file=sys.stderr)  # noqa: T201
        return _CANNOT_START
    ended = os.pidfd_open(engine.pid)
    readable, _, _ = select.select([sys.stdin.fileno(), signalled, ended], [], [])
    if ended not in readable:
        os.killpg(engine.pid, signal.SIGTERM)
        select.select([ended], [], [], grace_s)
    # The engine is not reaped yet, so its group's number can't have gone to anybody else.
    os.killpg(engine.pid, signal.SIGKILL)
    code = engine.wait()
    return code if code >= 0 else 128 - code


def _pipe_of_signals() -> int:
    """A descriptor that becomes readable when this process is asked to end."""
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    signal.set_wakeup_fd(sending)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return receiving


def _dies_with(parent: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)

    return prepare


if __name__ == "__main__":
    sys.exit(main())
