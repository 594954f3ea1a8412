"""The whole check for any root. Private: it can be asked to trust a stranger.

Only `pinaivu.attestation.aws` (the pinned root) and `pinaivu.attestation.simulated` (a throw-away
one, with a result of another type) may import this; a test reads the import graph.
"""

from pinaivu.attestation.chain import require_chain, require_signature
from pinaivu.attestation.document import Document
from pinaivu.attestation.policy import (
    Binding,
    Live,
    TimeMode,
    judged_at_ms,
    require_binding,
    require_production_mode,
)


def require_attested(
    document: Document, *, root_sha256: bytes, time: TimeMode, binding: Binding
) -> None:
    """Raise an `AttestationRefused` unless the document holds under that root, now or then.

    A `ValueError` is the caller's mistake: `Live` says nothing without a challenge in the binding.
    """
    if isinstance(time, Live) and binding.nonce is None:
        raise ValueError("a live check needs a challenge: set the binding's nonce")
    require_production_mode(document)
    key = require_chain(document, root_sha256, judged_at_ms(document, time))
    require_signature(document, key)
    require_binding(document, binding)
