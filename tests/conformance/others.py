"""The cases of completions and embeddings."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.conformance import cases as c
from tests.conformance.cases import Case, Seen, floats
from tests.conformance.scripts import Script, embeddings, refusal, stream, text_chunk, usage

LEGACY: Final[dict[str, list[Any]]] = {
    "tokens": ["On"],
    "token_logprobs": [-0.5],
    "top_logprobs": [{"On": -0.5}],
    "text_offset": [0],
}
VALUES: Final = [[0.5, -1.5, 2.0], [0.25, 0.125, -3.0]]


def cases() -> Iterator[Case]:
    """All of them."""
    for name, feature, body, script, check, changed in _completions():
        for streams in (False, True):
            yield Case(
                name=f"completion-{name}-{'stream' if streams else 'whole'}",
                feature=feature,
                call="completions",
                body=body,
                script=script,
                check=check,
                stream=streams,
                changed=changed,
            )
    for name, feature, body, script, check in _embeddings():
        yield Case(
            name=f"embedding-{name}",
            feature=feature,
            call="embeddings",
            body=body,
            script=script,
            check=check,
            reaches_engine="refused by name" not in feature,
        )


def _once(*more: Any) -> Script:
    return stream(text_chunk("On"), text_chunk("ce.", finish="stop"), *more, usage(2, 3))


def _says_once(seen: Seen) -> None:
    assert c.text(seen) == "Once."
    assert c.finish(seen) == "stop"
    assert c.last(seen)["request_id"] == seen["headers"]["x-request-id"]


def _both(seen: Seen) -> None:
    assert [c.text(seen, n) for n in range(2)] == ["first ", "second "]


def _probable(seen: Seen) -> None:
    assert c.text(seen) == "OnOn"
    assert c.logprobs(seen) == {name: value * 2 for name, value in LEGACY.items()}


Check = Callable[[Seen], None]


def _completions() -> Iterator[tuple[str, str, dict[str, Any], Script, Check, dict[str, Any]]]:
    two = stream(
        text_chunk("second ", index=1, finish="length"),
        text_chunk("first ", index=0, finish="stop"),
    )
    on = text_chunk("On", logprobs=LEGACY)
    yield "text", "completions: a text", {"prompt": "Tell"}, _once(), _says_once, {}
    ids = {"prompt": [1, 2, 3], "max_tokens": 9}
    yield "ids", "completions: token ids", ids, _once(), _says_once, {}
    several = {"prompt": ["a", "b"], "max_tokens": 20}
    yield "several", "completions: several prompts", several, two, _both, {}
    yield "n", "completions: n", {"prompt": "a", "n": 2, "max_tokens": 20}, two, _both, {}
    asked = {"prompt": "a", "logprobs": 1}
    twice = stream(on, on, text_chunk("", finish="stop"))
    yield "logprobs", "completions: logprobs", asked, twice, _probable, {}
    more = {"prompt": "a", "stop": "END", "seed": 3, "temperature": 0, "max_tokens": 40}
    yield "sampling", "completions: sampling", more, _once(), _says_once, {}


def _embeddings() -> Iterator[tuple[str, str, dict[str, Any], Script, Check]]:
    packed = [floats(*values) for values in VALUES]

    def values(*expected: Any) -> Check:
        def check(seen: Seen) -> None:
            assert "error" not in seen, seen["error"]
            assert [item["embedding"] for item in seen["body"]["data"]] == list(expected)
            assert seen["body"]["request_id"] == seen["headers"]["x-request-id"]
            assert seen["body"]["usage"]["total_tokens"] > 0

        return check

    def failed(status: int, code: str, param: str | None) -> Check:
        def check(seen: Seen) -> None:
            assert c.error(seen) == (status, code, param)

        return check

    one, both = embeddings(packed[0]), embeddings(*packed)
    yield "text", "embeddings: a text", {"input": "lamp"}, one, values(VALUES[0])
    yield "several", "embeddings: several texts", {"input": ["a", "b"]}, both, values(*VALUES)
    yield "ids", "embeddings: token ids", {"input": [[1, 2], [3]]}, both, values(*VALUES)
    as_float = {"input": ["a", "b"], "encoding_format": "float"}
    yield "float", "embeddings: as numbers", as_float, embeddings(*VALUES), values(*VALUES)
    as_base64 = {"input": "a", "encoding_format": "base64"}
    yield "base64", "embeddings: as base64", as_base64, one, values(packed[0])
    yield "short", "embeddings: dimensions", {"input": "a", "dimensions": 3}, one, values(VALUES[0])
    wrong = embeddings(packed[0])  # one, where two are asked for
    yield (
        "missing",
        "embeddings: the engine leaves one out",
        {"input": ["c", "d"]},
        wrong,
        failed(502, "engine_error", None),
    )
    yield (
        "refused",
        "embeddings: the engine refuses",
        {"input": ["e"]},
        refusal(400, "no"),
        failed(422, "request_refused", None),
    )
    bad = {"input": ["a", ""]}
    yield "bad", "embeddings: refused by name", bad, one, failed(400, "invalid_value", "input[1]")
