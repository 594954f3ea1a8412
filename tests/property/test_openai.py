"""Any message, cut into any chunks, gathered here and by the official SDK: the same choices."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from pinaivu.codes import JobKind
from pinaivu.commitments import request_digest, response_digest
from pinaivu.encoding import jcs, parse_json
from pinaivu.openai import Aggregator, canonical_choices, text

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FRAGMENTS = st.lists(TEXT, max_size=4)


@st.composite
def streams(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Deltas of one choice as engines send them: role first, calls opened in order."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for name in ("reasoning_content", "content", "refusal"):
        deltas += [{name: fragment} for fragment in draw(FRAGMENTS)]
    for index in range(draw(st.integers(0, 3))):
        function = {"name": draw(TEXT), "arguments": ""}
        head = {"index": index, "id": f"call-{index}", "type": "function", "function": function}
        deltas.append({"tool_calls": [head]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": fragment}}]}
            for fragment in draw(FRAGMENTS)
        ]
    return deltas


def chunks_of(deltas: list[dict[str, Any]], index: int, finish: str) -> list[dict[str, Any]]:
    last = {"index": index, "delta": {}, "finish_reason": finish}
    body = [{"index": index, "delta": delta, "finish_reason": None} for delta in deltas]
    return [
        {
            "id": "r",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [choice],
        }
        for choice in [*body, last]
    ]


@settings(max_examples=150)
@given(streams())
def test_the_sdk_gathers_the_same(deltas: list[dict[str, Any]]) -> None:
    stream = chunks_of(deltas, 0, "stop")
    aggregator, sdk = Aggregator(JobKind.CHAT), ChatCompletionStreamState()
    added = ""
    for item in stream:
        added += aggregator.feed(json.dumps(item).encode())
        sdk.handle_chunk(ChatCompletionChunk.model_validate(item))
    by_sdk = sdk.current_completion_snapshot.model_dump()
    assert canonical_choices(JobKind.CHAT, by_sdk) == aggregator.choices()
    assert text(aggregator.choices()) == aggregator.text() == added.encode()
    assert aggregator.append_only
    assert aggregator.size == len(aggregator.text())
    assert aggregator.complete


@given(st.lists(streams(), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_interleaving_and_cutting_change_nothing(
    choices: list[list[dict[str, Any]]], random: Any
) -> None:
    """Choices may arrive mingled, and a chunk may carry one event of each."""
    queues = [chunks_of(deltas, index, "stop") for index, deltas in enumerate(choices)]
    ordered, mingled = (Aggregator(JobKind.CHAT, len(choices)) for _ in range(2))
    for queue in queues:
        for item in queue:
            ordered.add(item)
    while any(queues):
        taken = [queue.pop(0) for queue in queues if queue and random.random() < 0.6]
        mingled.add({"choices": [choice for item in taken for choice in item["choices"]]})
    assert mingled.choices() == ordered.choices()
    assert mingled.text() == ordered.text() == text(ordered.choices())
    assert response_digest(mingled.choices()) == response_digest(ordered.choices())


@given(streams())
def test_a_whole_response_gathers_like_its_stream(deltas: list[dict[str, Any]]) -> None:
    aggregator = Aggregator(JobKind.CHAT)
    for item in chunks_of(deltas, 0, "length"):
        aggregator.add(item)
    whole = {"choices": aggregator.choices()}
    assert canonical_choices(JobKind.CHAT, whole) == whole["choices"]
    assert parse_json(jcs(whole)) == whole


@given(st.dictionaries(TEXT, st.integers(-5, 5) | TEXT | st.lists(TEXT), max_size=6))
def test_a_request_digest_survives_reordering_and_canonical_form(body: dict[str, Any]) -> None:
    reordered = dict(reversed(body.items()))
    canonical = parse_json(jcs(body))
    assert isinstance(canonical, dict)
    assert request_digest(reordered) == request_digest(body) == request_digest(canonical)
