# ruff: noqa: D102 - doubles implement ports that document their methods
"""What the tests of the node share: keys, a chain held in dictionaries, models, signed awards."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
import trio

from node.checks import Gatekeeper
from node.engines.measure import EnginePromise
from node.gateways import Gateways
from node.logs import Epoch, LogWatch
from node.models import SERVED, ServedModel
from node.ports import Engine, Publication, Published
from node.pricing import FixedPrice, Pricing
from node.quotes import Quote, Quotes
from node.slots import Slots
from pinaivu.chain.records import (
    EpochRecord,
    GatewayRecord,
    ModelRecord,
    NodeCredit,
    NodeRecord,
    PairRecord,
)
from pinaivu.codes import Clearing, JobKind
from pinaivu.commitments import AckChain, Salts, request_commitment, request_digest
from pinaivu.encoding import parse_json
from pinaivu.keys import SecretKey, peer_id_of_point, point_of_compressed
from pinaivu.manifest import Block, Manifest, Parameters, local_development_parameters
from pinaivu.messages import Award, Offer
from pinaivu.p2p import PeerId, wire
from pinaivu.tokens import Tokenizer
from pinaivu.typed_data import Domain, Signed
from tests.unit.tiny_tokenizer import TEMPLATE, tiny_tokenizer_json

NOW = 1_790_000_000_000
DOMAIN = Domain(31337, b"\x51" * 20)
LOG = b"\x11" * 32
NODE = SecretKey(b"\x01" * 32)
NODE_PEER = SecretKey(b"\x02" * 32)
GATEWAY = SecretKey(b"\x03" * 32)
GATEWAY_PEER = SecretKey(b"\x04" * 32)
COORDINATOR = SecretKey(b"\x05" * 32)
COORDINATOR_PEER = SecretKey(b"\x06" * 32)
STRANGER = SecretKey(b"\x07" * 32)
MODEL = "tiny-chat"
FINGERPRINT = b"\x22" * 32
RATIO_PPM = 250_000
PRICE = 400_000
JOB_ID = bytes.fromhex("0190a0b0c0d07000800000000000000a")
BODY = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "The keeper's lamp isn't lit."}],
    "max_tokens": 100,
}


def peer_of(key: SecretKey) -> PeerId:
    """The peer id of a transport key."""
    return PeerId(peer_id_of_point(key.point))


@cache
def tokenizer() -> Tokenizer:
    """A real, small tokenizer."""
    return Tokenizer(tiny_tokenizer_json(), TEMPLATE)


def parameters() -> Parameters:
    """The parameters of every epoch in these tests."""
    return local_development_parameters("http://127.0.0.1:8545")


def manifest(signing: SecretKey = COORDINATOR, peer: SecretKey = COORDINATOR_PEER) -> Manifest:
    """The manifest of one boot of the coordinator."""
    return Manifest(
        chain_id=DOMAIN.chain_id,
        settlement=DOMAIN.settlement,
        receipt_log=b"\x52" * 20,
        enclave_registry=b"\x53" * 20,
        node_registry=b"\x54" * 20,
        model_registry=b"\x55" * 20,
        log_id=LOG,
        code_version="test",
        signing_key=signing.compressed,
        note_key=b"\x56" * 32,
        peer_key=peer.compressed,
        parameters_digest=parameters().digest(),
        block=Block(number=1, hash=b"\x57" * 32),
    )


def epoch_record(number: int, of: Manifest, signer: SecretKey = COORDINATOR) -> EpochRecord:
    """What the chain holds of an epoch activated with this manifest."""
    return EpochRecord(
        log_id=LOG,
        number=number,
        key=signer.address,
        activated_at_ms=NOW - 1000,
        expires_at_ms=NOW + 10**9,
        pair=1,
        revoked_at_ms=0,
        block_number=1,
        document_ms=NOW - 2000,
        manifest_digest=of.digest(),
        payload_digest=bytes(32),
    )


@dataclass
class DictChain:
    """The registries as dictionaries; counts how often gateways were looked up."""

    nodes: dict[bytes, NodeRecord] = field(default_factory=dict)
    gateways: dict[bytes, GatewayRecord] = field(default_factory=dict)
    models: dict[str, ModelRecord] = field(default_factory=dict)
    epochs: dict[int, EpochRecord] = field(default_factory=dict)
    active: int = 1
    credits: NodeCredit = field(default_factory=lambda: NodeCredit(0, 0))
    looks: int = 0
    parameters_digest: bytes = field(default_factory=lambda: parameters().digest())
    endpoints: tuple[str, ...] = ()

    def node(self, node: bytes) -> NodeRecord | None:
        return self.nodes.get(node)

    def gateway(self, gateway: bytes) -> GatewayRecord | None:
        self.looks += 1
        return self.gateways.get(gateway)

    def model(self, model: str) -> ModelRecord | None:
        return self.models.get(model)

    def active_epoch(self, log_id: bytes) -> EpochRecord | None:
        return self.epochs.get(self.active) if log_id == LOG else None

    def epoch(self, log_id: bytes, number: int) -> EpochRecord | None:
        return self.epochs.get(number) if log_id == LOG else None

    def log_endpoints(self, log_id: bytes) -> tuple[str, ...]:
        return self.endpoints if log_id == LOG else ()

    def pair_at(self, index: int) -> PairRecord:
        return PairRecord(index, b"\x58" * 32, self.parameters_digest, NOW - 9000, 0)

    def node_credits(self, nodes: Sequence[bytes]) -> list[NodeCredit]:
        return [self.credits for _ in nodes]


def chain() -> DictChain:
    """A chain that knows the node, the gateway and the coordinator's first epoch."""
    found = DictChain()
    found.nodes[NODE.address] = NodeRecord(
        NODE.address, b"\x61" * 20, bytes(20), 0, NOW - 5000, NODE_PEER.point
    )
    found.gateways[GATEWAY.address] = GatewayRecord(
        GATEWAY.address, GATEWAY_PEER.point, NOW - 5000, ()
    )
    found.models[MODEL] = model_record()
    found.epochs[1] = epoch_record(1, manifest())
    return found


