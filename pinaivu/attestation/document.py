"""The attestation document: one accepted form, parsed strictly and never re-encoded.

A document is a COSE_Sign1 (tag 18 or untagged) whose protected header is exactly ES384, around a
CBOR map of known fields. Real documents carry absent fields as null and, from newer hypervisors,
the payload as an indefinite-length map; both are accepted, nothing else is. The form of the outer
envelope is malleable (tag, signature twin): a document is named by `Document.payload_digest`, the
SHA-256 of the signed payload, never by a hash of its bytes.

Parsing proves nothing: the signature and the chain are `pinaivu.attestation.chain`'s business.
Field limits: AWS, "attestation process" (nsm-api), the stricter where it contradicts itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeVar

import cbor2

from pinaivu.attestation.errors import MalformedDocument
from pinaivu.encoding import Tag, tagged_hash

MAX_DOCUMENT_BYTES: Final = 32 * 1024
MAX_PAYLOAD_BYTES: Final = 16 * 1024
MAX_PUBLIC_KEY_BYTES: Final = 1024
MAX_USER_DATA_BYTES: Final = 512
MAX_NONCE_BYTES: Final = 512
MEASURED_PCRS: Final = (0, 1, 2)
"""Image, kernel with boot ramdisk, application: the registers that identify the code."""
PCR_BYTES: Final = 48
PROTECTED_ES384: Final = bytes.fromhex("a1013822")
"""The only accepted protected header, ``{alg: ES384}``; byte equality rules out other spellings."""

_TAG_COSE_SIGN1: Final = b"\xd2"
_SIGNATURE_BYTES: Final = 96
_MAX_CERTIFICATE_BYTES: Final = 1024
_MAX_CHAIN: Final = 8
_MAX_PCRS: Final = 32
_MAX_MODULE_ID: Final = 256
_MAX_NESTING: Final = 4
_OPTIONAL: Final = {
    "public_key": MAX_PUBLIC_KEY_BYTES,
    "user_data": MAX_USER_DATA_BYTES,
    "nonce": MAX_NONCE_BYTES,
}
_MANDATORY: Final = frozenset(
    {"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"}
)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A well-formed, as yet unproven document. Certificates are DER; absent fields are None."""

    module_id: str
    timestamp_ms: int
    pcrs: Mapping[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    """Root first, as the document has it."""
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def payload_digest(self) -> bytes:
        """SHA-256 of the signed payload: the document's only stable name."""
        return sha256(self.payload).digest()

    @property
    def measurement(self) -> bytes:
        """`measurement` of this document's PCRs."""
        return measurement(self.pcrs)


def measurement(pcrs: Mapping[int, bytes]) -> bytes:
    """``H(T.pcr ‖ PCR0 ‖ PCR1 ‖ PCR2)``, 48 bytes each (types.md §6); 32 bytes.

    Raises `MalformedDocument` when one of the three is missing or of another length.
    """
    registers = [pcrs.get(index, b"") for index in MEASURED_PCRS]
    if any(len(register) != PCR_BYTES for register in registers):
        _refuse(f"PCR0, PCR1 and PCR2 of {PCR_BYTES} bytes each are needed for a measurement")
    return tagged_hash(Tag.PCR, *registers)


def parse(raw: bytes) -> Document:
    """Read a document. Raises `MalformedDocument` for every form but the accepted one."""
    if len(raw) > MAX_DOCUMENT_BYTES:
        _refuse(f"{len(raw)} bytes, at most {MAX_DOCUMENT_BYTES} are read")
    envelope = _decode(raw.removeprefix(_TAG_COSE_SIGN1), indefinite=False)
    if not isinstance(envelope, list) or len(envelope) != 4:  # noqa: PLR2004 - COSE_Sign1
        _refuse("no COSE_Sign1 array of four")
    protected, unprotected, payload, signature = envelope
    if protected != PROTECTED_ES384:
        _refuse("the protected header is not exactly {alg: ES384}")
    if unprotected != {}:
        _refuse("the unprotected header is not empty")
    return _fields(
        payload=_bytes("payload", payload, 1, MAX_PAYLOAD_BYTES),
        signature=_bytes("signature", signature, _SIGNATURE_BYTES, _SIGNATURE_BYTES),
    )


def _fields(*, payload: bytes, signature: bytes) -> Document:
    fields = _typed("payload", _decode(payload, indefinite=True), dict)
    unknown = fields.keys() - _MANDATORY - _OPTIONAL.keys()
    missing = _MANDATORY - fields.keys()
    if unknown or missing:  # a NitroTPM document is signed under the same root: nitrotpm_pcrs
        _refuse(f"unknown fields {sorted(map(repr, unknown))}, missing fields {sorted(missing)}")
    if fields["digest"] != "SHA384":
        _refuse("digest is not SHA384")
    return Document(
        module_id=_module_id(fields["module_id"]),
        timestamp_ms=_integer("timestamp", fields["timestamp"], 1, (1 << 63) - 1),
        pcrs=_pcrs(fields["pcrs"]),
        certificate=_bytes("certificate", fields["certificate"], 1, _MAX_CERTIFICATE_BYTES),
        cabundle=_cabundle(fields["cabundle"]),
        **{name: _optional(name, fields.get(name), limit) for name, limit in _OPTIONAL.items()},
        payload=payload,
        signature=signature,
    )


def _module_id(raw: object) -> str:
    module_id = _typed("module_id", raw, str)
    if "-enc" not in module_id or len(module_id) > _MAX_MODULE_ID:
        _refuse("module_id names no enclave")
    return module_id


def _pcrs(raw: object) -> Mapping[int, bytes]:
    registers = _typed("pcrs", raw, dict)
    if not 1 <= len(registers) <= _MAX_PCRS:
        _refuse(f"{len(registers)} PCRs")
    return MappingProxyType(
        {
            _integer("PCR index", index, 0, _MAX_PCRS - 1): _bytes(
                "PCR", value, PCR_BYTES, PCR_BYTES
            )
            for index, value in registers.items()
        }
    )


def _cabundle(raw: object) -> tuple[bytes, ...]:
    bundle = _typed("cabundle", raw, list)
    if not 1 <= len(bundle) <= _MAX_CHAIN:
        _refuse(f"{len(bundle)} certificates in cabundle")
    return tuple(_bytes("cabundle entry", entry, 1, _MAX_CERTIFICATE_BYTES) for entry in bundle)


def _optional(name: str, raw: object, limit: int) -> bytes | None:
    return None if raw is None else _bytes(name, raw, 0, limit)


def _bytes(name: str, raw: object, least: int, most: int) -> bytes:
    value = _typed(name, raw, bytes)
    if not least <= len(value) <= most:
        _refuse(f"{name} has {len(value)} bytes, {least} to {most} are allowed")
    return value


def _integer(name: str, raw: object, least: int, most: int) -> int:
    value = _typed(name, raw, int)
    if not least <= value <= most:
        _refuse(f"{name} is {value}")
    return value


def _typed(name: str, raw: object, kind: type[T]) -> T:
    if type(raw) is not kind:  # exactly: a bool is no integer here
        _refuse(f"{name} is {type(raw).__name__}, not {kind.__name__}")
    return raw


def _decode(raw: bytes, *, indefinite: bool) -> Any:
    """One CBOR item that fills `raw`: no tags, no repeated keys, nothing behind it."""
    stream = BytesIO(raw)
    try:
        value = cbor2.CBORDecoder(
            stream,
            tag_hook=_no_tag,
            semantic_decoders=_NO_TAGS,
            max_depth=_MAX_NESTING,
            allow_indefinite=indefinite,
            allow_duplicate_keys=False,
        ).decode()
    except cbor2.CBORDecodeError as error:
        raise MalformedDocument(f"attestation document: not strict CBOR: {error}") from error
    if stream.tell() != len(raw):
        _refuse("bytes behind the CBOR item")
    return value


def _no_tag(*_: object) -> NoReturn:
    raise MalformedDocument("attestation document: tagged CBOR inside")


# cbor2 turns these into dates, patterns, shared references and more unless told otherwise; a test
# walks the tag numbers, so that one it learns later is noticed.
_NO_TAGS: Final = dict.fromkeys(
    (*range(6), 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799),
    _no_tag,
)


def _refuse(why: str) -> NoReturn:
    raise MalformedDocument(f"attestation document: {why}")
