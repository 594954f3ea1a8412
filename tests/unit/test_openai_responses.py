"""Chunks and whole responses, gathered into canonical choices and text."""

import base64
import json
import struct
from typing import Any

import pytest

from pinaivu.codes import Finish, JobKind
from pinaivu.openai import Aggregator, BadResponse, canonical_choices, finish_of, text


def chunk(delta: dict[str, Any], index: int = 0, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def gathered(*chunks: dict[str, Any], choices: int = 1) -> Aggregator:
    aggregator = Aggregator(JobKind.CHAT, choices)
    for item in chunks:
        aggregator.add(item)
    return aggregator


def test_a_plain_stream_appends() -> None:
    """What vLLM and llama.cpp send: role first, text, finish, usage without choices."""
    aggregator = Aggregator(JobKind.CHAT)
    stream: list[tuple[dict[str, Any], str]] = [
        (chunk({"role": "assistant", "content": ""}), ""),
        (chunk({"content": "caf"}), "caf"),
        (chunk({"content": "é 😀"}), "é 😀"),
        (chunk({}, finish="length"), ""),
        ({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}, ""),
    ]
    so_far = b""
    for item, added in stream:
        assert aggregator.add(item) == added
        so_far += added.encode()
        assert aggregator.text() == so_far
        assert aggregator.size == len(so_far)
    assert aggregator.append_only
    assert aggregator.plain
    assert aggregator.complete
    assert aggregator.finish_reason == "length"
    assert aggregator.usage
    assert (aggregator.usage.prompt_tokens, aggregator.usage.completion_tokens) == (9, 3)
    assert aggregator.choices() == [
        {
            "index": 0,
            "finish_reason": "length",
            "message": {"role": "assistant", "content": "café 😀"},
        }
    ]


def test_raw_events_are_as_good_as_parsed_ones() -> None:
    aggregator = Aggregator(JobKind.CHAT)
    event = chunk({"content": "é"}, finish="stop")
    assert aggregator.feed(json.dumps(event).encode()) == "é"
    assert aggregator.choices() == gathered(event).choices()


def test_an_unfinished_stream_has_no_finish_reason() -> None:
    aggregator = gathered(chunk({"content": "a"}))
    assert not aggregator.complete
    assert aggregator.finish_reason is None
    assert aggregator.choices() == [
        {"index": 0, "finish_reason": None, "message": {"role": "assistant", "content": "a"}}
    ]


def test_nothing_gathered_is_no_choice() -> None:
    aggregator = Aggregator(JobKind.CHAT)
    assert (aggregator.choices(), aggregator.text(), aggregator.size) == ([], b"", 0)
    assert aggregator.finish_reason is None
    assert not aggregator.complete


def test_tool_calls_are_gathered_by_index() -> None:
    def call(index: int, **members: object) -> dict[str, Any]:
        return chunk({"tool_calls": [{"index": index, **members}]})

    aggregator = gathered(
        call(1, id="c2", type="function", function={"name": "g", "arguments": ""}),
        call(0, id="c1", type="function", function={"name": "f"}),
        call(0, function={"arguments": '{"a"'}),
        call(1, function={"arguments": "{}"}),
        call(0, function={"arguments": ": 1}"}),
        chunk({}, finish="tool_calls"),
    )
    assert aggregator.choices()[0]["message"] == {
        "role": "assistant",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
            {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }
    assert aggregator.text() == b'f{"a": 1}g{}' == text(aggregator.choices())
    assert not aggregator.append_only
    assert not aggregator.plain


def test_text_is_in_the_fixed_order_whatever_came_first() -> None:
    aggregator = gathered(
        chunk({"refusal": "no"}),
        chunk({"content": "yes"}),
        chunk({"reasoning": "hm"}),
    )
    assert aggregator.text() == b"hmyesno" == text(aggregator.choices())
    assert not aggregator.append_only


def test_reasoning_before_content_appends() -> None:
    aggregator = gathered(chunk({"reasoning": "h"}), chunk({"reasoning": "m", "content": "yes"}))
    assert aggregator.append_only
    assert aggregator.text() == b"hmyes"


ALIASES: list[tuple[list[dict[str, Any]], str, bool]] = [
    ([{"reasoning_content": "a"}, {"reasoning_content": "b"}], "ab", True),
    ([{"reasoning": "a", "reasoning_content": "a"}, {"reasoning": "b"}], "ab", True),
    ([{"reasoning": "a"}, {"reasoning_content": "x"}, {"reasoning": "b"}], "ab", True),
    ([{"reasoning_content": "x"}, {"reasoning": "a"}, {"reasoning_content": "x"}], "a", False),
    ([{"reasoning": "", "reasoning_content": "a"}], "a", True),
    ([{"reasoning": None, "reasoning_content": "a"}], "a", True),
]


@pytest.mark.parametrize(("deltas", "reasoning", "append_only"), ALIASES)
def test_reasoning_wins_over_its_alias(
    deltas: list[dict[str, Any]], reasoning: str, *, append_only: bool
) -> None:
    aggregator = gathered(*(chunk(delta) for delta in deltas))
    assert aggregator.text() == reasoning.encode()
    assert aggregator.size == len(reasoning)
    assert aggregator.append_only == append_only
    assert aggregator.choices()[0]["message"] == {"role": "assistant", "reasoning": reasoning}


def test_choices_are_ordered_by_index() -> None:
    aggregator = gathered(
        chunk({"content": "b"}, 1), chunk({"content": "a"}, 0, "stop"), chunk({}, 1, "length"),
        choices=2,
    )  # fmt: skip
    assert aggregator.text() == b"ab"
    assert [choice["index"] for choice in aggregator.choices()] == [0, 1]
    assert aggregator.finish_reason == "stop"
    assert aggregator.complete
    assert not aggregator.append_only
    assert not aggregator.plain


def test_what_one_chunk_brings_is_in_the_order_of_the_text() -> None:
    aggregator = Aggregator(JobKind.CHAT, 2)
    calls = [{"index": index, "function": {"name": name}} for index, name in ((1, "g"), (0, "f"))]
    added = aggregator.add(
        {
            "choices": [
                {"index": 1, "delta": {"content": "b"}},
                {"index": 0, "delta": {"tool_calls": calls, "content": "a"}},
            ]
        }
    )
    assert added.encode() == aggregator.text() == b"afgb"
    assert aggregator.append_only


def test_the_end_of_a_choice_stays_its_end() -> None:
    """Some engines send another chunk, without a reason, behind the one that ends a choice."""
    aggregator = gathered(chunk({"content": "a"}, finish="stop"), chunk({}))
    assert aggregator.finish_reason == "stop"
    assert aggregator.complete


def test_the_first_role_counts_and_repetition_does_not() -> None:
    aggregator = gathered(*(chunk({"role": role}) for role in ("", "narrator", "narrator", "x")))
    assert aggregator.choices()[0]["message"] == {"role": "narrator"}


def test_a_response_is_complete_when_every_choice_is() -> None:
    aggregator = gathered(chunk({"content": "a"}, 0, "stop"), choices=2)
    assert not aggregator.complete
    aggregator.add(chunk({"content": "b"}, 1))
    assert not aggregator.complete
    aggregator.add(chunk({}, 1, "stop"))
    assert aggregator.complete


def test_a_completion_keeps_text_only() -> None:
    aggregator = Aggregator(JobKind.COMPLETION)
    for piece, finish in (("on", None), ("ce", "stop")):
        aggregator.add({"choices": [{"index": 0, "text": piece, "finish_reason": finish}]})
    expected = [{"index": 0, "finish_reason": "stop", "text": "once"}]
    assert aggregator.choices() == expected
    assert aggregator.text() == text(expected) == b"once"
    whole = {"choices": [{"text": "once", "index": 0, "finish_reason": "stop", "logprobs": None}]}
    assert canonical_choices(JobKind.COMPLETION, whole) == expected


def test_an_empty_completion_keeps_its_member() -> None:
    whole = {"choices": [{"text": "", "index": 0, "finish_reason": "stop"}]}
    expected = [{"index": 0, "finish_reason": "stop", "text": ""}]
    assert canonical_choices(JobKind.COMPLETION, whole) == expected


def test_a_whole_response_loses_what_is_not_committed() -> None:
    message = {
        "role": "assistant",
        "content": "",
        "refusal": None,
        "reasoning": None,
        "annotations": [],
        "audio": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}, "x": 1},
            {},
        ],
    }
    response = {"id": "r", "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
    assert canonical_choices(JobKind.CHAT, response) == [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {
                "role": "assistant",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f"}}],
            },
        }
    ]


