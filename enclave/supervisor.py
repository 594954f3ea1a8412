"""One child process that lives and dies with this one.

The identity is in the pipe before the child exists, so nothing waits for anything. Afterwards boot
only repeats signals and the exit code. If boot itself is killed, the kernel kills the child
(``PR_SET_PDEATHSIG``): a coordinator without its boot would be one that nobody stops.

Synchronous on purpose: the death signal is bound to the *thread* that starts the child, and an
event loop's worker threads come and go. To be called from a process's main thread only.
"""

import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Final

from pinaivu.epoch_identity import EpochIdentity
from pinaivu.errors import Misconfigured, TransportFailure

IDENTITY_OPTION: Final = "--identity-fd"
EXIT_BY_SIGNAL: Final = 128
"""A child killed by signal n ends boot with 128 + n, as shells have it."""

_FORWARDED: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_PR_SET_PDEATHSIG: Final = 1
_EXIT_ORPHANED: Final = 70


def supervise(command: Sequence[str], identity: EpochIdentity) -> int:
    """Start ``command --identity-fd N`` with the identity in pipe N; its exit code once it ends.

    SIGTERM, SIGINT and SIGHUP are passed on. Raises `Misconfigured` when the command can't be
    started. Core dumps are off from here on, in this process and the child.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
    fd = _filled_pipe(identity.to_bytes())
    try:
        process = _start((*command, IDENTITY_OPTION, str(fd)), fd)
    finally:
        os.close(fd)
    return _exit_code(process)


def _filled_pipe(content: bytes) -> int:
    """The read end of a pipe that holds `content` and has no writer any more."""
    read_end, write_end = os.pipe()
    try:
        os.set_blocking(write_end, False)
        written = os.write(write_end, content)
    except BlockingIOError:
        written = 0
    finally:
        os.close(write_end)
    if written != len(content):
        os.close(read_end)
        raise TransportFailure(f"the pipe took {written} of {len(content)} bytes of the identity")
    return read_end


def _start(command: Sequence[str], fd: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - the command is boot's own argument
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=(fd,),
            process_group=0,
            preexec_fn=_leash(os.getpid()),  # noqa: PLW1509 - no other thread runs in boot
        )
    except OSError as error:
        raise Misconfigured(f"can't start {command[0]!r}: {error.strerror}") from error


def _leash(boot_pid: int) -> Callable[[], None]:
    """What the child does before it becomes the coordinator."""
    prctl = ctypes.CDLL(None).prctl

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != boot_pid:  # boot died in between: nobody would kill us any more
            os._exit(_EXIT_ORPHANED)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return bind


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    awaited = _FORWARDED | {signal.SIGCHLD}
    while (code := process.poll()) is None:
        received = signal.sigwait(awaited)
        if received != signal.SIGCHLD:
            process.send_signal(received)
    return code if code >= 0 else EXIT_BY_SIGNAL - code
