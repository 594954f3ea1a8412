"""The cases that a real engine can be held to: llama.cpp and vLLM with a small model.

What it says is its own; only what any engine must do is checked.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from tests.conformance import cases as c
from tests.conformance.cases import Seen
from tests.conformance.chats import SCHEMA, WEATHER

Row = tuple[str, str, str, dict[str, Any], Callable[[Seen], None]]
"""Name, feature, endpoint, body beside the model, check."""
Chat = tuple[str, str, dict[str, Any], Callable[[Seen], None]]
"""Name, feature, what the body has beside messages, check."""
_ASK = [{"role": "user", "content": "Name three animals."}]
_GREEDY: Final = {"temperature": 0}  # else an answer is now and then shorter than its limit
_CHOICES: Final = {"n": 2, "temperature": 0.5, "seed": 7}
_ENDS: Final[dict[str, dict[str, Any]]] = {"whole": {}, "stream": {"stream": True}}


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


def _two_answers(seen: Seen) -> None:
    assert all(c.said(seen, index)["content"] for index in range(2))


def _two_texts(seen: Seen) -> None:
    assert all(c.text(seen, index) for index in range(2))


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


def llamacpp_rows() -> Iterator[Row]:
    """All of them, for a model whose nodes are llama.cpp's."""
    yield from _texts([*_chats(), *_not_by_llamacpp()])
    yield "embedding", "embeddings: a text", "embeddings", {"input": "lamp"}, _embedded(1)
    several = {"input": ["lamp", "ship"]}
    yield "embeddings", "embeddings: several texts", "embeddings", several, _embedded(2)
    numbers = {"input": "lamp", "encoding_format": "float"}
    yield "numbers", "embeddings: as numbers", "embeddings", numbers, _embedded(1)
    token_ids = {"input": [[504, 8203], [1]]}
    yield "embedded-ids", "embeddings: token ids", "embeddings", token_ids, _embedded(2)


def vllm_rows() -> Iterator[Row]:
    """All of them, for a model whose nodes are vLLM's, without parsers of tools and reasoning."""
    yield from _texts([*_chats(), *_by_vllm()])
    for end, how in _ENDS.items():
        several = {"prompt": ["The lamp is", "A ship"], "max_tokens": 6} | _GREEDY | how
        yield f"several-{end}", "completions: several prompts", "completions", several, _two_texts
        n = {"prompt": "The lamp is", "max_tokens": 6} | _CHOICES | how
        yield f"completion-n-{end}", "completions: n", "completions", n, _two_texts


def _texts(chats: Iterable[Chat]) -> Iterator[Row]:
    for end, how in _ENDS.items():
        for name, feature, body, check in chats:
            yield (
                f"{name}-{end}",
                feature,
                "chat",
                {"messages": _ASK, "max_tokens": 8} | _GREEDY | body | how,
                check,
            )
        text = {"prompt": "The lamp is", "max_tokens": 6} | _GREEDY | how
        yield f"completion-{end}", "completions: a text", "completions", text, _text
        ids = {"prompt": [504, 8203], "max_tokens": 6} | _GREEDY | how
        yield f"ids-{end}", "completions: token ids", "completions", ids, _text
    usage = {"messages": _ASK, "max_tokens": 8} | _GREEDY
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    yield "usage-whole", "usage", "chat", usage, _counted
    yield "usage-stream", "stream_options", "chat", usage | streamed, _counted


def _chats() -> Iterator[Chat]:
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


def _not_by_llamacpp() -> Iterator[Chat]:
    yield "no-n", "refused by name: 503", {"n": 2}, _no(503, "n")
    yield "no-tokens", "the engine refuses: 422", {"min_tokens": 2}, _no(422, None)


def _by_vllm() -> Iterator[Chat]:
    yield "n", "n", _CHOICES, _two_answers
    own = {"min_tokens": 3, "top_k": 5, "repetition_penalty": 1.2}
    yield "own", "vLLM's own sampling", own, _short
    yield "refused", "the engine refuses: 422", {"logit_bias": {"999999": 1}}, _no(422, None)
