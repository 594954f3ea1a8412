"""Why an attestation document was refused.

    AttestationRefused (PeerFault)
    ├── MalformedDocument      not enclave's document in the accepted form; also InvalidEncoding
    ├── UntrustedChain         the certificates don't lead to the trusted root at that time
    ├── BadDocumentSignature   the leaf's key didn't sign this payload
    ├── DebugEnclave           PCR0–2 are zero: the console is readable, nothing is attested
    ├── BindingMismatch        it is about another key, manifest or block
    ├── StaleDocument          its time can't be believed in the chosen mode
    ├── UntrustedCode          a proven document, of code that this verifier doesn't vouch for
    └── QuorumMissed           verdicts that are no evidence: too few, different, or of strangers

None of them is mended by a retry with the same document.
"""

from pinaivu.errors import InvalidEncoding, PeerFault


class AttestationRefused(PeerFault):
    """An attestation document doesn't prove what it is shown for."""


class MalformedDocument(AttestationRefused, InvalidEncoding):
    """The bytes are no attestation document of a Nitro enclave in the one accepted form."""


class UntrustedChain(AttestationRefused):
    """The certificates don't lead from the document's leaf to the trusted root at that time."""


class BadDocumentSignature(AttestationRefused):
    """The payload isn't signed by the document's leaf certificate."""


class DebugEnclave(AttestationRefused):
    """One of PCR0–2 is missing or zero: a debug enclave, whose console anybody can read."""


class BindingMismatch(AttestationRefused):
    """`public_key`, `user_data` or `nonce` isn't the expected one."""


class StaleDocument(AttestationRefused):
    """The document's time lies outside what the chosen time mode allows."""


class UntrustedCode(AttestationRefused):
    """Measurement and parameters are no pair on the verifier's own list."""


class QuorumMissed(AttestationRefused):
    """Signed verdicts don't add up to what the quorum contract accepts."""