def model_record() -> ModelRecord:
    """The registry's word on the model."""
    return ModelRecord(FINGERPRINT, tokenizer().digest, RATIO_PPM, 2048)


class DictDirectory:
    """A directory that says what it is told to, and counts how often it was asked."""

    def __init__(self, published: Published) -> None:
        self.published = published
        self.error: Exception | None = None
        self.reads = 0
        self.asked: list[str] = []
        self.by_url: dict[str, Published] = {}
        self._read = trio.Event()

    async def read_times(self, number: int) -> None:
        while self.reads < number:
            await self._read.wait()

    async def read(self, url: str) -> Published:
        assert url
        self.reads += 1
        self.asked.append(url)
        self._read.set()
        self._read = trio.Event()
        if self.error:
            raise self.error
        return self.by_url.get(url, self.published)


def published(
    number: int = 1, of: Manifest | None = None, address: str = "/ip4/127.0.0.1/tcp/4001"
) -> Published:
    """A directory of one epoch whose coordinator listens at `address`."""
    chosen = of or manifest()

    peer = peer_id_of_point(point_of_compressed(chosen.peer_key))
    return Published((Publication(number, chosen, parameters()),), (f"{address}/p2p/{peer}",))


def log_watch(found: DictChain | None = None) -> LogWatch:
    """A log that has been refreshed already."""
    watch = LogWatch(
        LOG,
        "http://log.test",
        domain=DOMAIN,
        chain=found or chain(),
        directory=DictDirectory(published()),
    )
    watch.current = Epoch(1, COORDINATOR.address, parameters(), ("/ip4/127.0.0.1/tcp/1",))
    return watch


class ListEngine:
    """An engine that answers with prepared batches; keeps the bodies it was asked with."""

    def __init__(self, batches: Sequence[Sequence[bytes]] = (), *, ready: bool = True) -> None:
        self.batches = batches
        self.ready = ready
        self.kinds: list[JobKind] = []
        self.bodies: list[dict[str, Any]] = []
        self.dropped = 0

    @asynccontextmanager
    async def stream(self, kind: JobKind, body: bytes) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        self.kinds.append(kind)
        self.bodies.append(msgspec.json.decode(body))
        try:
            yield self._events()
        except BaseException:
            self.dropped += 1
            raise

    async def _events(self) -> AsyncIterator[list[bytes]]:
        for batch in self.batches:
            yield list(batch)


def served_model(
    engine: Engine | None = None,
    *,
    slots: int = 2,
    pricing: Pricing | None = None,
    logs: Sequence[bytes] = (LOG,),
) -> ServedModel:
    """The model as the node serves it."""
    return ServedModel(
        name=MODEL,
        engine_name="tiny",
        record=model_record(),
        tokenizer=tokenizer(),
        engine=engine or ListEngine(),
        features=SERVED,
        context_tokens=2048,
        promise=EnginePromise(ttft_ms=100, tps_milli=50_000),
        price_out=PRICE,
        pricing=pricing or FixedPrice(),
        slots=Slots(slots, logs),
    )


