"""AWS Nitro attestation documents: strict parsing, chain to the pinned root, policy. Pure.

`verify` answers one question: did AWS's Nitro hypervisor, at a time that is bounded from outside,
sign that an enclave with these PCRs, not started in debug mode, asked for a document over exactly
this key, manifest digest and block hash? It does not say that the measurement is an allowed one
(compare `AwsAttestation.measurement` with the registry), nor that the key never left the enclave:
that follows from the measured code alone.

    >>> attestation = verify(document, time=Archival(anchored_ms=block_ms),
    ...                      binding=binding_of(manifest))            # doctest: +SKIP
    >>> attestation.measurement == receipt.measurement                # doctest: +SKIP

`judge` is that check as a member of the quorum makes it before it signs a `Verdict`: it also holds
deployment, parameters, code and block against the verifier's own. `Quorum` joins signatures.

Nothing here reads a clock, a file or the network. Simulated documents are the business of
`pinaivu.attestation.simulated`, which is not imported from here.
"""

from pinaivu.attestation.aws import ROOT_G1_SHA256, AwsAttestation, verify
from pinaivu.attestation.document import Document, measurement, parse
from pinaivu.attestation.errors import (
    AttestationRefused,
    BadDocumentSignature,
    BindingMismatch,
    DebugEnclave,
    MalformedDocument,
    QuorumMissed,
    StaleDocument,
    UntrustedChain,
    UntrustedCode,
)
from pinaivu.attestation.policy import Archival, Binding, Live, TimeMode, binding_of
from pinaivu.attestation.quorum import Quorum
from pinaivu.attestation.verdicts import SeenBlock, VerifierTrust, judge

__all__ = [
    "ROOT_G1_SHA256",
    "Archival",
    "AttestationRefused",
    "AwsAttestation",
    "BadDocumentSignature",
    "Binding",
    "BindingMismatch",
    "DebugEnclave",
    "Document",
    "Live",
    "MalformedDocument",
    "Quorum",
    "QuorumMissed",
    "SeenBlock",
    "StaleDocument",
    "TimeMode",
    "UntrustedChain",
    "UntrustedCode",
    "VerifierTrust",
    "binding_of",
    "judge",
    "measurement",
    "parse",
    "verify",
]
