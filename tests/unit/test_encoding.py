"""Hex, decimals, strict JSON, JCS and tags."""

import hashlib
import struct
import sys

import pytest

from pinaivu import encoding
from pinaivu.encoding import InvalidParameter, Tag, jcs, parse_json
from pinaivu.errors import InvalidEncoding


@pytest.mark.parametrize("value", [b"", b"\0", bytes(range(32))])
def test_hex_round_trips(value: bytes) -> None:
    assert encoding.from_hex(encoding.to_hex(value), len(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        "0X00",
        "0xAB",
        "0x0",
        "0x0g",
        "0x 00",
        "0x00 ",
        "0x00\n",
        "0x\u0660\u0660",
        None,
        7,
        b"0x00",
    ],
)
def test_hex_in_another_form_is_refused(text: object) -> None:
    with pytest.raises(InvalidEncoding, match="hex"):
        encoding.from_hex(text)


def test_hex_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidEncoding, match="1 bytes of hex where 2 are due"):
        encoding.from_hex("0x00", 2)


@pytest.mark.parametrize("value", [0, 1, (1 << 128) - 1])
def test_decimal_round_trips(value: int) -> None:
    assert encoding.from_decimal(encoding.to_decimal(value), 128) == value


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "00", "01", "1.0", "1e3", " 1", "1\n", "٣", "1_0", "9" * 5000, 1, None]
)
def test_decimal_in_another_form_is_refused(text: object) -> None:
    with pytest.raises(InvalidEncoding, match="decimal"):
        encoding.from_decimal(text, 128)


def test_decimal_beyond_its_width_is_refused() -> None:
    with pytest.raises(InvalidEncoding, match="beyond 64 bits"):
        encoding.from_decimal(str(1 << 64), 64)


def test_decimal_of_a_negative_is_refused() -> None:
    with pytest.raises(InvalidEncoding, match="negative"):
        encoding.to_decimal(-1)


def test_tags_are_16_distinct_bytes() -> None:
    assert {len(tag) for tag in Tag} == {16}
    assert len(set(Tag)) == 13
    assert bytes(Tag.TOKENIZER) == b"pnv1:tokenizer\0\0"


def test_tagged_hash_joins_tag_and_parts() -> None:
    expected = hashlib.sha256(b"pnv1:ack\0\0\0\0\0\0\0\0" + b"ab" + b"c").digest()
    assert encoding.tagged_hash(Tag.ACK, b"ab", b"c") == expected
    assert encoding.h(Tag.ACK, b"abc") == expected


# RFC 8785, appendix B: IEEE 754 bits and the number as JCS writes it.
RFC_8785_NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]


@pytest.mark.parametrize(("bits", "text"), RFC_8785_NUMBERS)
def test_jcs_writes_numbers_as_the_rfc_does(bits: str, text: str) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    assert jcs(value) == text.encode()


def test_jcs_orders_members_by_utf16_units() -> None:
    members = {"\ufb33": 1, "\U0001f600": 2, "€": 3, "\r": 4, "1": 5, "a": 6, "": 7}
    assert jcs(members) == ('{"":7,"\\r":4,"1":5,"a":6,"€":3,"\U0001f600":2,"\ufb33":1}'.encode())


def test_jcs_escapes_no_more_than_json_must() -> None:
    assert jcs('/\u2028"\\\b\f\n\r\t\x01\x7f') == (
        b'"/\xe2\x80\xa8\\"\\\\\\b\\f\\n\\r\\t\\u0001\x7f"'
    )


@pytest.mark.parametrize(
    "value",
    [
        1 << 53,
        -(1 << 53),
        float("nan"),
        float("inf"),
        "\ud800",
        {"\udc00": 1},
        {1: 2},
        {"a": b""},
        {1, 2},
    ],
)
def test_jcs_refuses_what_has_no_canonical_form(value: object) -> None:
    with pytest.raises(InvalidEncoding, match="canonical"):
        jcs(value)


def test_jcs_refuses_endless_nesting() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(InvalidEncoding, match="too deeply"):
        jcs(endless)


