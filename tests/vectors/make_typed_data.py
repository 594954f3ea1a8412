"""Writes tests/vectors/typed_data.json: digests of every signed type, made by this code.

Run it only when a new type or domain version comes; the file is a promise to everyone who signed
before. `third_party.mjs` checks it with an implementation that isn't ours.
"""

import json
import random
from pathlib import Path
from typing import Any

from pinaivu import messages
from pinaivu.fields import Blob, Fixed, Kind, ListOf, StructKind, Text, Uint
from pinaivu.keys import SecretKey
from pinaivu.typed_data import Domain, Message, Schema, Signed, schema

DOMAINS = (Domain(31337, bytes(range(20))), Domain(1, b"\xff" * 20))
KEY = SecretKey(b"\x07" * 32)
TYPES: tuple[type[Message], ...] = tuple(
    value
    for value in vars(messages).values()
    if isinstance(value, type) and issubclass(value, Message) and value is not Message
)


def sample(kind: Kind[Any], rng: random.Random, *, style: str) -> Any:
    """A value of `kind`: all zero, all at the maximum, or drawn."""
    if isinstance(kind, Uint):
        return {"zero": 0, "maximum": kind.maximum}.get(style, rng.randrange(kind.maximum + 1))
    if isinstance(kind, Fixed):
        fill = {"zero": bytes(kind.size), "maximum": b"\xff" * kind.size}
        return fill.get(style, rng.randbytes(kind.size))
    if isinstance(kind, Blob):
        return b"" if style == "zero" else rng.randbytes(32 * rng.randrange(1, 4))
    if isinstance(kind, Text):
        return "" if style == "zero" else f"model/é😀-{rng.randrange(1000)}"
    if isinstance(kind, ListOf):
        count = 0 if style == "zero" else rng.randrange(1, 4)
        return tuple(sample(kind.member, rng, style=style) for _ in range(count))
    assert isinstance(kind, StructKind)
    return make(kind.codec.cls, rng, style=style)  # type: ignore[attr-defined]


def make(cls: type[Message], rng: random.Random, *, style: str) -> Message:
    """One message of `cls`."""
    kinds = schema(cls).kinds
    return cls(**{name: sample(kind, rng, style=style) for name, kind in kinds.items()})


def vector(cls: type[Message], domain: Domain, rng: random.Random, style: str) -> dict[str, object]:
    """One golden vector with its signature by the fixed test key."""
    signed = Signed.by(KEY, domain, make(cls, rng, style=style))
    return {
        "type": cls.__name__,
        "domain": {"chainId": domain.chain_id, "settlement": "0x" + domain.settlement.hex()},
        "structHash": "0x" + schema(cls).hash_struct(signed.message).hex(),
        "digest": "0x" + signed.digest(domain).hex(),
        **signed.to_json(),
    }


def types_table() -> dict[str, list[dict[str, str]]]:
    """The types as EIP-712 tools want them."""

    def rows(found: Schema[Any]) -> list[dict[str, str]]:
        return [{"name": found.members[n], "type": k.solidity} for n, k in found.kinds.items()]

    return {cls.__name__: rows(schema(cls)) for cls in TYPES}


def main() -> None:
    """Write the file beside this script."""
    rng = random.Random(20261122)  # noqa: S311 - vectors are to be repeatable
    vectors = [
        vector(cls, DOMAINS[number % 2], rng, style)
        for cls in TYPES
        for number, style in enumerate(("zero", "maximum", "drawn", "drawn"))
    ]
    document = {
        "signer": "0x" + KEY.address.hex(),
        "typeHashes": {cls.__name__: "0x" + schema(cls).type_hash.hex() for cls in TYPES},
        "types": types_table(),
        "vectors": vectors,
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True)
    Path(__file__).with_name("typed_data.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
