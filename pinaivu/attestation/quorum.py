"""From signatures of single verifiers to the evidence that a quorum contract accepts. Pure.

    >>> quorum = Quorum(members=frozenset(addresses), threshold=2)     # doctest: +SKIP
    >>> verdict, evidence = quorum.evidence(domain, signed_verdicts)   # doctest: +SKIP
    >>> quorum.require(domain, verdict, evidence)                      # doctest: +SKIP

`Quorum.require` is `QuorumAttestationVerifier.check` in Python: a reader of old activations can
repeat it with the set that was in force then. That k members signed is all it shows; whether they
were right, `pinaivu.attestation.verify` shows from the document.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from pinaivu.attestation.errors import QuorumMissed
from pinaivu.errors import InvalidEncoding
from pinaivu.keys import (
    ADDRESS_BYTES,
    SIGNATURE_BYTES,
    ZERO_ADDRESS,
    BadSignature,
    checksum,
    recover,
)
from pinaivu.messages import Verdict
from pinaivu.typed_data import Domain, Signed, digest

LEAST_THRESHOLD: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Quorum:
    """A set of verifiers as the contract holds it; `InvalidEncoding` for one it can't hold.

    Suspended members are not in it, so there may be fewer members than `threshold`: then nothing is
    evidence.
    """

    members: frozenset[bytes]
    threshold: int

    def __post_init__(self) -> None:
        wrong = [m for m in self.members if len(m) != ADDRESS_BYTES or m == ZERO_ADDRESS]
        if wrong or self.threshold < LEAST_THRESHOLD:
            raise InvalidEncoding("members are addresses, and at least two of them must sign")

    def evidence(self, domain: Domain, signed: Sequence[Signed[Verdict]]) -> tuple[Verdict, bytes]:
        """The verdict that all signed, and evidence for it: as many signatures as are needed.

        Raises `QuorumMissed` where the verdicts differ or too few members signed; signatures of
        strangers and second ones of a member are left out.
        """
        verdicts = {one.message for one in signed}
        if len(verdicts) != 1:
            raise QuorumMissed(
                f"{len(verdicts)} different verdicts; members must sign the same one, which they do"
                " if they judged the same document, manifest and deployment"
            )
        by_signer = {one.signer(domain): one.signature for one in signed}
        counted = sorted(self.members & by_signer.keys())
        if len(counted) < self.threshold:
            raise QuorumMissed(
                f"{len(counted)} members signed, {self.threshold} are needed; of no account:"
                f" {_listed(by_signer.keys() - self.members)}"
            )
        chosen = counted[: self.threshold]
        return verdicts.pop(), b"".join(by_signer[member] for member in chosen)

    def require(self, domain: Domain, verdict: Verdict, evidence: bytes) -> None:
        """Raise `QuorumMissed` unless the contract would accept `evidence` for `verdict`."""
        length = self.threshold * SIGNATURE_BYTES
        if len(evidence) != length:
            raise QuorumMissed(f"evidence is {length} bytes here, not {len(evidence)}")
        found = digest(domain, verdict)
        parts = range(0, length, SIGNATURE_BYTES)
        try:
            signers = [recover(found, evidence[at : at + SIGNATURE_BYTES]) for at in parts]
        except BadSignature as error:
            raise QuorumMissed(f"a signature in the evidence is none: {error}") from error
        if strangers := set(signers) - self.members:
            raise QuorumMissed(f"signed by {_listed(strangers)}, who are no members")
        if any(first >= second for first, second in pairwise(signers)):
            raise QuorumMissed("signers don't ascend strictly by address")


def _listed(addresses: set[bytes]) -> str:
    return ", ".join(map(checksum, sorted(addresses))) or "nobody"