def test_json_is_read() -> None:
    raw = ' {"a": [1, -0, 1.5, true, null, "\\ud83d\\ude00é"], "b": {}} '.encode()
    assert parse_json(raw) == {"a": [1, 0, 1.5, True, None, "\U0001f600é"], "b": {}}


@pytest.mark.parametrize(
    "raw",
    [b"", b" ", b"{", b"{}{}", b"{'a':1}", b"[1,]", b"01", b'"\x01"', b"\xef\xbb\xbf{}", b"nul"],
)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidParameter, match="not JSON") as caught:
        parse_json(raw)
    assert caught.value.parameter is None


@pytest.mark.parametrize("raw", [b'"\xff"', b'"\xed\xa0\x80"', "{}".encode("utf-16")])
def test_what_is_no_utf8_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidParameter, match="not UTF-8"):
        parse_json(raw)


REFUSED_MEMBERS = [
    (b'{"a": 1, "a": 1}', "a", "given twice"),
    (b'{"m": [{}, {"x": {"b": 1, "\\u0062": 2}}]}', "m[1].x.b", "given twice"),
    (b'{"a": "\\ud800"}', "a", "lone surrogate"),
    (b'{"a": "\\ude00\\ud83d"}', "a", "lone surrogate"),
    (b'{"a": {"\\udfff": 1}}', "a.\\udfff", "lone surrogate"),
    (b'{"seed": 9007199254740992}', "seed", "integer beyond"),
    (b'{"seed": -9007199254740992}', "seed", "integer beyond"),
    (b'{"seed": 9007199254740992.0}', "seed", "integer beyond"),
    (b'{"seed": -1e20}', "seed", "integer beyond"),
    (b'{"seed": ' + b"9" * 5000 + b"}", "seed", "integer beyond"),
    (b'{"t": 1e400}', "t", "finite double"),
    (b'{"t": -1e400}', "t", "finite double"),
    (b'{"t": [0, NaN]}', "t[1]", "no JSON number"),
    (b'{"t": -Infinity}', "t", "no JSON number"),
    (b"[" * 65 + b"]" * 65, None, "nested deeper than 64"),
    (b'{"a":' * 100_000, None, "nested deeper than 64"),
]


@pytest.mark.parametrize(("raw", "parameter", "reason"), REFUSED_MEMBERS)
def test_a_refused_member_is_named(raw: bytes, parameter: str | None, reason: str) -> None:
    with pytest.raises(InvalidParameter, match=reason) as caught:
        parse_json(raw)
    assert caught.value.parameter == parameter
    assert str(caught.value).startswith(parameter or "the body")


def test_a_long_name_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_json(b'{"' + b"k" * 10_000 + b'": NaN}')
    assert caught.value.parameter == "k" * 64


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        (b"9007199254740991", b"9007199254740991"),
        (b"-9007199254740991.0", b"-9007199254740991"),
        (b"1e21", b"1e+21"),
        (b"1e-400", b"0"),
        (b"[" * 64 + b"]" * 64, b"[" * 64 + b"]" * 64),
    ],
)
def test_the_last_accepted_value_keeps_its_canonical_form(raw: bytes, canonical: bytes) -> None:
    assert jcs(parse_json(raw)) == canonical
    assert jcs(parse_json(canonical)) == canonical


@pytest.mark.parametrize(
    "raw",
    [b"[" * 1_000_000, b'{"a":' * 200_000, b"[" * 500_000 + b"]" * 500_000, b'["\\"[[', b"[}" * 9],
)
def test_depth_is_bounded_whatever_the_interpreters_limit(raw: bytes) -> None:
    """A library that raises the recursion limit must not let a body overflow the C stack."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        with pytest.raises(InvalidParameter):
            parse_json(raw)
    finally:
        sys.setrecursionlimit(limit)


def test_brackets_inside_strings_are_no_nesting() -> None:
    deep = "[" * 1000 + '\\"{'
    assert parse_json(f'{{"a": "{deep}"}}'.encode()) == {"a": "[" * 1000 + '"{'}
