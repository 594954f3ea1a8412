# ruff: noqa: D102 - doubles implement methods that are documented where they belong
"""Who is who, by the chain: what a coordinator publishes is believed only where it hashes right."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
import trio.testing

from gateway.config import ModelFiles
from gateway.network import (
    ChainRegistry,
    ForgedManifest,
    LogServer,
    LogUnreachable,
    load_models,
)
from gateway.places import NoPlace, Places
from gateway.ports import UnknownParty
from pinaivu.chain.errors import ChainUnavailable
from pinaivu.chain.records import (
    Anchor,
    EpochRecord,
    LogState,
    ModelRecord,
    NodeRecord,
    PairRecord,
)
from pinaivu.codes import Feature
from pinaivu.encoding import to_hex
from pinaivu.errors import Misconfigured
from pinaivu.keys import SecretKey, peer_id_of_point
from pinaivu.manifest import Block, Manifest
from tests.unit.gateway_facts import EPOCH, FINGERPRINT, LOG, MODEL, NODE, NOW, model, rules
from tests.unit.tiny_tokenizer import TEMPLATE, tiny_tokenizer_json

PEER = SecretKey(b"\x09" * 32)
ADDRESS = f"/ip4/127.0.0.1/tcp/4001/p2p/{peer_id_of_point(PEER.point)}"


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "chain_id": 31337,
        "settlement": b"\x51" * 20,
        "receipt_log": b"\x52" * 20,
        "enclave_registry": b"\x53" * 20,
        "node_registry": b"\x54" * 20,
        "model_registry": b"\x55" * 20,
        "log_id": LOG,
        "code_version": "test",
        "signing_key": EPOCH.compressed,
        "note_key": b"\x56" * 32,
        "peer_key": PEER.compressed,
        "parameters_digest": rules().digest(),
        "block": Block(number=1, hash=b"\x57" * 32),
    }
    return Manifest(**fields | changes)


def record(of: Manifest, **changes: Any) -> EpochRecord:
    found = EpochRecord(
        log_id=LOG,
        number=2,
        key=EPOCH.address,
        activated_at_ms=NOW,
        expires_at_ms=NOW + 10**9,
        pair=1,
        revoked_at_ms=0,
        block_number=1,
        document_ms=NOW,
        manifest_digest=of.digest(),
        payload_digest=bytes(32),
    )
    return replace(found, **changes)


@dataclass
class DictChain:
    """A chain client that answers from dictionaries."""

    active: EpochRecord | None = None
    epochs: dict[int, EpochRecord] = field(default_factory=dict)
    nodes: dict[bytes, NodeRecord] = field(default_factory=dict)
    models: dict[str, ModelRecord] = field(default_factory=dict)
    down: bool = False
    reads: int = 0
    anchors: dict[int, Anchor] = field(default_factory=dict)
    settled: int = 0
    asked_at: set[int] = field(default_factory=set)

    def head(self) -> int:
        return 100

    def log_state(self, log_id: bytes, block: int) -> LogState:
        assert log_id == LOG
        self.asked_at.add(block)
        return LogState(self.settled, 0, 0, 0, 0)

    def anchor(self, log_id: bytes, sequence: int, block: int) -> Anchor:
        assert log_id == LOG
        self.asked_at.add(block)
        return self.anchors[sequence]

    def active_epoch(self, log_id: bytes) -> EpochRecord | None:
        assert log_id == LOG
        return self.active

    def pair_at(self, index: int) -> PairRecord:
        return PairRecord(index, b"\x3e" * 32, b"\x9a" * 32, 0, 0)

    def epoch(self, log_id: bytes, number: int) -> EpochRecord | None:
        assert log_id == LOG
        return self.epochs.get(number)

    def node(self, node: bytes) -> NodeRecord | None:
        self.reads += 1
        if self.down:
            raise ChainUnavailable("down")
        return self.nodes.get(node)

    def model(self, name: str) -> ModelRecord | None:
        return self.models.get(name)


def served(document: object, status: int = 200) -> LogServer:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json=document)

    return serving(answer, configured())


def serving(answer: Callable[[httpx.Request], httpx.Response], places: Places) -> LogServer:
    return LogServer(httpx.AsyncClient(transport=httpx.MockTransport(answer)), places)


def configured(address: str | None = None) -> Places:
    return Places(LOG, lambda _: (), url="http://log/", coordinator=address)


def registry(chain: DictChain, document: object, address: str | None = None) -> ChainRegistry:
    return ChainRegistry(chain, LOG, served(document), configured(address))  # type: ignore[arg-type]


def published(of: Manifest, **changes: Any) -> dict[str, Any]:
    epoch = {"number": 2, "manifest": of.to_json(), "parameters": rules().to_json()} | changes
    return {"addresses": ["/ip4/192.0.2.1/tcp/1/p2p/16Uiu2HAmOld", ADDRESS], "epochs": [epoch]}


async def test_active_epoch_is_read_from_chain_and_manifest() -> None:
    found = registry(DictChain(record(manifest())), published(manifest()))
    epoch = await found.epoch()
    assert (epoch.number, epoch.signer, epoch.parameters) == (2, EPOCH.address, rules())
    assert await found.coordinator_address() == ADDRESS


async def test_configured_address_gets_the_attested_peer_id() -> None:
    chain = DictChain(record(manifest()))
    found = registry(chain, published(manifest()), "/ip4/198.51.100.1/tcp/7")
    assert (
        await found.coordinator_address()
        == f"/ip4/198.51.100.1/tcp/7/p2p/{(await found.epoch()).peer}"
    )


def on_chain(said: list[tuple[str, ...]], *, private: bool = False) -> Places:
    """Places that the chain names: each reading gets the next of `said`, the last one for ever."""

    def read(log_id: bytes) -> tuple[str, ...]:
        assert log_id == LOG
        return said.pop(0) if len(said) > 1 else said[0]

    return Places(LOG, read, private=private)


def peer_of(bare: str) -> str:
    return f"{bare}/p2p/{peer_id_of_point(PEER.point)}"


async def test_a_log_is_found_and_followed_where_the_chain_says() -> None:
    """Asked before each dial; several places take turns, what the coordinator says is the last."""
    before = ("https://old.example", "/ip4/8.8.8.8/tcp/1", "/ip4/10.0.0.1/tcp/22")
    after = ("https://new.example", "/ip4/8.8.4.4/tcp/2")
    asked = list[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(200, json=document)

    document = published(manifest()) | {"addresses": [peer_of("/dns/own.example/tcp/3"), ADDRESS]}
    places = on_chain([before, before, after])
    chain: Any = DictChain(record(manifest()))
    found = ChainRegistry(chain, LOG, serving(answer, places), places)
    assert [await found.coordinator_address() for _ in range(3)] == [
        peer_of("/ip4/8.8.8.8/tcp/1"),
        peer_of("/dns/own.example/tcp/3"),
        peer_of("/ip4/8.8.4.4/tcp/2"),
    ]
    assert asked == ["old.example", "old.example", "new.example"]


async def test_what_may_not_be_read_is_not_read() -> None:
    """A registry that names private doors, or nothing at all, says what is missing."""
    for said in ((), ("http://169.254.169.254", "/ip4/8.8.8.8/tcp/1")):
        with pytest.raises(NoPlace, match="operator"):
            await on_chain([said]).urls()
    assert await on_chain([("http://127.0.0.1:1",)], private=True).urls() == ("http://127.0.0.1:1",)


async def test_a_server_that_fails_or_floods_does_not_hide_the_next() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "down.example":
            raise httpx.ConnectError("refused", request=request)
        flood = request.url.host == "flood.example"
        return httpx.Response(200, content=bytes(5 << 20) if flood else b"{}")

    said = ("https://down.example", "https://flood.example", "https://log.example")
    assert await serving(answer, on_chain([said])).document("/x", dict) == {}
    with pytest.raises(LogUnreachable, match="longer"):
        await serving(answer, on_chain([said[:2]])).document("/x", dict)


@pytest.mark.parametrize(
    "said",
    [
        b"<html>",
        b"5",
        b'{"epochs": 5}',
        b'{"epochs": ["x"]}',
        b'{"epochs": [{"number": 2, "manifest": 5}]}',
        b'{"epochs": [], "addresses": 7}',
        b'{"epochs": [], "addresses": ["\xff"]}',
        b'{"epochs": [{"number": 2, "manifest": %s1%s}]}' % (b"[" * 5000, b"]" * 5000),
    ],
)
async def test_what_is_no_directory_is_the_logs_fault(said: bytes) -> None:
    """Whoever answers at a log's address: it is said, and the gateway goes on."""
    log = serving(lambda _: httpx.Response(200, content=said), configured())
    found = ChainRegistry(DictChain(record(manifest())), LOG, log, configured())  # type: ignore[arg-type]
    with pytest.raises((LogUnreachable, ForgedManifest)):
        await found.refresh()
    with pytest.raises(LogUnreachable):
        await log.settlement(bytes(20), "id")


