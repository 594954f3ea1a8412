"""A stand-in coordinator: takes the identity from its pipe, shows that it holds it, then obeys.

Called with ``prove [wait]``, ``exit CODE``, ``wait``, ``obey CODE`` (wait for SIGTERM, then exit
so) or ``ignore`` (exit without reading the pipe). Prints one JSON line. `prove` prints its secrets
too, for the tests to search for elsewhere; no real coordinator would.
"""

import json
import os
import resource
import signal
import sys
from types import FrameType

from pinaivu.encoding import h, to_hex
from pinaivu.epoch_identity import EpochIdentity


def main() -> int:
    """Do what the first argument says."""
    action, *details = sys.argv[1:-2]
    option, fd = sys.argv[-2:]
    assert option == "--identity-fd"
    if action == "ignore":
        return 0
    identity = EpochIdentity.read_from_fd(int(fd))
    if action == "obey":
        signal.signal(signal.SIGTERM, lambda number, frame: obey(number, frame, int(details[0])))
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # or Python turns it into an exception
    say(identity, secrets=action == "prove")
    if action in ("wait", "obey") or "wait" in details:
        signal.pause()
    return int(details[0]) if action == "exit" else 0


def say(identity: EpochIdentity, *, secrets: bool) -> None:
    """One line about what was received and what this process is."""
    line = {
        "pid": os.getpid(),
        "boot_pid": os.getppid(),
        "manifest": identity.manifest.to_json(),
        "parameters": identity.parameters.to_json(),
        "document": to_hex(identity.document),
        "signature": to_hex(identity.signing_secret.sign(h(b"challenge"))),
        "peer_signature": to_hex(identity.peer_secret.sign(h(b"challenge"))),
        "descriptors": [name for name in os.listdir("/proc/self/fd") if int(name) > 2],  # noqa: PTH208
        "core_limit": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "blocked_signals": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
    }
    if secrets:
        line["secrets"] = [
            to_hex(identity.signing_secret.secret),
            to_hex(identity.peer_secret.secret),
            to_hex(identity.note_secret),
        ]
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def obey(_number: int, _frame: FrameType | None, code: int) -> None:
    """End with the code that was asked for."""
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