def test_an_argument_less_call_is_the_same_streamed_or_not() -> None:
    """A stream may never send the empty arguments that a whole response spells out."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    whole = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"tool_calls": [call]}}]}
    streamed = gathered(
        chunk({"tool_calls": [{**call, "index": 0, "function": {"name": "f"}}]}, finish="stop")
    )
    assert streamed.choices() == canonical_choices(JobKind.CHAT, whole)


def test_canonical_choices_are_their_own_canonical_form() -> None:
    response = {
        "choices": [
            {"index": 1, "finish_reason": None, "message": {"content": "b"}},
            {"index": 0, "finish_reason": "stop", "message": {"reasoning_content": "a"}},
        ]
    }
    once = canonical_choices(JobKind.CHAT, response)
    assert canonical_choices(JobKind.CHAT, {"choices": once}) == once
    assert text(once) == b"ab"


BAD_CHUNKS: dict[str, object] = {
    "no object": [],
    "choices of another type": {"choices": {}},
    "a choice of another type": {"choices": ["a"]},
    "content in parts": chunk({"content": [{"type": "text", "text": "a"}]}),
    "content of another type": chunk({"content": 1}),
    "a negative index": chunk({}, index=-1),
    "a choice too many": chunk({"content": "a"}, index=1),
    "a negative call": chunk({"tool_calls": [{"index": -1}]}),
    "arguments parsed": chunk({"tool_calls": [{"index": 0, "function": {"arguments": {}}}]}),
    "a finish reason of another type": chunk({}, finish=1),  # type: ignore[arg-type]
    "an error": {"error": {"message": "out of memory"}},
}


@pytest.mark.parametrize("item", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
def test_a_bad_chunk_is_refused(item: object) -> None:
    with pytest.raises(BadResponse):
        Aggregator(JobKind.CHAT).add(item)
    with pytest.raises(BadResponse):
        Aggregator(JobKind.CHAT).feed(json.dumps(item).encode())


# Libraries raise the interpreter's limit, some to 100,000.
ENDLESS = b"[" * 200_000 + b"]" * 200_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[DONE]",
        b"{",
        b'{"choices":[]}x',
        b"\xff",
        b'{"choices":[{"text":"\xff"}]}',
        b'{"choices":[],"x":' + ENDLESS + b"}",
        b'{"choices":[{"logprobs":{"content":' + ENDLESS + b"}}]}",
        b'{"choices":[{"logprobs":{"content":[1e999]}}]}',
        b'{"choices":[{"logprobs":{"\xff":1}}]}',
        b'{"choices":[{"logprobs":[1]}]}',
    ],
)
def test_an_event_that_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(BadResponse, match="no response chunk"):
        Aggregator(JobKind.CHAT).feed(data)


def test_log_probabilities_of_all_engines_can_be_read() -> None:
    """A chat's with alternatives spelt in bytes, a completion's by lists, with and without ids."""
    token = {"token": "a", "logprob": -1e-7, "bytes": [97], "id": 7}
    entry = token | {"top_logprobs": [token, token]}
    lists = {"tokens": ["a"], "token_logprobs": [None, -1], "top_logprobs": [None, {"a": -0.5}]}
    for logprobs in ({"content": [entry], "refusal": None}, lists | {"text_offset": [0]}, None):
        aggregator = Aggregator(JobKind.CHAT)
        event = {"choices": [{"index": 0, "delta": {}, "logprobs": logprobs}]}
        aggregator.feed(json.dumps(event).encode())
        assert aggregator.taken[0].logprobs == logprobs


def test_half_a_character_is_refused() -> None:
    """Segments end on character borders, so a surrogate pair split in two can't be text."""
    with pytest.raises(BadResponse, match="surrogate"):
        Aggregator(JobKind.CHAT).add(chunk({"content": "\ud83d"}))
    with pytest.raises(BadResponse):
        Aggregator(JobKind.CHAT).feed(rb'{"choices":[{"delta":{"content":"\ud83d"}}]}')