OTHERS_RULES = msgspec.structs.replace(rules(), fee_bps=9_999)


@pytest.mark.parametrize(
    ("chain_record", "document"),
    [
        (record(manifest()), published(manifest(note_key=b"\x01" * 32))),
        (record(manifest(log_id=bytes(32))), published(manifest(log_id=bytes(32)))),
        (record(manifest()), published(manifest(), parameters=OTHERS_RULES.to_json())),
        (record(manifest(), key=NODE.address), published(manifest())),
        (record(manifest()), published(manifest(), manifest={"version": 1})),
    ],
    ids=["another manifest", "another log", "other parameters", "another key", "no manifest"],
)
async def test_manifest_that_the_chain_does_not_hold_is_refused(
    chain_record: EpochRecord, document: dict[str, Any]
) -> None:
    with pytest.raises(ForgedManifest):
        await registry(DictChain(chain_record), document).refresh()


async def test_coordinator_that_is_not_there_yet_is_waited_for() -> None:
    with pytest.raises(LogUnreachable, match="no active epoch"):
        await registry(DictChain(), published(manifest())).refresh()
    with pytest.raises(LogUnreachable, match="does not publish"):
        await registry(DictChain(record(manifest())), {"epochs": []}).refresh()


async def test_signer_of_a_revoked_or_unknown_epoch_is_nobody() -> None:
    chain = DictChain(epochs={1: record(manifest()), 2: record(manifest(), revoked_at_ms=NOW)})
    found = registry(chain, {})
    assert await found.signer(1) == EPOCH.address
    for number in (2, 3):
        with pytest.raises(UnknownParty):
            await found.signer(number)


