"""The node as a process, on a real chain, with the real engine; gateway and coordinator scripted."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from node.engines.gguf_tokenizer import ModelFiles, convert
from node.errors import NotRegistered
from node.wallet import NodeKeys, check_registered, pay_out, register, relayed_registration, totals
from pinaivu.chain.anvil import AnvilProcess
from pinaivu.chain.errors import Reverted
from pinaivu.chain.records import ModelRecord
from pinaivu.chain.rpc import HttpRpc
from pinaivu.codes import Reason, Role
from pinaivu.keys import SecretKey
from pinaivu.manifest import Block, Manifest
from pinaivu.messages import Completion, Offer
from pinaivu.p2p import wire
from pinaivu.p2p.host import open_host
from pinaivu.tokens import Tokenizer
from pinaivu.typed_data import Signed, signed_from_bytes
from tests.integration.chain_network import GENESIS_AGE_S, MEASUREMENT, Network
from tests.integration.node_peers import (
    LOOPBACK,
    Conversation,
    ScriptedCoordinator,
    ScriptedGateway,
    text_in,
)
from tests.integration.p2p_support import PATIENCE
from tests.integration.test_engine_llamacpp import REVISION, gguf_path
from tests.unit import node_support as n

pytestmark = [pytest.mark.chain, pytest.mark.engine]

MODEL = "smollm2-135m-instruct"
WALLET = bytes.fromhex("0fa11e7000000000000000000000000000000001")
KEYS = NodeKeys(signing=n.NODE, peer=n.NODE_PEER)
TUSD = 10**6
STORY = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Tell me a long story about a lighthouse."}],
    "max_tokens": 400,
    "temperature": 0,
}
SHORT = {**STORY, "max_tokens": 8}


@dataclass(frozen=True)
class Ground:
    """The chain with everything registered, and the model's files."""

    rpc_url: str
    net: Network
    files: ModelFiles
    manifest: Manifest
    directory: Path

    @property
    def epoch(self) -> int:
        return self.net.client.epoch_count(self.net.log_id)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A chain that knows model, gateway and coordinator, but not yet the node."""
    directory = tmp_path_factory.mktemp("node-process")
    began = int(time.time()) - GENESIS_AGE_S
    with AnvilProcess(directory / "state.json", genesis_s=began) as chain, HttpRpc(chain.url) as rpc:
        net = Network(rpc)
        files = convert(gguf_path(), REVISION)
        files.write(directory / "files")
        net.deployment.save(directory / "deployment.json")
        card = files.card
        net.admin.send(
            net.calls.set_model(
                MODEL,
                ModelRecord(
                    card.fingerprint, card.tokenizer_digest, n.RATIO_PPM, card.context_tokens
                ),
            )
        )
        gateway = net.sender(n.GATEWAY)
        proof = net.binding(gateway.address, Role.GATEWAY, n.GATEWAY_PEER)
        gateway.send(net.calls.register_gateway(n.GATEWAY_PEER.point, [], proof))
        yield Ground(chain.url, net, files, _activate(net), directory)


def _activate(net: Network) -> Manifest:
    """Start an epoch with the scripted coordinator's keys and this test's parameters."""
    rules = n.parameters()
    net.admin.send(net.calls.propose_pair(MEASUREMENT, rules.digest()))
    net.rpc.call("evm_increaseTime", net.client.times().admin_delay_ms // 1000)
    net.rpc.call("evm_mine")
    block = net.client.block()
    manifest = msgspec.structs.replace(
        n.manifest(),
        chain_id=net.deployment.chain_id,
        settlement=net.deployment.settlement,
        log_id=net.log_id,
        block=Block(number=block.number, hash=block.hash),
    )
    verdict = net.verdict(
        n.COORDINATOR, parameters_digest=rules.digest(), manifest_digest=manifest.digest()
    )
    signed = Signed.by(net.simulator, net.deployment.domain, verdict)
    net.admin.send(net.calls.activate(verdict, signed.signature))
    return manifest


def test_a_node_registers_and_moves_its_payout_wallet(ground: Ground) -> None:
    """By its own transaction, then by a signature that somebody else sends."""
    net, domain = ground.net, ground.net.deployment.domain
    keys = NodeKeys(SecretKey(b"\x0a" * 32), SecretKey(b"\x0b" * 32))
    with pytest.raises(NotRegistered):
        check_registered(keys, net.client)
    register(keys, WALLET, domain, net.calls, net.sender(keys.signing))
    assert check_registered(keys, net.client).payout == WALLET
    now = net.client.block().time_ms
    moved = relayed_registration(keys, n.STRANGER.address, domain, net.calls, net.client, now)
    relay = net.sender()
    relay.send(moved)
    assert check_registered(keys, net.client).next_payout == n.STRANGER.address
    with pytest.raises(Reverted):
        relay.send(moved)


def test_credit_is_paid_out_to_the_wallet(ground: Ground) -> None:
    """Totals follow the chain."""
    net = ground.net
    keys = NodeKeys(SecretKey(b"\x0c" * 32), SecretKey(b"\x0d" * 32))
    register(keys, b"\x0e" * 20, net.deployment.domain, net.calls, net.sender(keys.signing))
    before = totals(keys.address, [], net.client)
    assert (before.credited, before.paid, before.withdrawable) == (0, 0, 0)
    pay_out([keys.address], net.calls, net.sender().send)
    assert net.client.token_balance(b"\x0e" * 20) == 0


class NodeProcess:
    """`python -m node` on a configuration file."""

    def __init__(self, config: Path) -> None:
        self.output = config.with_suffix(".log")
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "node", "--config", str(config)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def end(self, how: signal.Signals) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(how)
        with trio.fail_after(60):
            return await trio.to_thread.run_sync(self.process.wait)

    @property
    def engines(self) -> list[int]:
        """Process ids of engines that it or an earlier run has started and that still run."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes()
            except OSError:
                continue
            if b"llamacpp_server" in words and str(self.output.parent).encode() in words:
                found.append(int(entry.parent.name))
        return found


@dataclass
class Network_:
    """The peers of a node process."""

    ground: Ground
    gateway: ScriptedGateway
    coordinator: ScriptedCoordinator
    config: Path
    tokenizer: Tokenizer
