"""Who takes part in a made-up network, with keys that follow from a random source."""

from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from pinaivu.fields import MAX_U64, MAX_U96
from pinaivu.keccak import keccak
from pinaivu.keys import SecretKey
from pinaivu.manifest import Block, Manifest, Parameters, local_development_parameters
from pinaivu.messages import Grant, Log
from pinaivu.model_card import ModelCard, ModelFile
from pinaivu.testing.sources import SpaceCounter
from pinaivu.typed_data import Domain, Signed, digest

MODEL: Final = "made-up-model"
RATIO_PPM: Final = 250_000
CARD: Final = ModelCard(
    files=(ModelFile("model.gguf", b"\x01" * 32),),
    revision="r1",
    quantization="none",
    tokenizer_digest=SpaceCounter.digest,
    context_tokens=8192,
)
MODEL_KEY: Final = keccak(MODEL.encode())


class NodeParty(Struct, frozen=True):
    """A node's key, its wallet and its price."""

    key: SecretKey
    payout: bytes
    price_out: int


class Parties(Struct, frozen=True, kw_only=True):
    """Everybody but the coordinator."""

    domain: Domain
    log_id: bytes
    payer: SecretKey
    gateway: SecretKey
    nodes: tuple[NodeParty, ...]
    grant: Signed[Grant]


class EpochParty(Struct, frozen=True, kw_only=True):
    """One boot of the coordinator: its keys and what vouches for them."""

    number: int
    key: SecretKey
    note_secret: bytes
    manifest: Manifest
    parameters: Parameters
    document: bytes


def make_parties(
    domain: Domain, random: Callable[[int], bytes], now_ms: int, nodes: int = 5
) -> Parties:
    """Payer, gateway, so many nodes of rising price, and a grant that allows plenty."""
    payer, gateway, operator = (SecretKey.generate(random) for _ in range(3))
    bidders = tuple(
        NodeParty(SecretKey.generate(random), random(20), 100_000 + 75_000 * number // nodes)
        for number in range(nodes)
    )
    log_id = digest(domain, Log(operator=operator.address, number=0))
    grant = Grant(
        log_id=log_id,
        payer=payer.address,
        gateway=gateway.address,
        grant_epoch=0,
        max_total=10**12,
        max_per_job=10**9,
        max_per_day=10**11,
        max_price_in=10**6,
        max_price_out=10**6,
        not_before_ms=now_ms - 10_000,
        not_after_ms=MAX_U64,
        salt=random(32),
        models=(MODEL,),
    )
    assert grant.max_total < MAX_U96
    return Parties(
        domain=domain,
        log_id=log_id,
        payer=payer,
        gateway=gateway,
        nodes=bidders,
        grant=Signed.by(payer, domain, grant),
    )


def make_epoch(
    number: int,
    parties: Parties,
    random: Callable[[int], bytes],
    attest: Callable[[Manifest], bytes],
    parameters: Parameters | None = None,
) -> EpochParty:
    """A boot: fresh keys, a manifest, and the document that `attest` gives for it."""
    key, peer, note_secret = SecretKey.generate(random), SecretKey.generate(random), random(32)
    rules = parameters or local_development_parameters("http://127.0.0.1:8545")
    contracts: dict[str, Any] = {
        name: random(20)
        for name in ("receipt_log", "enclave_registry", "node_registry", "model_registry")
    }
    manifest = Manifest(
        chain_id=parties.domain.chain_id,
        settlement=parties.domain.settlement,
        **contracts,
        log_id=parties.log_id,
        code_version="0.1.0",
        signing_key=key.compressed,
        note_key=Ed25519PrivateKey.from_private_bytes(note_secret).public_key().public_bytes_raw(),
        peer_key=peer.compressed,
        parameters_digest=rules.digest(),
        block=Block(number=100, hash=random(32)),
    )
    return EpochParty(
        number=number,
        key=key,
        note_secret=note_secret,
        manifest=manifest,
        parameters=rules,
        document=attest(manifest),
    )
