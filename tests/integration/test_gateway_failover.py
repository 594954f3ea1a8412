"""Nodes that refuse, fall silent, break off or lie, and clients that go away."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest
import trio

from pinaivu.codes import Finish, Outcome, Reason, Status
from pinaivu.commitments import (
    Salts,
    chain_length,
    response_commitment,
    response_digest,
    segment_commitment,
)
from pinaivu.keys import SecretKey
from pinaivu.messages import Completion, Delivery, Receipt
from pinaivu.p2p import wire
from pinaivu.typed_data import Signed
from tests.integration.gateway_support import Network, in_thread, network, request
from tests.integration.scripted_node import Script, Work, speaks
from tests.unit.gateway_facts import model

LETTERS = "abcdefghij" * 8


def count(text: str) -> int:
    return model().tokenizer.count_text(text)


MOST = count(LETTERS)


def refuses(reason: Reason) -> Script:
    async def play(work: Work) -> None:
        await work.refuse(reason)

    return play


async def stays_silent(work: Work) -> None:
    await work.stream.wait_over()


async def gives_role_and_dies(work: Work) -> None:
    """Nothing of it is acknowledged: a role is no content."""
    work.send({"role": "assistant", "content": ""})
    await work.break_off()
    assert work.acks.acks == 0


def dies_after(text: str) -> Script:
    async def play(work: Work) -> None:
        await work.say(text)
        await work.wait_acks(1 + len(text) // 64)
        await work.break_off()

    return play


async def ends_without_end(work: Work) -> None:
    """All of the answer, the finish reason too, and then the stream's own end mark only."""
    await work.say("All of it", finish="stop")
    await work.stream.aclose()


async def hangs_after_a_word(work: Work) -> None:
    await work.say("One")
    await work.stream.wait_over()


async def ends_in_mid_air(work: Work) -> None:
    """A signed end before the engine's."""
    await work.say("Half")
    await work.end(finish=int(Finish.STOP))


def lies(**changes: Any) -> Script:
    async def play(work: Work) -> None:
        await work.say("It is so.", finish="stop")
        await work.end(**changes)

    return play


async def sends_garbage(work: Work) -> None:
    work.stream.send(wire.encode(wire.Chunk([b'{"choices":[{"index":7,"delta":{}}]}'])))
    await work.stream.flush()
    await work.stream.wait_over()


def sends(event: bytes) -> Script:
    async def play(work: Work) -> None:
        work.stream.send(wire.encode(wire.Chunk([event])))
        await work.stream.flush()
        await work.stream.wait_over()

    return play


