"""The Nitro Security Module as boot needs it: a port, with its two implementations elsewhere.

`enclave.device` speaks to the real one; `enclave.simulator` is the other, and production code has
no way to choose it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from pinaivu.errors import TransportFailure

MAX_RANDOM_BYTES: Final = 256
"""What the module gives in one answer."""


class NsmFailure(TransportFailure):
    """The module refused a request or answered with something else than asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NsmDescription:
    """What the module says about itself."""

    module_id: str
    digest: str
    max_pcrs: int
    locked_pcrs: frozenset[int]


class Nsm(Protocol):
    """The security module of one enclave; answers in microseconds to milliseconds, never later.

    Every method raises `NsmFailure`. Nothing is durable and nobody retries: a boot without its
    module ends.
    """

    def describe(self) -> NsmDescription:
        """Identity and register numbers."""

    def random(self, count: int) -> bytes:
        """`count` bytes from the hypervisor's entropy source."""

    def pcrs(self) -> Mapping[int, bytes]:
        """The locked registers, 48 bytes each: those that a document will carry."""

    def attest(
        self, *, public_key: bytes | None, user_data: bytes | None, nonce: bytes | None
    ) -> bytes:
        """A signed attestation document over the three fields (1024, 512 and 512 bytes at most)."""
