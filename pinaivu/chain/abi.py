"""Contract ABIs as data: encode calls, decode results, events and custom errors.

The JSON files beside this module are generated from the contracts and packaged with it, so they
load from a wheel too. Addresses are raw bytes both ways; a Solidity struct is a tuple of its
members in order.

    >>> settlement = load("Settlement")
    >>> settlement.function("depositFor").encode(payer, amount)  # doctest: +SKIP
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Final

import msgspec
from eth_abi.codec import ABICodec
from eth_abi.decoding import AddressDecoder
from eth_abi.exceptions import DecodingError, EncodingError
from eth_abi.registry import BaseEquals, registry

from pinaivu.chain.errors import ChainUnavailable, Reverted
from pinaivu.errors import InvalidEncoding, Misconfigured
from pinaivu.keccak import keccak

SELECTOR_BYTES: Final = 4
WORD_BYTES: Final = 32
_REASON: Final = keccak(b"Error(string)")[:SELECTOR_BYTES]
_PANIC: Final = keccak(b"Panic(uint256)")[:SELECTOR_BYTES]


class _RawAddressDecoder(AddressDecoder):
    """Addresses stay 20 bytes instead of becoming hex text."""

    @staticmethod
    def decoder_fn(data: bytes) -> bytes:  # type: ignore[override]
        return data


def _codec() -> ABICodec:
    ours = registry.copy()  # type: ignore[no-untyped-call]
    ours.unregister_decoder("address")
    ours.register_decoder(
        BaseEquals("address"),  # type: ignore[no-untyped-call]
        _RawAddressDecoder,
        label="address",
    )
    return ABICodec(ours)


_CODEC: Final = _codec()


class _Parameter(msgspec.Struct, frozen=True):
    type: str
    name: str = ""
    indexed: bool = False
    components: tuple["_Parameter", ...] = ()

    @property
    def canonical(self) -> str:
        """The type as signatures spell it: structs as bracketed lists of types."""
        if not self.type.startswith("tuple"):
            return self.type
        members = ",".join(member.canonical for member in self.components)
        return f"({members}){self.type.removeprefix('tuple')}"


class _Entry(msgspec.Struct, frozen=True):
    type: str
    name: str = ""
    inputs: tuple[_Parameter, ...] = ()
    outputs: tuple[_Parameter, ...] = ()


class _Runtime(msgspec.Struct, frozen=True):
    start: int = 0
    length: int = 0
    immutables: dict[str, tuple[int, ...]] = {}


class _Artifact(msgspec.Struct, frozen=True):
    abi: tuple[_Entry, ...]
    bytecode: str
    runtime: _Runtime = _Runtime()


@dataclass(frozen=True)
class Item:
    """A named thing of an ABI: a function, an event or a custom error."""

    contract: str
    name: str
    inputs: tuple[_Parameter, ...]
    outputs: tuple[_Parameter, ...] = ()

    @cached_property
    def signature(self) -> str:
        """``name(type,…)``."""
        return f"{self.name}({','.join(p.canonical for p in self.inputs)})"

    @cached_property
    def topic(self) -> bytes:
        """Keccak of the signature: an event's first topic."""
        return keccak(self.signature.encode("ascii"))

    @cached_property
    def selector(self) -> bytes:
        """First four bytes of `topic`."""
        return self.topic[:SELECTOR_BYTES]

    def encode(self, *values: object) -> bytes:
        """Call data; `InvalidEncoding` where a value doesn't fit its parameter."""
        return self.selector + _encode(f"{self.contract}.{self.name}", self.inputs, values)

    def decode_inputs(self, data: bytes) -> dict[str, Any]:
        """Arguments by name, from what follows the selector."""
        return _named(self.inputs, _decode(self.inputs, data))

    def decode_result(self, data: bytes) -> tuple[Any, ...]:
        """Return values in order; `ChainUnavailable` where the answer has another shape."""
        try:
            return _decode(self.outputs, data)
        except InvalidEncoding as error:
            raise ChainUnavailable(
                f"{self.contract}.{self.name} answered in another shape: {error}"
            ) from error

    def decode_log(self, topics: Sequence[bytes], data: bytes) -> dict[str, Any]:
        """An event's arguments by name; an indexed dynamic one is its 32-byte hash."""
        indexed = [p for p in self.inputs if p.indexed]
        plain = [p for p in self.inputs if not p.indexed]
        if len(topics) != len(indexed) + 1:
            raise InvalidEncoding(f"{self.signature}: {len(topics)} topics")
        words = _decode([_as_topic(p) for p in indexed], b"".join(topics[1:]))
        values = _named(plain, _decode(plain, data)) | _named(indexed, words)
        return {p.name: values[p.name] for p in self.inputs}


