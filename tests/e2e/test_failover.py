"""Nodes killed in mid-stream, and the one clean stream that the official SDK sees all the same.

SIGKILL, real engines. The text goes on with the next rank; what went before is billed to nobody a
second time: the prompt once, each segment its own output, a segment without a completion nothing.
"""

from typing import Any

import openai
import pytest

from pinaivu.codes import Reason, Status
from pinaivu.local.folder import NODES
from pinaivu.messages import Receipt, Segment
from pinaivu.tokens import Tokenizer
from tests.e2e.stage import Stage, Streaming, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chain,
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"),
]

STORY = "Write a long story about a lighthouse keeper and the sea, in many paragraphs."
LONG = 240


def _kill_at_work(stage: Stage, stream: Streaming, request_id: str, rank: int) -> str:
    """Kill the node of a rank once it has said something; its name."""
    name = until(f"an award of rank {rank}", lambda: stage.winner(request_id, rank))
    stream.await_text(len(stream.text) + 1)
    stage.crash(name)
    return name


def _revive(stage: Stage, *names: str) -> None:
    """Start nodes again, once the offers of their former lives don't count any more."""
    left = len(NODES) - len(names)
    until("the end of the dead nodes' offers", lambda: stage.network.offers <= left)
    for name in names:
        stage.network.start_node(name)
    stage.network.await_market()


def _begin(stage: Stage, **more: Any) -> tuple[Streaming, str]:
    known = stage.newest_job()
    stream = stage.stream(STORY, max_tokens=LONG, stream_options={"include_usage": True}, **more)
    request_id, _ = stage.await_award(known)
    return stream, request_id


def _served(receipt: Receipt) -> list[Segment]:
    return [segment for segment in receipt.segments if segment.rank]


def _require_one_clean_stream(stream: Streaming) -> None:
    """One id, one model, one role, one finish, one usage, the request id at the very end."""
    assert stream.error is None
    assert len({(chunk.id, chunk.model, chunk.created) for chunk in stream.chunks}) == 1
    choices = [chunk.choices[0] for chunk in stream.chunks if chunk.choices]
    assert [choice.delta.role for choice in choices if choice.delta.role] == ["assistant"]
    finishes = [choice.finish_reason for choice in choices]
    assert [reason for reason in finishes if reason] == [finishes[-1]]
    assert [bool(chunk.usage) for chunk in stream.chunks].count(True) == 1
    assert stream.chunks[-1].usage
    assert stream.chunks[-1].id == f"chatcmpl-{stream.request_id}"


def _require_billed_once(stage: Stage, stream: Streaming, receipt: Receipt) -> None:
    """Segments tile the text; only the last one's node finished, so it is the only one paid."""
    *dead, last = _served(receipt)
    text = stream.text.encode()
    starts, ends = (
        [getattr(s, name) for s in [*dead, last]] for name in ("start_byte", "end_byte")
    )
    assert starts == [0, *ends[:-1]]
    assert ends[-1] == len(text)
    assert [(s.amount, s.prompt_billed, s.output_billed) for s in dead] == [(0, 0, 0)] * len(dead)
    usage = stream.chunks[-1].usage
    assert usage
    assert last.prompt_billed == usage.prompt_tokens
    assert usage.completion_tokens == sum(s.output_gateway for s in [*dead, last])
    tokenizer = Tokenizer.from_directory(stage.network.folder.model_files)
    assert last.output_billed == tokenizer.count_text(text[last.start_byte :].decode())
    price = last.prompt_billed * last.price_in + last.output_billed * last.price_out
    assert receipt.total == last.amount == -(-price // 10**6)


def test_two_nodes_killed_one_after_the_other(stage: Stage) -> None:
    """The third goes on with what the two before it have said."""
    stream, request_id = _begin(stage)
    killed = [_kill_at_work(stage, stream, request_id, rank) for rank in (1, 2)]
    stream.ended()
    receipt = stage.await_final(request_id)
    _revive(stage, *killed)

    _require_one_clean_stream(stream)
    assert receipt.status == Status.COMPLETED
    assert [s.result for s in _served(receipt)] == [Reason.STREAM_BROKEN, Reason.STREAM_BROKEN, 0]
    assert [stage.name_of(s.node) for s in _served(receipt)[:2]] == killed
    _require_billed_once(stage, stream, receipt)


def test_every_node_killed_in_mid_stream(stage: Stage) -> None:
    """Nobody is left: one clear error in the place of an end, and nothing to pay."""
    stream, request_id = _begin(stage)
    killed = [_kill_at_work(stage, stream, request_id, rank) for rank in (1, 2, 3)]
    stream.ended()
    receipt = stage.await_final(request_id)
    _revive(stage, *killed)

    _require_one_error(stream)
    assert sorted(killed) == sorted(NODES)
    assert (receipt.status, receipt.total) == (Status.FAILED, 0)
    assert [s.result for s in _served(receipt)] == [Reason.STREAM_BROKEN] * 3


def test_answer_that_nobody_else_can_continue(stage: Stage) -> None:
    """Another node can't take up where log probabilities were asked for: no other is asked."""
    stream, request_id = _begin(stage, logprobs=True)
    killed = _kill_at_work(stage, stream, request_id, 1)
    stream.ended()
    receipt = stage.await_final(request_id)
    _revive(stage, killed)

    _require_one_error(stream)
    assert (receipt.status, receipt.total) == (Status.FAILED, 0)
    assert [s.result for s in _served(receipt)] == [Reason.STREAM_BROKEN]


def _require_one_error(stream: Streaming) -> None:
    """The SDK raises it; nothing before it looked like an end."""
    assert isinstance(stream.error, openai.APIError)
    assert stream.error.code == "stream_broken"
    assert stream.finish_reason is None
    assert not any(chunk.usage for chunk in stream.chunks)
