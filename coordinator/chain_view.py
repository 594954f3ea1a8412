"""`ChainView` over the chain package, at final blocks."""

from collections.abc import Sequence

from coordinator.ports import (
    AnchorRecord,
    EpochRecord,
    LogFunds,
    ModelRecord,
    NodeRecord,
    PayerRecord,
)
from pinaivu.chain.client import ChainClient
from pinaivu.chain.records import Anchor
from pinaivu.chain.records import EpochRecord as ChainEpoch
from pinaivu.typed_data import Domain


class ContractView:
    """Reads what the contracts hold; everything but the active epoch from final blocks."""

    def __init__(self, client: ChainClient) -> None:
        self._client = client

    def domain(self) -> Domain:
        """The deployment's domain, after its code and chain id have been checked."""
        self._client.check()
        return self._client.deployment.domain

    def block_number(self) -> int:
        """The newest final block."""
        return self._client.final_block()

    def node(self, node: bytes) -> NodeRecord | None:
        """A node's registration."""
        block = self._client.final_block()
        found = self._client.node(node, block)
        if found is None:
            return None
        funder = self._client.bond_of(node, block).funder
        return NodeRecord(node, found.payout, found.peer_point, funder)

    def gateway_peer(self, gateway: bytes) -> bytes | None:
        """A gateway's peer point."""
        found = self._client.gateway(gateway, self._client.final_block())
        return found.peer_point if found else None

    def model(self, model: str) -> ModelRecord | None:
        """A model's registration."""
        found = self._client.model(model, self._client.final_block())
        if found is None:
            return None
        return ModelRecord(
            found.fingerprint, found.ratio_ppm, found.tokenizer_digest, found.context_tokens
        )

    def payer(self, payer: bytes) -> PayerRecord:
        """A payer's account."""
        found = self._client.payer(payer, self._client.final_block())
        return PayerRecord(found.log_id, found.balance, found.leaving, found.grant_epoch)

    def anchor(self, log_id: bytes) -> AnchorRecord:
        """The log's last final anchor."""
        return _anchor(self._client.anchor(log_id, block=self._client.final_block()))

    def newest_anchor(self, log_id: bytes) -> AnchorRecord:
        """The log's last anchor at the head."""
        return _anchor(self._client.anchor(log_id))

    def anchor_of(self, log_id: bytes, sequence: int) -> AnchorRecord:
        """The anchor of one batch of the log at the head."""
        return _anchor(self._client.anchor(log_id, sequence))

    def debitable(self, log_id: bytes) -> int:
        """What the log's batches may take from deposits."""
        return self._client.debitable_now(log_id, self._client.final_block())

    def newest_funds(self, log_id: bytes, payers: Sequence[bytes]) -> LogFunds:
        """What the log's batches may take at the head, and from whom."""
        block = self._client.head()
        found = self._client.payers(payers, block) if payers else []
        return LogFunds(
            debitable=self._client.debitable_now(log_id, block),
            balances={p.payer: p.balance if p.log_id == log_id else 0 for p in found},
        )

    def active_epoch(self, log_id: bytes) -> EpochRecord | None:
        """The log's active epoch at the head."""
        return _epoch(self._client.active_epoch(log_id))

    def epoch(self, log_id: bytes, number: int) -> EpochRecord | None:
        """An epoch of the log, active or ended."""
        return _epoch(self._client.epoch(log_id, number))


def _epoch(found: ChainEpoch | None) -> EpochRecord | None:
    if found is None:
        return None
    return EpochRecord(found.number, found.key, found.expires_at_ms, found.manifest_digest)


def _anchor(found: Anchor) -> AnchorRecord:
    return AnchorRecord(found.sequence, found.new_size, found.new_root, found.batch_digest)
