"""Hex, decimal strings, strict JSON, JCS and tagged SHA-256: the bytes below every digest.

What `parse_json` lets through has one canonical form and keeps it: parsing `jcs(value)` again gives
the same digest. It judges no member's meaning (`pinaivu.openai` does), and it sets no limit on
size: whoever reads the body from the network does.

    >>> jcs(parse_json(b'{"b": 1.0, "a": -0.0}'))
    b'{"a":0,"b":1}'

Errors are `InvalidEncoding`; for JSON its subclass `InvalidParameter`, which names the member.
"""

import json
import math
import re
from enum import Enum
from hashlib import sha256
from typing import Any, Final, NoReturn, Self, TypeAlias

import rfc8785
from msgspec import MsgspecError

from pinaivu.errors import InvalidEncoding

MAX_SAFE_INTEGER: Final = (1 << 53) - 1
MAX_DEPTH: Final = 64
"""Nesting allowed in an untrusted document; the outermost object counts one."""
UNREADABLE: Final = (MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no JSON of the wanted type, or nested without end."""

_HEX: Final = re.compile(r"0x(?:[0-9a-f]{2})*")
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,77}")
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\Z)', re.DOTALL)
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_TAG_BYTES: Final = 16
_SHOWN_KEY: Final = 64
_CANONICAL_EXPONENT_FROM: Final = 1e21  # below it JCS writes a whole number out, digit by digit

Path: TypeAlias = "tuple[()] | tuple[Path, str | int]"
"""Where a value stands: ``()`` or ``(path of its container, key or index)``."""


class InvalidParameter(InvalidEncoding):
    """A member of a JSON document is refused.

    `parameter` is its path as a caller would write it, e.g. ``messages[0].content``; None when it
    is the document itself. `reason` is the message without it.
    """

    def __init__(self, parameter: str | None, reason: str) -> None:
        super().__init__(f"{parameter}: {reason}" if parameter else reason)
        self.parameter = parameter
        self.reason = reason


def refuse(path: Path, reason: str) -> NoReturn:
    """Raise `InvalidParameter` for the member at `path`."""
    raise InvalidParameter(_shown(path) or None, reason)


class Tag(bytes, Enum):
    """Domain-separating prefixes of hashes: 16 bytes, ASCII filled with zeros (types.md §1)."""

    REQUEST = b"pnv1:request"
    RESPONSE = b"pnv1:response"
    SEGMENT = b"pnv1:segment"
    SALT = b"pnv1:salt"
    ACK = b"pnv1:ack"
    ACCOUNT = b"pnv1:account"
    PARTY = b"pnv1:party"
    PCR = b"pnv1:pcr"
    PARAMETERS = b"pnv1:params"
    MANIFEST = b"pnv1:manifest"
    MODEL = b"pnv1:model"
    TOKENIZER = b"pnv1:tokenizer"
    LEASE = b"pnv1:lease"

    def __new__(cls, text: bytes) -> Self:
        """Fill the tag's text with zeros."""
        padded = text.ljust(_TAG_BYTES, b"\0")
        member = bytes.__new__(cls, padded)
        member._value_ = padded
        return member


def h(*parts: bytes) -> bytes:
    """SHA-256 of the parts, joined."""
    return sha256(b"".join(parts)).digest()


def tagged_hash(tag: Tag, *parts: bytes) -> bytes:
    """``SHA-256(tag ‖ parts…)``, the tag as its 16 bytes."""
    return h(tag, *parts)


def to_hex(value: bytes) -> str:
    """Lower-case hex with ``0x``."""
    return "0x" + value.hex()


def from_hex(text: object, length: int | None = None) -> bytes:
    """Bytes of `to_hex`'s form and no other; with `length`, exactly so many bytes."""
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise InvalidEncoding("not lower-case hex with 0x and an even number of digits")
    value = bytes.fromhex(text[2:])
    if length is not None and len(value) != length:
        raise InvalidEncoding(f"{len(value)} bytes of hex where {length} are due")
    return value


def to_decimal(value: int) -> str:
    """A wide unsigned integer as it stands in JSON: a decimal string."""
    if value < 0:
        raise InvalidEncoding("a decimal string holds no negative number")
    return str(value)


def from_decimal(text: object, bits: int) -> int:
    """The unsigned integer of a decimal string without sign or leading zeros, below 2^bits."""
    if not isinstance(text, str) or not _DECIMAL.fullmatch(text):
        raise InvalidEncoding("not a decimal string without leading zeros")
    value = int(text)
    if value >> bits:
        raise InvalidEncoding(f"beyond {bits} bits")
    return value


def jcs(value: object) -> bytes:
    """The canonical bytes of a JSON value (RFC 8785).

    Raises `InvalidEncoding` for integers beyond ±(2⁵³ - 1), numbers without a finite double, lone
    surrogates, keys that are no strings and everything that is no JSON value.
    """
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]  # it checks the type itself
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise InvalidEncoding(f"has no canonical JSON form: {error}") from error
    except RecursionError as error:
        raise InvalidEncoding("nested too deeply for a canonical JSON form") from error


