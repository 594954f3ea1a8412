"""Parsing: one accepted form, and everything beside it refused by name."""

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinaivu.attestation import MalformedDocument, measurement, parse
from pinaivu.attestation.document import MAX_DOCUMENT_BYTES
from pinaivu.encoding import h
from pinaivu.errors import InvalidEncoding, PeerFault
from tests.unit.forged_attestations import MODULE_ID, NOW_MS, envelope, payload_fields

PAYLOAD = cbor2.dumps(payload_fields())


def with_fields(**changes: Any) -> bytes:
    return envelope(cbor2.dumps(payload_fields(**changes)))


def without(name: str) -> bytes:
    fields = payload_fields()
    del fields[name]
    return envelope(cbor2.dumps(fields))


def test_a_well_formed_document_keeps_every_field() -> None:
    document = parse(envelope(PAYLOAD))
    assert (document.module_id, document.timestamp_ms) == (MODULE_ID, NOW_MS)
    assert document.pcrs[0] == b"\1" * 48
    assert len(document.pcrs) == 16
    assert (document.public_key, document.user_data) == (b"k" * 33, b"u" * 32)
    assert document.nonce == b"n" * 32
    assert document.payload == PAYLOAD
    assert document.payload_digest == h(PAYLOAD)


def test_tag_18_is_accepted_and_changes_nothing_but_the_bytes() -> None:
    assert parse(b"\xd2" + envelope(PAYLOAD)) == parse(envelope(PAYLOAD))


def test_an_indefinite_payload_map_is_accepted() -> None:
    """Newer hypervisors write one."""
    assert PAYLOAD[0] == 0xA9
    indefinite = b"\xbf" + PAYLOAD[1:] + b"\xff"
    assert parse(envelope(indefinite)).pcrs == parse(envelope(PAYLOAD)).pcrs


@pytest.mark.parametrize("name", ["public_key", "user_data", "nonce"])
def test_null_means_absent_and_empty_does_not(name: str) -> None:
    assert getattr(parse(with_fields(**{name: None})), name) is None
    assert getattr(parse(without(name)), name) is None
    assert getattr(parse(with_fields(**{name: b""})), name) == b""


ENVELOPES = {
    "empty input": b"",
    "trailing byte": envelope(PAYLOAD) + b"\0",
    "cut off": envelope(PAYLOAD)[:-1],
    "tagged twice": b"\xd2\xd2" + envelope(PAYLOAD),
    "another tag": b"\xd1" + envelope(PAYLOAD),
    "self-described": b"\xd9\xd9\xf7" + envelope(PAYLOAD),
    "array of three": cbor2.dumps([b"", {}, PAYLOAD]),
    "array of five": cbor2.dumps([b"", {}, PAYLOAD, bytes(96), b""]),
    "a map": cbor2.dumps({0: b"", 1: {}, 2: PAYLOAD, 3: bytes(96)}),
    "indefinite array": b"\x9f" + envelope(PAYLOAD)[1:] + b"\xff",
    "alg ES256": envelope(PAYLOAD, protected=bytes.fromhex("a10126")),
    "alg ES512": envelope(PAYLOAD, protected=bytes.fromhex("a1013823")),
    "alg of an emulator": envelope(PAYLOAD, protected=bytes.fromhex("a10120")),
    "alg EdDSA": envelope(PAYLOAD, protected=bytes.fromhex("a10127")),
    "alg as text": envelope(PAYLOAD, protected=cbor2.dumps({1: "ES384"})),
    "alg spelled longer": envelope(PAYLOAD, protected=bytes.fromhex("a101390022")),
    "alg with a key id": envelope(PAYLOAD, protected=cbor2.dumps({1: -35, 4: b"k"})),
    "no protected header": envelope(PAYLOAD, protected=b""),
    "protected as a map": envelope(PAYLOAD, protected={1: -35}),
    "alg unprotected": envelope(PAYLOAD, protected=b"", unprotected={1: -35}),
    "unprotected not empty": envelope(PAYLOAD, unprotected={4: b"k"}),
    "unprotected null": envelope(PAYLOAD, unprotected=None),
    "signature of 95 bytes": envelope(PAYLOAD, bytes(95)),
    "signature of 97 bytes": envelope(PAYLOAD, bytes(97)),
    "detached payload": cbor2.dumps([bytes.fromhex("a1013822"), {}, None, bytes(96)]),
    "empty payload": envelope(b""),
    "payload as text": cbor2.dumps([bytes.fromhex("a1013822"), {}, "payload", bytes(96)]),
}

