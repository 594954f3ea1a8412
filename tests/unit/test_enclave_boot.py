"""Birth of an epoch in one process: entropy, manifest, attestation, and the block they name."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from enclave.blocks import JsonRpcBlocks
from enclave.boot import birth, mixed_random
from enclave.nsm import NsmDescription
from enclave.options import Deployment
from enclave.simulator.nsm import SimulatedNsm
from pinaivu.attestation import Live, binding_of
from pinaivu.attestation.simulated import verify_simulated
from pinaivu.epoch_identity import EpochIdentity
from pinaivu.errors import Misconfigured, TransportFailure
from pinaivu.manifest import Block, local_development_parameters

NOW_MS = 1_790_000_000_000
CHAIN_ID = 31337
PARAMETERS = local_development_parameters("http://127.0.0.1:1")
DEPLOYMENT = Deployment(
    chain_id=CHAIN_ID,
    settlement=b"\1" * 20,
    receipt_log=b"\2" * 20,
    enclave_registry=b"\3" * 20,
    node_registry=b"\4" * 20,
    model_registry=b"\5" * 20,
    log_id=b"\6" * 32,
)
Random = Callable[[int], bytes]


class FixedBlocks:
    """A chain that stands still."""

    def latest(self) -> Block:
        """The only block."""
        return Block(number=5, hash=b"\7" * 32)


class CountingRandom:
    """Repeatable bytes that differ from draw to draw."""

    def __init__(self, start: int = 0) -> None:
        self._drawn = start

    def __call__(self, count: int) -> bytes:
        """The next draw."""
        self._drawn += 1
        return self._drawn.to_bytes(count)


class DebugModeNsm:
    """Stands for the module of an enclave started with --debug-mode: registers of zeros."""

    def describe(self) -> NsmDescription:
        """Not to be asked."""
        raise NotImplementedError

    def random(self, count: int) -> bytes:
        """Not to be asked: no key may be drawn."""
        raise NotImplementedError

    def pcrs(self) -> Mapping[int, bytes]:
        """Zeros, as AWS has it."""
        return dict.fromkeys(range(16), bytes(48))

    def attest(
        self, *, public_key: bytes | None, user_data: bytes | None, nonce: bytes | None
    ) -> bytes:
        """Not to be asked."""
        raise NotImplementedError


def simulator(random: Random = bytes) -> SimulatedNsm:
    return SimulatedNsm(now_ms=lambda: NOW_MS, random=random)


def born(nsm_random: Random, system_random: Random) -> EpochIdentity:
    return birth(
        nsm=simulator(nsm_random),
        blocks=FixedBlocks(),
        deployment=DEPLOYMENT,
        parameters=PARAMETERS,
        system_random=system_random,
    )


def test_the_manifest_names_the_deployment_the_keys_and_the_block() -> None:
    identity = born(CountingRandom(), CountingRandom())
    manifest = identity.manifest
    assert (manifest.chain_id, manifest.log_id) == (CHAIN_ID, b"\6" * 32)
    assert (manifest.settlement, manifest.receipt_log) == (b"\1" * 20, b"\2" * 20)
    assert (manifest.enclave_registry, manifest.node_registry) == (b"\3" * 20, b"\4" * 20)
    assert manifest.model_registry == b"\5" * 20
    assert manifest.signing_key == identity.signing_secret.compressed
    assert manifest.peer_key == identity.peer_secret.compressed
    assert manifest.note_key == identity.note_public
    assert manifest.parameters_digest == PARAMETERS.digest()
    assert manifest.block == Block(number=5, hash=b"\7" * 32)


@pytest.mark.filterwarnings("ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning")
def test_the_document_attests_exactly_this_manifest() -> None:
    identity = born(CountingRandom(), CountingRandom())
    verify_simulated(
        identity.document, time=Live(now_ms=NOW_MS), binding=binding_of(identity.manifest)
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((bytes, CountingRandom()), (bytes, CountingRandom(100))),
        ((CountingRandom(), bytes), (CountingRandom(100), bytes)),
    ],
    ids=["module's source stuck", "system's source stuck"],
)
def test_one_stuck_source_does_not_repeat_keys(
    first: tuple[Random, Random], second: tuple[Random, Random]
) -> None:
    one, other = born(*first), born(*second)
    secrets = {
        secret
        for identity in (one, other)
        for secret in (
            identity.signing_secret.secret,
            identity.peer_secret.secret,
            identity.note_secret,
        )
    }
    assert len(secrets) == 6


def test_mixed_bytes_depend_on_both_sources_and_have_the_length_asked_for() -> None:
    both = mixed_random(simulator(bytes), bytes)(32)
    assert len(both) == 32
    assert both != mixed_random(simulator(lambda count: b"\1" * count), bytes)(32)
    assert both != mixed_random(simulator(bytes), lambda count: b"\1" * count)(32)


def test_debug_mode_ends_boot_before_a_key_is_drawn() -> None:
    with pytest.raises(Misconfigured, match="--debug-mode"):
        birth(
            nsm=DebugModeNsm(),
            blocks=FixedBlocks(),
            deployment=DEPLOYMENT,
            parameters=PARAMETERS,
            system_random=bytes,
        )


def rpc(answers: dict[str, Any]) -> httpx.MockTransport:
    """A server with one answer per method; blocks are hashed by their number."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "down":
            raise httpx.ConnectError("refused")
        asked = json.loads(request.content)
        if asked["method"] == "eth_getBlockByNumber" and "block" not in answers:
            number = int(asked["params"][0], 16)
            return httpx.Response(200, json={"result": {"hash": f"0x{number:064x}"}})
        return httpx.Response(200, json={"result": answers.get(asked["method"])})

    return httpx.MockTransport(answer)


def blocks(*urls: str, finality_blocks: int = 0, **answers: Any) -> JsonRpcBlocks:
    known = {"eth_chainId": hex(CHAIN_ID), "eth_blockNumber": "0x10", **answers}
    return JsonRpcBlocks(
        urls or ("http://up",),
        chain_id=CHAIN_ID,
        finality_blocks=finality_blocks,
        transport=rpc(known),
    )


@pytest.mark.parametrize(("finality_blocks", "number"), [(0, 16), (6, 10), (17, 0)])
def test_the_block_read_is_final_and_never_below_the_first(
    finality_blocks: int, number: int
) -> None:
    found = blocks(finality_blocks=finality_blocks).latest()
    assert found == Block(number=number, hash=number.to_bytes(32))


def test_the_next_server_is_asked_when_one_is_down() -> None:
    assert blocks("http://down", "http://up").latest().number == 16


def test_all_servers_down_names_them() -> None:
    with pytest.raises(TransportFailure, match="http://down"):
        blocks("http://down").latest()


def test_another_chain_is_a_misconfiguration() -> None:
    with pytest.raises(Misconfigured, match="chain 1,"):
        blocks(eth_chainId="0x1").latest()


@pytest.mark.parametrize(
    "answers",
    [
        {"eth_blockNumber": None},
        {"eth_blockNumber": "head"},
        {"block": True, "eth_getBlockByNumber": None},
        {"block": True, "eth_getBlockByNumber": {"hash": "0x00"}},
    ],
)
def test_useless_answers_are_transport_failures(answers: dict[str, Any]) -> None:
    with pytest.raises(TransportFailure):
        blocks(**answers).latest()
