"""Embeddings gathered from one body or many parts, and an engine's body cut into such parts."""

import base64
import struct
from typing import Any

import msgspec
import pytest

from node.engines.embeddings import BATCH_BYTES, parts
from pinaivu.codes import JobKind
from pinaivu.openai import BadResponse, canonical_choices, gather


def packed(*values: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def answer(*embeddings: Any, **more: Any) -> bytes:
    data = [{"object": "embedding", "index": i, "embedding": e} for i, e in enumerate(embeddings)]
    return msgspec.json.encode({"object": "list", "data": data} | more)


def test_parts_and_the_whole_give_the_same_choices_and_text() -> None:
    """Whether the engine sends numbers or base64, at once or one by one."""
    floats = [[0.5, -1.25], [3.0, 1e-3]]
    wanted = [{"index": i, "embedding": packed(*pair)} for i, pair in enumerate(floats)]
    whole, by_parts = gather(JobKind.EMBEDDING, 2), gather(JobKind.EMBEDDING, 2)
    whole.feed(answer(*(packed(*pair) for pair in floats)))
    for batch in parts(answer(*floats)):
        for event in batch:
            by_parts.feed(event)
    for found in (whole, by_parts):
        assert found.choices() == wanted
        assert found.text() == "".join(str(choice["embedding"]) for choice in wanted).encode()
        assert (found.size, found.complete, found.append_only) == (len(found.text()), True, True)
        assert (found.plain, found.finish_reason) == (False, "stop")


def test_what_is_missing_is_not_complete() -> None:
    found = gather(JobKind.EMBEDDING, 2)
    assert found.feed(answer([1.0])) == packed(1.0)
    assert (found.complete, found.finish_reason) == (False, None)


@pytest.mark.parametrize(
    "event",
    [
        answer([1.0], [2.0], [3.0]),
        answer([1.0], [2.0, 3.0]),
        answer([]),
        b'{"data":[{"index":1,"embedding":[1.0]}]}',
        b'{"data":[{"index":0,"embedding":[1.0]},{"index":0,"embedding":[1.0]}]}',
        b'{"data":[{"index":0}]}',
        b'{"error":{"message":"out of memory"}}',
        b"[",
    ],
    ids=[
        "too many",
        "lengths differ",
        "empty",
        "a gap",
        "twice",
        "no value",
        "an error",
        "no JSON",
    ],
)
def test_what_is_no_answer_of_two_embeddings_is_refused(event: bytes) -> None:
    with pytest.raises(BadResponse):
        gather(JobKind.EMBEDDING, 2).feed(event)


def test_canonical_choices_are_their_own_canonical_form() -> None:
    """A bundle keeps choices; whoever verifies it reads them again."""
    once = canonical_choices(JobKind.EMBEDDING, msgspec.json.decode(answer([1.0], [2.0])))
    assert canonical_choices(JobKind.EMBEDDING, {"choices": once}) == once


def test_the_first_batch_is_one_embedding_and_the_others_fit_a_frame() -> None:
    """What goes out on trust is the least there is."""
    embedding = packed(*[0.25] * 60_000)
    batches = list(parts(answer(*[embedding] * 9, usage={"prompt_tokens": 5})))
    assert len(batches[0]) == 1
    assert len(batches) > 2
    assert all(sum(map(len, batch)) <= BATCH_BYTES for batch in batches)
    found = gather(JobKind.EMBEDDING, 9)
    for batch in batches:
        for event in batch:
            found.feed(event)
    assert found.complete
    assert found.usage is not None
    assert found.usage.prompt_tokens == 5


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"data":[{"index":0,"embedding":["a"]}]}'])
def test_an_engine_that_answers_anything_else_is_wrong(raw: bytes) -> None:
    with pytest.raises(BadResponse):
        list(parts(raw))


def test_a_text_so_far_is_part_of_what_is_gathered() -> None:
    for kind in (JobKind.CHAT, JobKind.COMPLETION):
        assert gather(kind, 1, "Once ").text() == b"Once "
