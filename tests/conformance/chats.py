"""The cases of chat completions: each asked for whole and as a stream, unless it says otherwise."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.conformance import cases as c
from tests.conformance.cases import HI, PIXEL, Case, Seen
from tests.conformance.scripts import (
    Script,
    at_once,
    broken,
    chunk,
    in_pieces,
    refusal,
    stream,
    usage,
)

WEATHER: Final = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": False,
    },
}
SCHEMA: Final = {
    "type": "json_schema",
    "json_schema": {
        "name": "lamp",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"lit": {"type": "boolean"}},
            "required": ["lit"],
            "additionalProperties": False,
        },
    },
}
TOKEN: Final = {
    "token": "Hi",
    "logprob": -0.25,
    "bytes": [72, 105],
    "top_logprobs": [{"token": "Hi", "logprob": -0.25, "bytes": [72, 105]}],
}
ROLE: Final = chunk(role="assistant", content="")
END: Final = chunk(finish="stop")
ODD: Final = "Grüße, 世界 🌍👩‍👧‍👦 – done. "


def hello(*more: Any) -> Script:
    """`Hi there.`, in three chunks."""
    return stream(ROLE, chunk(content="Hi "), chunk(content="there."), END, *more, usage(9, 3))


def says_hello(seen: Seen) -> None:
    """What `hello` plays, and what every answer has."""
    assert c.said(seen) == {"role": "assistant", "content": "Hi there."}
    assert c.finish(seen) == "stop"
    assert c.last(seen)["request_id"] == seen["headers"]["x-request-id"]


def _call(index: int, name: str, *arguments: str) -> list[Any]:
    first = {"index": index, "id": f"call-{index}", "type": "function"}
    begun = chunk(tool_calls=[first | {"function": {"name": name, "arguments": ""}}])
    rest = [chunk(tool_calls=[{"index": index, "function": {"arguments": a}}]) for a in arguments]
    return [begun, *rest]


def _calls(*expected: tuple[str, dict[str, Any]]) -> Callable[[Seen], None]:
    def check(seen: Seen) -> None:
        found = [call["function"] for call in c.said(seen)["tool_calls"]]
        assert [(f["name"], json.loads(f["arguments"])) for f in found] == list(expected)
        assert c.finish(seen) == "tool_calls"

    return check


def _content(wanted: str, **more: str) -> Callable[[Seen], None]:
    def check(seen: Seen) -> None:
        assert c.said(seen) == {"role": "assistant", "content": wanted} | more

    return check


def _plain(seen: Seen) -> None:
    says_hello(seen)


def _counted(seen: Seen) -> None:
    says_hello(seen)
    counted = c.last(seen)["usage"]
    assert counted["completion_tokens"] > 0
    assert counted["total_tokens"] == counted["prompt_tokens"] + counted["completion_tokens"]


def _probable(seen: Seen) -> None:
    assert c.logprobs(seen) == {"content": [TOKEN, TOKEN]}
    assert c.said(seen)["content"] == "HiHi"


def _three(seen: Seen) -> None:
    assert [c.said(seen, n)["content"] for n in range(3)] == ["one ", "two ", "three "]
    assert [c.finish(seen, n) for n in range(3)] == ["stop", "length", "stop"]


def _failed(status: int | None, code: str, param: str | None = None) -> Callable[[Seen], None]:
    def check(seen: Seen) -> None:
        assert c.error(seen) == (status, code, param)

    return check


def cases() -> Iterator[Case]:
    """All of them."""
    for name, feature, body, script, check, changed in _rows():
        for streams in (False, True):
            yield Case(
                name=f"{name}-{'stream' if streams else 'whole'}",
                feature=feature,
                call="chat",
                body={"messages": [HI]} | body,
                script=script,
                check=check,
                stream=streams,
                changed=changed,
            )
    yield from _errors()
    usage_asked = {"stream_options": {"include_usage": True}}
    yield _one("usage-stream", "stream_options", usage_asked, hello(), _counted, streams=True)
    yield _one("usage-whole", "usage", {}, hello(), _counted)


def _rows() -> Iterator[tuple[str, str, dict[str, Any], Script, Callable[[Seen], None], Any]]:
    sampling = {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": -0.1,
        "logit_bias": {"5": -100},
    }
    beside = {"top_k": 5, "min_p": 0.05, "repetition_penalty": 1.1, "min_tokens": 1}
    text_and_image = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
    ]
    conversation = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}],
        },
        {"role": "assistant", "content": "Hello."},
        HI,
    ]
    used = [
        HI,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    oslo = _call(0, "weather", '{"ci', 'ty": "Os', 'lo"}')
    rome = _call(1, "weather", '{"city": "Rome"}')
    ended = chunk(finish="tool_calls")
    tools = {"tools": [WEATHER]}
    one, both = ("weather", {"city": "Oslo"}), ("weather", {"city": "Rome"})
    named = {"type": "function", "function": {"name": "weather"}}
    lamp = stream(ROLE, chunk(content='{"lit"'), chunk(content=": true}"), END)
    thought = [chunk(reasoning_content="Let me "), chunk(reasoning_content="see. ")]
    choices = [
        chunk(index=index, content=word, finish=None)
        for index, word in ((2, "three "), (0, "one "), (1, "two "))
    ] + [chunk(index=i, finish=f) for i, f in ((1, "length"), (0, "stop"), (2, "stop"))]
    odd = [ROLE, *(chunk(content=character) for character in ODD), END]
    thinks = _content("Hi.", reasoning="Let me see. ", reasoning_content="Let me see. ")
    yield "plain", "messages", {}, hello(), _plain, {}
    yield "turns", "several turns, text parts", {"messages": conversation}, hello(), _plain, {}
    yield "sampling", "temperature, seed, penalties, logit_bias", sampling, hello(), _plain, {}
    yield "vllm", "vLLM's own sampling", beside, hello(), _plain, {}
    yield "stop", "stop", {"stop": ["\n\n", "END"]}, hello(), _plain, {}
    yield "limit", "max_tokens", {"max_tokens": 7}, hello(), _plain, {}
    yield "newer", "max_completion_tokens", {"max_completion_tokens": 8}, hello(), _plain, {}
    yield "labels", "user, metadata", {"metadata": {"a": "b"}}, hello(), _plain, {}
    yield "tool", "tools", tools, stream(ROLE, *oslo, ended), _calls(one), {}
    yield (
        "parallel",
        "parallel tool calls",
        tools | {"parallel_tool_calls": True, "tool_choice": "required"},
        stream(ROLE, *oslo, *rome, ended),
        _calls(one, both),
        {},
    )
    yield (
        "named",
        "tool_choice",
        tools | {"tool_choice": named},
        stream(*oslo, ended),
        _calls(one),
        {},
    )
    yield "used", "tool results", tools | {"messages": used}, hello(), _plain, {}
    lit = _content('{"lit": true}')
    yield "schema", "response_format json_schema", {"response_format": SCHEMA}, lamp, lit, {}
    as_object = {"response_format": {"type": "json_object"}}
    yield "object", "response_format json_object", as_object, lamp, lit, {}
    twice = [
        chunk(content="Hi", logprobs={"content": [TOKEN]}),
        chunk(content="Hi", logprobs={"content": [TOKEN]}),
    ]
    asked = {"logprobs": True, "top_logprobs": 1}
    yield "logprobs", "logprobs, top_logprobs", asked, stream(ROLE, *twice, END), _probable, {}
    share = {"max_tokens": 300}
    yield "n", "n", {"n": 3, "max_tokens": 300}, stream(*choices), _three, share
    effort = {"reasoning_effort": "low"}
    thinking = stream(ROLE, *thought, chunk(content="Hi."), END)
    yield "effort", "reasoning_effort", effort, thinking, thinks, {}
    switch = {"chat_template_kwargs": {"enable_thinking": True}}
    yield "switch", "chat_template_kwargs", switch, thinking, thinks, {}
    no = stream(ROLE, chunk(refusal="I "), chunk(refusal="won't."), END)
    yield "refusal", "refusal", {}, no, _refused, {}
    yield (
        "image",
        "image parts",
        {"messages": [{"role": "user", "content": text_and_image}]},
        hello(),
        _plain,
        {},
    )
    yield "odd", "UTF-8 cut anywhere", {}, in_pieces(7, *odd), _content(ODD), {}
    yield (
        "bytewise",
        "events a byte at a time",
        {},
        in_pieces(1, ROLE, chunk(content="Hé"), END),
        _content("Hé"),
        {},
    )
    yield "burst", "a whole stream in one read", {}, at_once(*odd), _content(ODD), {}


def _refused(seen: Seen) -> None:
    assert c.said(seen) == {"role": "assistant", "refusal": "I won't."}


def _one(
    name: str,
    feature: str,
    body: dict[str, Any],
    script: Script,
    check: Callable[[Seen], None],
    *,
    streams: bool = False,
    reaches_engine: bool = True,
) -> Case:
    return Case(
        name=name,
        feature=feature,
        call="chat",
        body={"messages": [HI]} | body,
        script=script,
        check=check,
        stream=streams,
        reaches_engine=reaches_engine,
    )


def _errors() -> Iterator[Case]:
    cut = broken(ROLE, chunk(content="Hi "))
    inside = stream(ROLE, chunk(content="Hi "), {"error": {"message": "out of memory"}})
    for streams, how in ((False, "whole"), (True, "stream")):
        yield _one(
            f"engine-400-{how}",
            "the engine refuses: 422",
            {},
            refusal(400, "no such thing"),
            _failed(422, "request_refused"),
            streams=streams,
        )
        yield _one(
            f"engine-500-{how}",
            "the engine fails before its first token: 503",
            {},
            refusal(500, "out of memory"),
            _failed(503, "no_node_left"),
            streams=streams,
        )
        for name, script in (("cut", cut), ("error", inside)):
            # Several choices: nobody could go on with them.
            yield Case(
                name=f"engine-{name}-{how}",
                feature="the engine fails in mid-answer: 502",
                call="chat",
                body={"messages": [HI], "n": 2, "max_tokens": 9},
                script=script,
                check=_failed(None if streams else 502, "engine_error"),
                stream=streams,
            )
    refused: list[tuple[str, dict[str, Any], int, str, str | None]] = [
        ("unknown", {"temprature": 1}, 400, "unknown_parameter", "temprature"),
        ("functions", {"functions": [{"name": "f"}]}, 400, "invalid_value", "functions"),
        (
            "prompt-logprobs",
            {"prompt_logprobs": 1},
            400,
            "unsupported_parameter",
            "prompt_logprobs",
        ),
        ("too-long", {"max_tokens": 100_000}, 400, "context_length_exceeded", "max_tokens"),
        ("no-model", {"model": "nobody/has-it"}, 404, "model_not_found", "model"),
        (
            "no-node",
            {"pinaivu": {"max_price_out": 0}},
            503,
            "no_nodes_within_limits",
            "pinaivu.max_price_out",
        ),
        (
            "continued",
            {
                "messages": [HI, {"role": "assistant", "content": "Once"}],
                "continue_final_message": True,
                "add_generation_prompt": False,
            },
            503,
            "no_nodes_available",
            "continue_final_message",
        ),
    ]
    for name, body, status, code, param in refused:
        yield _one(
            f"refused-{name}",
            f"refused by name: {status}",
            body,
            stream(),
            _failed(status, code, param),
            reaches_engine=False,
        )
