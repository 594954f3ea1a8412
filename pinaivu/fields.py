"""The kinds a field of a signed message can have, and their three encodings.

Each kind knows its EIP-712 word, its JSON form (bundles, log files, vectors) and its compact wire
form (MessagePack). Digests depend on the first only. Decoding is strict: whatever isn't exactly
the canonical form is an `InvalidEncoding` that names the field.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, Final, Generic, Protocol, TypeVar, get_args, get_origin

from msgspec import Struct

from pinaivu.encoding import from_decimal, from_hex
from pinaivu.errors import InvalidEncoding
from pinaivu.keccak import keccak

T = TypeVar("T")
_JSON_NUMBER_BITS: Final = 32
_WIRE_NUMBER_BITS: Final = 64


class Kind(ABC, Generic[T]):
    """How one field is typed, hashed and written."""

    solidity: str

    @abstractmethod
    def word(self, value: T) -> bytes:
        """The 32-byte EIP-712 encoding of the value."""

    @abstractmethod
    def to_json(self, value: T) -> object:
        """The value as it stands in a JSON document."""

    @abstractmethod
    def from_json(self, raw: object) -> T:
        """Read `to_json`'s output back, refusing every other form."""

    @abstractmethod
    def to_wire(self, value: T) -> object:
        """The value as it stands in a MessagePack frame."""

    @abstractmethod
    def from_wire(self, raw: object) -> T:
        """Read `to_wire`'s output back, refusing every other form."""


