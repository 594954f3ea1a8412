"""The answer as the client gets it: nothing looks whole before it is."""

from typing import Any, cast

import msgspec
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from gateway.answers import Answer
from gateway.errors import ApiError
from pinaivu.codes import JobKind
from pinaivu.openai import BadResponse, canonical_choices
from tests.unit.gateway_facts import demand

BROKEN = ApiError(502, "stream_broken", "It broke.")


def answer(**changes: Any) -> Answer:
    return Answer(demand(stream=True, **changes), "id-1", 1_790_000_000)


def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish} | more
    return msgspec.json.encode({"id": "engine", "model": "engine", "choices": [choice]})


async def shown(found: Answer) -> list[Any]:
    """Everything the client is sent, event by event."""
    text = b"".join([part async for part in found.outlet.parts()]).decode()
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [line if line == "[DONE]" else msgspec.json.decode(line) for line in lines]


async def test_finish_reason_is_held_back_until_the_end() -> None:
    found = answer()
    found.add(event({"role": "assistant", "content": ""}))
    found.add(event({"content": "Hi"}, finish="stop"))
    found.flush()
    assert found.complete
    found.finish(1)
    *chunks, done = await shown(found)
    assert done == "[DONE]"
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, "stop"]
    assert "request_id" not in chunks[-2]
    assert chunks[-1]["request_id"] == "id-1"
    assert {c["id"] for c in chunks} == {"chatcmpl-id-1"}
    assert {c["model"] for c in chunks} == {"tiny-chat"}


async def test_failed_answer_ends_in_its_error_alone() -> None:
    found = answer()
    found.add(event({"content": "Hi"}, finish="stop"))
    found.flush()
    found.fail(BROKEN)
    chunk, error = await shown(found)
    assert chunk["choices"][0]["finish_reason"] is None
    assert error["error"]["code"] == "stream_broken"
    assert error["request_id"] == "id-1"


async def test_nothing_is_shown_of_an_answer_that_fails_before_its_content() -> None:
    """The caller can still answer with a status of its own."""
    found = answer()
    found.add(event({"role": "assistant", "content": ""}))
    found.flush()
    assert not found.begun.is_set()
    found.fail(BROKEN)
    assert found.begun.is_set()
    assert not found.shown
    assert await shown(found) == []


async def test_role_is_told_once_whoever_goes_on() -> None:
    found = answer()
    for text in ("One", "two"):
        found.add(event({"role": "assistant", "content": text}))
        found.flush()
    found.add(event({}, finish="length"))
    found.finish(2)
    deltas = [c["choices"][0]["delta"] for c in (await shown(found))[:-1]]
    assert [d.get("role") for d in deltas] == ["assistant", None, None]


async def test_what_no_commitment_covers_is_not_passed_on() -> None:
    """A node can't smuggle members, usage or another id into the client's stream."""
    found = answer()
    found.add(event({"content": "Hi", "audio": "…", "function_call": {}}, token_ids=[1]))
    found.flush()
    found.finish(1)
    chunk = (await shown(found))[0]
    assert chunk["choices"] == [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]
    assert chunk.keys() == {"id", "object", "created", "model", "choices"}


TAKEN: list[tuple[str, list[dict[str, Any]]]] = [
    ("an alias after reasoning", [{"reasoning": "Hm"}, {"reasoning_content": " unseen"}]),
    ("both names at odds", [{"reasoning": "Hm", "reasoning_content": "unseen"}]),
    ("a role after an empty one", [{"role": ""}, {"role": "tool", "content": "Hi"}]),
    ("a second role", [{"role": "tool", "content": "Hi"}, {"role": "assistant"}]),
    ("a call's other members", [{"tool_calls": [{"id": "c", "custom": {"input": "unseen"}}]}]),
    ("calls without numbers", [{"tool_calls": [{"id": "c"}, {"id": "d"}]}]),
    (
        "a type taken back",
        [{"tool_calls": [{"type": kind, "function": {"name": "f"}}]} for kind in ("function", "")],
    ),
]


