"""What a boot hands to the coordinator it starts: the epoch's secrets and what vouches for them.

One document crosses, once, on an inherited pipe: ``u32 length ‖ JSON``, then the pipe is closed. It
never touches environment, arguments or disk, since those can be read by others or kept. Reading
checks that secrets, manifest and parameters belong together; it does not prove the attestation
document, which is for those who don't trust this process.
"""

import os
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pinaivu.encoding import from_hex, jcs, parse_json, to_hex
from pinaivu.errors import InvalidEncoding, TransportFailure
from pinaivu.keys import SecretKey
from pinaivu.manifest import Manifest, Parameters

MAX_HANDOVER_BYTES: Final = 60 * 1024
"""Below a pipe's capacity of 64 KiB, so that the giver never waits for the taker."""

_LENGTH_BYTES: Final = 4
_SECRET_BYTES: Final = 32
_MEMBERS: Final = frozenset(
    {"document", "manifest", "note_secret", "parameters", "peer_secret", "signing_secret"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochIdentity:
    """The key set of one boot, its manifest and parameters, and the attestation document.

    `signing_secret` signs receipts, awards, checkpoints and batches; `note_secret` is the 32-byte
    Ed25519 seed for checkpoint notes; `peer_secret` is for the transport alone. None of them shows
    in `repr`. Construction raises `InvalidEncoding` when the parts don't belong together.
    """

    signing_secret: SecretKey = field(repr=False)
    note_secret: bytes = field(repr=False)
    peer_secret: SecretKey = field(repr=False)
    manifest: Manifest
    parameters: Parameters
    document: bytes = field(repr=False)

    def __post_init__(self) -> None:
        held = (self.signing_secret.compressed, self.note_public, self.peer_secret.compressed)
        named = (self.manifest.signing_key, self.manifest.note_key, self.manifest.peer_key)
        if held != named:
            raise InvalidEncoding("the secrets are not those of the manifest's keys")
        if self.parameters.digest() != self.manifest.parameters_digest:
            raise InvalidEncoding("the parameters are not those of the manifest")

    @property
    def note_public(self) -> bytes:
        """The Ed25519 public key of `note_secret`, 32 bytes."""
        return note_public(self.note_secret)

    def to_bytes(self) -> bytes:
        """The handover document with its length in front. Holds secrets: for the pipe only."""
        body = jcs(
            {
                "document": b64encode(self.document).decode("ascii"),
                "manifest": self.manifest.to_json(),
                "note_secret": to_hex(self.note_secret),
                "parameters": self.parameters.to_json(),
                "peer_secret": to_hex(self.peer_secret.secret),
                "signing_secret": to_hex(self.signing_secret.secret),
            }
        )
        if len(body) > MAX_HANDOVER_BYTES:
            raise InvalidEncoding(f"a handover of {len(body)} bytes; {MAX_HANDOVER_BYTES} fit")
        return len(body).to_bytes(_LENGTH_BYTES) + body

    @classmethod
    def read_from_fd(cls, fd: int) -> Self:
        """Read the identity from an inherited pipe's file descriptor, and close it.

        Raises `TransportFailure` when the pipe can't be read or ends early, `InvalidEncoding` for
        anything but one whole handover document.
        """
        try:
            with os.fdopen(fd, "rb") as pipe:
                length = int.from_bytes(_exactly(pipe, _LENGTH_BYTES))
                if length > MAX_HANDOVER_BYTES:
                    raise InvalidEncoding(f"a handover of {length} bytes is announced")
                body = _exactly(pipe, length)
                if pipe.read(1):
                    raise InvalidEncoding("bytes behind the handover document")
        except OSError as error:
            raise TransportFailure(
                f"file descriptor {fd} is no pipe from a boot: {error}; start the coordinator"
                " through `python -m enclave.simulator` or `python -m enclave.boot`"
            ) from error
        return cls._from_body(body)

    @classmethod
    def _from_body(cls, body: bytes) -> Self:
        members = parse_json(body)
        if not isinstance(members, dict) or members.keys() != _MEMBERS:
            raise InvalidEncoding("not exactly the members of a handover document")
        return cls(
            signing_secret=SecretKey(from_hex(members["signing_secret"], _SECRET_BYTES)),
            note_secret=from_hex(members["note_secret"], _SECRET_BYTES),
            peer_secret=SecretKey(from_hex(members["peer_secret"], _SECRET_BYTES)),
            manifest=Manifest.from_json(members["manifest"]),
            parameters=Parameters.from_json(members["parameters"]),
            document=_from_base64(members["document"]),
        )


def note_public(note_secret: bytes) -> bytes:
    """The Ed25519 public key (32 bytes) of a 32-byte seed; `InvalidEncoding` for other lengths."""
    try:
        return Ed25519PrivateKey.from_private_bytes(note_secret).public_key().public_bytes_raw()
    except ValueError as error:
        raise InvalidEncoding("an Ed25519 seed is 32 bytes") from error


def _exactly(pipe: BinaryIO, count: int) -> bytes:
    data = pipe.read(count)
    if len(data) != count:
        raise TransportFailure("the boot ended before it had handed over the identity")
    return data


def _from_base64(text: object) -> bytes:
    try:
        return b64decode(str(text), validate=True)
    except Base64Error as error:
        raise InvalidEncoding("the attestation document is not base64") from error