PAYLOADS = {
    "trailing byte": envelope(PAYLOAD + b"\0"),
    "repeated key": envelope(b"\xaa" + PAYLOAD[1:] + cbor2.dumps("nonce") + cbor2.dumps(b"x")),
    "repeated PCR": envelope(
        PAYLOAD.replace(b"\x01\x58\x30" + b"\2" * 48, b"\x00\x58\x30" + b"\2" * 48)
    ),
    "unknown field": with_fields(extra=1),
    "a field named by a number": envelope(b"\xaa" + PAYLOAD[1:] + b"\x01\x40"),
    "a field named by a list": envelope(b"\xaa" + PAYLOAD[1:] + b"\x80\x40"),
    "a NitroTPM document": envelope(
        cbor2.dumps({**payload_fields(), "nitrotpm_pcrs": payload_fields()["pcrs"]})
    ),
    "no pcrs": without("pcrs"),
    "no certificate": without("certificate"),
    "no cabundle": without("cabundle"),
    "no module id": without("module_id"),
    "no digest": without("digest"),
    "no timestamp": without("timestamp"),
    "digest SHA256": with_fields(digest="SHA256"),
    "timestamp zero": with_fields(timestamp=0),
    "timestamp negative": with_fields(timestamp=-1),
    "timestamp true": with_fields(timestamp=True),
    "timestamp a float": with_fields(timestamp=1.0),
    "timestamp a bignum": with_fields(timestamp=cbor2.CBORTag(2, b"\1")),
    "timestamp text": with_fields(timestamp="1"),
    "module id of an instance": with_fields(module_id="i-0123456789abcdef0"),
    "module id as bytes": with_fields(module_id=MODULE_ID.encode()),
    "module id without end": with_fields(module_id="-enc" + "0" * 300),
    "no PCR at all": with_fields(pcrs={}),
    "33 PCRs": with_fields(pcrs={index: bytes(48) for index in range(33)}),
    "PCR 32": with_fields(pcrs={32: bytes(48)}),
    "PCR minus one": with_fields(pcrs={-1: bytes(48)}),
    "PCR true": with_fields(pcrs={True: bytes(48)}),
    "PCR of 32 bytes": with_fields(pcrs={0: bytes(32)}),
    "PCRs in a list": with_fields(pcrs=[bytes(48)]),
    "empty certificate": with_fields(certificate=b""),
    "certificate too long": with_fields(certificate=bytes(1025)),
    "empty cabundle": with_fields(cabundle=[]),
    "cabundle of nine": with_fields(cabundle=[b"0"] * 9),
    "cabundle with an empty entry": with_fields(cabundle=[b"0", b""]),
    "cabundle as bytes": with_fields(cabundle=b"0"),
    "public key too long": with_fields(public_key=bytes(1025)),
    "user data too long": with_fields(user_data=bytes(513)),
    "nonce too long": with_fields(nonce=bytes(513)),
    "nonce as text": with_fields(nonce="nonce"),
    "a shared reference": with_fields(nonce=cbor2.CBORTag(28, b"n")),
    "a regular expression": with_fields(nonce=cbor2.CBORTag(35, "n*")),
    "deeply nested": with_fields(cabundle=[[[[[[b"0"]]]]]]),
    "a list": envelope(cbor2.dumps([1])),
}


@pytest.mark.parametrize("raw", ENVELOPES.values(), ids=ENVELOPES.keys())
def test_other_envelopes_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedDocument):
        parse(raw)


@pytest.mark.parametrize("raw", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_other_payloads_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedDocument):
        parse(raw)


def test_input_beyond_the_limit_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(MalformedDocument, match="at most 32768 are read"):
        parse(bytes(MAX_DOCUMENT_BYTES + 1))


def test_the_repeated_register_of_the_table_is_one() -> None:
    """Guards the row above: had the replacement missed, the row would be a good document."""
    assert b"\x01\x58\x30" + b"\2" * 48 in PAYLOAD


def test_no_tag_number_is_understood_inside() -> None:
    """Whatever the CBOR library learns to turn into objects, a document holds none of it."""
    for tag in range(70_000):
        raw = envelope(PAYLOAD, unprotected=cbor2.CBORTag(tag, {}))
        with pytest.raises(MalformedDocument):
            parse(raw)


def test_malformed_documents_blame_the_peer_and_are_encoding_errors() -> None:
    with pytest.raises(PeerFault):
        parse(b"")
    with pytest.raises(InvalidEncoding):
        parse(b"")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(raw: bytes) -> None:
    with pytest.raises(MalformedDocument):
        parse(raw)


@given(st.binary(max_size=200))
def test_arbitrary_payloads_raise_nothing_else(raw: bytes) -> None:
    with pytest.raises(MalformedDocument):
        parse(envelope(raw))


def test_measurement_is_the_tagged_hash_of_the_first_three_registers() -> None:
    pcrs = {index: bytes([index]) * 48 for index in range(16)}
    tag = b"pnv1:pcr".ljust(16, b"\0")
    assert measurement(pcrs) == h(tag + pcrs[0] + pcrs[1] + pcrs[2])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_measurement_needs_all_three_registers_whole(index: int) -> None:
    pcrs = {number: bytes(48) for number in range(3)}
    with pytest.raises(MalformedDocument):
        measurement({**pcrs, index: bytes(32)})
    del pcrs[index]
    with pytest.raises(MalformedDocument):
        measurement(pcrs)
