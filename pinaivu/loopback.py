"""The machine's own network: its address, and ports for programs that are started here."""

import secrets
import socket
from contextlib import suppress
from typing import Final

HOST: Final = "127.0.0.1"
_PORTS: Final = range(10_000, 32_768)


def free_port() -> int:
    """A loopback port that was free a moment ago.

    It is below the ports that systems lend to who dials: one of those may be some connection's by
    the time that its owner listens, or listens again.
    """
    while True:
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        with suppress(OSError), socket.socket() as probe:
            probe.bind((HOST, port))
            return port
