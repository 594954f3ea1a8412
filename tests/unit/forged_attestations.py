"""Attestation documents forged for tests: real AWS ones by name, and chains with chosen defects.

The real ones lie beside the repository and are not committed; tests that need them skip, saying so,
where the folder is absent.
"""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store

from pinaivu.attestation import Archival, Binding, Document
from pinaivu.attestation.document import PROTECTED_ES384

VECTORS: Final = Path(__file__).parents[3] / "shared" / "vectors" / "nitro"
REAL: Final = (
    "base-nitro-validator-repaired.bin",
    "evervault-beta-valid.bin",
    "fastcrypto-2.hex",
)
DEBUG: Final = (
    "eternis-example.b64",
    "eternis-src-1.b64",
    "evervault-beta-debug.bin",
    "evervault-valid.b64",
    "fastcrypto-1.hex",
)
NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW_MS: Final = int(NOW.timestamp() * 1000)
MODULE_ID: Final = "i-0123456789abcdef0-enc0123456789abcdef"
P384_ORDER: Final = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffff"
    "c7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)


def vector(name: str) -> bytes:
    """A stored document's bytes; skips the test where the folder of vectors is absent."""
    path = VECTORS / name
    if not path.exists():
        pytest.skip(f"no ../shared/vectors/nitro/{name} beside the repository")
    raw = path.read_bytes()
    if path.suffix == ".hex":
        return bytes.fromhex(raw.decode("ascii").strip())
    return b64decode(raw.strip()) if path.suffix == ".b64" else raw


def binding_within(document: Document) -> Binding:
    """The binding that this document happens to satisfy."""
    return Binding(
        public_key=document.public_key, user_data=document.user_data, nonce=document.nonce
    )


def anchored(document: Document) -> Archival:
    """Registered a minute after it was made."""
    return Archival(anchored_ms=document.timestamp_ms + 60_000)


@dataclass(frozen=True)
class Spec:
    """How one certificate is to be made; the defaults are Nitro's."""

    name: str
    ca: bool = True
    path_length: int | None = None
    signs_certificates: bool = True
    signs_documents: bool = False
    curve: ec.EllipticCurve = field(default_factory=ec.SECP384R1)
    digest: hashes.SHA256 | hashes.SHA384 = field(default_factory=hashes.SHA384)
    begin: datetime = NOW - timedelta(hours=1)
    end: datetime = NOW + timedelta(hours=2)
    issuer_name: str | None = None
    signed_by_stranger: bool = False
    constrained: bool = True
    critical_extra: bool = False


GOOD_CHAIN: Final = (
    Spec("root"),
    Spec("region", path_length=2),
    Spec("zone", path_length=1),
    Spec("instance", path_length=0),
    Spec(f"{MODULE_ID}.test", ca=False, signs_certificates=False, signs_documents=True),
)


def with_spec(index: int, **changes: Any) -> tuple[Spec, ...]:
    """The good chain with one certificate changed."""
    chain = list(GOOD_CHAIN)
    chain[index] = replace(chain[index], **changes)
    return tuple(chain)


def payload_fields(**changes: Any) -> dict[str, Any]:
    """The fields of a well-formed payload, without a usable chain."""
    pcrs = {index: bytes([index + 1]) * 48 if index < 3 else bytes(48) for index in range(16)}
    return {
        "module_id": MODULE_ID,
        "digest": "SHA384",
        "timestamp": NOW_MS,
        "pcrs": pcrs,
        "certificate": b"\x30",
        "cabundle": [b"\x30"],
        "public_key": b"k" * 33,
        "user_data": b"u" * 32,
        "nonce": b"n" * 32,
        **changes,
    }


def envelope(payload: bytes, signature: bytes = bytes(96), **changes: Any) -> bytes:
    """A COSE_Sign1 around a payload, unsigned unless told otherwise."""
    parts = {"protected": PROTECTED_ES384, "unprotected": {}, **changes}
    return cbor2.dumps([parts["protected"], parts["unprotected"], payload, signature])


def forged(chain: Sequence[Spec] = GOOD_CHAIN, **fields: Any) -> tuple[bytes, bytes]:
    """A signed document under a chain made to measure, and the SHA-256 of its root's DER."""
    certificates, leaf_key = issue(chain)
    ders = [certificate.public_bytes(Encoding.DER) for certificate in certificates]
    chain_fields = {"cabundle": ders[:-1], "certificate": ders[-1]}
    payload = cbor2.dumps(payload_fields(**{**chain_fields, **fields}))
    return envelope(payload, es384(leaf_key, payload)), sha256(ders[0]).digest()


def es384(key: ec.EllipticCurvePrivateKey, payload: bytes) -> bytes:
    """The COSE signature of a payload; scalars cut to 48 bytes for keys on other curves."""
    signed = cbor2.dumps(["Signature1", PROTECTED_ES384, b"", payload])
    scalars = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA384())))
    return b"".join(scalar.to_bytes(48) for scalar in scalars)


def issue(chain: Sequence[Spec]) -> tuple[list[x509.Certificate], ec.EllipticCurvePrivateKey]:
    """Certificates, root first, as the specs say, and the key of the last."""
    certificates = list[x509.Certificate]()
    issuer_spec, issuer_key = chain[0], ec.generate_private_key(chain[0].curve)
    key = issuer_key
    for spec in chain:
        key = issuer_key if not certificates else ec.generate_private_key(spec.curve)
        stranger = ec.generate_private_key(ec.SECP384R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(spec.name))
            .issuer_name(_name(spec.issuer_name or issuer_spec.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(spec.begin)
            .not_valid_after(spec.end)
        )
        for extension, critical in _extensions(spec):
            builder = builder.add_extension(extension, critical=critical)
        signer = stranger if spec.signed_by_stranger else issuer_key
        certificates.append(builder.sign(signer, spec.digest))
        issuer_spec, issuer_key = spec, key
    return certificates, key


def path_builder_accepts(document: Document, root_der: bytes, at: datetime) -> bool:
    """The second opinion: cryptography's own path builder, as lenient as it lets itself be."""
    authorities = ExtensionPolicy.permit_all().require_present(
        x509.BasicConstraints, Criticality.CRITICAL, None
    )
    verifier = (
        PolicyBuilder()
        .store(Store([x509.load_der_x509_certificate(root_der)]))
        .time(at)
        .max_chain_depth(4)
        .extension_policies(ee_policy=ExtensionPolicy.permit_all(), ca_policy=authorities)
        .build_client_verifier()
    )
    leaf = x509.load_der_x509_certificate(document.certificate)
    between = [x509.load_der_x509_certificate(der) for der in document.cabundle[1:]]
    try:
        verifier.verify(leaf, between)
    except x509.verification.VerificationError:
        return False
    return True


def repacked(raw: bytes, **changes: Any) -> bytes:
    """A document's envelope with its payload fields changed and its old signature kept."""
    protected, unprotected, payload, signature = cbor2.loads(raw)
    fields: Mapping[str, Any] = {**cbor2.loads(payload), **changes}
    return cbor2.dumps([protected, unprotected, cbor2.dumps(fields), signature])


def _extensions(spec: Spec) -> list[tuple[x509.ExtensionType, bool]]:
    usage = x509.KeyUsage(
        digital_signature=spec.signs_documents,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=spec.signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    found: list[tuple[x509.ExtensionType, bool]] = [(usage, True)]
    if spec.constrained:
        found.append((x509.BasicConstraints(spec.ca, spec.path_length), True))
    if spec.critical_extra:
        found.append((x509.InhibitAnyPolicy(0), True))
    return found


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
