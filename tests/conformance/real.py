"""The cases that a real engine can be held to: llama.cpp with a small model.

What it says is its own; only what any engine must do is checked.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.conformance import cases as c
from tests.conformance.cases import Seen
from tests.conformance.chats import SCHEMA, WEATHER

Row = tuple[str, str, str, dict[str, Any], Callable[[Seen], None]]
"""Name, feature, endpoint, body beside the model, check."""
_ASK = [{"role": "user", "content": "Name three animals."}]


def _short(seen: Seen) -> None:
    assert c.said(seen)["content"]
    assert c.finish(seen) == "length"
    assert c.last(seen)["request_id"] == seen["headers"]["x-request-id"]


def _counted(seen: Seen) -> None:
    assert c.last(seen)["usage"]["completion_tokens"] <= 8


def _stopped(seen: Seen) -> None:
    assert "o" not in c.said(seen).get("content", "")
    assert c.finish(seen) == "stop"


def _probable(seen: Seen) -> None:
    tokens = c.logprobs(seen)["content"]
    assert "".join(token["token"] for token in tokens) == c.said(seen)["content"]
    assert all(len(token["top_logprobs"]) == 2 for token in tokens)


def _object(seen: Seen) -> None:
    assert isinstance(json.loads(c.said(seen)["content"])["lit"], bool)


def _text(seen: Seen) -> None:
    assert c.text(seen)


def _embedded(count: int) -> Callable[[Seen], None]:
    def check(seen: Seen) -> None:
        assert "error" not in seen, seen["error"]
        lengths = {len(item["embedding"]) for item in seen["body"]["data"]}
        assert (len(seen["body"]["data"]), lengths) == (count, {576})

    return check


def _no(status: int, param: str | None) -> Callable[[Seen], None]:
    def check(seen: Seen) -> None:
        found, _, named = c.error(seen)
        assert (found, named) == (status, param)

    return check


def rows() -> Iterator[Row]:
    """All of them, for a model whose nodes are llama.cpp's."""
    for streams in (False, True):
        how = {"stream": True} if streams else {}
        end = "stream" if streams else "whole"
        for name, feature, body, check in _chats():
            yield (
                f"{name}-{end}",
                feature,
                "chat",
                {"messages": _ASK, "max_tokens": 8} | body | how,
                check,
            )
        text = {"prompt": "The lamp is", "max_tokens": 6} | how
        yield f"completion-{end}", "completions: a text", "completions", text, _text
        ids = {"prompt": [504, 8203], "max_tokens": 6} | how
        yield f"ids-{end}", "completions: token ids", "completions", ids, _text
    usage = {"messages": _ASK, "max_tokens": 8}
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    yield "usage-whole", "usage", "chat", usage, _counted
    yield "usage-stream", "stream_options", "chat", usage | streamed, _counted
    yield "embedding", "embeddings: a text", "embeddings", {"input": "lamp"}, _embedded(1)
    several = {"input": ["lamp", "ship"]}
    yield "embeddings", "embeddings: several texts", "embeddings", several, _embedded(2)
    numbers = {"input": "lamp", "encoding_format": "float"}
    yield "numbers", "embeddings: as numbers", "embeddings", numbers, _embedded(1)
    token_ids = {"input": [[504, 8203], [1]]}
    yield "embedded-ids", "embeddings: token ids", "embeddings", token_ids, _embedded(2)


def _chats() -> Iterator[tuple[str, str, dict[str, Any], Callable[[Seen], None]]]:
    sampling = {"temperature": 0.5, "seed": 7, "presence_penalty": 0.1, "logit_bias": {"5": -100}}
    yield "plain", "messages", {}, _short
    yield "sampling", "temperature, seed, penalties, logit_bias", sampling, _short
    yield "newer", "max_completion_tokens", {"max_tokens": None, "max_completion_tokens": 8}, _short
    yield "limit", "max_tokens", {"max_tokens": 5}, _short
    yield "stop", "stop", {"stop": ["o"], "max_tokens": 200}, _stopped
    yield "logprobs", "logprobs, top_logprobs", {"logprobs": True, "top_logprobs": 2}, _probable
    schema = {"response_format": SCHEMA, "max_tokens": 60}
    yield "schema", "response_format json_schema", schema, _object
    yield "no-tools", "refused by name: 503", {"tools": [WEATHER]}, _no(503, "tools")
    yield "no-n", "refused by name: 503", {"n": 2}, _no(503, "n")
    yield "no-tokens", "the engine refuses: 422", {"min_tokens": 2}, _no(422, None)
