"""The model card: which weights, which tokenizer, how much context. Its digest is the fingerprint.

A card says what is served; it does not prove that a node runs it (`design.md`, V13).

    card = ModelCard.from_json(raw)
    card.fingerprint      # what offers, completions and the model registry name
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

from pinaivu.encoding import Tag, from_hex, h, jcs, parse_json, tagged_hash, to_hex
from pinaivu.errors import InvalidEncoding

_DIGEST_BYTES: Final = 32
_MAX_CONTEXT: Final = (1 << 32) - 1
_PATH: Final = re.compile(r"(?!\.{1,2}(/|$))[^/\\\x00-\x1f]+(?:/(?!\.{1,2}(/|$))[^/\\\x00-\x1f]+)*")
_MEMBERS: Final = {"context_tokens", "files", "quantization", "revision", "tokenizer_digest"}


def tokenizer_digest(tokenizer_json: bytes, chat_template: str) -> bytes:
    """``H(T.token ‖ H(tokenizer.json) ‖ H(chat template text))`` (types.md §6)."""
    return tagged_hash(Tag.TOKENIZER, h(tokenizer_json), h(chat_template.encode()))


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of weights: path relative to the model's directory, SHA-256 of its bytes."""

    path: str
    sha256: bytes


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A validated model card; files ascend by path. Raises `InvalidEncoding` when built from less.

    `context_tokens` counts prompt and output together.
    """

    files: tuple[ModelFile, ...]
    revision: str
    quantization: str
    tokenizer_digest: bytes
    context_tokens: int

    def __post_init__(self) -> None:
        """Hold every card to the same rules, wherever it came from."""
        paths = [file.path for file in self.files]
        if not paths or any(low >= high for low, high in pairwise(paths)):
            raise InvalidEncoding("a model card lists at least one file, ascending by path")
        for path in paths:
            if not _PATH.fullmatch(path):
                raise InvalidEncoding(f"{path!r} is no relative path of a model file")
        for digest in (self.tokenizer_digest, *(file.sha256 for file in self.files)):
            if len(digest) != _DIGEST_BYTES:
                raise InvalidEncoding(f"a digest on a model card has {len(digest)} bytes, not 32")
        if not 0 < self.context_tokens <= _MAX_CONTEXT:
            raise InvalidEncoding(f"context_tokens is {self.context_tokens}, not in 1 … 2^32 - 1")

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """The card of a JSON document with exactly the members of types.md §6, in any layout."""
        members = _object(parse_json(raw), _MEMBERS, "a model card")
        files = members["files"]
        if not isinstance(files, list):
            raise InvalidEncoding("files of a model card is no list")
        context = members["context_tokens"]
        if not isinstance(context, int) or isinstance(context, bool):
            raise InvalidEncoding("context_tokens of a model card is no integer")
        return cls(
            files=tuple(_file(entry) for entry in files),
            revision=_text(members, "revision"),
            quantization=_text(members, "quantization"),
            tokenizer_digest=from_hex(members["tokenizer_digest"], _DIGEST_BYTES),
            context_tokens=context,
        )

    def to_json(self) -> bytes:
        """The card's one canonical form (JCS)."""
        return jcs(
            {
                "files": [{"path": f.path, "sha256": to_hex(f.sha256)} for f in self.files],
                "revision": self.revision,
                "quantization": self.quantization,
                "tokenizer_digest": to_hex(self.tokenizer_digest),
                "context_tokens": self.context_tokens,
            }
        )

    @property
    def fingerprint(self) -> bytes:
        """``H(T.model ‖ JCS)``."""
        return tagged_hash(Tag.MODEL, self.to_json())


def _file(entry: object) -> ModelFile:
    members = _object(entry, {"path", "sha256"}, "a file of a model card")
    return ModelFile(_text(members, "path"), from_hex(members["sha256"], _DIGEST_BYTES))


def _object(value: object, names: set[str], what: str) -> dict[str, object]:
    if not isinstance(value, dict) or set(value) != names:
        raise InvalidEncoding(f"{what} has exactly the members {', '.join(sorted(names))}")
    return value


def _text(members: dict[str, object], name: str) -> str:
    value = members[name]
    if not isinstance(value, str):
        raise InvalidEncoding(f"{name} of a model card is no text")
    return value
