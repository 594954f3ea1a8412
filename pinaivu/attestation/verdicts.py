"""What one verifier of a quorum does: check a boot's document, and state what it found.

`judge` refuses everything that step V1 of `pinaivu verify` refuses, and besides whatever a
`Verdict` states and V1 leaves to the chain: the deployment, the named block, the moment. What it
can't see is what the registry checks at activation, against the block that happens in.

    >>> verdict = judge(document, manifest, parameters, trust=trust,
    ...                 block=seen, now_ms=now_ms)                    # doctest: +SKIP
    >>> signed = Signed.by(key, trust.domain, verdict)                # doctest: +SKIP

Verifiers who see the same document sign the same verdict, bit for bit, without having spoken: its
expiry follows from the document's time. A verdict says that this key belongs to this log's boot of
this code; it does not say that the code is good. `VerifierTrust.code` is the signer's own list.

Pure: the verifier's clock and its own look at the chain come in as arguments.
"""

from dataclasses import dataclass
from typing import Final

from pinaivu.attestation.aws import verify
from pinaivu.attestation.document import Document
from pinaivu.attestation.errors import BindingMismatch, StaleDocument, UntrustedCode
from pinaivu.attestation.policy import MAX_ANCHOR_LEAD_MS, Archival, binding_of
from pinaivu.keys import address_of_point, point_of_compressed
from pinaivu.manifest import Block, Manifest, Parameters
from pinaivu.messages import Verdict
from pinaivu.typed_data import Domain

VERDICT_LIFE_MS: Final = 60 * 60 * 1000
"""From the document's own time to the verdict's expiry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierTrust:
    """What one verifier vouches for: boots of this deployment, of code it has looked at itself.

    `code` holds pairs (measurement, parameters digest). Take measurements from an image that you
    built yourself, and digests from parameters that you have read: the registry's list shows what
    administrators allow, which your signature is to be independent of.
    """

    chain_id: int
    settlement: bytes
    receipt_log: bytes
    enclave_registry: bytes
    node_registry: bytes
    model_registry: bytes
    code: frozenset[tuple[bytes, bytes]]

    @property
    def domain(self) -> Domain:
        """What a verdict is signed under."""
        return Domain(self.chain_id, self.settlement)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenBlock:
    """A final block as the verifier's own look at the chain has it."""

    block: Block
    time_ms: int


def judge(
    document: bytes,
    manifest: Manifest,
    parameters: Parameters,
    *,
    trust: VerifierTrust,
    block: SeenBlock,
    now_ms: int,
) -> Verdict:
    """The verdict on a boot, if AWS's document proves it and everything fits together.

    `block` is the manifest's block number, looked up in a chain that the verifier trusts. Raises
    what `pinaivu.attestation.verify` raises; `BindingMismatch` where manifest, parameters, block
    and deployment don't belong together; `UntrustedCode` for other code than `trust.code`;
    `StaleDocument` for a document older than its block, from the future, or too old to be signed.
    """
    time = Archival(anchored_ms=now_ms)
    attestation = verify(document, time=time, binding=binding_of(manifest))
    return verdict_on(
        attestation.document, manifest, parameters, trust=trust, block=block, now_ms=now_ms
    )


def verdict_on(
    document: Document,
    manifest: Manifest,
    parameters: Parameters,
    *,
    trust: VerifierTrust,
    block: SeenBlock,
    now_ms: int,
) -> Verdict:
    """`judge` after the proof of the document, which this function does not repeat.

    Only for a document that `verify` (or the simulator's counterpart) has just proven against
    `binding_of(manifest)`.
    """
    _require_deployment(manifest, trust)
    _require_parameters(manifest, parameters)
    _require_code((document.measurement, manifest.parameters_digest), trust)
    _require_block(manifest, block)
    expires_ms = document.timestamp_ms + VERDICT_LIFE_MS
    _require_moment(document, block.time_ms, expires_ms, now_ms)
    return Verdict(
        log_id=manifest.log_id,
        key=address_of_point(point_of_compressed(manifest.signing_key)),
        measurement=document.measurement,
        parameters_digest=manifest.parameters_digest,
        manifest_digest=manifest.digest(),
        payload_digest=document.payload_digest,
        block_number=manifest.block.number,
        block_hash=manifest.block.hash,
        document_ms=document.timestamp_ms,
        expires_ms=expires_ms,
    )


_DEPLOYMENT: Final = (
    "chain_id",
    "settlement",
    "receipt_log",
    "enclave_registry",
    "node_registry",
    "model_registry",
)


def _require_deployment(manifest: Manifest, trust: VerifierTrust) -> None:
    for name in _DEPLOYMENT:
        found, expected = getattr(manifest, name), getattr(trust, name)
        if found != expected:
            raise BindingMismatch(
                f"the manifest's {name} is {_shown(found)}, this deployment's is {_shown(expected)}"
            )


def _require_parameters(manifest: Manifest, parameters: Parameters) -> None:
    digest = parameters.digest()
    if digest != manifest.parameters_digest:
        raise BindingMismatch(
            f"the manifest names parameters {_shown(manifest.parameters_digest)}, those given are"
            f" {_shown(digest)}; ask the operator for the file that the boot was started with"
        )


def _require_code(pair: tuple[bytes, bytes], trust: VerifierTrust) -> None:
    if pair not in trust.code:
        measurement, parameters = map(_shown, pair)
        raise UntrustedCode(
            f"measurement {measurement} with parameters {parameters} is none that you trust; build"
            " the image from source, read the parameters, and compare before you add them"
        )


def _require_block(manifest: Manifest, seen: SeenBlock) -> None:
    if manifest.block != seen.block:
        raise BindingMismatch(
            f"the manifest names block {manifest.block.number} {_shown(manifest.block.hash)}, your"
            f" chain has {seen.block.number} {_shown(seen.block.hash)}"
        )


def _require_moment(document: Document, block_ms: int, expires_ms: int, now_ms: int) -> None:
    """Between its block, which it names, and its expiry; clocks may differ a little."""
    made_ms = document.timestamp_ms
    if made_ms + MAX_ANCHOR_LEAD_MS < block_ms:
        raise StaleDocument(
            f"made at {made_ms} ms, {block_ms - made_ms} ms before the block that it names"
        )
    if now_ms >= expires_ms:
        raise StaleDocument(
            f"made at {made_ms} ms: a verdict on it expired {now_ms - expires_ms} ms ago; the"
            " enclave has to boot again"
        )


def _shown(value: object) -> str:
    return f"0x{value.hex()}" if isinstance(value, bytes) else str(value)
