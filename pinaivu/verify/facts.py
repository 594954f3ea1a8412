"""What verification needs of a chain, as a port, and the plain results it gives.

`pinaivu.chain.facts` implements it over JSON-RPC; `pinaivu.testing` has one in memory. Every method
answers for final blocks, or raises `TransportFailure` when the chain can't say; None means that the
chain has no such thing. Nothing is proven by an answer: whoever asks trusts the endpoint asked, and
the report says so.
"""

from typing import Protocol

from msgspec import Struct


class EpochFact(Struct, frozen=True, kw_only=True):
    """An epoch's registration. Times are block times in ms, 0 where the chain says never."""

    key: bytes  # 20
    manifest_digest: bytes
    payload_digest: bytes
    activated_at_ms: int
    expires_at_ms: int
    revoked_at_ms: int
    measurement: bytes
    parameters_digest: bytes
    pair_allowed_from_ms: int
    pair_revoked_at_ms: int


class NodeFact(Struct, frozen=True, kw_only=True):
    """A node's registration as of a block: since when, who is paid, who bonds it (zero: nobody).

    `lately` has the (payout, bond funder) that were in force shortly before, if others: a book
    can't know of a change at the very block.
    """

    registered_at_ms: int
    payout: bytes
    bond_funder: bytes = bytes(20)
    lately: frozenset[tuple[bytes, bytes]] = frozenset()


class ModelFact(Struct, frozen=True, kw_only=True):
    """What a model id meant as of a block."""

    fingerprint: bytes
    ratio_ppm: int
    tokenizer_digest: bytes


class SettlementFact(Struct, frozen=True, kw_only=True):
    """A settled batch's events. `due` and `backed` differ where credits were scaled down.

    `shorts` are payers whose balance did not cover their row, with what the reserve covered and
    what nobody did, in base units.
    """

    block: int
    prev_size: int
    new_size: int
    new_root: bytes
    batch_digest: bytes
    debited: int
    fees: int
    due: int
    backed: int
    shorts: dict[bytes, tuple[int, int]]


class Payout(Struct, frozen=True, kw_only=True):
    """Credit paid out; `registered` is the wallet the registry named at that block."""

    block: int
    wallet: bytes
    registered: bytes
    amount: int


class Earnings(Struct, frozen=True, kw_only=True):
    """All a node was ever credited, what of it is left, and what was paid out."""

    lifetime: int
    credit: int
    payouts: tuple[Payout, ...]


class ChainFacts(Protocol):
    """Final chain state and history of one deployment, read synchronously."""

    def epoch(self, log_id: bytes, number: int) -> EpochFact | None:
        """An epoch of a log, whether still valid or not."""
        ...

    def anchor_word(self, log_id: bytes, sequence: int) -> bytes | None:
        """What the contract holds for a batch (32 bytes), or None before it is settled."""
        ...

    def settlement(self, log_id: bytes, sequence: int) -> SettlementFact | None:
        """The events of a batch's settlement."""
        ...

    def node(self, node: bytes, block: int | None = None) -> NodeFact | None:
        """A node's registration as of a block, by default the newest."""
        ...

    def model(self, model_key: bytes, block: int) -> ModelFact | None:
        """A model's registration as of a block."""
        ...

    def grant_epoch(self, payer: bytes, at_ms: int) -> frozenset[int]:
        """The payer's grant epochs that were in force around a time.

        More than one where the payer bumped it within two minutes of `at_ms`: block times and the
        coordinator's clock don't agree better than that.
        """
        ...

    def earnings(self, node: bytes) -> Earnings:
        """A node's credit and payouts; zeros for one that never earned."""
        ...