async def test_nodes_peer_is_the_registered_one_and_outlives_the_chain() -> None:
    node = NodeRecord(NODE.address, bytes(20), bytes(20), 0, NOW, PEER.point)
    chain = DictChain(nodes={NODE.address: node})
    found = registry(chain, {})
    assert await found.node_peer(NODE.address) == peer_id_of_point(PEER.point)
    chain.down = True
    assert await found.node_peer(NODE.address) == peer_id_of_point(PEER.point)
    assert chain.reads == 1
    with pytest.raises(ChainUnavailable):
        await found.node_peer(EPOCH.address)
    chain.down = False
    with pytest.raises(UnknownParty):
        await found.node_peer(EPOCH.address)


async def test_settlement_is_looked_up_among_receipts_of_one_id() -> None:
    """Another gateway may have used the same id."""

    def entry(gateway: bytes, state: str) -> dict[str, Any]:
        return {
            "receipt": {"message": {"gateway": to_hex(gateway)}},
            "settlement": {"state": state},
        }

    log = served({"receipts": [entry(b"\x01" * 20, "final"), entry(b"\x02" * 20, "mined")]})
    assert await log.settlement(b"\x02" * 20, "id") == {"state": "mined"}
    assert await served({}, 404).settlement(b"\x02" * 20, "id") == {"state": "logged"}
    assert await served({}, 404).bundle(b"\x02" * 20, "id") is None
    with pytest.raises(LogUnreachable, match="503"):
        await served({}, 503).bundle(b"\x02" * 20, "id")


