"""Bundles to break: a network with attested epochs, and ways to change any field of a bundle."""

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from enclave.simulator.nsm import SimulatedNsm
from pinaivu.bundles import pack
from pinaivu.errors import InvalidEncoding
from pinaivu.fields import Blob, Fixed, Kind, ListOf, StructKind, Text, Uint
from pinaivu.keys import SecretKey
from pinaivu.manifest import Manifest
from pinaivu.testing.bundles import BundleFactory, Json, Made
from pinaivu.testing.scenarios import Scenario, Turn
from pinaivu.testing.sources import SeededRandom, SteppingClock
from pinaivu.typed_data import Message, schema
from pinaivu.verify import Report, Verifier, development

TABLE = Path(__file__).parents[2] / "docs" / "bundle-coverage.md"
LONG_MS = 60 * 86_400_000
"""Beyond every tolerance for clocks, and beyond an epoch's life."""

RICH = Scenario(turns=(Turn.BROKEN_SIGNED, Turn.SERVED), with_account=True)
"""A job with two awards, two completions, a failure, a delivery and a sub-account."""

_nsm = SimulatedNsm(now_ms=SteppingClock(), random=SeededRandom(99))


@cache
def attest(manifest: Manifest) -> bytes:
    """A SIMULATED document for a manifest, made once."""
    return _nsm.attest(
        public_key=manifest.signing_key, user_data=manifest.digest(), nonce=manifest.block.hash
    )


def network() -> BundleFactory:
    """A fresh made-up network; the same each time."""
    return BundleFactory(attest=attest)


class World(NamedTuple):
    """A network and one bundle of it."""

    factory: BundleFactory
    made: Made
    verifier: Verifier

    def verify(self, document: Json) -> Report:
        """The report on a changed document, packed again, with the holder's copies beside it."""
        return self.verifier.verify(pack(document), self.made.copies)

    def document(self) -> Json:
        """The bundle's document, to be changed."""
        return copy.deepcopy(self.made.document)


@cache
def rich_world() -> World:
    """A bundle with every member there is: two epochs, and the holder's part."""
    factory = network()
    factory.serve(Scenario())
    served = factory.serve(RICH)
    factory.serve(Scenario(with_account=True))
    factory.settle()
    factory.start_epoch()
    factory.serve(Scenario())
    made = factory.bundle(served, with_holder=True)
    return World(factory, made, Verifier(development(factory.domain), factory.chain))


class Row(NamedTuple):
    """One line of the coverage table."""

    signer: str
    blind: str
    again: str
    start: str


def coverage() -> dict[str, dict[str, Row]]:
    """The tables of docs/bundle-coverage.md: section → field → row."""
    found: dict[str, dict[str, Row]] = {}
    section = ""
    for line in TABLE.read_text().splitlines():
        if line.startswith("## "):
            section = line[3:]
            found[section] = {}
        elif section and line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            start = cells[4] if len(cells) == 6 else "—"
            found[section][cells[0].strip("`")] = Row(cells[1], cells[2], cells[3], start)
    return found


def changed(name: str, kind: Kind[Any], value: Any) -> Any:
    """Another value of the same kind; times move further than any tolerance."""
    match kind:
        case Uint():
            step = LONG_MS if name.endswith("_ms") and kind.bits > 32 else 1
            down = name in {"total", "amount"}  # more than was moved nets to nonsense
            return value - step if down or value + step > kind.maximum else value + step
        case Fixed() | Blob():
            return value[:-1] + bytes((value[-1] ^ 1,)) if value else b"\x01"
        case Text():
            return value + "x"
        case ListOf(member=StructKind()):
            return value[:-1]
        case ListOf():
            return value[:-1] if value else (_some(kind.member),)
        case _:
            raise AssertionError(f"{name}: no change is known for {kind.solidity}")


def _some(kind: Kind[Any]) -> Any:
    return "x" if isinstance(kind, Text) else b"\x01" * kind.size  # type: ignore[attr-defined]


def change_message(message: Message, name: str) -> Any:
    """The message with one field changed."""
    kind = schema(type(message)).kinds[name]
    return replace(message, **{name: changed(name, kind, getattr(message, name))})


def change_packed(value: Any, name: str) -> Any:
    """A row, header, call entry or statement with one field changed, of the same layout."""
    old = getattr(value, name)
    if isinstance(old, bool):
        new: Any = not old
    elif isinstance(old, bytes):
        new = old[:-1] + bytes((old[-1] ^ 1,))
    else:
        new = type(old)(old + (LONG_MS if name.endswith("_ms") else 1))
    return replace(value, **{name: new})


def change_document(value: Any, name: str) -> Any:
    """A manifest or parameters with one field changed, still valid."""
    old = getattr(value, name)
    for new in _candidates(old):
        try:
            return replace(value, **{name: new})
        except InvalidEncoding:
            continue
    raise AssertionError(f"{name}: no valid change")


def _candidates(old: Any) -> Iterator[Any]:
    if isinstance(old, int):
        yield from (old + 1, old - 1)
    elif isinstance(old, bytes):
        yield old[:-1] + bytes((old[-1] ^ 1,))
        yield SecretKey(b"\x07" * 32).compressed
    elif isinstance(old, str):
        yield old + "x"
    elif isinstance(old, tuple):
        yield (*old, old[0])
    elif isinstance(old, msgspec.Struct):
        first = old.__struct_fields__[0]
        yield change_document(old, first)