@pytest.mark.parametrize("deltas", [t[1] for t in TAKEN], ids=[t[0] for t in TAKEN])
async def test_what_a_client_is_shown_is_what_is_committed_to(deltas: list[dict[str, Any]]) -> None:
    """Gathered by the official SDK, a stream has the canonical choices."""
    found = answer()
    for delta in [*deltas, {"content": "."}]:
        found.add(event(delta))
    found.add(event({}, finish="stop"))
    found.flush()
    found.finish(1)
    *chunks, _ = await shown(found)
    assert "unseen" not in str(chunks)
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    snapshot = state.current_completion_snapshot.model_dump()
    assert canonical_choices(JobKind.CHAT, snapshot) == found.choices()


UNSHOWN: list[tuple[str, list[dict[str, Any]]]] = [
    ("a message beside a delta", [{"delta": {}, "message": {"content": "unseen"}}]),
    (
        "reasoning anew",
        [{"delta": {"reasoning_content": "Hm"}}, {"delta": {"reasoning": "unseen"}}],
    ),
]


@pytest.mark.parametrize("choices", [u[1] for u in UNSHOWN], ids=[u[0] for u in UNSHOWN])
async def test_what_can_be_read_in_two_ways_is_refused(choices: list[dict[str, Any]]) -> None:
    found = answer()
    found.add(event({"content": "Hi"}))
    found.flush()
    *before, last = [msgspec.json.encode({"choices": [choice]}) for choice in choices]
    for one in before:
        found.add(one)
    with pytest.raises(BadResponse):
        found.add(last)
    found.flush()
    found.fail(BROKEN)
    assert "unseen" not in str(await shown(found))


async def test_usage_is_ours_and_only_where_asked_for() -> None:
    found = answer(stream_options={"include_usage": True})
    found.add(event({"content": "Hi"}, finish="stop"))
    found.add(b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":999}}')
    found.flush()
    found.finish(7)
    *_, finish, usage, done = await shown(found)
    assert done == "[DONE]"
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 7
    assert usage["request_id"] == "id-1"


def test_whole_body_has_counts_logprobs_and_request_id() -> None:
    found = Answer(demand(logprobs=True), "id-1", 1)
    logprobs = {"content": [{"token": "Hi", "logprob": -0.5}]}
    found.add(event({"role": "assistant", "content": "Hi"}, logprobs=logprobs))
    found.add(event({"content": "!"}, finish="stop", logprobs=logprobs))
    found.flush()
    found.finish(2)
    assert found.body
    (choice,) = cast("list[Any]", found.body["choices"])
    assert choice["message"] == {"role": "assistant", "content": "Hi!", "refusal": None}
    assert len(choice["logprobs"]["content"]) == 2
    assert found.body["request_id"] == "id-1"
    assert found.body["usage"]["completion_tokens"] == 2  # type: ignore[index]


def test_restart_forgets_an_attempt_that_brought_no_text() -> None:
    found = answer()
    found.add(event({"role": "assistant", "content": ""}, finish="stop"))
    found.restart()
    assert not found.complete
    assert found.choices() == []


def test_answer_that_is_more_than_one_text_cannot_be_continued() -> None:
    plain = answer()
    plain.add(event({"content": "Hi"}))
    assert plain.continuable
    thinking = answer()
    thinking.add(event({"reasoning_content": "Hm"}))
    assert not thinking.continuable
    asked = answer(logprobs=True)
    asked.add(event({"content": "Hi"}))
    assert not asked.continuable


def test_answer_is_not_continued_after_garbage() -> None:
    found = answer()
    found.add(event({"content": "Hi"}))
    with pytest.raises(BadResponse):
        found.add(b'{"choices":[{"index":5,"delta":{"content":"x"}}]}')
    assert not found.continuable