WITH_LOGPROBS = b'{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[%s]}}]}'
UNSEEN: list[tuple[str, Script, Reason]] = [
    ("refuses", refuses(Reason.REFUSED_CAPACITY), Reason.REFUSED_CAPACITY),
    ("is silent", stays_silent, Reason.SILENT),
    ("dies with no content given", gives_role_and_dies, Reason.STREAM_BROKEN),
    ("sends garbage", sends_garbage, Reason.PROTOCOL_VIOLATION),
    ("sends no number", sends(WITH_LOGPROBS % b"1e999"), Reason.PROTOCOL_VIOLATION),
    ("sends no UTF-8", sends(WITH_LOGPROBS % b'{"\xff":1}'), Reason.PROTOCOL_VIOLATION),
    (
        "sends what is nested too deeply",
        sends(WITH_LOGPROBS % (b"[" * 50 + b"]" * 50)),
        Reason.PROTOCOL_VIOLATION,
    ),
    (
        "sends what is nested without end",
        sends(b'{"choices":[],"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
        Reason.PROTOCOL_VIOLATION,
    ),
    ("refuses with an unknown reason", refuses(Reason.CLIENT_GONE), Reason.PROTOCOL_VIOLATION),
]


@pytest.mark.parametrize(("script", "reason"), [u[1:] for u in UNSEEN], ids=[u[0] for u in UNSEEN])
async def test_failure_before_content_is_invisible(
    tmp_path: Path, script: Script, reason: Reason
) -> None:
    """The next rank serves, and the receipt names both nodes; the first one gets nothing."""
    async with network(tmp_path, script, speaks("Hello ", "there.")) as net:
        chunks = await net.complete(stream=True)
        assert _text(chunks) == "Hello there."
        roles = [c.choices[0].delta.role for c in chunks if c.choices[0].delta.role]
        assert roles == ["assistant"]
        receipt = await net.receipt()
        first, second = receipt.segments
        assert (first.node, first.result, first.amount) == (net.nodes[0].key.address, reason, 0)
        assert (second.node, second.rank, second.result) == (net.nodes[1].key.address, 2, 0)
        assert receipt.status == Status.COMPLETED
        assert second.amount > 0


BROKEN: list[tuple[str, Script, Reason]] = [
    ("breaks off", dies_after(LETTERS), Reason.STREAM_BROKEN),
    ("ends its stream without an end frame", ends_without_end, Reason.STREAM_BROKEN),
    ("hangs", hangs_after_a_word, Reason.TOO_SLOW),
    ("signs an end before the end", ends_in_mid_air, Reason.PROTOCOL_VIOLATION),
    ("signs another award's end", lies(award_digest=bytes(32)), Reason.PROTOCOL_VIOLATION),
    ("says that its engine failed", lies(finish=6), Reason.ENGINE_ERROR),
]


@pytest.mark.parametrize(("script", "reason"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
async def test_plain_text_is_continued_by_the_next_node(
    tmp_path: Path, script: Script, reason: Reason
) -> None:
    """The client sees one text; the second node got what was said before and went on from there."""
    async with network(tmp_path, script, speaks(" and", " on.")) as net:
        chunks = await net.complete(stream=True)
        (first, second) = (node.works[0] for node in net.nodes)
        said = second.dispatch.prefix
        assert said
        assert said.encode() == first.text()
        assert second.award.start_byte == len(said)
        assert _text(chunks) == said + " and on."
        assert [c.choices[0].finish_reason for c in chunks][-1] == "stop"
        receipt = await net.receipt()
        assert [s.result for s in receipt.segments] == [reason, Reason.NONE]
        assert [s.start_byte for s in receipt.segments] == [0, len(said)]
        assert receipt.segments[0].end_byte == len(said)
        assert receipt.segments[1].end_byte == len(said) + len(b" and on.")


def says_all_and(then: Script, finish: str | None = None) -> Script:
    """All tokens that the job allows, acknowledged, and no end frame."""

    async def play(work: Work) -> None:
        await work.say(LETTERS, finish=finish)
        await work.wait_acks(chain_length(MOST))
        await then(work)

    return play


async def breaks_off(work: Work) -> None:
    await work.break_off()


async def ends_the_stream(work: Work) -> None:
    await work.stream.aclose()


BEHIND_THE_LAST: list[tuple[str, Script, Reason]] = [
    ("breaks off", says_all_and(breaks_off), Reason.STREAM_BROKEN),
    ("hangs", says_all_and(stays_silent), Reason.TOO_SLOW),
    ("ends without an end", says_all_and(ends_the_stream, "length"), Reason.STREAM_BROKEN),
]


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "at once"])
@pytest.mark.parametrize(
    ("script", "reason"), [b[1:] for b in BEHIND_THE_LAST], ids=[b[0] for b in BEHIND_THE_LAST]
)
async def test_failure_behind_the_last_token_there_may_be(
    tmp_path: Path, script: Script, reason: Reason, *, stream: bool
) -> None:
    """The text is over by its length: nobody need go on, and the node that left is not paid."""
    async with network(tmp_path, script, speaks("never")) as net:
        answer = await net.complete(
            max_tokens=MOST,
            **({"stream": True, "stream_options": {"include_usage": True}} if stream else {}),
        )
        if stream:
            assert _text(answer) == LETTERS
            finishes = [c.choices[0].finish_reason for c in answer if c.choices]
            assert [reason for reason in finishes if reason] == ["length"]
            usage = answer[-1].usage
        else:
            assert answer.choices[0].message.content == LETTERS
            assert answer.choices[0].finish_reason == "length"
            usage = answer.usage
        assert usage.completion_tokens == MOST
        assert not net.nodes[1].works
        receipt = await net.receipt()
        (segment,) = receipt.segments
        assert (receipt.status, receipt.reason) == (Status.COMPLETED, reason)
        assert (segment.output_gateway, segment.amount, receipt.total) == (MOST, 0, 0)
        await _require_delivered(net, LETTERS, "length")
        _require_let_go(net, reason)


async def test_node_that_left_behind_the_last_token_is_paid_by_its_completion(
    tmp_path: Path,
) -> None:
    """Signed to the log alone, it gets what was acknowledged: everything."""
    signed: list[Signed[Completion]] = []

    async def hands_in_and_breaks_off(work: Work) -> None:
        signed.append(work.completion())
        net.coordinator.handed_in = signed
        await work.break_off()

    async with network(tmp_path, says_all_and(hands_in_and_breaks_off, "length")) as net:
        await net.complete(max_tokens=MOST)
        receipt = await net.receipt()
        assert (receipt.status, receipt.segments[0].output_billed) == (Status.COMPLETED, MOST)
        assert signed[0].message.response_commitment == receipt.response_commitment


async def test_one_token_short_of_the_last_is_not_over(tmp_path: Path) -> None:
    async with network(tmp_path, dies_after(LETTERS), speaks("!")) as net:
        chunks = await net.complete(stream=True, max_tokens=MOST + 1)
        assert _text(chunks) == LETTERS + "!"
        assert (await net.receipt()).segments[0].result == Reason.STREAM_BROKEN


async def test_length_reached_by_two_nodes(tmp_path: Path) -> None:
    """What counts is the whole text, over all awards."""
    half = LETTERS[: len(LETTERS) // 2]

    def says_half(work: Work) -> Any:
        return _say_and_break_off(work, half)

    async with network(tmp_path, says_half, says_half, speaks("never")) as net:
        chunks = await net.complete(stream=True, max_tokens=2 * count(half))
        assert _text(chunks) == 2 * half
        assert chunks[-1].choices[0].finish_reason == "length"
        assert not net.nodes[2].works
        assert (await net.receipt()).status == Status.COMPLETED


async def signs_for_another(work: Work) -> None:
    await work.end(award_digest=bytes(32))


@pytest.mark.parametrize("then", [sends_garbage, signs_for_another])
async def test_length_ends_no_answer_of_who_breaks_the_rules(tmp_path: Path, then: Script) -> None:
    """Nor does anybody go on behind it: there is nothing left to be said."""
    async with network(tmp_path, says_all_and(then, "length"), speaks("never")) as net:
        with pytest.raises(openai.APIError, match="broke off"):
            await net.complete(stream=True, max_tokens=MOST)
        assert not net.nodes[1].works
        receipt = await net.receipt()
        assert (receipt.status, receipt.total) == (Status.FAILED, 0)
        assert receipt.segments[0].result == Reason.PROTOCOL_VIOLATION


async def test_length_ends_no_answer_that_nobody_could_continue(tmp_path: Path) -> None:
    """Where it isn't plain text, a count of its text doesn't tell that nothing is missing."""
    async with network(tmp_path, says_all_and(breaks_off)) as net:
        with pytest.raises(openai.APIError, match="broke off"):
            await net.complete(stream=True, logprobs=True, max_tokens=MOST)
        assert (await net.receipt()).status == Status.FAILED


async def _say_and_break_off(work: Work, text: str) -> None:
    await work.say(text)
    await work.break_off()


def _require_let_go(net: Network, reason: Reason) -> None:
    """The log has the failure signed, though nobody went on: it sells the node's slot again."""
    (failure,) = net.coordinator.only.failures
    assert failure.message.reason == reason


async def _require_delivered(net: Network, text: str, finish: str) -> None:
    """The delivery commits to what the client got, and the coordinator takes it."""
    case = net.coordinator.only
    assert case.delivery is not None
    row = await net.gateway.ledger.request(case.job.message.job_id)
    assert row is not None
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "finish_reason": finish, "message": message}]
    whole = response_commitment(Salts(row.salt_root).response, response_digest(choices))
    assert case.delivery.message.response_commitment == whole
    assert case.delivery.message.outcome == Outcome.COMPLETE


