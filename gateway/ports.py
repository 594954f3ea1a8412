"""What the gateway needs of the world beside its database, as ports.

`Registry` is the chain and the coordinator's published manifest; `PublicLog` is the coordinator's
public HTTP side. Both raise `TransportFailure` when they can't be reached and cache what can't
change; the gateway never believes a counterparty what it can look up here.
"""

from typing import Any, Protocol

from msgspec import Struct

from pinaivu.codes import Feature
from pinaivu.errors import PeerFault
from pinaivu.manifest import Parameters
from pinaivu.p2p import PeerId
from pinaivu.tokens import Tokenizer


class UnknownParty(PeerFault):
    """A node, epoch or model that no registry knows."""


class Epoch(Struct, frozen=True, kw_only=True):
    """One boot of the coordinator: the address its awards and receipts are signed by.

    `measurement` is the code that the chain allows it with; empty where that is not known.
    """

    number: int
    signer: bytes
    peer: PeerId
    parameters: Parameters
    measurement: bytes = b""


class ServedModel(Struct, frozen=True, kw_only=True):
    """A model this gateway serves: the registry's terms, and the tokenizer they name by digest."""

    name: str
    fingerprint: bytes
    ratio_ppm: int
    context_tokens: int
    tokenizer: Tokenizer


class Prices(Struct, frozen=True):
    """Standing prices of a model's nodes, base units per million output tokens."""

    cheapest: int
    median: int


class Offered(Struct, frozen=True):
    """How many nodes offer exactly these features (`codes.Feature`)."""

    bits: int
    nodes: int


class Standing(Struct, frozen=True):
    """What a log's public server says stands on offer for one model: a claim, a few seconds old."""

    nodes: int
    slots: int
    price_out: Prices
    context_tokens: int
    features: list[Offered]

    def missing(self, needed: Feature) -> Feature:
        """Of what a job needs, that which stands in every node's way; of the nearest node."""
        lacking = [needed & ~Feature(offered.bits) for offered in self.features]
        return min(lacking, key=lambda bits: bits.bit_count(), default=Feature(0))


class Registry(Protocol):
    """Who is who. Values come from final chain state or are checked against it."""

    async def refresh(self) -> Epoch:
        """The log's active epoch, read from the chain now."""
        ...

    async def epoch(self) -> Epoch:
        """The active epoch as last read."""
        ...

    async def signer(self, epoch: int) -> bytes:
        """The signing address of an epoch, ended ones too; `UnknownParty` where there was none."""
        ...

    async def settles(self, sequence: int, index: int) -> bool:
        """Whether the batch is final on chain and covers the leaf at `index`; read now."""
        ...

    async def node_peer(self, node: bytes) -> PeerId:
        """The peer id of a registered node; `UnknownParty` for others."""
        ...


class PublicLog(Protocol):
    """What the coordinator publishes."""

    async def bundle(self, gateway: bytes, request_id: str) -> bytes | None:
        """The public bundle, or None while there is none."""
        ...

    async def settlement(self, gateway: bytes, request_id: str) -> dict[str, Any]:
        """``{"state": logged|batched|submitted|mined|final|reverted, …}``, once it is logged."""
        ...

    async def market(self, model: str) -> Standing | None:
        """What stands on offer for a model, or None for nothing."""
        ...

    async def urls(self) -> tuple[str, ...]:
        """Where all of it is published."""
        ...
