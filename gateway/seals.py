"""Prompts and answers on disk: sealed to the API key that asked, readable to its holder only.

The sealing key is derived from the API key, of which the database has nothing but a hash. Whoever
gets hold of database, write-ahead log, replica or backup reads nothing; and what a database keeps
of deleted rows for a while is nothing but such bytes.

    seal = Seal.of("sk-pnv-…")
    kept = seal.close(job_id, "request", body)
    seal.open(job_id, "request", kept)  # body

AES-SIV (RFC 5297) under HKDF-SHA-256 of the key's 32 random bytes; each content is bound to its job
and its part. It needs no nonce: the same content sealed twice gives the same bytes, and shows no
more than that. Lengths show. It does not hide content from a gateway that is serving the key, whose
memory has both, nor from anybody who has the API key and an old copy of the row.
"""

from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_CONTEXT: Final = b"pinaivu content v1"
_KEY_BYTES: Final = 64  # AES-256, and as much for its authentication
Part = Literal["request", "response", "answer"]
"""What is sealed: a request's body, its canonical response, the whole answer as it was sent."""


class Seal:
    """Seals and opens what belongs to one API key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)

    @classmethod
    def of(cls, secret: str) -> "Seal":
        """The seal of an API key."""
        derived = HKDF(SHA256(), _KEY_BYTES, salt=None, info=_CONTEXT)
        return cls(derived.derive(secret.encode("utf-8", "surrogatepass")))

    def close(self, job_id: bytes, part: Part, content: bytes) -> bytes:
        """The content, for the key's holder only."""
        return self._cipher.encrypt(content, [job_id, part.encode()])

    def open(self, job_id: bytes, part: Part, kept: bytes | None) -> bytes | None:
        """The content; None where nothing is kept, or was sealed before the key was rotated."""
        if kept is None:
            return None
        try:
            return self._cipher.decrypt(kept, [job_id, part.encode()])
        except InvalidTag:
            return None
