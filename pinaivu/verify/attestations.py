"""Attestation documents checked for V1: AWS's, or SIMULATED ones where a policy accepts those.

Answers are remembered for as long as the verifier lives: an epoch's document is the same in
thousands of bundles, and its certificate chain is most of what verifying one costs.
"""

from typing import Final

from msgspec import Struct

from pinaivu.attestation import Archival, UntrustedChain, binding_of, verify
from pinaivu.attestation.document import Document
from pinaivu.attestation.simulated import verify_simulated
from pinaivu.encoding import h
from pinaivu.verify.contents import EpochPart

_MOST_REMEMBERED: Final = 256


class Attested(Struct, frozen=True, kw_only=True):
    """What a checked document says. `simulated`: it proves nothing about the code."""

    measurement: bytes
    payload_digest: bytes
    document_ms: int
    simulated: bool


class Attestations:
    """Checks documents against their manifests, each once."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes, int | None, bool], Attested] = {}

    def check(
        self, epoch: EpochPart, *, anchored_ms: int | None, accepts_simulated: bool
    ) -> Attested:
        """The epoch's document, if it holds and carries key, digest and block of the manifest.

        `anchored_ms` is the block time of its registration; None leaves its own time unbounded.
        Raises `pinaivu.attestation.AttestationRefused`.
        """
        key = (h(epoch.document), epoch.manifest_digest, anchored_ms, accepts_simulated)
        found = self._known.get(key)
        if found is None:
            found = _check(epoch, anchored_ms, accepts_simulated=accepts_simulated)
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known[key] = found
        return found


def _check(epoch: EpochPart, anchored_ms: int | None, *, accepts_simulated: bool) -> Attested:
    time, binding = Archival(anchored_ms=anchored_ms), binding_of(epoch.manifest)
    try:
        return _attested(verify(epoch.document, time=time, binding=binding).document, False)
    except UntrustedChain:
        if not accepts_simulated:
            raise
    simulated = verify_simulated(epoch.document, time=time, binding=binding)
    return _attested(simulated.document, True)


def _attested(document: Document, simulated: bool) -> Attested:  # noqa: FBT001 - names itself below
    return Attested(
        measurement=document.measurement,
        payload_digest=document.payload_digest,
        document_ms=document.timestamp_ms,
        simulated=simulated,
    )
