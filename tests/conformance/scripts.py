"""What a scripted engine plays: events of an answer, and the bytes they go out in.

    script = stream(chunk(content="Hi"), chunk(finish="stop"))
    script.pieces        # each written by itself, so that the reader sees these borders

Nothing here knows a test case; `cases` puts scripts and requests together.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Script:
    """One scripted answer: a status, and a body written piece by piece.

    `pause_s` lies between two pieces, else the kernel would join what is written apart.
    `breaks`: the connection is closed behind the last piece, in mid-answer.
    """

    pieces: tuple[bytes, ...]
    status: int = 200
    pause_s: float = 0.002
    breaks: bool = False


def chunk(*, index: int = 0, finish: str | None = None, logprobs: Any = None, **delta: Any) -> Any:
    """One chunk of a chat completion with one choice."""
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {
        "id": "engine-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "scripted",
        "choices": [choice | ({"logprobs": logprobs} if logprobs else {})],
    }


def text_chunk(
    text: str, *, index: int = 0, finish: str | None = None, logprobs: Any = None
) -> Any:
    """One chunk of a completion with one choice."""
    choice = {"index": index, "text": text, "finish_reason": finish, "logprobs": logprobs}
    return {"id": "engine-1", "object": "text_completion", "created": 1, "choices": [choice]}


def usage(prompt: int, completion: int) -> Any:
    """The last chunk of an engine that was asked for usage."""
    counted = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {"object": "chat.completion.chunk", "choices": [], "usage": counted}


def events(*chunks: Any) -> bytes:
    """Chunks as server-sent events."""
    return b"".join(
        b"data: " + json.dumps(item, ensure_ascii=False).encode() + b"\n\n" for item in chunks
    )


def stream(*chunks: Any) -> Script:
    """A whole stream, an event at a time."""
    return Script((*(events(item) for item in chunks), DONE))


def in_pieces(size: int, *chunks: Any) -> Script:
    """A whole stream cut every `size` bytes, wherever that is: in a line, in a character."""
    raw = events(*chunks) + DONE
    return Script(tuple(raw[start : start + size] for start in range(0, len(raw), size)))


def at_once(*chunks: Any) -> Script:
    """A whole stream in one write."""
    return Script((events(*chunks) + DONE,))


def broken(*chunks: Any) -> Script:
    """A stream that ends without its end."""
    return Script(tuple(events(item) for item in chunks), breaks=True)


def embeddings(*values: Sequence[float] | str) -> Script:
    """A whole answer with embeddings, as numbers or as base64."""
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(values)]
    body = {"object": "list", "model": "scripted", "data": data, "usage": {"prompt_tokens": 3}}
    return Script((json.dumps(body).encode(),))


def refusal(status: int, message: str) -> Script:
    """An error instead of an answer."""
    error = {"error": {"message": message, "type": "scripted", "code": status}}
    return Script((json.dumps(error).encode(),), status=status)


def story(tokens: int, pause_s: float) -> Script:
    """So many words, and a usage report: what the node's own trial and measurement are given."""
    words = [chunk(content=f"w{number} ") for number in range(tokens)]
    return Script(
        (
            events(chunk(role="assistant", content="")),
            *(events(word) for word in words),
            events(chunk(finish="length"), usage(5, tokens)) + DONE,
        ),
        pause_s=pause_s,
    )
