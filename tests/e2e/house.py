"""A house behind a user-mode NAT: a network namespace that can dial out and be dialed by nobody.

The namespace has no link to anywhere. Its one way out is a relay, as rootless containers have it:
what is dialed inside at a loopback port of the list is accepted there and dialed again outside, by
a process that stands in both. So connections are only ever opened from the inside. It needs root.
"""

import ctypes
import os
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")
ADDRESS: Final = "192.0.2.2"
_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET
_DIAL_S: Final = 2.0


class House:
    """One namespace by name, and the relay's count of what was dialed out, by port.

    `peers`: the ports at which the peers of whoever lives here listen outside.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.dialed_out: Counter[int] = Counter()
        self.peers: set[int] = set()

    def enter(self, command: list[str]) -> list[str]:
        """The command, run inside."""
        return ["ip", "netns", "exec", self.name, *command]

    def do(self, act: Callable[[], T]) -> T:
        """The result of `act` in a thread that is inside; sockets it makes stay there."""
        results = list[T]()

        def run() -> None:
            with Path(f"/run/netns/{self.name}").open("rb") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _NEW_NETWORK):
                    raise OSError(ctypes.get_errno(), "setns")
            results.append(act())

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return results[0]


def permitted() -> bool:
    """Whether this machine lets us make a network namespace."""
    probe = f"pinaivu-probe-{os.getpid()}"
    try:
        _ip("netns", "add", probe)
    except (OSError, subprocess.CalledProcessError):
        return False
    _ip("netns", "del", probe)
    return True


@contextmanager
def house(ports: Iterable[int]) -> Iterator[House]:
    """A house whose relay dials out to these ports of our loopback; gone after the block."""
    made = House(f"pinaivu-{os.getpid()}")
    _ip("netns", "add", made.name)
    with ExitStack() as stack:
        stack.callback(_ip, "netns", "del", made.name)
        _ip("-n", made.name, "link", "set", "lo", "up")
        _ip("-n", made.name, "addr", "add", f"{ADDRESS}/32", "dev", "lo")
        for port in set(ports):
            listener = made.do(lambda port=port: socket.create_server(("127.0.0.1", port)))  # type: ignore[misc]
            stack.callback(_close, listener)
            threading.Thread(target=_relay, args=(made, listener, port), daemon=True).start()
        yield made


def reachable(port: int, address: str = ADDRESS) -> bool:
    """Whether a dial to a place succeeds from where the caller is."""
    try:
        socket.create_connection((address, port), timeout=_DIAL_S).close()
    except OSError:
        return False
    return True


def _relay(made: House, listener: socket.socket, port: int) -> None:
    with suppress(OSError):  # closed with the house
        while True:
            inside, _ = listener.accept()
            made.dialed_out[port] += 1
            threading.Thread(target=_carry, args=(inside, port), daemon=True).start()


def _carry(inside: socket.socket, port: int) -> None:
    """One connection, until either side ends it."""
    with inside, suppress(OSError), socket.create_connection(("127.0.0.1", port)) as outside:
        back = threading.Thread(target=_pump, args=(outside, inside), daemon=True)
        back.start()
        _pump(inside, outside)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):  # one direction's end is both's: peers dial again
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _close(listener: socket.socket) -> None:
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