def test_an_embedding_is_not_streamed() -> None:
    with pytest.raises(ValueError, match="EMBEDDING responses have no chunks"):
        Aggregator(JobKind.EMBEDDING)


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"choices": None},
        {"choices": [{"index": 0, "message": {}}, {"index": 0, "message": {}}]},
        {"choices": [{"index": 128, "message": {}}]},
    ],
)
def test_what_is_no_response_is_refused(response: dict[str, Any]) -> None:
    with pytest.raises(BadResponse):
        canonical_choices(JobKind.CHAT, response)


def test_embeddings_are_float32_in_base64() -> None:
    values = [0.1, -2.5, 3e38]
    packed = base64.b64encode(struct.pack("<3f", *values)).decode()
    as_floats = {"data": [{"index": 1, "embedding": values}, {"index": 0, "embedding": [1]}]}
    as_base64 = {"data": [{"index": 0, "embedding": "AACAPw=="}, {"index": 1, "embedding": packed}]}
    expected = [{"index": 0, "embedding": "AACAPw=="}, {"index": 1, "embedding": packed}]
    assert canonical_choices(JobKind.EMBEDDING, as_floats) == expected
    assert canonical_choices(JobKind.EMBEDDING, as_base64) == expected
    assert text(expected) == b"AACAPw==" + packed.encode()


@pytest.mark.parametrize(
    "data",
    [
        None,
        [{"index": 0}],
        [{"index": 0, "embedding": ["a"]}],
        [{"index": 0, "embedding": [1e39]}],
        [{"index": 0, "embedding": "AACAPw="}],
        [{"index": 0, "embedding": "AACA"}],
        [{"index": 0, "embedding": "é"}],
        [{"index": 1, "embedding": []}],
        [{"index": 0, "embedding": []}, {"index": 0, "embedding": []}],
    ],
)
def test_what_is_no_embedding_is_refused(data: object) -> None:
    with pytest.raises(BadResponse):
        canonical_choices(JobKind.EMBEDDING, {"data": data})


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("stop", Finish.STOP),
        ("length", Finish.LENGTH),
        ("tool_calls", Finish.TOOL_CALLS),
        ("content_filter", Finish.CONTENT_FILTER),
        ("abort", Finish.CANCELLED),
        ("error", Finish.ENGINE_ERROR),
        (None, Finish.ENGINE_ERROR),
    ],
)
def test_finish_codes(reason: str | None, code: Finish) -> None:
    assert finish_of(reason) == code
