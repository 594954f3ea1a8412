"""JCS documents: values that are hashed as canonical JSON instead of EIP-712 (types.md §6).

A document's members are exactly the fields of its class, in snake_case. Integers stand as JSON
numbers up to 2⁵³−1 and as decimal strings above, bytes as lower-case ``0x`` hex. One value has one
spelling: everything else, unknown members included, is an `InvalidEncoding`. Meaning is judged by
the subclass in `check`, at construction, so a value that exists is a valid one.

    >>> class Size(JcsDocument, frozen=True, kw_only=True):
    ...     hash_tag: ClassVar[Tag] = Tag.MODEL
    ...     leaves: Integer64
    >>> Size(leaves=7).to_jcs()
    b'{"leaves":7}'
"""

from functools import cache
from typing import Annotated, Any, ClassVar, Final, Self, get_args, get_origin, get_type_hints

import msgspec

from pinaivu.encoding import (
    MAX_SAFE_INTEGER,
    Tag,
    from_decimal,
    from_hex,
    jcs,
    parse_json,
    tagged_hash,
    to_decimal,
    to_hex,
)
from pinaivu.errors import InvalidEncoding

_MAX_TEXT: Final = 512


class Integer:
    """An unsigned integer below 2^bits."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def write(self, value: object) -> object:
        """A JSON number, or a decimal string above 2⁵³−1."""
        if type(value) is not int or value < 0 or value >> self.bits:
            raise InvalidEncoding(f"{value!r} is no integer of {self.bits} bits")
        return value if value <= MAX_SAFE_INTEGER else to_decimal(value)

    def read(self, raw: object) -> int:
        """The integer of `write`'s form and no other."""
        value = from_decimal(raw, self.bits) if isinstance(raw, str) else raw
        if type(value) is not int or self.write(value) != raw:
            raise InvalidEncoding(f"{raw!r} is not written as a document writes integers")
        return value


class Hex:
    """Bytes of a fixed length."""

    def __init__(self, length: int) -> None:
        self.length = length

    def write(self, value: object) -> object:
        """Lower-case hex with ``0x``."""
        if type(value) is not bytes or len(value) != self.length:
            raise InvalidEncoding(f"not {self.length} bytes")
        return to_hex(value)

    def read(self, raw: object) -> bytes:
        """The bytes of `write`'s form and no other."""
        return from_hex(raw, self.length)


class Text:
    """A short string of visible ASCII characters and spaces."""

    def write(self, value: object) -> object:
        """The string itself."""
        if not isinstance(value, str) or not 1 <= len(value) <= _MAX_TEXT:
            raise InvalidEncoding(f"not a string of 1 to {_MAX_TEXT} characters")
        if not (value.isascii() and value.isprintable()):
            raise InvalidEncoding("a string with characters other than printable ASCII")
        return value

    def read(self, raw: object) -> str:
        """The string, checked."""
        return str(self.write(raw))


class Many:
    """A JSON list, held as a tuple."""

    def __init__(self, member: "Form") -> None:
        self.member = member

    def write(self, value: object) -> object:
        """A list of the members' forms."""
        if not isinstance(value, tuple):
            raise InvalidEncoding("not a tuple")
        return [self.member.write(item) for item in value]

    def read(self, raw: object) -> tuple[Any, ...]:
        """A tuple of the members."""
        if not isinstance(raw, list):
            raise InvalidEncoding("not a list")
        return tuple(self.member.read(item) for item in raw)


class Nested:
    """A JSON object with exactly the members of a class."""

    def __init__(self, cls: "type[JcsObject]") -> None:
        self.cls = cls

    def write(self, value: object) -> object:
        """The object's members in their forms; which of them is wrong, the error says."""
        if not isinstance(value, self.cls):
            raise InvalidEncoding(f"not a {self.cls.__name__}")
        members = dict[str, object]()
        for name, form in _forms(self.cls).items():
            members[name] = _at(name, form.write, getattr(value, name))
        return members

    def read(self, raw: object) -> Any:
        """The value; unknown and missing members are refused."""
        forms = _forms(self.cls)
        if not isinstance(raw, dict):
            raise InvalidEncoding(f"{self.cls.__name__} is not a JSON object")
        if wrong := raw.keys() ^ forms.keys():
            raise InvalidEncoding(f"{self.cls.__name__}: unknown or missing: {sorted(wrong)}")
        return self.cls(**{name: _at(name, form.read, raw[name]) for name, form in forms.items()})


Form = Integer | Hex | Text | Many | Nested

Integer32 = Annotated[int, Integer(32)]
Integer64 = Annotated[int, Integer(64)]
Integer96 = Annotated[int, Integer(96)]
Address = Annotated[bytes, Hex(20)]
Digest = Annotated[bytes, Hex(32)]
Compressed = Annotated[bytes, Hex(33)]


class JcsObject(msgspec.Struct, frozen=True, kw_only=True):
    """An object inside a document; `check` runs at construction."""

    def __post_init__(self) -> None:
        Nested(type(self)).write(self)
        self.check()

    def check(self) -> None:
        """Raise `InvalidEncoding` when well-formed fields make no sense; for subclasses."""


class JcsDocument(JcsObject, frozen=True, kw_only=True):
    """A document of its own, with a tag that separates its digest from all others."""

    hash_tag: ClassVar[Tag]

    def to_json(self) -> dict[str, object]:
        """The members as a JSON value, for a place inside a larger document."""
        return dict(Nested(type(self)).write(self))  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, raw: object) -> Self:
        """Read `to_json`'s value back; `InvalidEncoding` for anything else."""
        return Nested(cls).read(raw)  # type: ignore[no-any-return]

    def to_jcs(self) -> bytes:
        """The canonical bytes."""
        return jcs(self.to_json())

    @classmethod
    def from_jcs(cls, raw: bytes) -> Self:
        """Read canonical bytes; `InvalidEncoding` for any other spelling of the same value."""
        value = cls.from_json(parse_json(raw))
        if value.to_jcs() != raw:
            raise InvalidEncoding(f"{cls.__name__}: not in canonical form (RFC 8785)")
        return value

    def digest(self) -> bytes:
        """``H(tag ‖ JCS)``, 32 bytes."""
        return tagged_hash(self.hash_tag, self.to_jcs())


@cache
def _forms(cls: type[JcsObject]) -> dict[str, Form]:
    hints = get_type_hints(cls, include_extras=True)
    return {name: _form(hints[name]) for name in cls.__struct_fields__}


def _form(annotation: Any) -> Form:
    if get_origin(annotation) is Annotated:
        form = get_args(annotation)[1]
        assert isinstance(form, Integer | Hex)
        return form
    if annotation is str:
        return Text()
    if get_origin(annotation) is tuple:
        return Many(_form(get_args(annotation)[0]))
    assert issubclass(annotation, JcsObject)
    return Nested(annotation)


def _at(name: str, convert: Any, value: object) -> Any:
    try:
        return convert(value)
    except InvalidEncoding as error:
        raise InvalidEncoding(f"{name}: {error}") from error
