"""The ports of a local network: free ones, chosen at the first start and kept from then on."""

import socket
from pathlib import Path
from typing import TypeVar

import msgspec

from pinaivu.errors import Misconfigured
from pinaivu.loopback import HOST, free_port

P = TypeVar("P", bound=msgspec.Struct)


class Ports(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """TCP ports on the loopback address."""

    chain: int
    coordinator_p2p: int
    coordinator_http: int
    gateway_p2p: int
    gateway_http: int
    explorer: int


def keep_ports(path: Path) -> Ports:
    """The network's ports in `path`, or fresh ones written there."""
    return keep(path, Ports)


def keep(path: Path, kind: type[P]) -> P:
    """The ports in `path`, as many as `kind` has fields, or fresh ones written there."""
    if path.exists():
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except msgspec.DecodeError as error:
            raise Misconfigured(f"{path} holds no ports: remove it") from error
    chosen: set[int] = set()
    while len(chosen) < len(kind.__struct_fields__):
        chosen.add(free_port())
    ports = kind(*sorted(chosen))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(ports)))
    return ports


def require_free(ports: msgspec.Struct, path: Path) -> None:
    """`Misconfigured`, naming the port, where another program listens already."""
    for name in ports.__struct_fields__:
        port = getattr(ports, name)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise Misconfigured(
                    f"port {port} ({name}) is in use: is this network running already? Else end "
                    f"the other program, or remove {path} to have other ports chosen"
                ) from error
