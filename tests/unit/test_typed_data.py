"""Golden vectors of the signed types, and the strictness of their JSON and wire forms."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinaivu import messages
from pinaivu.errors import InvalidEncoding
from pinaivu.keys import BadSignature
from pinaivu.typed_data import Domain, Schema, schema, signed_from_bytes, signed_from_json
from tests.vectors.make_typed_data import TYPES, make

VECTORS = Path(__file__).parents[1] / "vectors"
FILES = ["typed_data.json", "typed_data_viem.json"]


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((VECTORS / name).read_text("utf-8"))
    return document


def cases() -> list[Any]:
    return [
        pytest.param(vector, document["signer"], id=f"{name}-{number}-{vector['type']}")
        for name in FILES
        for document in [load(name)]
        for number, vector in enumerate(document["vectors"])
    ]


@pytest.mark.parametrize(("vector", "signer"), cases())
def test_digest_and_signature_equal_the_golden_vector(vector: dict[str, Any], signer: str) -> None:
    cls = getattr(messages, vector["type"])
    domain = Domain(vector["domain"]["chainId"], bytes.fromhex(vector["domain"]["settlement"][2:]))
    pair = {"message": vector["message"], "signature": vector["signature"]}
    signed = signed_from_json(cls, pair)
    assert "0x" + schema(cls).hash_struct(signed.message).hex() == vector["structHash"]
    assert "0x" + signed.digest(domain).hex() == vector["digest"]
    assert signed.to_json() == pair
    assert signed.require(domain, bytes.fromhex(signer[2:])) == signed.digest(domain)


def test_every_type_has_the_published_type_hash() -> None:
    for name, expected in load("typed_data.json")["typeHashes"].items():
        assert "0x" + schema(getattr(messages, name)).type_hash.hex() == expected
    assert {cls.__name__ for cls in TYPES} == set(load("typed_data.json")["typeHashes"])


@given(st.sampled_from(TYPES), st.randoms(use_true_random=False))
def test_wire_and_json_forms_come_back_whole(cls: type[Any], rng: Any) -> None:
    message = make(cls, rng, style="drawn")
    found: Schema[Any] = schema(cls)  # type: ignore[arg-type]
    assert found.from_json(json.loads(json.dumps(found.to_json(message)))) == message
    assert found.from_wire(found.to_wire(message)) == message


def spoiled() -> list[Any]:
    """Non-canonical forms of a checkpoint, by what is wrong with them."""
    good = next(v for v in load("typed_data.json")["vectors"] if v["type"] == "Checkpoint")
    message = good["message"]

    def changed(**members: object) -> dict[str, Any]:
        return {"message": message | members, "signature": good["signature"]}

    missing = {k: v for k, v in message.items() if k != "size"}
    return [
        pytest.param(changed(size=5), id="wide integer as number"),
        pytest.param(changed(size="05"), id="leading zero"),
        pytest.param(changed(size="-1"), id="negative"),
        pytest.param(changed(size=str(1 << 64)), id="too wide"),
        pytest.param(changed(size="\u0665"), id="other digits"),
        pytest.param(changed(root="0x" + "AB" * 32), id="upper-case hex"),
        pytest.param(changed(root="0x" + "ab" * 31), id="too short"),
        pytest.param(changed(root="0x" + "ab " * 32), id="white space in hex"),
        pytest.param(changed(root="ab" * 32), id="no 0x"),
        pytest.param(changed(more=1), id="unknown member"),
        pytest.param({"message": missing, "signature": good["signature"]}, id="missing member"),
        pytest.param({"message": message}, id="no signature"),
        pytest.param({"message": message, "signature": "0x00"}, id="short signature"),
    ]


@pytest.mark.parametrize("raw", spoiled())
def test_other_than_canonical_json_is_refused(raw: object) -> None:
    with pytest.raises(InvalidEncoding):
        signed_from_json(messages.Checkpoint, raw)


@pytest.mark.parametrize("raw", [b"", b"\x90", b"\x92\x90\xc4\x00", b"\xff" * 40])
def test_other_than_canonical_wire_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidEncoding):
        signed_from_bytes(messages.Checkpoint, raw)


def test_a_changed_message_or_malleated_signature_is_not_the_signers() -> None:
    vector = next(v for v in load("typed_data.json")["vectors"] if v["type"] == "Log")
    domain = Domain(vector["domain"]["chainId"], bytes.fromhex(vector["domain"]["settlement"][2:]))
    signed = signed_from_json(
        messages.Log, {"message": vector["message"], "signature": vector["signature"]}
    )
    signer = signed.signer(domain)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high_s = (order - int.from_bytes(signed.signature[32:64])).to_bytes(32)
    twin = signed.signature[:32] + high_s + bytes((55 - signed.signature[64],))
    for spoiled_signature in (twin, signed.signature[:64] + b"\x00", signed.signature[:64]):
        with pytest.raises(BadSignature):
            type(signed)(signed.message, spoiled_signature).require(domain, signer)
    other = messages.Log(operator=signed.message.operator, number=signed.message.number ^ 1)
    with pytest.raises(BadSignature):
        type(signed)(other, signed.signature).require(domain, signer)
