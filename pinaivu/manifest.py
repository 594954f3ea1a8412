"""Manifest and parameters: what an attestation vouches for beside the code (types.md §6).

The manifest names everything an enclave was born with: chain, contracts, log, its three public
keys, the digest of its parameters and a recent block. Its digest is the attestation's `user_data`.
The parameters are every number by which auction, metering, batches and limits go; on chain they are
allowed as a pair with the code's measurement. Both are values: nothing here makes keys, reads a
chain or judges whether a pair is an allowed one.
"""

from typing import ClassVar, Final

from pinaivu.documents import (
    Address,
    Compressed,
    Digest,
    Integer32,
    Integer64,
    Integer96,
    JcsDocument,
    JcsObject,
)
from pinaivu.encoding import Tag
from pinaivu.errors import InvalidEncoding
from pinaivu.keys import point_of_compressed

VERSION: Final = 1
MAX_OFFER_TTL_MS: Final = 15_000
_PPM: Final = 1_000_000
_BPS: Final = 10_000


class Block(JcsObject, frozen=True, kw_only=True):
    """A block that existed when the manifest was made: nobody made the manifest before it."""

    number: Integer64
    hash: Digest


class Manifest(JcsDocument, frozen=True, kw_only=True):
    """One boot of one coordinator: where it belongs and which keys were born in it.

    `signing_key` and `peer_key` are compressed secp256k1 points, `note_key` is Ed25519.
    """

    hash_tag: ClassVar[Tag] = Tag.MANIFEST

    version: Integer32 = VERSION
    chain_id: Integer64
    settlement: Address
    receipt_log: Address
    enclave_registry: Address
    node_registry: Address
    model_registry: Address
    log_id: Digest
    code_version: str
    signing_key: Compressed
    note_key: Digest
    peer_key: Compressed
    parameters_digest: Digest
    block: Block

    def check(self) -> None:
        """Refuse other versions, keys that are no points, and one key in two roles."""
        _require_version(self.version)
        for name in ("signing_key", "peer_key"):
            try:
                point_of_compressed(getattr(self, name))
            except InvalidEncoding as error:
                raise InvalidEncoding(f"{name}: {error}") from error
        if self.signing_key == self.peer_key:
            raise InvalidEncoding("peer_key: the transport may not use the signing key")


class RpcEndpoint(JcsObject, frozen=True, kw_only=True):
    """A JSON-RPC server and the TLS root that it is believed under; zero: no TLS (local only)."""

    url: str
    tls_root_sha256: Digest


class Parameters(JcsDocument, frozen=True, kw_only=True):
    """The rules a coordinator runs by. Times in ms, amounts in base units, shares in ppm.

    `value_of_time` is in base units per second; `prior_a` and `prior_b` are the pseudo-counts of
    success and failure a node starts with.
    """

    hash_tag: ClassVar[Tag] = Tag.PARAMETERS

    version: Integer32 = VERSION
    rpc: tuple[RpcEndpoint, ...]
    rpc_agree: Integer32
    finality_blocks: Integer32

    window_ms: Integer32
    live_all: Integer32
    live_best: Integer32
    discount_ppm: Integer32
    warm_ppm: Integer32
    max_uplift_ppm: Integer32
    explore_ppm: Integer32
    value_of_time: Integer64
    max_ranks: Integer32
    offer_ttl_ms: Integer32

    prior_a: Integer32
    prior_b: Integer32
    decay_ppm: Integer32
    party_share_ppm: Integer32
    newcomer_ppm: Integer32

    fee_bps: Integer32
    batch_count: Integer32
    batch_age_ms: Integer64
    batch_value: Integer96

    award_ttl_ms: Integer64
    close_after_delivery_ms: Integer64
    close_after_expiry_ms: Integer64
    unsettled_max_ms: Integer64
    job_skew_ms: Integer64
    claim_ms: Integer64
    epoch_collect_ms: Integer64

    tolerance_tokens: Integer32
    tolerance_ppm: Integer32

    def check(self) -> None:
        """Refuse other versions, shares above one, and limits that leave nothing to do."""
        _require_version(self.version)
        shares = ("discount_ppm", "warm_ppm", "explore_ppm", "decay_ppm", "party_share_ppm")
        for name in (*shares, "newcomer_ppm"):
            _require_range(name, getattr(self, name), 0, _PPM)
        _require_range("rpc_agree", self.rpc_agree, 1, len(self.rpc))
        _require_range("live_best", self.live_best, 1, self.live_all)
        _require_range("max_ranks", self.max_ranks, 1, 0xFF)
        _require_range("offer_ttl_ms", self.offer_ttl_ms, 1, MAX_OFFER_TTL_MS)
        _require_range("fee_bps", self.fee_bps, 0, _BPS)
        _require_range("batch_count", self.batch_count, 1, (1 << 32) - 1)


def local_development_parameters(rpc_url: str, *, finality_blocks: int = 0) -> Parameters:
    """The design's values for a network on one machine, with the long waits cut short.

    Not for a chain with real money: one RPC server is believed without TLS, receipts are batched
    after three seconds, one party's word decides a node's standing, and with `finality_blocks` 0
    the newest block counts as final.
    """
    return Parameters(
        rpc=(RpcEndpoint(url=rpc_url, tls_root_sha256=bytes(32)),),
        rpc_agree=1,
        finality_blocks=finality_blocks,
        window_ms=150,
        live_all=16,
        live_best=8,
        discount_ppm=200_000,
        warm_ppm=0,
        max_uplift_ppm=2_000_000,
        explore_ppm=20_000,
        value_of_time=20,  # a second weighs as much as 40 tokens at half a unit per thousand
        max_ranks=4,
        offer_ttl_ms=MAX_OFFER_TTL_MS,
        prior_a=9,
        prior_b=1,
        decay_ppm=990_000,
        party_share_ppm=900_000,  # one gateway, one payer: nobody else says anything
        newcomer_ppm=900_000,
        fee_bps=250,
        batch_count=1_000,
        batch_age_ms=3_000,
        batch_value=10_000_000,
        award_ttl_ms=60_000,
        close_after_delivery_ms=2_000,
        close_after_expiry_ms=15_000,
        unsettled_max_ms=3_600_000,
        job_skew_ms=60_000,
        claim_ms=60_000,
        epoch_collect_ms=1_000,
        tolerance_tokens=2,
        tolerance_ppm=10_000,
    )


def _require_version(version: int) -> None:
    if version != VERSION:
        raise InvalidEncoding(f"version {version}; this program reads version {VERSION}")


def _require_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidEncoding(f"{name} is {value}; {least} to {most} is allowed")
