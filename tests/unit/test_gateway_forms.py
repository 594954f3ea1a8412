"""Answers in the shape of their kind: completions and embeddings beside chats."""

import base64
import struct
from typing import Any, cast

import msgspec
import pytest

from gateway.answers import Answer
from gateway.demands import Demand, read_demand
from gateway.errors import ApiError
from pinaivu.codes import Feature, JobKind
from pinaivu.encoding import jcs
from tests.unit.gateway_facts import MODEL, drafted, model
from tests.unit.test_gateway_answers import shown

LOGPROBS = {"tokens": ["Hi"], "token_logprobs": [-0.5], "top_logprobs": [{}], "text_offset": [0]}


def demand(kind: JobKind, **body: Any) -> Demand:
    raw = jcs({"model": MODEL} | body)
    return read_demand(raw, {MODEL: model()}, default_output_tokens=64, kind=kind)


def answer(kind: JobKind, **body: Any) -> Answer:
    return Answer(demand(kind, **body), "id-1", 1_790_000_000)


def event(text: str, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": finish} | more
    return msgspec.json.encode({"object": "text_completion", "choices": [choice]})


async def test_a_streamed_completion_has_its_own_chunks() -> None:
    found = answer(JobKind.COMPLETION, prompt="Say", stream=True)
    found.add(event("Hi", logprobs=LOGPROBS))
    found.flush()
    found.add(event("", finish="length"))
    found.finish(1)
    chunk, last, done = await shown(found)
    assert (chunk["id"], chunk["object"]) == ("cmpl-id-1", "text_completion")
    assert chunk["choices"] == [
        {"index": 0, "text": "Hi", "finish_reason": None, "logprobs": LOGPROBS}
    ]
    assert last["choices"] == [{"index": 0, "text": "", "finish_reason": "length"}]
    assert (last["request_id"], done) == ("id-1", "[DONE]")


def test_a_whole_completion_joins_its_texts_and_logprobs() -> None:
    found = answer(JobKind.COMPLETION, prompt=["a", "b"])
    for index in (1, 0):
        found.add(event(f"{index}", index=index, logprobs=LOGPROBS))
        found.add(event("!", "stop", index=index, logprobs=LOGPROBS))
    found.finish(4)
    assert found.body
    first, second = cast("list[Any]", found.body["choices"])
    assert (first["text"], second["text"]) == ("0!", "1!")
    assert first["logprobs"]["tokens"] == ["Hi", "Hi"]
    assert found.body["object"] == "text_completion"


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_embeddings_come_as_they_were_asked_for(encoding: str | None) -> None:
    asked = {"encoding_format": encoding} if encoding else {}
    found = answer(JobKind.EMBEDDING, input=["a b", "c"], **asked)
    packed = [base64.b64encode(struct.pack("<2f", n, 0.1)).decode() for n in (1, 2)]
    for index, one in enumerate(packed):
        found.add(msgspec.json.encode({"data": [{"index": index, "embedding": one}]}))
    found.finish(0)
    assert found.body
    body = msgspec.json.decode(msgspec.json.encode(found.body))
    assert [item["index"] for item in body["data"]] == [0, 1]
    if encoding == "base64":
        assert [item["embedding"] for item in body["data"]] == packed
    else:
        assert body["data"][1]["embedding"] == [2.0, struct.unpack("<f", struct.pack("<f", 0.1))[0]]
    assert body["usage"].keys() == {"prompt_tokens", "total_tokens"}
    assert body["request_id"] == "id-1"


def test_prompts_without_a_template_are_counted_as_they_are() -> None:
    """The texts alone; token ids one each; a completion's default is sixteen tokens."""
    count = model().tokenizer.count_text
    text = demand(JobKind.COMPLETION, prompt=["The lamp", "is lit"])
    assert text.prompt_tokens == count("The lamp") + count("is lit")
    assert text.max_output_tokens == 2 * 16
    ids = demand(JobKind.EMBEDDING, input=[[1, 2, 3], [4]])
    assert (ids.prompt_tokens, ids.max_output_tokens) == (4, 0)


@pytest.mark.parametrize(
    ("kind", "body", "param"),
    [
        (JobKind.COMPLETION, {"prompt": [1, 10**6]}, "prompt"),
        (JobKind.EMBEDDING, {"input": [[1], [10**6]]}, "input[1]"),
        (JobKind.EMBEDDING, {"input": ["a"] * 513}, "input"),
        (JobKind.EMBEDDING, {"input": "a " * 3000}, "input"),
        (JobKind.EMBEDDING, {"input": "a", "stream": True}, "stream"),
        (JobKind.COMPLETION, {"prompt": "a", "suffix": "b"}, "suffix"),
        (JobKind.COMPLETION, {"prompt": ["a", "b"], "max_tokens": 1500}, "max_tokens"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    kind: JobKind, body: dict[str, Any], param: str
) -> None:
    with pytest.raises(ApiError) as caught:
        demand(kind, **body)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("kind", "body", "feature"),
    [
        (JobKind.COMPLETION, {"prompt": "a"}, Feature.KIND_COMPLETION),
        (JobKind.EMBEDDING, {"input": "a"}, Feature.KIND_EMBEDDING),
    ],
)
def test_a_job_is_of_its_kind(kind: JobKind, body: dict[str, Any], feature: Feature) -> None:
    job = drafted(demand(kind, **body)).job.message
    assert (job.kind, job.features) == (kind, feature)
