"""What a proven document must say: not debug, about this key, at a time somebody else bounds.

A certificate chain shows that a document was true when it was made. When that was, only something
outside the document can bound from above; the two time modes name that something. A document
checked without it shows no more than "such an enclave once held this key".
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from pinaivu.attestation.document import MEASURED_PCRS, Document
from pinaivu.attestation.errors import BindingMismatch, DebugEnclave, StaleDocument
from pinaivu.manifest import Manifest

MAX_AGE_LIVE_MS: Final = 5 * 60 * 1000
MAX_ANCHOR_DELAY_MS: Final = 3 * 60 * 60 * 1000
"""A leaf certificate lives three hours: a later registration can't be of a fresh document."""
MAX_ANCHOR_LEAD_MS: Final = 2 * 60 * 1000
"""A block's time may lag behind the hypervisor's clock by this much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """Judge at the verifier's own clock: certificates valid now, document minutes old at most.

    The binding's nonce must be a challenge of the verifier, or a block hash it knows to be recent.
    """

    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Archival:
    """Judge at the document's own time, bounded by the block that registered it.

    `anchored_ms` is the time of the block whose transaction committed to the payload digest. None
    says that no such block is at hand; the result then carries None too, and its user has to say
    that the time is not proven.
    """

    anchored_ms: int | None


TimeMode: TypeAlias = Live | Archival


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a document must carry, byte for byte; None: the field must be absent or null."""

    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None


def binding_of(manifest: Manifest) -> Binding:
    """What the document of the enclave with this manifest carries (types.md §6)."""
    return Binding(
        public_key=manifest.signing_key,
        user_data=manifest.digest(),
        nonce=manifest.block.hash,
    )


def judged_at_ms(document: Document, mode: TimeMode) -> int:
    """The moment at which the chain has to be valid; `StaleDocument` outside the mode's bounds."""
    made_ms = document.timestamp_ms
    if isinstance(mode, Live):
        if abs(mode.now_ms - made_ms) > MAX_AGE_LIVE_MS:
            raise StaleDocument(f"made at {made_ms} ms, more than 5 minutes from {mode.now_ms} ms")
        return mode.now_ms
    if mode.anchored_ms is not None:
        delay_ms = mode.anchored_ms - made_ms
        if not -MAX_ANCHOR_LEAD_MS <= delay_ms <= MAX_ANCHOR_DELAY_MS:
            raise StaleDocument(
                f"made at {made_ms} ms, {delay_ms} ms before the block that registered it"
            )
    return made_ms


def require_production_mode(document: Document) -> None:
    """Raise `DebugEnclave` when one of PCR0–2 is missing or zero. No setting relaxes it."""
    for index in MEASURED_PCRS:
        if not any(document.pcrs.get(index, b"")):
            raise DebugEnclave(
                f"PCR{index} is zero: the enclave ran in debug mode; start it without --debug-mode"
            )


def require_binding(document: Document, binding: Binding) -> None:
    """Raise `BindingMismatch` naming the first field that isn't exactly as expected."""
    for name in ("public_key", "user_data", "nonce"):
        found, expected = getattr(document, name), getattr(binding, name)
        if found != expected:
            raise BindingMismatch(f"{name} is {_shown(found)}, expected {_shown(expected)}")


def _shown(value: bytes | None) -> str:
    return "absent" if value is None else f"0x{value.hex()}"
