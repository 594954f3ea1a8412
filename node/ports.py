"""What the node needs of the world outside, as ports.

`Chain` is synchronous and called in worker threads; every answer is the endpoint's word about its
latest block, and `ChainUnavailable` means try again. `Directory` says where a log's coordinator is;
nothing it says is believed before the chain confirms it. `Engine` runs a model.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from pinaivu.chain.records import (
    EpochRecord,
    GatewayRecord,
    ModelRecord,
    NodeCredit,
    NodeRecord,
    PairRecord,
)
from pinaivu.codes import JobKind
from pinaivu.manifest import Manifest, Parameters

NowMs = Callable[[], int]
"""Wall clock: milliseconds since 1970 UTC."""


class Chain(Protocol):
    """The registries, as `pinaivu.chain.client.ChainClient` reads them."""

    def node(self, node: bytes) -> NodeRecord | None:
        """A node's registration."""

    def gateway(self, gateway: bytes) -> GatewayRecord | None:
        """A gateway's registration."""

    def model(self, model: str) -> ModelRecord | None:
        """What a model id means."""

    def active_epoch(self, log_id: bytes) -> EpochRecord | None:
        """The epoch whose key may sign for a log now."""

    def log_endpoints(self, log_id: bytes) -> tuple[str, ...]:
        """Where a log is served, as its operator says."""

    def epoch(self, log_id: bytes, number: int) -> EpochRecord | None:
        """Any epoch of a log, valid still or not."""

    def pair_at(self, index: int) -> PairRecord:
        """The code and parameters that an epoch was activated with, by `EpochRecord.pair`."""

    def node_credits(self, nodes: list[bytes]) -> list[NodeCredit]:
        """Credit of each node, now and ever."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What a log's directory says of one epoch."""

    number: int
    manifest: Manifest
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Published:
    """A log's directory: its epochs, and the multiaddrs of the running coordinator."""

    epochs: tuple[Publication, ...]
    addresses: tuple[str, ...]


class Directory(Protocol):
    """Where a log's coordinator publishes its attestations and addresses."""

    async def read(self, url: str) -> Published:
        """The directory at a log's URL.

        Raises `DirectoryUnavailable` without an answer, `DirectoryWrong` for an answer that is
        none. Not retried here.
        """


class Engine(Protocol):
    """A model that answers."""

    @property
    def ready(self) -> bool:
        """Whether it serves at this moment."""

    def stream(
        self, kind: JobKind, body: bytes
    ) -> AbstractAsyncContextManager[AsyncIterator[list[bytes]]]:
        """Stream an answer, one list of event payloads per read, without the end marker.

        Leaving the block drops the request at once. The loop ends without an error only after a
        whole answer; `TransportFailure` (see `node.engines.errors`) otherwise.
        """
