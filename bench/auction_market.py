"""The parties of the auction bench: keys, chain records, and what they sign.

Prices and promises are spread as a market's are; every run has the same ones.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from coordinator.ports import (
    AnchorRecord,
    EpochRecord,
    LogFunds,
    ModelRecord,
    NodeRecord,
    PayerRecord,
)
from pinaivu.codes import Feature, JobKind, Mode
from pinaivu.commitments import AckChain
from pinaivu.fields import MAX_U64, MAX_U128
from pinaivu.keys import SecretKey
from pinaivu.manifest import local_development_parameters
from pinaivu.merkle.hashing import EMPTY_ROOT
from pinaivu.messages import Bid, Grant, Job, Offer
from pinaivu.p2p import wire
from pinaivu.p2p.host import Liveness
from pinaivu.typed_data import Domain, Signed

DOMAIN: Final = Domain(31337, b"\x51" * 20)
LOG: Final = b"\x11" * 32
MODEL: Final = "bench/model"
RULES: Final = local_development_parameters("http://127.0.0.1:8545")
RECORD: Final = ModelRecord(b"\x22" * 32, 250_000, b"\x07" * 32, 16_384)
PATIENT: Final = Liveness(ping_after=1.0, answer_within=60.0)
"""Pings as in service; but where the machine is too busy to answer, no connection is given up."""

_SLOTS: Final = 8


def key_of(label: str, number: int = 0) -> SecretKey:
    """A key that is the same in every run."""
    return SecretKey(sha256(f"auction bench {label} {number}".encode()).digest())


PAYER: Final = key_of("payer")
GATEWAY: Final = key_of("gateway")
EPOCH: Final = key_of("epoch")


def drawn(label: str, number: int, low: int, high: int) -> int:
    """A number between two that follows from a label: spread out, the same in every run."""
    seed = sha256(f"{label} {number}".encode()).digest()
    return low + int.from_bytes(seed[:8]) % (high - low + 1)


def record_of(node: SecretKey) -> NodeRecord:
    """A node's registration."""
    return NodeRecord(node.address, b"\xee" + node.address[1:], node.point, bytes(20))


def offer(node: SecretKey, number: int, sequence: int, now_ms: int) -> Signed[Offer]:
    """A node's standing offer."""
    made = Offer(
        log_id=LOG,
        node=node.address,
        fingerprint=RECORD.fingerprint,
        features=Feature.KIND_CHAT,
        context_tokens=RECORD.context_tokens,
        price_out=drawn("price", number, 300_000, 1_000_000),
        ttft_ms=drawn("ttft", number, 80, 800),
        tps_milli=drawn("tps", number, 20_000, 120_000),
        slots=_SLOTS,
        sequence=sequence,
        issued_ms=now_ms,
        expires_ms=now_ms + RULES.offer_ttl_ms,
        model=MODEL,
    )
    return Signed.by(node, DOMAIN, made)


def bid(node: SecretKey, standing: Offer, call: wire.AuctionCall) -> Signed[Bid]:
    """A tenth below the standing offer."""
    made = Bid(
        job_digest=call.job_digest,
        nonce=call.nonce,
        offer_digest=call.offer_digest,
        node=node.address,
        price_out=standing.price_out * 9 // 10,
        ttft_ms=standing.ttft_ms,
        tps_milli=standing.tps_milli,
    )
    return Signed.by(node, DOMAIN, made)


def grant() -> Signed[Grant]:
    """The payer's grant to the gateway."""
    made = Grant(
        log_id=LOG,
        payer=PAYER.address,
        gateway=GATEWAY.address,
        grant_epoch=0,
        max_total=10**14,
        max_per_job=10**8,
        max_per_day=10**14,
        max_price_in=10**8,
        max_price_out=10**8,
        not_before_ms=0,
        not_after_ms=MAX_U64,
        salt=bytes(32),
        models=(),
    )
    return Signed.by(PAYER, DOMAIN, made)


def job(number: int, mode: Mode, now_ms: int) -> Signed[Job]:
    """A job of ordinary size; its ids never repeat."""
    job_id = now_ms.to_bytes(6) + b"\x70\x00\x80" + number.to_bytes(7)
    chains = [AckChain(job_id, rank, 512, sha256(job_id).digest()) for rank in (1, 2, 3)]
    made = Job(
        log_id=LOG,
        job_id=job_id,
        gateway=GATEWAY.address,
        grant_digest=grant().digest(DOMAIN),
        account=bytes(32),
        account_limit=MAX_U128,
        kind=JobKind.CHAT,
        fingerprint=bytes(32),
        features=Feature.KIND_CHAT,
        prompt_tokens=900,
        max_output_tokens=512,
        max_price_in=10**8,
        max_price_out=10**8,
        max_cost=10**6,
        value_of_time=MAX_U64,
        mode=mode,
        session=bytes(32),
        request_commitment=b"\x66" * 32,
        created_ms=now_ms,
        deadline_ms=now_ms + 60_000,
        model=MODEL,
        allow=(),
        deny=(),
        anchors=tuple(chain.anchor for chain in chains),
    )
    return Signed.by(GATEWAY, DOMAIN, made)


class FixedChain:
    """A `ChainView` in memory: reading a chain over RPC is not measured."""

    def __init__(self, nodes: int) -> None:
        keys = [key_of("node", number) for number in range(nodes)]
        self._nodes = {key.address: record_of(key) for key in keys}

    def domain(self) -> Domain:
        """The bench's."""
        return DOMAIN

    def block_number(self) -> int:
        """Any."""
        return 7

    def node(self, node: bytes) -> NodeRecord | None:
        """One of the bench's nodes."""
        return self._nodes.get(node)

    def gateway_peer(self, gateway: bytes) -> bytes | None:
        """The one gateway's."""
        return GATEWAY.point if gateway == GATEWAY.address else None

    def model(self, model: str) -> ModelRecord | None:
        """The one model."""
        return RECORD if model == MODEL else None

    def payer(self, payer: bytes) -> PayerRecord:
        """Money without end."""
        assert payer == PAYER.address
        return PayerRecord(LOG, 10**15, 0, 0)

    def anchor(self, log_id: bytes) -> AnchorRecord:
        """Nothing is settled."""
        assert log_id == LOG
        return AnchorRecord(0, 0, EMPTY_ROOT, bytes(32))

    def newest_anchor(self, log_id: bytes) -> AnchorRecord:
        """Nothing is settled."""
        return self.anchor(log_id)

    def anchor_of(self, log_id: bytes, sequence: int) -> AnchorRecord:
        """Nothing is settled."""
        assert sequence == 0
        return self.anchor(log_id)

    def debitable(self, log_id: bytes) -> int:
        """Without end."""
        assert log_id == LOG
        return 10**15

    def newest_funds(self, log_id: bytes, payers: Sequence[bytes]) -> LogFunds:
        """Without end."""
        return LogFunds(self.debitable(log_id), dict.fromkeys(payers, 10**15))

    def active_epoch(self, log_id: bytes) -> EpochRecord | None:
        """The first and only."""
        assert log_id == LOG
        return EpochRecord(1, EPOCH.address, MAX_U64)

    def epoch(self, log_id: bytes, number: int) -> EpochRecord | None:
        """The first and only."""
        return self.active_epoch(log_id) if number == 1 else None
