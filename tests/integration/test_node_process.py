"""The node as a process: a real chain, the real engine; gateway and coordinator are scripted."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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
from pinaivu.manifest import Manifest
from pinaivu.messages import Completion, Offer
from pinaivu.p2p import wire
from pinaivu.p2p.host import open_host
from pinaivu.tokens import Tokenizer
from pinaivu.typed_data import Signed, signed_from_bytes
from tests.integration.chain_network import GENESIS_AGE_S, Network
from tests.integration.node_peers import (
    LOOPBACK,
    Conversation,
    ScriptedCoordinator,
    ScriptedGateway,
    activate_epoch,
    text_in,
)
from tests.integration.test_engine_llamacpp import REVISION, gguf_path
from tests.unit import node_support as n

pytestmark = [pytest.mark.chain, pytest.mark.engine]

MODEL = "smollm2-135m-instruct"
WALLET = bytes.fromhex("0fa11e7000000000000000000000000000000001")
KEYS = NodeKeys(signing=n.NODE, peer=n.NODE_PEER)
START_UP_S = 120.0
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
        """The log's active epoch."""
        return self.net.client.epoch_count(self.net.log_id)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A chain that knows model, gateway and coordinator, but not yet the node."""
    directory = tmp_path_factory.mktemp("node-process")
    began = int(time.time()) - GENESIS_AGE_S
    with (
        AnvilProcess(directory / "state.json", genesis_s=began) as chain,
        HttpRpc(chain.url) as rpc,
    ):
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
        yield Ground(chain.url, net, files, activate_epoch(net), directory)


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

    def engines(self) -> list[int]:
        """Ports of engines that this or an earlier run has started and that still answer."""
        ports = re.findall(r"llama\.cpp on port (\d+)", self.output.read_text())
        return [int(port) for port in ports if _answers(int(port))]


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@dataclass
class Peers:
    """The scripted peers of a node process, and its configuration."""

    ground: Ground
    gateway: ScriptedGateway
    coordinator: ScriptedCoordinator
    config: Path

    async def offer(self) -> Signed[Offer]:
        """The first offer of slots that comes from now on."""
        self.coordinator.offers.items.clear()
        return (await self.coordinator.offers.reach(1, within=START_UP_S))[0]

    async def dispatch(self, body: dict[str, Any], offer: Signed[Offer]) -> Conversation:
        """A job for an offer."""
        domain = self.ground.net.deployment.domain
        files = self.ground.files
        count = Tokenizer(files.tokenizer_json, files.chat_template).count_prompt(body)
        job = n.JobDraft(
            body=json.dumps(body).encode(),
            now_ms=time.time_ns() // 1_000_000,
            job_id=os.urandom(16),
            max_output_tokens=body["max_tokens"],
            domain=domain,
        )
        return await self.gateway.dispatch(
            job,
            offer.digest(domain),
            log_id=self.ground.net.log_id,
            epoch=self.ground.epoch,
            prompt_tokens=count,
        )


@asynccontextmanager
async def peers(ground: Ground, directory: Path) -> AsyncIterator[Peers]:
    """Gateway, coordinator and the log's directory on loopback."""
    async with (
        trio.open_nursery() as nursery,
        open_host(n.GATEWAY_PEER.secret, [LOOPBACK]) as gateway,
        open_host(n.COORDINATOR_PEER.secret, [LOOPBACK]) as coordinator,
    ):
        entry = {
            "number": ground.epoch,
            "manifest": ground.manifest.to_json(),
            "parameters": n.parameters().to_json(),
            "document": "",
        }
        document = {"epochs": [entry], "addresses": coordinator.addresses()}
        answer = partial(_answer, json.dumps(document).encode())
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        config = _configure(ground, directory, port, gateway.addresses()[0])
        yield Peers(ground, ScriptedGateway(gateway), ScriptedCoordinator(coordinator), config)
        nursery.cancel_scope.cancel()


async def _answer(body: bytes, stream: trio.SocketStream) -> None:
    """One HTTP answer, whatever was asked."""
    await stream.receive_some(65536)
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    await stream.send_all(head.encode() + body)


