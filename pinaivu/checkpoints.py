"""Checkpoints of a log as signed notes (C2SP signed-note and tlog-checkpoint; types.md, section 4).

    pinaivu/31337/<log id, 64 hex digits>
    <size>
    <root, base64>

    — pinaivu/31337/<log id> <Ed25519 over the three lines>
    — pinaivu/31337/<log id> <epoch, time and EIP-712 signature of `Checkpoint`>

The first signature is for everybody's log tools, the second for contracts; a checkpoint counts only
with both. Lines of other keys (witnesses) are ignored.

A verified note proves that the holder of both keys vouched for this size and root. It does not
prove that the keys are the epoch's (V2 does), nor that nobody was shown another root.
"""

import base64
import binascii
import re
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from pinaivu.encoding import from_decimal, h
from pinaivu.errors import InvalidEncoding, PeerFault
from pinaivu.keys import (
    SIGNATURE_BYTES,
    BadSignature,
    SecretKey,
    address_of_point,
    point_of_compressed,
)
from pinaivu.merkle.hashing import HASH_BYTES
from pinaivu.messages import Checkpoint
from pinaivu.typed_data import Domain, Signed

MAX_NOTE_LENGTH: Final = 16_384
MAX_SIGNATURES: Final = 64

_KEY_ID_BYTES: Final = 4
_NOTE_KEY_BYTES: Final = 32
_ED25519: Final = b"\x01"
_TYPED_DATA: Final = b"\xffpinaivu.checkpoint.v1"
_EPOCH_AND_TIME_BYTES: Final = 16
_ORIGIN: Final = re.compile(r"pinaivu/(?P<chain_id>[0-9]+)/(?P<log_id>[0-9a-f]{64})")
_SIGNATURE_LINE: Final = re.compile(
    r"\u2014 (?P<name>[^\s+\x00-\x1f\x7f]+) (?P<payload>[A-Za-z0-9+/]+={0,2})"
)


class Equivocation(PeerFault):
    """Two checkpoints of one log and size have different roots: provable, and a fault."""


class NoteSignature(Struct, frozen=True):
    """One signature line, not verified: who claims to have signed, and with what."""

    name: str
    key_id: bytes
    payload: bytes


class Note(Struct, frozen=True):
    """A parsed note; nothing in it is verified."""

    chain_id: int
    log_id: bytes
    size: int
    root: bytes
    signatures: tuple[NoteSignature, ...]

    @property
    def origin(self) -> str:
        """The log's name, which is also the name its own signature lines carry."""
        return origin_of(self.chain_id, self.log_id)

    @property
    def text(self) -> bytes:
        """The three signed lines."""
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n".encode()


class CheckpointKeys(Struct, frozen=True):
    """The public keys a log's epoch signs checkpoints with: 33 bytes SEC1, 32 bytes Ed25519."""

    signing_key: bytes
    note_key: bytes

    @property
    def signer(self) -> bytes:
        """Address of the signing key."""
        return address_of_point(point_of_compressed(self.signing_key))


def origin_of(chain_id: int, log_id: bytes) -> str:
    """``pinaivu/<chain id>/<log id>``."""
    return f"pinaivu/{chain_id}/{log_id.hex()}"


def verifier_key(origin: str, note_key: bytes) -> str:
    """The Ed25519 key as log tools take it: ``<origin>+<key id>+<base64>``."""
    return f"{origin}+{_note_key_id(origin, note_key).hex()}+{_base64(_ED25519 + note_key)}"


