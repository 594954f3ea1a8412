"""Documents of the development simulator: everything is checked except who vouches for them.

The trusted root is whatever certificate the document itself begins with, so a simulated document
proves **nothing** about the code that made it: anybody can make one. What the check is good for is
that a local network runs through the same steps as a real one. Hence

* the result is a `SimulatedAttestation`, which shares no base with `AwsAttestation`;
* every certificate must call itself SIMULATED, and PCR0–2 must be the simulator's, so that a real
  measurement can't be claimed this way;
* using it warns (`SimulatedDocumentWarning`), and no production module imports this one; a test
  reads the import graph.
"""

import warnings
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from hashlib import sha256, sha384
from types import MappingProxyType
from typing import Final, final

from pinaivu.attestation._core import require_attested
from pinaivu.attestation.chain import read_certificate
from pinaivu.attestation.document import MEASURED_PCRS, Document, measurement, parse
from pinaivu.attestation.errors import UntrustedChain
from pinaivu.attestation.policy import Binding, TimeMode

SIMULATED_ORGANIZATION: Final = "SIMULATED - NOT AWS NITRO"
"""The organization in the subject of every certificate of a simulated chain."""

SIMULATED_PCRS: Final[Mapping[int, bytes]] = MappingProxyType(
    {index: sha384(b"SIMULATED" + bytes([index])).digest() for index in MEASURED_PCRS}
)
"""PCR0–2 of every simulated document: ``SHA-384("SIMULATED" ‖ u8(index))``."""

SIMULATED_MEASUREMENT: Final = measurement(SIMULATED_PCRS)
"""What a local network registers as its allowed measurement."""

_SEAL: Final = object()


class SimulatedDocumentWarning(UserWarning):
    """A simulated document was accepted; nothing about the running code is proven."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedAttestation:
    """A well-made simulated document. Proves nothing; made by `verify_simulated` only."""

    document: Document
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("a SimulatedAttestation comes from verify_simulated alone")

    @property
    def measurement(self) -> bytes:
        """Always `SIMULATED_MEASUREMENT`."""
        return self.document.measurement

    @property
    def payload_digest(self) -> bytes:
        """The document's name; see `Document.payload_digest`."""
        return self.document.payload_digest


def verify_simulated(document: bytes, *, time: TimeMode, binding: Binding) -> SimulatedAttestation:
    """Check a simulated document under the throw-away root that it brings along.

    Raises like `pinaivu.attestation.verify`; `UntrustedChain` for documents that don't call
    themselves simulated, AWS's own among them.
    """
    warnings.warn(
        "a SIMULATED attestation is being checked: it proves nothing",
        SimulatedDocumentWarning,
        stacklevel=2,
    )
    parsed = parse(document)
    _require_marks(parsed)
    root_sha256 = sha256(parsed.cabundle[0]).digest()
    require_attested(parsed, root_sha256=root_sha256, time=time, binding=binding)
    return SimulatedAttestation(document=parsed, seal=_SEAL)


def _require_marks(document: Document) -> None:
    for der in (*document.cabundle, document.certificate):
        if read_certificate(der).organization != SIMULATED_ORGANIZATION:
            raise UntrustedChain(
                "the document does not call itself SIMULATED; check it with verify()"
            )
    if any(document.pcrs.get(index) != pcr for index, pcr in SIMULATED_PCRS.items()):
        raise UntrustedChain("a simulated document claims PCRs that are not the simulator's")
