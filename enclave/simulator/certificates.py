"""A certificate chain of Nitro's shape whose every subject says SIMULATED.

Root, region (20 days, path length 2), zone (6 days, 1), instance (24 hours, 0), leaf (3 hours).
All on P-384, signed with SHA-384. The root is the only thing that lasts: the rest is issued anew
for each document, so that a long run never meets an expired certificate.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pinaivu.attestation.simulated import SIMULATED_ORGANIZATION

_ROOT_LIFE: Final = timedelta(days=30 * 365)
_LEAF_LIFE: Final = timedelta(hours=3)
_BACKDATED: Final = timedelta(seconds=3)
_AUTHORITIES: Final = (
    ("region.simulated.nitro-enclaves", 2, timedelta(days=20)),
    ("zone.simulated.nitro-enclaves", 1, timedelta(days=6)),
    ("instance.simulated.nitro-enclaves", 0, timedelta(days=1)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate with its key; the key never leaves this process."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        """The certificate as it stands in a document."""
        return self.certificate.public_bytes(Encoding.DER)

    @classmethod
    def root(cls, now: datetime) -> Self:
        """A new throw-away root."""
        return cls._issue(
            "simulated.nitro-enclaves", None, now, _ROOT_LIFE, x509.BasicConstraints(True, None)
        )

    def authority(self, name: str, now: datetime, life: timedelta, path_length: int) -> Self:
        """An authority issued by this one."""
        return self._issue(name, self, now, life, x509.BasicConstraints(True, path_length))

    def leaf(self, module_id: str, now: datetime) -> Self:
        """A leaf issued by this authority, named after the module."""
        constraints = x509.BasicConstraints(False, None)
        return self._issue(f"{module_id}.simulated", self, now, _LEAF_LIFE, constraints)

    @classmethod
    def _issue(
        cls,
        name: str,
        issuer: Self | None,
        now: datetime,
        life: timedelta,
        constraints: x509.BasicConstraints,
    ) -> Self:
        key = ec.generate_private_key(ec.SECP384R1())
        subject = _subject(name)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + life)
            .add_extension(constraints, critical=True)
            .add_extension(_usage(authority=constraints.ca), critical=constraints.ca)
            .sign(issuer.key if issuer else key, hashes.SHA384())
        )
        return cls(certificate=certificate, key=key)


def issue_chain(root: Issued, module_id: str, now: datetime) -> list[Issued]:
    """Root, three authorities and a leaf, in this order."""
    chain = [root]
    for name, path_length, life in _AUTHORITIES:
        chain.append(chain[-1].authority(name, now, life, path_length))
    return [*chain, chain[-1].leaf(module_id, now)]


def _subject(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, SIMULATED_ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=not authority,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
