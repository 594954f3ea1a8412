"""The container: every flipped bit is noticed, and a document has one spelling."""

import zlib
from hashlib import sha256
from typing import Any

import pytest

from pinaivu.bundles import MAGIC, MAX_UNPACKED, pack, unpack
from pinaivu.encoding import jcs
from pinaivu.errors import InvalidEncoding
from tests.unit.verify_support import rich_world

SMALL: dict[str, Any] = {
    "version": 1,
    "chain": {"chain_id": 1, "settlement": "0x"},
    "log": {"note": "— a note with a dash\n"},
    "receipt": {},
    "grant": {},
    "job": {},
    "awards": [],
    "failures": [],
    "completions": [],
}


def container(text: bytes) -> bytes:
    """A container around any text, its hash right."""
    rest = zlib.compress(text)
    return MAGIC + sha256(rest).digest() + rest


def test_what_was_packed_comes_back() -> None:
    assert unpack(pack(SMALL)) == SMALL


def test_every_flipped_bit_is_noticed() -> None:
    raw = pack(SMALL)
    for position in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(InvalidEncoding):
            unpack(bytes(flipped))


def test_every_flipped_bit_of_a_whole_bundle_is_noticed_at_every_eighth_byte() -> None:
    raw = rich_world().made.raw
    for position in range(0, len(raw), 8):
        flipped = bytearray(raw)
        flipped[position] ^= 1 << position % 7
        with pytest.raises(InvalidEncoding):
            unpack(bytes(flipped))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        MAGIC,
        b"PNVBNDL\x02" + pack(SMALL)[8:],
        pack(SMALL)[:-1],
        pack(SMALL) + b"\0",
    ],
)
def test_what_is_no_container_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidEncoding):
        unpack(raw)


@pytest.mark.parametrize(
    "text",
    [
        jcs(SMALL) + b"\n",
        jcs(SMALL).replace(b'"version":1', b'"version": 1'),
        jcs(SMALL).replace(b'"version":1', b'"version":1.0'),
        jcs(SMALL).replace(b'"version":1', b'"version":true'),
        jcs(SMALL).replace(b'"version":1', b'"version":2'),
        jcs(SMALL).replace(b'"chain_id":1', b'"chain_id":1e16'),
        jcs(SMALL).replace("—".encode(), b"\\u2014"),
        jcs(SMALL).replace(b'"awards":[],', b""),
        jcs(SMALL | {"more": 1}),
        b"[]",
        b"{}",
    ],
)
def test_a_document_that_is_not_canonical_or_whole_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidEncoding):
        unpack(container(text))


def test_bytes_behind_the_stream_are_refused_though_the_hash_is_right() -> None:
    rest = zlib.compress(jcs(SMALL)) + b"\0"
    with pytest.raises(InvalidEncoding, match="trailing"):
        unpack(MAGIC + sha256(rest).digest() + rest)


def test_a_bundle_that_unpacks_to_too_much_is_refused_early() -> None:
    with pytest.raises(InvalidEncoding, match="more than"):
        unpack(container(b" " * (MAX_UNPACKED + 1)))


@pytest.mark.parametrize("document", [SMALL | {"more": 1}, {"version": 1}, SMALL | {"version": 2}])
def test_only_whole_documents_are_packed(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidEncoding):
        pack(document)