class CheckpointSigner:
    """Signs the checkpoints of one log under one epoch's two keys.

    `note_secret` is the 32-byte Ed25519 seed. What it is given to sign it signs: that the leaves
    are durable, and that no other root of that size was signed before, is the caller's promise.
    """

    def __init__(self, domain: Domain, log_id: bytes, key: SecretKey, note_secret: bytes) -> None:
        if len(note_secret) != _NOTE_KEY_BYTES:
            raise InvalidEncoding(f"an Ed25519 seed has {_NOTE_KEY_BYTES} bytes")
        self._domain = domain
        self._log_id = log_id
        self._key = key
        self._note_key = Ed25519PrivateKey.from_private_bytes(note_secret)
        self.keys = CheckpointKeys(key.compressed, self._note_key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"CheckpointSigner({origin_of(self._domain.chain_id, self._log_id)})"

    def sign(self, checkpoint: Checkpoint) -> str:
        """The note of a checkpoint of this log; `InvalidEncoding` for another log's."""
        if checkpoint.log_id != self._log_id:
            raise InvalidEncoding(f"a checkpoint of log {checkpoint.log_id.hex()}")
        note = Note(self._domain.chain_id, self._log_id, checkpoint.size, checkpoint.root, ())
        signed = Signed.by(self._key, self._domain, checkpoint)
        lines = (
            _note_key_id(note.origin, self.keys.note_key) + self._note_key.sign(note.text),
            _signing_key_id(note.origin, self.keys.signing_key)
            + checkpoint.epoch.to_bytes(8)
            + checkpoint.time_ms.to_bytes(8)
            + signed.signature,
        )
        signatures = "".join(f"\u2014 {note.origin} {_base64(line)}\n" for line in lines)
        return f"{note.text.decode()}\n{signatures}"


def parse_note(raw: str) -> Note:
    """Read a note of exactly three lines, an empty one and signature lines, LF each.

    Raises `InvalidEncoding` for every other form; verifies nothing.
    """
    if len(raw) > MAX_NOTE_LENGTH:
        raise InvalidEncoding(f"a note of more than {MAX_NOTE_LENGTH} characters")
    match raw.split("\n"):
        case [origin, size, root, "", *signatures, ""] if signatures:
            pass
        case _:
            raise InvalidEncoding("a note is three lines, an empty one, signature lines, LF each")
    if len(signatures) > MAX_SIGNATURES:
        raise InvalidEncoding(f"a note with more than {MAX_SIGNATURES} signatures")
    chain_id, log_id = _parse_origin(origin)
    return Note(
        chain_id,
        log_id,
        from_decimal(size, 64),
        _unbase64(root, HASH_BYTES),
        tuple(_parse_signature(line) for line in signatures),
    )


def verify_note(
    raw: str, domain: Domain, log_id: bytes, keys: CheckpointKeys
) -> Signed[Checkpoint]:
    """The checkpoint of a note, if both keys signed it for this chain and log.

    Raises `InvalidEncoding` for what is no note, and `BadSignature` for a note of another log, a
    signature that is missing, doubled or wrong.
    """
    note = parse_note(raw)
    expected = origin_of(domain.chain_id, log_id)
    if note.origin != expected:
        raise BadSignature(f"the note is of {note.origin}, not of {expected}")
    _verify_note_key(note, keys.note_key)
    signed = _typed_checkpoint(note, keys.signing_key)
    signed.require(domain, keys.signer)
    return signed


def claimed_checkpoint(note: Note) -> Signed[Checkpoint]:
    """The typed checkpoint in a note whose keys nobody named, as evidence: nothing is verified.

    Raises `InvalidEncoding` unless exactly one line in the log's name has its form.
    """
    length = _EPOCH_AND_TIME_BYTES + SIGNATURE_BYTES
    found = [s.payload for s in note.signatures if s.name == note.origin]
    typed = [payload for payload in found if len(payload) == length]
    if len(typed) != 1:
        raise InvalidEncoding(f"{len(typed)} lines of epoch, time and EIP-712 signature, not one")
    return _read_typed(note, typed[0])


def require_same_history(one: Checkpoint, other: Checkpoint) -> None:
    """Raise `Equivocation` for two checkpoints of one log and size with different roots.

    Other sizes need a consistency proof; epochs and times may differ.
    """
    if (one.log_id, one.size) == (other.log_id, other.size) and one.root != other.root:
        raise Equivocation(
            f"log {one.log_id.hex()} has two roots at size {one.size}: "
            f"{one.root.hex()} and {other.root.hex()}"
        )


def _verify_note_key(note: Note, public: bytes) -> None:
    signature = _payload_of(note, _note_key_id(note.origin, public), "Ed25519")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, note.text)
    except (InvalidSignature, ValueError) as error:
        raise BadSignature("the note's Ed25519 signature is wrong") from error


def _typed_checkpoint(note: Note, compressed: bytes) -> Signed[Checkpoint]:
    payload = _payload_of(note, _signing_key_id(note.origin, compressed), "EIP-712")
    if len(payload) != _EPOCH_AND_TIME_BYTES + SIGNATURE_BYTES:
        raise BadSignature("the note's EIP-712 line is not epoch, time and signature")
    return _read_typed(note, payload)


def _read_typed(note: Note, payload: bytes) -> Signed[Checkpoint]:
    checkpoint = Checkpoint(
        log_id=note.log_id,
        epoch=int.from_bytes(payload[:8]),
        size=note.size,
        root=note.root,
        time_ms=int.from_bytes(payload[8:_EPOCH_AND_TIME_BYTES]),
    )
    return Signed(checkpoint, payload[_EPOCH_AND_TIME_BYTES:])


def _payload_of(note: Note, key_id: bytes, what: str) -> bytes:
    """What the one line of this key holds; two lines would leave it open which counts."""
    found = [s.payload for s in note.signatures if (s.name, s.key_id) == (note.origin, key_id)]
    if len(found) != 1:
        raise BadSignature(f"the note has {len(found)} {what} lines of the expected key, not one")
    return found[0]


def _note_key_id(origin: str, public: bytes) -> bytes:
    return h(origin.encode(), b"\n", _ED25519, public)[:_KEY_ID_BYTES]


def _signing_key_id(origin: str, compressed: bytes) -> bytes:
    return h(origin.encode(), b"\n", _TYPED_DATA, compressed)[:_KEY_ID_BYTES]


def _parse_origin(line: str) -> tuple[int, bytes]:
    match = _ORIGIN.fullmatch(line)
    if not match:
        raise InvalidEncoding(f"{line[:100]!r} is no log's origin")
    return from_decimal(match["chain_id"], 256), bytes.fromhex(match["log_id"])


def _parse_signature(line: str) -> NoteSignature:
    match = _SIGNATURE_LINE.fullmatch(line)
    if not match:
        raise InvalidEncoding(f"{line[:100]!r} is no signature line")
    payload = _unbase64(match["payload"])
    if len(payload) <= _KEY_ID_BYTES:
        raise InvalidEncoding("a signature line without a signature")
    return NoteSignature(match["name"], payload[:_KEY_ID_BYTES], payload[_KEY_ID_BYTES:])


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _unbase64(text: str, length: int | None = None) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidEncoding(f"{text[:100]!r} is not base64") from error
    if _base64(value) != text or length not in (None, len(value)):
        raise InvalidEncoding(f"{text[:100]!r} is not canonical base64 of the length due")
    return value