async def test_answer_that_cannot_be_continued_ends_in_one_error_event(tmp_path: Path) -> None:
    """Never a finish reason, never the end mark: the SDK raises, and nobody else is asked."""
    async with network(tmp_path, dies_after("Half of"), speaks("never")) as net:
        raw = await in_thread(lambda: _raw_stream(net, logprobs=True))
        events = [line.removeprefix("data: ") for line in raw.splitlines() if line]
        assert "[DONE]" not in events
        assert '"finish_reason":"stop"' not in raw
        error = msgspec.json.decode(events[-1])
        assert error["error"]["code"] == "stream_broken"
        assert sum('"error"' in event for event in events) == 1
        assert not net.nodes[1].works
        receipt = await net.receipt()
        assert (receipt.status, receipt.reason) == (Status.FAILED, Reason.STREAM_BROKEN)
        assert receipt.total == 0
        _require_let_go(net, Reason.STREAM_BROKEN)


async def test_award_whose_coordinator_went_away_before_it_was_known(tmp_path: Path) -> None:
    """The client has its error; the coordinator, back again, a delivery with all of its awards.

    What was delivered is still committed to, and who never saw the work is not blamed for it.
    """
    async with network(tmp_path, dies_after(LETTERS), speaks("never")) as net:
        net.coordinator.stays_away_at_a_failure = True
        with pytest.raises(openai.APIError, match="broke off"):
            await net.complete(stream=True)
        assert len(net.coordinator.only.awards) == 2
        net.coordinator.away = False
        receipt = await net.receipt()
        first, second = receipt.segments
        assert (receipt.status, receipt.total) == (Status.FAILED, 0)
        assert (first.result, second.result) == (Reason.STREAM_BROKEN, Reason.CLIENT_GONE)
        assert first.end_byte == second.start_byte == second.end_byte == len(LETTERS)
        row = await net.gateway.ledger.request(net.coordinator.only.job.message.job_id)
        assert row is not None
        salts = Salts(row.salt_root)
        assert first.segment_commitment == segment_commitment(salts.segment(1), LETTERS.encode())
        assert any(receipt.response_commitment)
        assert net.coordinator.deliveries == 2
        assert not net.nodes[1].works


