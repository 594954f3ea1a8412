"""`pinaivu gateway register` on a real chain."""

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pinaivu.chain.anvil import AnvilProcess, fund
from pinaivu.chain.rpc import HttpRpc
from pinaivu.cli.main import cli
from pinaivu.keyfiles import load_key
from pinaivu.keys import checksum
from tests.integration.chain_network import GENESIS_AGE_S, Network

pytestmark = pytest.mark.chain


def test_gateway_is_registered_and_moves(tmp_path: Path) -> None:
    """With its peer and endpoints; said again, the new endpoints stand."""
    began = int(time.time()) - GENESIS_AGE_S
    with AnvilProcess(tmp_path / "state", genesis_s=began) as chain, HttpRpc(chain.url) as rpc:
        net = Network(rpc)
        net.deployment.save(tmp_path / "deployment.json")
        key = load_key(tmp_path / "gateway.hex", os.urandom)
        peer = load_key(tmp_path / "peer.hex", os.urandom)
        fund(rpc, key.address)
        place = ["--rpc", chain.url, "--deployment", str(tmp_path / "deployment.json")]
        keys = ["--key", str(tmp_path / "gateway.hex"), "--peer-key", str(tmp_path / "peer.hex")]
        for endpoints in (["/ip4/127.0.0.1/tcp/1"], ["/ip4/127.0.0.1/tcp/2", "/dns4/gw/tcp/3"]):
            said = [part for endpoint in endpoints for part in ("--endpoint", endpoint)]
            command = ["gateway", "register", *place, *keys, *said]
            result = CliRunner().invoke(cli, command)
            assert result.exit_code == 0, result.exception
            assert checksum(key.address) in result.output
            found = net.client.gateway(key.address)
            assert found is not None
            assert found.endpoints == tuple(endpoints)
            assert found.peer_point == peer.point