def parse_json(raw: bytes) -> object:
    """The value of an untrusted JSON document (UTF-8, no byte-order mark).

    Raises `InvalidParameter` for what isn't JSON and for what two parsers could read in two ways:
    repeated keys, lone surrogates, integers beyond ±(2⁵³ - 1), numbers without a finite double,
    nesting beyond `MAX_DEPTH`. An integer is a number that JCS writes without fraction or exponent,
    however it was spelled: ``1e20`` is one, ``1e21`` is not.
    """
    _refuse_deep(raw)
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidParameter(None, f"the body is not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        reason = f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        raise InvalidParameter(None, reason) from error
    _check(value, (), MAX_DEPTH)
    return value


def _refuse_deep(raw: bytes) -> None:
    """Refuse nesting that the decoder would follow by recursion, before it does.

    The interpreter's own limit is no bound: libraries raise it, and then the C stack overflows.
    Strings are dropped, then innermost pairs, level by level; what has pairs left is too deep, and
    of what never closes at most `MAX_DEPTH` levels get through.
    """
    brackets = _STRING.sub(b"", raw).translate(None, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    opened = brackets.count(b"[") + brackets.count(b"{")
    if b"[]" in brackets or b"{}" in brackets or opened > MAX_DEPTH:
        raise InvalidParameter(None, _TOO_DEEP)


class _Refused:
    """Stands in the parsed document for a value the decoder had to give up on."""

    def __init__(self, reason: str, key: str | None = None) -> None:
        self.reason = reason
        self.key = key


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Refused:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    seen = set[str]()
    for key, _ in pairs:
        if key in seen:
            return _Refused("is given twice", key)
        seen.add(key)
    raise AssertionError("fewer members than pairs, and none repeated")


def _integer(digits: str) -> int | _Refused:
    if len(digits) > len(str(-MAX_SAFE_INTEGER)):  # spares converting a megabyte of digits
        return _Refused(_TOO_LARGE)
    return int(digits)


def _constant(name: str) -> _Refused:
    return _Refused(f"{name} is no JSON number")


_TOO_LARGE: Final = "is an integer beyond ±(2^53 - 1), which JSON does not carry exactly"
_TOO_DEEP: Final = f"the body is nested deeper than {MAX_DEPTH} levels"
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant
)


def _check(value: object, path: Path, depth_left: int) -> None:
    """Walk a decoded document. Recursion ends at `depth_left`."""
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, int | float):
        _check_number(value, path)
    elif isinstance(value, _Refused):
        refuse(path if value.key is None else (path, value.key), value.reason)
    elif isinstance(value, dict | list):
        if not depth_left:
            raise InvalidParameter(None, _TOO_DEEP)
        _check_items(value, path, depth_left - 1)


def _check_items(container: dict[str, Any] | list[Any], path: Path, depth_left: int) -> None:
    if isinstance(container, list):
        for index, item in enumerate(container):
            _check(item, (path, index), depth_left)
        return
    for key, item in container.items():
        _check_text(key, (path, key))
        _check(item, (path, key), depth_left)


def _check_text(text: str, path: Path) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        refuse(path, "holds a lone surrogate")


def _check_number(value: float, path: Path) -> None:
    if isinstance(value, int):
        if not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            refuse(path, _TOO_LARGE)
    elif not math.isfinite(value):
        refuse(path, "is a number without a finite double")
    elif MAX_SAFE_INTEGER < abs(value) < _CANONICAL_EXPONENT_FROM:
        refuse(path, _TOO_LARGE)


def _shown(path: Path) -> str:
    parts: list[str] = []
    while path:
        path, step = path
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            shown = step[:_SHOWN_KEY].encode("utf-8", "backslashreplace").decode("utf-8")
            parts.append(f".{shown}" if path else shown)
    return "".join(reversed(parts))
