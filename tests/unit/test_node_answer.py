"""What the engine is asked, and what an answer counts and commits to."""

from typing import Any

import msgspec
import pytest

from node.answer import Answer, engine_body
from node.checks import Order
from pinaivu.codes import Finish
from pinaivu.commitments import response_commitment, response_digest, segment_commitment
from pinaivu.openai import BadResponse
from tests.unit import node_support as n


async def _order(job: n.JobDraft, **changes: Any) -> Order:
    desk = n.Desk()
    dispatch = job.dispatch(job.award(desk.bid_digest, **changes))
    return await desk.gatekeeper.check(n.peer_of(n.GATEWAY_PEER), dispatch)


def _job(**members: object) -> n.JobDraft:
    return n.JobDraft(body=msgspec.json.encode(n.BODY | members))


async def _asked(job: n.JobDraft, **changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(engine_body(await _order(job, **changes)))
    return body


async def test_the_engine_gets_the_callers_body() -> None:
    """All that is changed is its name for the model, streaming with usage, and the limit."""
    job = _job(
        temperature=0.5, seed=7, stop=["x"], metadata={"a": "b"}, pinaivu={"auction": "live"}
    )
    assert await _asked(job) == n.BODY | {
        "temperature": 0.5,
        "seed": 7,
        "stop": ["x"],
        "metadata": {"a": "b"},
        "model": "tiny",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 100,
    }


@pytest.mark.parametrize(
    ("members", "awarded", "limit"),
    [
        ({}, 100, 100),
        ({}, 40, 40),
        ({"max_tokens": 10}, 100, 10),
        ({"max_tokens": None, "max_completion_tokens": 12}, 100, 12),
        ({"max_tokens": None}, 64, 64),
        ({"n": 4}, 100, 25),
        ({"max_tokens": 10, "n_predict": 4000, "id_slot": 1}, 100, 10),
    ],
    ids=["both", "left over", "caller's", "newer name", "award's", "shared", "engine's own"],
)
async def test_the_limit_is_the_smaller_of_award_and_body(
    members: dict[str, object], awarded: int, limit: int
) -> None:
    """No other way to name a limit reaches the engine."""
    asked = await _asked(_job(**members), max_output_tokens=awarded)
    assert asked["max_tokens"] == limit
    assert asked.keys().isdisjoint({"max_completion_tokens", "n_predict", "id_slot", "pinaivu"})


@pytest.mark.parametrize(
    ("limit", "awarded", "asked"), [(10, 10, 7), (10, 3, 3), (2, 5, 1), (None, 7, 7)]
)
async def test_a_text_so_far_counts_against_the_callers_limit(
    limit: int | None, awarded: int, asked: int
) -> None:
    """Also what of it was never acknowledged, which the award has in it again."""
    prefix = "It is"
    assert n.tokenizer().count_text(prefix) == 3
    body = msgspec.json.encode(n.BODY | {"max_tokens": limit})
    found = await _asked(n.JobDraft(body=body, prefix=prefix, rank=2), max_output_tokens=awarded)
    assert found["max_tokens"] == asked


async def test_a_text_so_far_is_handed_to_the_engine() -> None:
    """It goes on from the words that the last node sent."""
    asked = await _asked(n.JobDraft(prefix="Once upon", rank=2))
    assert asked["messages"][-1] == {"role": "assistant", "content": "Once upon"}
    assert asked["continue_final_message"] is True


def _fed(order: Order, text: str, finish: str = "stop") -> Answer:
    answer = Answer(order)
    for batch in n.answer_events(text, finish):
        for event in batch:
            answer.take(event)
    return answer


async def test_commitments_are_over_text_and_choices() -> None:
    """Anybody with the text and the salts computes the same."""
    job = n.JobDraft()
    answer = _fed(await _order(job), "It is lit now.")
    text = "It is lit now. "
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
    }
    assert answer.segment() == text.encode()
    assert answer.segment_commitment() == segment_commitment(job.salts.segment(1), text.encode())
    expected = response_commitment(job.salts.response, response_digest([choice]))
    assert answer.response_commitment() == expected
    assert (answer.complete, answer.finish) == (True, Finish.STOP)
    assert answer.output_tokens() == n.tokenizer().count_text(text)


async def test_a_continuation_commits_to_its_own_part_and_to_the_whole() -> None:
    """The segment begins where the prefix ends; the response begins at the beginning."""
    job = n.JobDraft(prefix="Once é ", rank=2)
    answer = _fed(await _order(job), "upon a time")
    whole = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": "Once é upon a time "},
    }
    assert answer.segment() == b"upon a time "
    assert answer.output_tokens() == n.tokenizer().count_text("upon a time ")
    expected = response_commitment(job.salts.response, response_digest([whole]))
    assert answer.response_commitment() == expected


async def test_interleaved_choices_are_counted_in_the_texts_order() -> None:
    """However they arrive, the count is that of the text that is committed to."""
    answer = Answer(await _order(_job(n=2)))
    for index, text in ((0, "The kee"), (1, "Whi"), (0, "per's"), (1, "tespace")):
        answer.take(n.event(text, index=index))
    assert answer.segment() == b"The keeper'sWhitespace"
    assert answer.output_tokens() == n.tokenizer().count_text("The keeper'sWhitespace")


async def test_no_more_is_claimed_than_was_awarded() -> None:
    """Split another way, a text can have more tokens than the engine sampled."""
    order = await _order(n.JobDraft(max_output_tokens=3))
    assert _fed(order, "one two three four five six").output_tokens() == 3


@pytest.mark.parametrize(
    "event", [b"{", b"[]", b'{"error":{"message":"x"}}', b'{"choices":[{"index":1}]}']
)
async def test_what_is_no_chunk_of_this_answer_is_refused(event: bytes) -> None:
    """An engine that goes astray is an error, not an answer."""
    answer = Answer(await _order(n.JobDraft()))
    with pytest.raises(BadResponse):
        answer.take(event)


@pytest.mark.parametrize(
    ("usage", "says"),
    [
        ({"prompt_tokens": None, "completion_tokens": 7}, None),
        ({"prompt_tokens": None, "completion_tokens": 40}, "40 output tokens by the engine"),
        ({"prompt_tokens": 900, "completion_tokens": None}, "900 prompt tokens by the engine"),
    ],
    ids=["close", "output", "prompt"],
)
async def test_the_engines_report_is_compared(usage: dict[str, Any], says: str | None) -> None:
    """A difference beyond tolerance is said; the count stays the tokenizer's."""
    answer = Answer(await _order(n.JobDraft()))
    answer.take(n.event("twelve ships"))
    answer.take(msgspec.json.encode({"choices": [], "usage": usage}))
    found = answer.usage_difference()
    assert (found is None) == (says is None)
    assert (says or "") in (found or "")
