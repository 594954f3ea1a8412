"""EIP-712: digests of the signed messages, and their JSON and wire forms.

Every message is hashed under one domain, whose verifying contract is `Settlement`, whatever
contract or program checks it. A schema is derived from the message class once: its fields, in
order, are the type string, so class and contract can't drift apart unseen (golden vectors).

    >>> domain = Domain(31337, bytes(20))
    >>> digest(domain, Log(operator=bytes(20), number=0)).hex()  # doctest: +SKIP

Nothing here signs; `pinaivu.keys` does.
"""

from functools import cache, cached_property
from typing import Any, Final, Generic, TypeVar, get_type_hints

import msgspec

from pinaivu.errors import InvalidEncoding
from pinaivu.fields import Fixed, Kind, ListOf, StructKind, Uint, kind_of
from pinaivu.keccak import keccak
from pinaivu.keys import SIGNATURE_BYTES, SecretKey, recover, require_signer

M = TypeVar("M", bound="Message")

DOMAIN_TYPE: Final = (
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
DOMAIN_NAME: Final = "Pinaivu"
DOMAIN_VERSION: Final = "1"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every signed type; a subclass's fields are its EIP-712 members, in order."""


class Schema(Generic[M]):
    """Type string, hashing and codecs of one message class."""

    def __init__(self, cls: type[M]) -> None:
        self.cls = cls
        self.solidity = cls.__name__
        hints = get_type_hints(cls, include_extras=True)
        self.kinds: dict[str, Kind[Any]] = {
            name: kind_of(hints[name], schema) for name in cls.__struct_fields__
        }
        self.members = {name: _camel(name) for name in self.kinds}
        self._by_member = {member: name for name, member in self.members.items()}

    @cached_property
    def type_string(self) -> str:
        """``Name(type member,…)`` followed by the structs it refers to."""
        inner = ",".join(f"{k.solidity} {self.members[n]}" for n, k in self.kinds.items())
        return f"{self.solidity}({inner})" + "".join(s.type_string for s in self.references)

    @cached_property
    def references(self) -> list["Schema[Any]"]:
        """Schemas of the structs this one holds."""
        kinds = (k.member if isinstance(k, ListOf) else k for k in self.kinds.values())
        return [schema(k.codec.cls) for k in kinds if isinstance(k, StructKind)]  # type: ignore[attr-defined]

    @cached_property
    def type_hash(self) -> bytes:
        """Keccak of the type string."""
        return keccak(self.type_string.encode("ascii"))

    def hash_struct(self, value: M) -> bytes:
        """EIP-712 ``hashStruct``."""
        words = [kind.word(getattr(value, name)) for name, kind in self.kinds.items()]
        return keccak(self.type_hash + b"".join(words))

    def to_json(self, value: M) -> dict[str, object]:
        """Exactly the members of the type, in the JSON form."""
        return {
            self.members[name]: kind.to_json(getattr(value, name))
            for name, kind in self.kinds.items()
        }

    def from_json(self, raw: object) -> M:
        """Read the JSON form; unknown, missing and non-canonical members are refused."""
        if not isinstance(raw, dict) or raw.keys() != self._by_member.keys():
            raise InvalidEncoding(f"not exactly the members of {self.solidity}")
        return self.cls(
            **{
                name: self._read(kind.from_json, raw[self.members[name]], name)
                for name, kind in self.kinds.items()
            }
        )

    def to_wire(self, value: M) -> list[object]:
        """Field values in order, for MessagePack."""
        return [kind.to_wire(getattr(value, name)) for name, kind in self.kinds.items()]

    def from_wire(self, raw: object) -> M:
        """Read `to_wire`'s list back; any other length or type is refused."""
        if not isinstance(raw, list) or len(raw) != len(self.kinds):
            raise InvalidEncoding(f"not the {len(self.kinds)} fields of {self.solidity}")
        pairs = zip(self.kinds.items(), raw, strict=True)
        return self.cls(
            **{name: self._read(kind.from_wire, item, name) for (name, kind), item in pairs}
        )

    def _read(self, read: Any, raw: object, name: str) -> Any:
        try:
            return read(raw)
        except InvalidEncoding as error:
            raise InvalidEncoding(f"{self.solidity}.{self.members[name]}: {error}") from error


@cache
def schema(cls: type[M]) -> Schema[M]:
    """The schema of a message class, derived once."""
    return Schema(cls)


class Domain(msgspec.Struct, frozen=True):
    """The one EIP-712 domain of a deployment: chain id and `Settlement` address (20 bytes)."""

    chain_id: int
    settlement: bytes

    @property
    def separator(self) -> bytes:
        """The domain separator, 32 bytes."""
        return _separator(self.chain_id, self.settlement)


def digest(domain: Domain, message: Message) -> bytes:
    """``keccak(0x1901 ‖ separator ‖ hashStruct(message))``: what is signed, 32 bytes."""
    return keccak(b"\x19\x01" + domain.separator + schema(type(message)).hash_struct(message))


class Signed(msgspec.Struct, Generic[M], frozen=True):
    """A message with its signature beside it. Holding one proves nothing; `require` does."""

    message: M
    signature: bytes

    @classmethod
    def by(cls, key: SecretKey, domain: Domain, message: M) -> "Signed[M]":
        """Sign `message` with `key`."""
        return cls(message, key.sign(digest(domain, message)))

    def digest(self, domain: Domain) -> bytes:
        """The message's digest."""
        return digest(domain, self.message)

    def signer(self, domain: Domain) -> bytes:
        """The address that signed; `BadSignature` where none did."""
        return recover(self.digest(domain), self.signature)

    def require(self, domain: Domain, signer: bytes) -> bytes:
        """The message's digest, if `signer` signed it; else `BadSignature`."""
        found = self.digest(domain)
        require_signer(found, self.signature, signer, type(self.message).__name__)
        return found

    def to_json(self) -> dict[str, object]:
        """``{"message", "signature"}``."""
        return {
            "message": schema(type(self.message)).to_json(self.message),
            "signature": "0x" + self.signature.hex(),
        }

    def to_bytes(self) -> bytes:
        """The compact wire form."""
        return msgspec.msgpack.encode(
            (schema(type(self.message)).to_wire(self.message), self.signature)
        )


_SIGNATURE: Final = Fixed(SIGNATURE_BYTES)


def signed_from_json(cls: type[M], raw: object) -> Signed[M]:
    """Read ``{"message", "signature"}``; the signature is not checked."""
    if not isinstance(raw, dict) or raw.keys() != {"message", "signature"}:
        raise InvalidEncoding(f"a signed {cls.__name__} is exactly message and signature")
    return Signed(schema(cls).from_json(raw["message"]), _SIGNATURE.from_json(raw["signature"]))


def signed_from_bytes(cls: type[M], raw: bytes) -> Signed[M]:
    """Read `Signed.to_bytes`; the signature is not checked."""
    try:
        fields, signature = msgspec.msgpack.decode(raw, type=tuple[list[Any], bytes])
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidEncoding(f"no signed {cls.__name__}: {error}") from error
    return Signed(schema(cls).from_wire(fields), _SIGNATURE.from_wire(signature))


@cache
def _separator(chain_id: int, settlement: bytes) -> bytes:
    return keccak(
        keccak(DOMAIN_TYPE.encode("ascii"))
        + keccak(DOMAIN_NAME.encode("ascii"))
        + keccak(DOMAIN_VERSION.encode("ascii"))
        + Uint(256).word(chain_id)
        + Fixed(20, address=True).word(settlement)
    )


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