class Uint(Kind[int]):
    """``uintN``; up to 32 bits a JSON number, above a decimal string."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.maximum = (1 << bits) - 1
        self.solidity = f"uint{bits}"

    def check(self, value: object) -> int:
        """The value, if it is an integer within the width."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidEncoding(f"{value!r} is no {self.solidity}")
        if not 0 <= value <= self.maximum:
            raise InvalidEncoding(f"{value} is out of {self.solidity}'s range")
        return int(value)  # enumerations of codes become plain numbers

    def word(self, value: int) -> bytes:
        return self.check(value).to_bytes(32)

    def to_json(self, value: int) -> object:
        return self.check(value) if self.bits <= _JSON_NUMBER_BITS else str(self.check(value))

    def from_json(self, raw: object) -> int:
        if self.bits <= _JSON_NUMBER_BITS:
            return self.check(raw)
        return from_decimal(raw, self.bits)

    def to_wire(self, value: int) -> object:
        checked = self.check(value)
        return checked if self.bits <= _WIRE_NUMBER_BITS else checked.to_bytes(self.bits // 8)

    def from_wire(self, raw: object) -> int:
        if self.bits <= _WIRE_NUMBER_BITS:
            return self.check(raw)
        if not isinstance(raw, bytes) or len(raw) != self.bits // 8:
            raise InvalidEncoding(f"no {self.solidity} of {self.bits // 8} bytes")
        return int.from_bytes(raw)


class Fixed(Kind[bytes]):
    """``bytesN`` (left-aligned in its word) or ``address`` (right-aligned)."""

    def __init__(self, size: int, *, address: bool = False) -> None:
        self.size = size
        self.address = address
        self.solidity = "address" if address else f"bytes{size}"

    def from_wire(self, raw: object) -> bytes:
        if type(raw) is not bytes or len(raw) != self.size:
            raise InvalidEncoding(f"no {self.solidity} of {self.size} bytes")
        return raw

    def word(self, value: bytes) -> bytes:
        checked = self.from_wire(value)
        return checked.rjust(32, b"\0") if self.address else checked.ljust(32, b"\0")

    def to_json(self, value: bytes) -> object:
        return "0x" + value.hex()

    def from_json(self, raw: object) -> bytes:
        return self.from_wire(from_hex(raw))

    def to_wire(self, value: bytes) -> object:
        return value


class Blob(Kind[bytes]):
    """Dynamic ``bytes``, hashed as one keccak."""

    solidity = "bytes"

    def word(self, value: bytes) -> bytes:
        return keccak(value)

    def to_json(self, value: bytes) -> object:
        return "0x" + value.hex()

    def from_json(self, raw: object) -> bytes:
        return from_hex(raw)

    def to_wire(self, value: bytes) -> object:
        return value

    def from_wire(self, raw: object) -> bytes:
        if type(raw) is not bytes:
            raise InvalidEncoding("no bytes")
        return raw


class Text(Kind[str]):
    """``string``: UTF-8, kept as it is, no normalisation."""

    solidity = "string"

    def word(self, value: str) -> bytes:
        return keccak(value.encode("utf-8"))

    def to_json(self, value: str) -> object:
        return value

    def from_json(self, raw: object) -> str:
        if type(raw) is not str:
            raise InvalidEncoding(f"{raw!r} is no string")
        try:
            raw.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidEncoding("a string holds a lone surrogate") from error
        return raw

    to_wire = to_json
    from_wire = from_json


class ListOf(Kind[tuple[Any, ...]]):
    """``T[]`` as a tuple; hashed as keccak over the members' words."""

    def __init__(self, member: Kind[Any]) -> None:
        self.member = member
        self.solidity = f"{member.solidity}[]"

    def word(self, value: tuple[Any, ...]) -> bytes:
        return keccak(b"".join(self.member.word(item) for item in value))

    def to_json(self, value: tuple[Any, ...]) -> object:
        return [self.member.to_json(item) for item in value]

    def from_json(self, raw: object) -> tuple[Any, ...]:
        return tuple(self.member.from_json(item) for item in _items(raw))

    def to_wire(self, value: tuple[Any, ...]) -> object:
        return [self.member.to_wire(item) for item in value]

    def from_wire(self, raw: object) -> tuple[Any, ...]:
        return tuple(self.member.from_wire(item) for item in _items(raw))


class Codec(Protocol):
    """What `StructKind` needs of a struct's schema (see `pinaivu.typed_data`)."""

    solidity: str

    def hash_struct(self, value: Any) -> bytes: ...
    def to_json(self, value: Any) -> object: ...
    def from_json(self, raw: object) -> Any: ...
    def to_wire(self, value: Any) -> object: ...
    def from_wire(self, raw: object) -> Any: ...


class StructKind(Kind[Struct]):
    """A referenced struct, encoded as its own struct hash."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.solidity = codec.solidity

    def word(self, value: Struct) -> bytes:
        return self.codec.hash_struct(value)

    def to_json(self, value: Struct) -> object:
        return self.codec.to_json(value)

    def from_json(self, raw: object) -> Struct:
        return self.codec.from_json(raw)  # type: ignore[no-any-return]

    def to_wire(self, value: Struct) -> object:
        return self.codec.to_wire(value)

    def from_wire(self, raw: object) -> Struct:
        return self.codec.from_wire(raw)  # type: ignore[no-any-return]


def _items(raw: object) -> list[object] | tuple[object, ...]:
    if not isinstance(raw, list | tuple):
        raise InvalidEncoding(f"{raw!r} is no list")
    return raw


U8 = Annotated[int, Uint(8)]
U32 = Annotated[int, Uint(32)]
U64 = Annotated[int, Uint(64)]
U96 = Annotated[int, Uint(96)]
U128 = Annotated[int, Uint(128)]
Bytes16 = Annotated[bytes, Fixed(16)]
Bytes32 = Annotated[bytes, Fixed(32)]
Address = Annotated[bytes, Fixed(20, address=True)]
Bytes = Annotated[bytes, Blob()]

MAX_U32: Final = (1 << 32) - 1
MAX_U64: Final = (1 << 64) - 1
MAX_U96: Final = (1 << 96) - 1
MAX_U128: Final = (1 << 128) - 1


def kind_of(annotation: Any, codec_of: Any) -> Kind[Any]:
    """The kind named by a field's annotation; structs are looked up by `codec_of`."""
    if get_origin(annotation) is Annotated:
        kind = get_args(annotation)[1]
        if isinstance(kind, Kind):
            return kind
    if annotation is str:
        return Text()
    if get_origin(annotation) is tuple:
        return ListOf(kind_of(get_args(annotation)[0], codec_of))
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return StructKind(codec_of(annotation))
    raise TypeError(f"{annotation!r} is no field kind")