def _configure(ground: Ground, directory: Path, port: int, gateway: str) -> Path:
    state = directory / "state"
    state.mkdir(exist_ok=True)
    for name, key in (("node.key", n.NODE), ("peer.key", n.NODE_PEER)):
        path = state / name
        path.write_text(key.secret.hex())
        path.chmod(0o600)
    gguf = gguf_path()
    model = {
        "name": MODEL,
        "files": str(ground.directory / "files"),
        "weights": str(gguf.parent),
        "price_out": n.PRICE,
        "measure": {"runs": 1, "tokens": 16},
        "engine": {"kind": "llamacpp", "gguf": str(gguf), "slots": 2, "context_tokens": 1024},
    }
    config = {
        "state": "state",
        "chain": {
            "rpc": ground.rpc_url,
            "deployment": str(ground.directory / "deployment.json"),
        },
        "logs": [{"log_id": "0x" + ground.net.log_id.hex(), "url": f"http://127.0.0.1:{port}"}],
        "gateways": [gateway],
        "models": [model],
        "drain_s": 0,
    }
    path = directory / "node.json"
    path.write_text(json.dumps(config))
    return path


async def test_an_unregistered_node_says_what_to_do(ground: Ground, tmp_path: Path) -> None:
    """And ends with code 2, before any engine is started."""
    async with peers(ground, tmp_path) as here:
        other = tmp_path / "state" / "node.key"
        other.write_text(n.STRANGER.secret.hex())
        node = NodeProcess(here.config)
        with trio.fail_after(60):
            assert await trio.to_thread.run_sync(node.process.wait) == 2
        assert "pinaivu node register" in node.output.read_text().splitlines()[-1]


async def test_a_node_serves_survives_sigkill_and_stops_in_order(
    ground: Ground, tmp_path: Path
) -> None:
    """A real answer; SIGKILL in mid-stream; no second run; what is owed comes; SIGTERM is 0."""
    net = ground.net
    if net.client.node(n.NODE.address) is None:
        register(KEYS, WALLET, net.deployment.domain, net.calls, net.sender(n.NODE))
    async with peers(ground, tmp_path) as here:
        node = NodeProcess(here.config)
        try:
            offer = await here.offer()
            assert (offer.message.slots, offer.message.context_tokens) == (2, 1024)
            assert offer.message.tps_milli > 1000
            here.coordinator.refusal = _refuse_completions
            owed = await _answered(here, offer)
            story = await here.dispatch(STORY, offer)
            assert isinstance(await story.next(), wire.Chunk)
            story.ack(1)
            assert isinstance(await story.next(), wire.Chunk)
            assert await node.end(signal.SIGKILL) == -signal.SIGKILL

            here.coordinator.refusal = lambda _: None
            here.coordinator.completions.items.clear()
            node = NodeProcess(here.config)
            offer = await here.offer()
            (again,) = await here.coordinator.completions.reach(1)
            assert again == owed
            replay = await here.gateway.send(
                story.job, story.award, story.job.dispatch(story.award)
            )
            last = await replay.next()
            assert isinstance(last, wire.NodeRefused)
            assert last.reason == Reason.REFUSED
            await _answered(here, offer)
            assert len(node.engines()) == 1, "the killed node's engine is gone"
            assert await node.end(signal.SIGTERM) == 0
            assert node.engines() == []
            assert here.coordinator.offers.items[-1].message.slots == 0
        finally:
            await node.end(signal.SIGKILL)


def _refuse_completions(frame: wire.NodeToCoordinator) -> wire.Refused | None:
    if isinstance(frame, wire.PutCompletion):
        return wire.Refused("unavailable", "the database is away")
    return None


async def _answered(here: Peers, offer: Signed[Offer]) -> Signed[Completion]:
    """A short job is answered by the model; its completion, as the gateway got it."""
    talk = await here.dispatch(SHORT, offer)
    frames = await talk.rest()
    assert isinstance(frames[-1], wire.End)
    completion = signed_from_bytes(Completion, frames[-1].completion)
    completion.require(here.ground.net.deployment.domain, n.NODE.address)
    assert completion.message.end_byte == len(text_in(frames).encode())
    assert 6 <= completion.message.output_tokens <= 8
    return completion