def files(folder: Path, tokenizer: bytes) -> list[ModelFiles]:
    (folder / "tokenizer.json").write_bytes(tokenizer)
    (folder / "template.jinja").write_text(TEMPLATE)
    return [
        ModelFiles(
            name=MODEL,
            tokenizer_file=folder / "tokenizer.json",
            chat_template_file=folder / "template.jinja",
        )
    ]


def test_models_are_loaded_where_the_registry_names_their_tokenizer(tmp_path: Path) -> None:
    chain = DictChain(
        models={MODEL: ModelRecord(FINGERPRINT, model().tokenizer.digest, 250_000, 2048)}
    )
    (loaded,) = load_models(chain, files(tmp_path, tiny_tokenizer_json())).values()  # type: ignore[arg-type]
    assert (loaded.fingerprint, loaded.context_tokens) == (FINGERPRINT, 2048)
    changed = json.dumps(json.loads(tiny_tokenizer_json()), indent=1).encode()
    with pytest.raises(Misconfigured, match="use the registered files"):
        load_models(chain, files(tmp_path, changed))  # type: ignore[arg-type]
    with pytest.raises(Misconfigured, match="not in the model registry"):
        load_models(DictChain(), files(tmp_path, b""))  # type: ignore[arg-type]
    missing = [files(tmp_path, b"")[0].model_copy(update={"tokenizer_file": tmp_path / "no"})]
    with pytest.raises(Misconfigured, match="can't read"):
        load_models(chain, missing)  # type: ignore[arg-type]


STANDING = {
    "model": "m",
    "nodes": 2,
    "slots": 3,
    "price_out": {"cheapest": 4, "median": 5},
    "context_tokens": 9,
    "features": [{"bits": int(Feature.KIND_CHAT | Feature.TOOLS), "nodes": 2}],
}


async def test_what_stands_on_offer_is_asked_once_in_a_while(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    """The log's word, believed for seconds; nothing offered is an answer, too."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        known = request.url.path == "/market/org/m"
        return httpx.Response(200, json=STANDING) if known else httpx.Response(404)

    log = serving(answer, configured())
    for _ in range(2):
        found = await log.market("org/m")
        assert found is not None
        assert (found.nodes, found.price_out.median) == (2, 5)
        assert await log.market("other") is None
    assert asked == ["/market/org/m", "/market/other"]
    await trio.sleep(4)
    await log.market("org/m")
    assert len(asked) == 3
    needed = Feature.KIND_CHAT | Feature.TOOLS | Feature.CHOICES
    assert found is not None
    assert found.missing(needed) == Feature.CHOICES


@pytest.mark.parametrize("document", [{"nodes": "many"}, {}])
async def test_a_market_that_is_none_is_not_believed(document: dict[str, Any]) -> None:
    with pytest.raises(LogUnreachable):
        await served(document or {"model": "m"}).market("m")


async def test_final_is_what_the_chain_says_at_a_final_block() -> None:
    """Another sequence, another range of leaves, or a block too young: not final."""
    chain = DictChain(record(manifest()))
    found = registry(chain, published(manifest()))
    chain.anchors = {1: Anchor(LOG, 1, 0, 10, bytes(32), bytes(32))}
    chain.settled = 1
    assert await found.settles(1, 0)
    assert await found.settles(1, 9)
    assert not await found.settles(1, 10)
    assert not await found.settles(2, 0)
    assert chain.asked_at == {chain.head() - rules().finality_blocks}