async def test_sdk_raises_on_a_broken_stream(tmp_path: Path) -> None:
    async with network(tmp_path, dies_after("Half of")) as net:
        with pytest.raises(openai.APIError, match="broke off"):
            await net.complete(stream=True, logprobs=True)


async def test_broken_answer_without_streaming_is_an_error_status(tmp_path: Path) -> None:
    async with network(tmp_path, dies_after("Half of")) as net:
        with pytest.raises(openai.InternalServerError) as caught:
            await net.complete(tools=[{"type": "function", "function": {"name": "f"}}])
        assert caught.value.status_code == 502
        assert caught.value.body["code"] == "stream_broken"  # type: ignore[index]


async def test_everybody_refuses(tmp_path: Path) -> None:
    """503 with advice; the receipt costs nothing and names everybody's reason."""
    scripts = (refuses(Reason.REFUSED_EXPIRED), refuses(Reason.REFUSED_PROMPT_COUNT))
    async with network(tmp_path, *scripts) as net:
        with pytest.raises(openai.InternalServerError) as caught:
            await net.complete()
        assert caught.value.status_code == 503
        assert caught.value.body["code"] == "no_node_left"  # type: ignore[index]
        assert caught.value.response.headers["retry-after"] == "1"
        receipt = await net.receipt()
        assert [s.result for s in receipt.segments] == [12, 11]
        assert (receipt.status, receipt.total) == (Status.FAILED, 0)


async def test_commitment_to_another_text_is_disputed(tmp_path: Path) -> None:
    """The client keeps its answer; the books pay that node what was acknowledged only."""
    async with network(tmp_path, lies(segment_commitment=b"\x99" * 32)) as net:
        answer = await net.complete()
        assert answer.choices[0].message.content == "It is so."
        receipt = await net.receipt()
        assert receipt.status == Status.DISPUTED
        assert receipt.segments[0].result == Reason.COMMITMENT_MISMATCH
        assert receipt.segments[0].output_billed == 0


async def test_acknowledgements_that_were_not_released_are_no_completion(tmp_path: Path) -> None:
    async with network(tmp_path, lies(acks=2)) as net:
        with pytest.raises(openai.InternalServerError):
            await net.complete(tools=[{"type": "function", "function": {"name": "f"}}])
        receipt = await net.receipt()
        assert receipt.segments[0].result == Reason.PROTOCOL_VIOLATION
        assert receipt.total == 0


async def test_client_that_goes_away_stops_the_node(tmp_path: Path) -> None:
    """Cancel at once; the node signs what it did and is paid what was acknowledged."""
    accepted = threading.Event()
    cancelled = trio.Event()

    async def endless(work: Work) -> None:
        await work.say(LETTERS)
        await work.wait_acks(2)
        accepted.set()
        await work.wait_cancel()
        cancelled.set()
        await work.end()

    async with network(tmp_path, endless) as net:

        def read_a_little() -> str:
            with net.client.chat.completions.create(**request(stream=True)) as stream:
                role = next(iter(stream)).choices[0].delta.role or ""
                assert accepted.wait(10)
                return role

        assert await in_thread(read_a_little) == "assistant"
        with trio.fail_after(10):
            await cancelled.wait()
        receipt = await net.receipt()
        assert (receipt.status, receipt.reason) == (Status.CANCELLED, Reason.CLIENT_GONE)
        (segment,) = receipt.segments
        assert segment.acks == net.nodes[0].works[0].acks.acks
        assert segment.output_billed == 32 * (segment.acks - 1)
        assert receipt.total > 0