def offer(now_ms: int = NOW, **changes: Any) -> Offer:
    """A standing offer of the node."""
    values = Offer(
        log_id=LOG,
        node=NODE.address,
        fingerprint=FINGERPRINT,
        features=int(SERVED),
        context_tokens=2048,
        price_out=PRICE,
        ttft_ms=100,
        tps_milli=50_000,
        slots=2,
        sequence=now_ms,
        issued_ms=now_ms,
        expires_ms=now_ms + 15_000,
        model=MODEL,
    )
    return msgspec.structs.replace(values, **changes)


@dataclass
class JobDraft:
    """One job as its gateway and coordinator make it; every part can be made wrong."""

    body: bytes = field(default_factory=lambda: msgspec.json.encode(BODY))
    salt_root: bytes = b"\x31" * 32
    last_preimage: bytes = b"\x32" * 32
    prefix: str = ""
    rank: int = 1
    max_output_tokens: int = 100
    now_ms: int = NOW
    job_id: bytes = JOB_ID
    domain: Domain = DOMAIN
    kind: JobKind = JobKind.CHAT

    @property
    def salts(self) -> Salts:
        return Salts(self.salt_root)

    @property
    def acks(self) -> AckChain:
        return AckChain(self.job_id, self.rank, self.max_output_tokens, self.last_preimage)

    def award(self, bid_digest: bytes, /, **changes: Any) -> Award:
        """The award that fits the job."""
        body = parse_json(self.body)
        assert isinstance(body, dict)
        values = Award(
            log_id=LOG,
            epoch=1,
            job_id=self.job_id,
            job_digest=b"\x33" * 32,
            gateway=GATEWAY.address,
            node=NODE.address,
            rank=self.rank,
            prior=bytes(32) if self.rank == 1 else b"\x36" * 32,
            bid_digest=bid_digest,
            clearing=int(Clearing.SECOND_SCORE),
            price_in=PRICE * RATIO_PPM // 10**6,
            price_out=PRICE,
            prompt_tokens=tokenizer().count_prompt(body, self.kind),
            max_output_tokens=self.max_output_tokens,
            max_amount=10**6,
            start_byte=len(self.prefix.encode()),
            request_commitment=request_commitment(self.salts.request, request_digest(body)),
            anchor=self.acks.anchor,
            nonce=b"\x34" * 32,
            bids_root=b"\x35" * 32,
            lease=bytes(32),
            awarded_ms=self.now_ms,
            expires_ms=self.now_ms + 60_000,
        )
        return msgspec.structs.replace(values, **changes)

    def dispatch(self, award: Award, signer: SecretKey = COORDINATOR) -> wire.Dispatch:
        """The dispatch of an award."""
        return wire.Dispatch(
            award=Signed.by(signer, self.domain, award).to_bytes(),
            body=self.body,
            salt_request=self.salts.request,
            salt_response=self.salts.response,
            salt_segment=self.salts.segment(self.rank),
            prefix=self.prefix,
            kind=int(self.kind),
        )


@dataclass
class Desk:
    """A gatekeeper with what it looks at, and one offer it remembers."""

    chain: DictChain = field(default_factory=chain)
    quotes: Quotes = field(default_factory=Quotes)
    engine: Engine = field(default_factory=ListEngine)
    now_ms: int = NOW

    def __post_init__(self) -> None:
        self.log = log_watch(self.chain)
        self.models = {MODEL: served_model(self.engine)}
        self.gatekeeper = Gatekeeper(
            NODE.address,
            DOMAIN,
            logs={LOG: self.log},
            gateways=Gateways(self.chain, lambda: self.now_ms),
            quotes=self.quotes,
            models=self.models,
            now_ms=lambda: self.now_ms,
        )
        self.bid_digest = self.quote(offer())

    def quote(self, made: Offer, price_out: int | None = None) -> bytes:
        """Remember an offer, or a bid below it; the digest an award names."""
        digest = Signed.by(NODE, DOMAIN, made).digest(DOMAIN)
        quote = Quote(digest, made, made.price_out if price_out is None else price_out)
        self.quotes.remember(quote, self.now_ms)
        return digest


def event(text: str | None = None, **choice: Any) -> bytes:
    """One streamed chunk."""
    delta = {} if text is None else {"content": text}
    return msgspec.json.encode({"choices": [{"index": 0, "delta": delta, **choice}]})


def answer_events(text: str, finish: str = "stop") -> list[list[bytes]]:
    """The batches in which an engine streams a text: role, word by word, finish, usage."""
    words = [f"{word} " for word in text.split(" ")]
    role = msgspec.json.encode({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
    count = tokenizer().count_text("".join(words))
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": count}}
    return [
        [role],
        *[[event(word)] for word in words],
        [event(finish_reason=finish)],
        [msgspec.json.encode(usage)],
    ]
