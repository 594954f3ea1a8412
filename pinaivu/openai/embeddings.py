"""An embedding response, gathered: each embedding as base64 of its float32 values, in order.

`Embeddings` takes the answer to an embedding request, whole or in parts that each hold some of its
`data`. The text that segments tile is the base64 of all, one after the other (types.md, section 5).
"""

import base64
import binascii
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from pinaivu.encoding import UNREADABLE
from pinaivu.openai.chunks import Choice
from pinaivu.openai.claims import BadResponse, Usage

_FLOAT32_BYTES: Final = 4


class _Embedding(Struct):
    embedding: str | list[float]
    index: Annotated[int, Meta(ge=0)] = 0


class _Part(Struct):
    data: list[_Embedding] = []
    usage: Usage | None = None
    error: object = None


class Embeddings:
    """Gathers the `count` embeddings of one response, which come in the order of their index.

    Their text is the base64 of the values. Each is whole as soon as it is there.
    """

    def __init__(self, count: int) -> None:
        self.expected = count
        self.usage: Usage | None = None
        self.append_only = True
        self.size = 0
        self.taken: Sequence[Choice] = ()  # an embedding is none
        self.took_back = False
        self._found: list[str] = []

    def feed(self, data: bytes) -> str:
        """Take an answer or a part of one; the text it brought. Raises `BadResponse`."""
        try:
            part = _DECODER.decode(data)
        except UNREADABLE as error:
            raise BadResponse(f"no embedding response: {error}") from error
        if part.error is not None:
            raise BadResponse(f"the engine reports an error: {part.error!r:.200}")
        self.usage = part.usage or self.usage
        return "".join(map(self._take, sorted(part.data, key=lambda item: item.index)))

    @property
    def complete(self) -> bool:
        """Whether all are there."""
        return len(self._found) == self.expected

    @property
    def plain(self) -> bool:
        """False: nobody can go on in the middle of an embedding."""
        return False

    @property
    def finish_reason(self) -> str | None:
        """`stop` once all are there."""
        return "stop" if self.complete else None

    def text(self) -> bytes:
        """The base64 of those that are there."""
        return "".join(self._found).encode("ascii")

    def choices(self) -> list[dict[str, object]]:
        """The canonical choices of those that are there."""
        return [{"index": i, "embedding": text} for i, text in enumerate(self._found)]

    def _take(self, item: _Embedding) -> str:
        if item.index != len(self._found) or self.complete:
            raise BadResponse(f"embedding {item.index} where {len(self._found)} is due")
        text = _float32_base64(item.embedding)
        if not text or len(text) != len((self._found or [text])[0]):
            raise BadResponse(f"embedding {item.index} is empty, or not as long as the others")
        self._found.append(text)
        self.size += len(text)
        return text


def canonical_embeddings(response: Mapping[str, Any]) -> list[dict[str, object]]:
    """The canonical choices of a whole response; those of canonical ones are the same again."""
    raw = response.get("data", response.get("choices"))
    try:
        data = msgspec.convert(raw, list[_Embedding])
    except msgspec.ValidationError as error:
        raise BadResponse(f"no embedding response: {error}") from error
    by_index = {item.index: item for item in data}
    if sorted(by_index) != list(range(len(data))):
        raise BadResponse("embeddings are not numbered from 0, each once")
    return [
        {"index": index, "embedding": _float32_base64(by_index[index].embedding)}
        for index in range(len(data))
    ]


_DECODER: Final = msgspec.json.Decoder(_Part)


def _float32_base64(embedding: str | list[float]) -> str:
    """Base64 of the float32 values, little-endian, whichever form they came in."""
    try:
        if isinstance(embedding, str):
            packed = base64.b64decode(embedding, validate=True)
        else:
            packed = struct.pack(f"<{len(embedding)}f", *embedding)
    except (binascii.Error, OverflowError, ValueError) as error:
        raise BadResponse(f"an embedding is no list of float32 values: {error}") from error
    if len(packed) % _FLOAT32_BYTES:
        raise BadResponse("an embedding ends within a float32 value")
    return base64.b64encode(packed).decode("ascii")