async def test_client_that_goes_away_before_the_first_token(tmp_path: Path) -> None:
    """Not streaming, too, a closed connection stops the node; nothing was acknowledged."""
    async with network(tmp_path, stays_silent) as net:

        def give_up() -> None:
            client = net.client.with_options(timeout=0.5)
            with pytest.raises(openai.APITimeoutError):
                client.chat.completions.create(**request())

        await in_thread(give_up)
        delivery = await _delivery(net)
        assert delivery.outcome == Outcome.CLIENT_GONE
        assert delivery.parts[0].acks == 0


Change = Callable[[Any], Any]
FALSE_AWARDS: list[tuple[str, Change]] = [
    ("of another job", lambda award: _changed(award, job_digest=bytes(32))),
    ("above the price limit", lambda a: _changed(a, price_out=10**7, price_in=2_500_000)),
    ("with a price that breaks the ratio", lambda a: _changed(a, price_in=a.price_in - 1)),
    ("with another anchor", lambda award: _changed(award, anchor=bytes(32))),
    ("with fewer tokens", lambda award: _changed(award, max_output_tokens=1)),
    ("under a lease", lambda award: _changed(award, lease=b"\x01" * 32)),
    ("of an unknown epoch", lambda award: _changed(award, epoch=2)),
]


@pytest.mark.parametrize("change", [f[1] for f in FALSE_AWARDS], ids=[f[0] for f in FALSE_AWARDS])
async def test_award_that_is_not_the_jobs_is_not_dispatched(tmp_path: Path, change: Change) -> None:
    async with network(tmp_path, speaks("never")) as net:
        net.coordinator.change = change
        with pytest.raises(openai.InternalServerError) as caught:
            await net.complete()
        assert caught.value.body["code"] == "coordinator_fault"  # type: ignore[index]
        assert not net.nodes[0].works


async def test_award_by_a_stranger_is_not_dispatched(tmp_path: Path) -> None:
    async with network(tmp_path, speaks("never")) as net:
        net.coordinator.signer = SecretKey(b"\x77" * 32)
        with pytest.raises(openai.InternalServerError) as caught:
            await net.complete()
        assert caught.value.body["code"] == "coordinator_fault"  # type: ignore[index]
        assert not net.nodes[0].works


async def test_nobody_serves_within_the_limits(tmp_path: Path) -> None:
    """503 with the coordinator's words and Retry-After; the zero receipt is fetched later."""
    async with network(tmp_path) as net:
        net.coordinator.refusal = wire.Refused(
            "no_nodes_within_limits",
            "the cheapest offer is 7 base units",
            int(Reason.NO_NODES_WITHIN_LIMITS),
            2_500,
        )
        with pytest.raises(openai.InternalServerError, match="the cheapest offer is 7") as caught:
            await net.complete()
        assert caught.value.status_code == 503
        assert caught.value.body["code"] == "no_nodes_within_limits"  # type: ignore[index]
        assert caught.value.response.headers["retry-after"] == "3"
        case = net.coordinator.only
        case.receipt = net.coordinator.receipt(case)
        receipt = await net.receipt()
        assert (receipt.status, receipt.total) == (Status.UNSERVED, 0)


async def test_grant_exhausted_is_the_callers_to_solve(tmp_path: Path) -> None:
    """A refusal without an auction leaves no receipt to wait for."""
    async with network(tmp_path) as net:
        net.coordinator.refusal = wire.Refused("grant_exhausted", "the grant is used up")
        with pytest.raises(openai.APIStatusError, match="have the payer sign") as caught:
            await net.complete()
        assert caught.value.status_code == 402
        assert net.gateway.logs.waiting == 0


def _changed(award: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(award, **changes)


def _text(chunks: list[Any]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def _raw_stream(net: Network, **body: Any) -> str:
    headers = {"authorization": f"Bearer {net.secret}"}
    answer = httpx.post(
        f"{net.url}/v1/chat/completions",
        json=request(stream=True, **body),
        headers=headers,
        timeout=20,
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    return answer.text


async def _delivery(net: Network) -> Delivery:
    receipt: Receipt = await net.receipt()
    case = net.coordinator.only
    assert case.delivery is not None
    assert receipt.segments
    return case.delivery.message
