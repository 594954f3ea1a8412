"""Bundles: everything needed to check one request, in one file.

    "PNVBNDL" ‖ u8(1) ‖ SHA-256(rest) ‖ rest        rest = one zlib stream of a JCS document

The hash makes every flipped bit visible, also those that compression ignores. Reading is strict:
other versions, trailing bytes, a document that isn't its own canonical form or that unpacks to more
than 8 MiB are refused. What the members mean is `pinaivu.verify`'s business; a bundle that unpacks
proves nothing yet.
"""

import json
import re
import zlib
from hashlib import sha256
from typing import Any, Final

import msgspec

from pinaivu.encoding import jcs, parse_json
from pinaivu.errors import InvalidEncoding

MAGIC: Final = b"PNVBNDL\x01"
MAX_UNPACKED: Final = 8 << 20
_HASH_BYTES: Final = 32
_BEYOND_BMP: Final = re.compile(rb"[\xf0-\xff]")  # where a UTF-8 sequence of four begins
REQUIRED: Final = frozenset(
    {"version", "chain", "receipt", "grant", "job", "awards", "failures", "completions", "log"}
)
OPTIONAL: Final = frozenset(
    {"superseded", "delivery", "transcript", "batch", "epochs", "model_card", "proofs", "holder"}
)


def pack(document: dict[str, Any]) -> bytes:
    """Write a bundle; `InvalidEncoding` for unknown or missing members."""
    _require_members(document)
    rest = zlib.compress(jcs(document), 9)
    return MAGIC + sha256(rest).digest() + rest


def unpack(raw: bytes) -> dict[str, Any]:
    """Read a bundle's document, checking everything that the container promises."""
    head = len(MAGIC) + _HASH_BYTES
    if not raw.startswith(MAGIC) or len(raw) <= head:
        raise InvalidEncoding("not a version 1 bundle: it starts with PNVBNDL and a version byte")
    rest = raw[head:]
    if sha256(rest).digest() != raw[len(MAGIC) : head]:
        raise InvalidEncoding("the bundle was changed: its hash does not match")
    text = _inflate(rest)
    document = parse_json(text)
    if not isinstance(document, dict) or not _canonical(document, text):
        raise InvalidEncoding("the bundle's document is not in canonical form")
    _require_members(document)
    return document


def _canonical(document: dict[str, Any], text: bytes) -> bool:
    """Whether `text` is the JCS of `document`.

    Writing it takes most of the time of reading a bundle. Without numbers that have a fraction or
    an exponent, and without characters whose UTF-16 order is another than their own, JCS is what a
    fast encoder writes with sorted keys; bundles without the holder's part are all like that.
    """
    if not _BEYOND_BMP.search(text):
        try:
            json.loads(text, parse_float=_stop)
            return msgspec.json.encode(document, order="sorted") == text
        except _Fraction:
            pass
    return jcs(document) == text


class _Fraction(Exception):
    """A number that JCS writes in a way of its own."""


def _stop(_: str) -> Any:
    raise _Fraction


def _inflate(rest: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(rest, MAX_UNPACKED)
    except zlib.error as error:
        raise InvalidEncoding(f"the bundle does not unpack: {error}") from error
    if not inflater.eof or inflater.unused_data:
        raise InvalidEncoding(f"the bundle has trailing bytes or more than {MAX_UNPACKED} of text")
    return text


def _require_members(document: dict[str, Any]) -> None:
    missing = REQUIRED - document.keys()
    unknown = document.keys() - REQUIRED - OPTIONAL
    if missing or unknown:
        raise InvalidEncoding(
            f"bundle members: missing {sorted(missing)}, unknown {sorted(unknown)}"
        )
    if type(document["version"]) is not int or document["version"] != 1:  # true equals 1 otherwise
        raise InvalidEncoding(f"unknown bundle version {document['version']!r}")