class ContractAbi:
    """One contract's functions, events and errors, and its creation code.

    `runtime` is the code that a chain holds, with zeros where `immutables` (name → offsets of
    32-byte words) are filled in.
    """

    def __init__(self, name: str, artifact: bytes) -> None:
        """Read a generated ``{"abi", "bytecode", "runtime"}`` document."""
        try:
            document = msgspec.json.decode(artifact, type=_Artifact)
            self.bytecode = bytes.fromhex(document.bytecode.removeprefix("0x"))
        except (msgspec.DecodeError, ValueError) as error:
            raise Misconfigured(f"the packaged ABI of {name} is damaged: {error}") from error
        self.name = name
        place = document.runtime
        self.runtime = self.bytecode[place.start : place.start + place.length]
        self.immutables = place.immutables
        entries = document.abi
        self._functions = _by_name(name, (e for e in entries if e.type == "function"))
        self._events = {e.topic: e for e in _items(name, entries, "event")}
        self.errors = {e.selector: e for e in _items(name, entries, "error")}
        constructor = next((e for e in entries if e.type == "constructor"), None)
        self._constructor = constructor.inputs if constructor else ()

    def function(self, name: str) -> Item:
        """A function by name; overloads by whole signature."""
        try:
            return self._functions[name]
        except KeyError:
            raise Misconfigured(
                f"the packaged ABI of {self.name} has no {name}; run `npm run abi`"
            ) from None

    def functions(self) -> tuple[Item, ...]:
        """Every function once."""
        return tuple({item.signature: item for item in self._functions.values()}.values())

    def function_of(self, selector: bytes) -> Item | None:
        """The function with this selector, if it is this contract's."""
        return next((item for item in self.functions() if item.selector == selector), None)

    def event_of(self, topic: bytes) -> Item | None:
        """The event with this first topic, if it is this contract's."""
        return self._events.get(topic)

    def event(self, name: str) -> Item:
        """An event by name."""
        for event in self._events.values():
            if event.name == name:
                return event
        raise Misconfigured(f"the packaged ABI of {self.name} has no event {name}")

    def creation(self, *arguments: object) -> bytes:
        """Data of the transaction that creates the contract."""
        return self.bytecode + _encode(f"new {self.name}", self._constructor, arguments)


@cache
def load(name: str) -> ContractAbi:
    """The packaged ABI of a contract; `Misconfigured` where there is none."""
    source = files("pinaivu.chain") / "abi" / f"{name}.json"
    try:
        return ContractAbi(name, source.read_bytes())
    except OSError as error:
        raise Misconfigured(
            f"no packaged ABI for {name}: run `npm run abi` in a source tree, or reinstall"
        ) from error


def names() -> list[str]:
    """The contracts whose ABIs are packaged."""
    folder = files("pinaivu.chain") / "abi"
    if not folder.is_dir():
        return []
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".json"))


def decode_revert(what: str, data: bytes, *, tx_hash: bytes | None = None) -> Reverted:
    """The error a contract refused `what` with, found among all packaged contracts' errors."""
    name, arguments = _explain(data)
    return Reverted(what, name, arguments, data=data, tx_hash=tx_hash)


def _explain(data: bytes) -> tuple[str, Mapping[str, object]]:
    selector, rest = data[:SELECTOR_BYTES], data[SELECTOR_BYTES:]
    try:
        if selector == _REASON:
            return "Error", {"reason": _CODEC.decode(["string"], rest)[0]}
        if selector == _PANIC:
            return "Panic", {"code": _CODEC.decode(["uint256"], rest)[0]}
        known = _errors().get(selector)
        if known is not None:
            return known.name, known.decode_inputs(rest)
    except (DecodingError, InvalidEncoding):
        return f"0x{data.hex()}", {}
    return (f"0x{data.hex()}" if data else ""), {}


@cache
def _errors() -> dict[bytes, Item]:
    return {selector: item for name in names() for selector, item in load(name).errors.items()}


def _items(contract: str, entries: Iterable[_Entry], kind: str) -> list[Item]:
    return [Item(contract, e.name, e.inputs, e.outputs) for e in entries if e.type == kind]


def _by_name(contract: str, entries: Iterable[_Entry]) -> dict[str, Item]:
    items = _items(contract, entries, "function")
    short = {item.name: item for item in items}
    overloaded = {i.name for i in items if short[i.name] is not i}
    unique = {name: item for name, item in short.items() if name not in overloaded}
    return unique | {item.signature: item for item in items}


def _encode(what: str, parameters: Sequence[_Parameter], values: Sequence[object]) -> bytes:
    try:
        return _CODEC.encode([p.canonical for p in parameters], values)
    except (EncodingError, ValueError, TypeError) as error:
        raise InvalidEncoding(f"{what}: {error}") from error


def _decode(parameters: Sequence[_Parameter], data: bytes) -> tuple[Any, ...]:
    try:
        return _CODEC.decode([p.canonical for p in parameters], data)
    except (DecodingError, OverflowError) as error:
        raise InvalidEncoding(str(error)) from error


def _named(parameters: Sequence[_Parameter], values: Sequence[Any]) -> dict[str, Any]:
    named = (p.name or f"_{i}" for i, p in enumerate(parameters))
    return dict(zip(named, values, strict=True))


def _as_topic(parameter: _Parameter) -> _Parameter:
    """How an indexed argument stands in its topic: itself, or its hash where it has no one word."""
    kind = parameter.canonical
    hashed = kind in {"string", "bytes"} or kind.endswith((")", "]"))
    return _Parameter("bytes32", parameter.name) if hashed else parameter
