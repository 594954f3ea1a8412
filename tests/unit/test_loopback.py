"""Ports for programs that are started here."""

import socket

import pytest

from pinaivu import loopback
from pinaivu.loopback import HOST, free_port


def test_a_free_port_is_none_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that Linux lends to who dials, unless told otherwise."""
    ports = {free_port() for _ in range(50)}
    assert min(ports) >= 10_000
    assert max(ports) < 32_768
    with socket.create_server((HOST, free_port())) as taken:
        port = taken.getsockname()[1]
        places = iter([port, port, 0])
        monkeypatch.setattr("secrets.randbelow", lambda _: next(places))
        monkeypatch.setattr(loopback, "_PORTS", range(65_536))
        assert free_port() == 0
