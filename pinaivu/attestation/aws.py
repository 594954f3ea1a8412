"""Attestation by AWS, and by nobody else: the root is a constant, not a parameter.

The certificate itself travels in every document; its SHA-256 fingerprint is all that has to be
known beforehand. Only the commercial partition's root G1 is trusted (`aws-cn` and `aws-us-gov` have
others). Documents marked as simulated are refused by name before anything is computed.
"""

from dataclasses import InitVar, dataclass
from typing import Final, final

from pinaivu.attestation._core import require_attested
from pinaivu.attestation.document import Document, parse
from pinaivu.attestation.errors import UntrustedChain
from pinaivu.attestation.policy import Archival, Binding, TimeMode

ROOT_G1_SHA256: Final = bytes.fromhex(
    "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
)
"""SHA-256 of the DER of ``CN=aws.nitro-enclaves`` (2019 to 2049), as AWS publishes it."""

_SIMULATED: Final = b"SIMULATED"
_SEAL: Final = object()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AwsAttestation:
    """A document that AWS's root vouches for. Made by `verify` only; anything else is a TypeError.

    `anchored_ms` is the registration's block time it was judged against; None when it was judged
    live or without an anchor.
    """

    document: Document
    anchored_ms: int | None
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("an AwsAttestation comes from pinaivu.attestation.verify alone")

    @property
    def measurement(self) -> bytes:
        """``H(T.pcr ‖ PCR0 ‖ PCR1 ‖ PCR2)``; compare it with the registry's allowed ones."""
        return self.document.measurement

    @property
    def payload_digest(self) -> bytes:
        """The document's name; see `Document.payload_digest`."""
        return self.document.payload_digest


def verify(document: bytes, *, time: TimeMode, binding: Binding) -> AwsAttestation:
    """Prove a document against AWS Nitro root G1.

    Raises `MalformedDocument`, `DebugEnclave`, `StaleDocument`, `UntrustedChain`,
    `BadDocumentSignature` or `BindingMismatch`, in the order in which they are noticed.
    """
    parsed = parse(document)
    _refuse_simulated(parsed)
    require_attested(parsed, root_sha256=ROOT_G1_SHA256, time=time, binding=binding)
    anchored_ms = time.anchored_ms if isinstance(time, Archival) else None
    return AwsAttestation(document=parsed, anchored_ms=anchored_ms, seal=_SEAL)


def _refuse_simulated(document: Document) -> None:
    certificates = (*document.cabundle, document.certificate)
    if any(_SIMULATED in der for der in certificates):
        raise UntrustedChain(
            "the document is SIMULATED: it comes from the development simulator and proves nothing"
        )
