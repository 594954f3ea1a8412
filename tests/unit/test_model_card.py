"""The model card: one form, one fingerprint, nothing unknown."""

import hashlib
import json
from typing import Any

import pytest

from pinaivu.errors import InvalidEncoding
from pinaivu.model_card import ModelCard, ModelFile

CARD = ModelCard(
    files=(ModelFile("a.gguf", bytes(32)), ModelFile("b/c.gguf", bytes([1]) * 32)),
    revision="r1",
    quantization="Q4_1",
    tokenizer_digest=bytes([2]) * 32,
    context_tokens=8192,
)


BAD_PATHS = ("", "/a", "../a", "a/../b", "a//b", "./a", "a/", "a\\b", "a\n", ".", "a/..")


def members() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(CARD.to_json())
    return document


def test_the_fingerprint_is_the_tagged_hash_of_the_canonical_form() -> None:
    """Written out here by hand from types.md section 6."""
    zeros, ones, twos = "00" * 32, "01" * 32, "02" * 32
    canonical = (
        f'{{"context_tokens":8192,"files":[{{"path":"a.gguf","sha256":"0x{zeros}"}},'
        f'{{"path":"b/c.gguf","sha256":"0x{ones}"}}],"quantization":"Q4_1","revision":"r1",'
        f'"tokenizer_digest":"0x{twos}"}}'
    ).encode()
    assert CARD.to_json() == canonical
    tag = b"pnv1:model".ljust(16, b"\0")
    assert CARD.fingerprint == hashlib.sha256(tag + canonical).digest()


def test_a_card_survives_its_json_in_any_layout() -> None:
    assert ModelCard.from_json(json.dumps(members(), indent=2).encode()) == CARD


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"context_tokens": 0},
        {"context_tokens": 1 << 32},
        {"context_tokens": True},
        {"context_tokens": 1.5},
        {"context_tokens": "8192"},
        {"revision": None},
        {"tokenizer_digest": "0x" + "00" * 31},
        {"tokenizer_digest": "00" * 32},
        {"files": []},
        {"files": {}},
        {"files": [{"path": "a.gguf"}]},
        {"files": [{"path": "a.gguf", "sha256": "0x" + "00" * 32, "size": 1}]},
        {"files": [{"path": name, "sha256": "0x" + "00" * 32} for name in ("b", "a")]},
        {"files": [{"path": name, "sha256": "0x" + "00" * 32} for name in ("a", "a")]},
        *({"files": [{"path": path, "sha256": "0x" + "00" * 32}]} for path in BAD_PATHS),
    ],
)
def test_a_card_with_anything_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidEncoding):
        ModelCard.from_json(json.dumps({**members(), **change}).encode())


@pytest.mark.parametrize("name", sorted(members()))
def test_a_card_without_a_member_is_refused(name: str) -> None:
    document = members()
    del document[name]
    with pytest.raises(InvalidEncoding, match="exactly the members"):
        ModelCard.from_json(json.dumps(document).encode())


def test_dots_inside_a_name_are_fine() -> None:
    path = "..a/b..c/.d"
    file = {"path": path, "sha256": "0x" + "00" * 32}
    card = ModelCard.from_json(json.dumps({**members(), "files": [file]}).encode())
    assert card.files[0].path == path
