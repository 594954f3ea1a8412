"""One answer by four ways: the node's events, our stream and our body read by the SDK, the digest.

An engine's answer of any kind is cut into events anywhere, and its bytes into reads anywhere, also
within a character. Whoever gathers it, by whichever mode, has the same text and the same digest,
and the node commits to the same.
"""

import json
from collections.abc import Sequence
from functools import cache, partial
from itertools import pairwise
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.answers import Answer
from node.answer import Answer as NodeAnswer
from node.checks import Order
from node.engines.sse import EventDecoder
from pinaivu.codes import JobKind
from pinaivu.commitments import response_commitment, response_digest, segment_commitment
from pinaivu.encoding import jcs
from pinaivu.openai import canonical_choices, text
from tests.unit import node_support as n
from tests.unit.gateway_facts import demand

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FRAGMENTS = st.lists(TEXT, max_size=4)
FINISHES = st.sampled_from(["stop", "length", "tool_calls", "content_filter"])
MOST_CHOICES = 3


@st.composite
def choices(draw: st.DrawFn, index: int) -> list[dict[str, Any]]:
    """One choice's chunks as engines send them: role, texts with logprobs, calls, the end."""
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": draw(st.sampled_from(["", None]))}
    ]
    alias = draw(st.sampled_from(["reasoning", "reasoning_content"]))
    for name in (alias, "reasoning_content", "content", "refusal"):
        deltas += [{name: fragment} for fragment in draw(FRAGMENTS)]
    for number in range(draw(st.integers(0, 2))):
        function = {"name": draw(TEXT), "arguments": ""}
        call = {"index": number, "id": f"call-{number}", "type": "function", "function": function}
        call |= draw(st.sampled_from([{}, {"custom": {"input": "is not committed to"}}]))
        deltas.append({"tool_calls": [call]})
        deltas += [
            {"tool_calls": [{"index": number, "function": {"arguments": fragment}}]}
            for fragment in draw(FRAGMENTS)
        ]
    parts: list[dict[str, Any]] = [
        {"index": index, "delta": delta, "finish_reason": None} for delta in deltas
    ]
    for part in parts:
        if content := part["delta"].get("content"):
            entry = {"token": content, "logprob": -0.25, "bytes": None, "top_logprobs": []}
            part["logprobs"] = {"content": [entry], "refusal": None}
    return [*parts, {"index": index, "delta": {}, "finish_reason": draw(FINISHES)}]


@st.composite
def answers(draw: st.DrawFn) -> tuple[int, bytes]:
    """How many choices, and the engine's stream of bytes with all of them mingled.

    Each begins with its role, in order, as the SDK wants it.
    """
    count = draw(st.integers(1, MOST_CHOICES))
    queues = [draw(choices(index)) for index in range(count)]
    raw, ascii_only, begun = b": hello\n\n", draw(st.booleans()), 0
    while any(queues):
        left = [queue for queue in queues if queue]
        queue, begun = (draw(st.sampled_from(left)) if begun >= count else queues[begun]), begun + 1
        chunk = {"id": "engine", "object": "chat.completion.chunk", "choices": [queue.pop(0)]}
        line = json.dumps(chunk | {"created": 1, "model": "m"}, ensure_ascii=ascii_only)
        raw += b"data: " + line.encode() + draw(st.sampled_from([b"\n\n", b"\r\n\r\n"]))
    usage = {"id": "engine", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    return count, raw + b"data: " + json.dumps(usage).encode() + b"\n\n"


def reads_of(raw: bytes, cuts: Sequence[int]) -> list[list[bytes]]:
    """The events that each read of the socket completes, as the node's engine client sees them."""
    decoder = EventDecoder()
    places = sorted({cut % (len(raw) + 1) for cut in cuts} | {0, len(raw)})
    pieces = [raw[a:b] for a, b in pairwise(places)]
    return [events for piece in pieces if (events := decoder.feed(piece))]


@cache
def order(count: int) -> Order:
    """A checked order for so many choices."""

    async def check() -> Order:
        desk = n.Desk()
        body = jcs(n.BODY | {"n": count, "logprobs": True})
        job = n.JobDraft(body=body, max_output_tokens=1000)
        dispatch = job.dispatch(job.award(desk.bid_digest))
        return await desk.gatekeeper.check(n.peer_of(n.GATEWAY_PEER), dispatch)

    return trio.run(check)


def gathered(count: int, reads: list[list[bytes]], *, streams: bool) -> Answer:
    """The gateway's answer after frames that hold one read each."""
    answer = Answer(demand(n=count, logprobs=True, stream=streams), "id-1", 1)
    for events in reads:
        for event in events:
            answer.add(event)
        answer.flush()
    assert answer.complete
    answer.finish(1)
    return answer


def by_sdk(answer: Answer) -> dict[str, Any]:
    """What the official SDK makes of the stream that the client is sent."""
    sent = trio.run(partial(_all_of, answer))
    *events, end = EventDecoder().feed(sent)
    assert end == b"[DONE]"
    state = ChatCompletionStreamState()
    for event in events:
        state.handle_chunk(ChatCompletionChunk.model_validate(json.loads(event)))
    return state.current_completion_snapshot.model_dump()


async def _all_of(answer: Answer) -> bytes:
    return b"".join([part async for part in answer.outlet.parts()])


@settings(max_examples=40, deadline=None)
@given(answers(), st.lists(st.integers(0, 1 << 16), max_size=12))
def test_all_ways_lead_to_one_digest(answer: tuple[int, bytes], cuts: list[int]) -> None:
    count, raw = answer
    reads = reads_of(raw, cuts)
    node = NodeAnswer(order(count))
    for events in reads:
        for event in events:
            node.take(event)
    streamed = gathered(count, reads, streams=True)
    whole = gathered(count, reads, streams=False)
    body = ChatCompletion.model_validate(whole.body).model_dump()
    snapshot = by_sdk(streamed)

    canonical = streamed.choices()
    assert whole.choices() == canonical
    assert canonical_choices(JobKind.CHAT, snapshot) == canonical
    assert canonical_choices(JobKind.CHAT, body) == canonical
    said = text(canonical)
    assert streamed.text() == whole.text() == node.segment() == said
    digest = response_digest(canonical)
    salts = n.JobDraft().salts
    assert node.response_commitment() == response_commitment(salts.response, digest)
    assert node.segment_commitment() == segment_commitment(salts.segment(1), said)
    assert _logprobs(snapshot) == _logprobs(body)


def _logprobs(response: dict[str, Any]) -> list[Any]:
    """The tokens with log probabilities, by choice."""
    found = [choice.get("logprobs") or {} for choice in response["choices"]]
    return [[entry["token"] for entry in one.get("content") or ()] for one in found]


@settings(max_examples=40, deadline=None)
@given(answers(), st.lists(st.integers(0, 1 << 16), max_size=12))
def test_cutting_changes_nothing_that_is_counted(
    answer: tuple[int, bytes], cuts: list[int]
) -> None:
    """Node and gateway count the same, however differently their reads were cut."""
    count, raw = answer
    one, other = NodeAnswer(order(count)), NodeAnswer(order(count))
    for events in reads_of(raw, cuts):
        for event in events:
            one.take(event)
    for events in reads_of(raw, []):
        for event in events:
            other.take(event)
    assert one.output_tokens() == other.output_tokens()
    assert one.segment() == other.segment()
