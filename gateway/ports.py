"""What the gateway needs of the world beside its database, as ports.

`Registry` is the chain and the coordinator's published manifest; `PublicLog` is the coordinator's
public HTTP side. Both raise `TransportFailure` when they can't be reached and cache what can't
change; the gateway never believes a counterparty what it can look up here.
"""

from typing import Any, Protocol

from msgspec import Struct

from pinaivu.errors import PeerFault
from pinaivu.manifest import Parameters
from pinaivu.p2p import PeerId
from pinaivu.tokens import Tokenizer


class UnknownParty(PeerFault):
    """A node, epoch or model that no registry knows."""


class Epoch(Struct, frozen=True, kw_only=True):
    """One boot of the coordinator: the address its awards and receipts are signed by."""

    number: int
    signer: bytes
    peer: PeerId
    parameters: Parameters


class ServedModel(Struct, frozen=True, kw_only=True):
    """A model this gateway serves: the registry's terms, and the tokenizer they name by digest."""

    name: str
    fingerprint: bytes
    ratio_ppm: int
    context_tokens: int
    tokenizer: Tokenizer


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

    async def node_peer(self, node: bytes) -> PeerId:
        """The peer id of a registered node; `UnknownParty` for others."""
        ...


class PublicLog(Protocol):
    """What the coordinator publishes about a job with a receipt."""

    async def bundle(self, gateway: bytes, request_id: str) -> bytes | None:
        """The public bundle, or None while there is none."""
        ...

    async def settlement(self, gateway: bytes, request_id: str) -> dict[str, Any]:
        """``{"state": logged|batched|submitted|mined|final|reverted, …}``, once it is logged."""
        ...
