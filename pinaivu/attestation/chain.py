"""From the document's leaf certificate up to a trusted root, step by step, at one moment.

The walk is written out instead of left to a path builder: the chain's order is fixed by the
document, every certificate must have the shape that Nitro's have (P-384, ECDSA with SHA-384, no
critical extension beyond the two read here), and no revocation list exists. The tests compare each
answer with the path builder of `cryptography`, an implementation that shares no line with this.

Nothing here knows which root is trusted: `pinaivu.attestation.aws` does.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from typing import Final

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID, ObjectIdentifier, SignatureAlgorithmOID

from pinaivu.attestation.document import PROTECTED_ES384, Document
from pinaivu.attestation.errors import BadDocumentSignature, UntrustedChain

_SCALAR_BYTES: Final = 48
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_READ_EXTENSIONS: Final = frozenset({x509.BasicConstraints.oid, x509.KeyUsage.oid})


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What the walk looks at, read once; nothing of it is believed yet."""

    parsed: x509.Certificate
    subject: str
    common_name: str
    organization: str
    key: ec.EllipticCurvePublicKey
    constraints: x509.BasicConstraints
    usage: x509.KeyUsage
    unread_critical: tuple[ObjectIdentifier, ...]


def require_chain(document: Document, root_sha256: bytes, at_ms: int) -> ec.EllipticCurvePublicKey:
    """The leaf's key, once `cabundle` leads from the root with that DER digest to the leaf.

    Raises `UntrustedChain`. Every certificate, the root included, must be valid at `at_ms`.
    """
    found = sha256(document.cabundle[0]).digest()
    if found != root_sha256:
        raise UntrustedChain(
            f"cabundle begins with {found.hex()}, the trusted root is {root_sha256.hex()}"
        )
    certificates = [read_certificate(der) for der in (*document.cabundle, document.certificate)]
    at = _moment(at_ms)
    for certificate in certificates:
        _require_shape(certificate, at)
    *authorities, leaf = certificates
    for below, authority in enumerate(reversed(authorities)):
        _require_authority(authority, below)
    for issuer, subject in pairwise(certificates):
        _require_issued(subject, issuer)
    _require_leaf(leaf, document.module_id)
    return leaf.key


def require_signature(document: Document, key: ec.EllipticCurvePublicKey) -> None:
    """Raise `BadDocumentSignature` unless `key` made the ES384 signature over the payload."""
    signed = cbor2.dumps(["Signature1", PROTECTED_ES384, b"", document.payload])
    r = int.from_bytes(document.signature[:_SCALAR_BYTES])
    s = int.from_bytes(document.signature[_SCALAR_BYTES:])
    try:
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise BadDocumentSignature("the document's signature is not its leaf's") from error


def read_certificate(der: bytes) -> Certificate:
    """Read a certificate's parts; `UntrustedChain` when one can't be read or isn't P-384."""
    try:
        return _read(x509.load_der_x509_certificate(der))
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.ExtensionNotFound,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise UntrustedChain(f"a certificate of the document can't be read: {error}") from error


def _read(certificate: x509.Certificate) -> Certificate:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise TypeError("its key is not on P-384")
    extensions = certificate.extensions
    return Certificate(
        parsed=certificate,
        subject=certificate.subject.rfc4514_string(),
        common_name=_attribute(certificate.subject, NameOID.COMMON_NAME),
        organization=_attribute(certificate.subject, NameOID.ORGANIZATION_NAME),
        key=key,
        constraints=extensions.get_extension_for_class(x509.BasicConstraints).value,
        usage=extensions.get_extension_for_class(x509.KeyUsage).value,
        unread_critical=tuple(
            e.oid for e in extensions if e.critical and e.oid not in _READ_EXTENSIONS
        ),
    )


def _require_shape(certificate: Certificate, at: datetime) -> None:
    begin, end = certificate.parsed.not_valid_before_utc, certificate.parsed.not_valid_after_utc
    if not begin <= at <= end:
        raise UntrustedChain(f"{certificate.subject} is valid from {begin} to {end}, not at {at}")
    if certificate.parsed.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        raise UntrustedChain(f"{certificate.subject} is not signed with ECDSA and SHA-384")
    if certificate.unread_critical:
        raise UntrustedChain(f"{certificate.subject} has critical extensions not understood here")


def _require_authority(certificate: Certificate, authorities_below: int) -> None:
    limit = certificate.constraints.path_length
    if not (certificate.constraints.ca and certificate.usage.key_cert_sign):
        raise UntrustedChain(f"{certificate.subject} may not issue certificates")
    if limit is not None and authorities_below > limit:
        raise UntrustedChain(
            f"{certificate.subject} has {authorities_below} authorities below it, not {limit}"
        )


def _require_leaf(certificate: Certificate, module_id: str) -> None:
    usage = certificate.usage
    if certificate.constraints.ca or not usage.digital_signature or usage.key_cert_sign:
        raise UntrustedChain("the leaf is no certificate for signatures only")
    if not certificate.common_name.startswith(module_id + "."):
        raise UntrustedChain(
            f"the leaf is issued to {certificate.common_name!r}, not to {module_id}"
        )


def _require_issued(subject: Certificate, issuer: Certificate) -> None:
    try:
        subject.parsed.verify_directly_issued_by(issuer.parsed)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise UntrustedChain(f"{subject.subject} is not issued by {issuer.subject}") from error


def _attribute(name: x509.Name, oid: ObjectIdentifier) -> str:
    """The one attribute of that kind; empty where there is none or several."""
    values = name.get_attributes_for_oid(oid)
    return str(values[0].value) if len(values) == 1 else ""


def _moment(at_ms: int) -> datetime:
    try:
        return _EPOCH + timedelta(milliseconds=at_ms)
    except OverflowError as error:
        raise UntrustedChain(f"{at_ms} ms is no moment any certificate is valid at") from error
