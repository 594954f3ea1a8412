"""Answers through a gateway, by the official SDK: whole ones, streamed or not."""

from pathlib import Path

from pinaivu.codes import JobKind, Outcome, Reason, Status
from pinaivu.commitments import Salts, request_commitment, request_digest, response_commitment
from pinaivu.commitments import response_digest as digest_of
from pinaivu.openai import canonical_choices
from tests.integration.gateway_support import network, request
from tests.integration.scripted_node import Work, speaks
from tests.unit.gateway_facts import PRICE, RATIO_PPM, model

STORY = "The keeper's lamp isn't lit, and they've seen 12 ships pass; we'll wait. " * 6


async def test_answer_without_streaming_is_whole_and_receipted(tmp_path: Path) -> None:
    """The SDK gets an ordinary completion with our counts; the receipt names what was paid."""
    async with network(tmp_path, speaks("Hel", "lo the", "re.")) as net:
        answer = await net.complete()
        assert answer.choices[0].message.content == "Hello there."
        assert answer.choices[0].finish_reason == "stop"
        receipt = await net.receipt()
        (segment,) = receipt.segments
        assert receipt.status == Status.COMPLETED
        assert segment.node == net.nodes[0].key.address
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (
            segment.prompt_billed,
            segment.output_billed,
        )
        price_in = PRICE * RATIO_PPM // 10**6
        cost = segment.prompt_billed * price_in + segment.output_billed * PRICE
        assert receipt.total == -(-cost // 10**6) > 0
        assert answer.model_extra["request_id"] == answer.id.removeprefix("chatcmpl-")


async def test_commitments_open_to_what_the_sdk_sent_and_got(tmp_path: Path) -> None:
    """Whoever has salt, request and response can recompute both commitments of the receipt."""
    async with network(tmp_path, speaks("Bon", "jour")) as net:
        answer = await net.complete(temperature=0.5)
        receipt = await net.receipt()
        row = await net.gateway.ledger.request(receipt.job_id)
        assert row is not None
        salts = Salts(row.salt_root)
        sent = request_digest(request(temperature=0.5))
        assert request_commitment(salts.request, sent) == receipt.request_commitment
        got = digest_of(canonical_choices(JobKind.CHAT, answer.model_dump()))
        assert response_commitment(salts.response, got) == receipt.response_commitment


async def test_stream_ends_with_finish_usage_and_request_id(tmp_path: Path) -> None:
    """Text comes in chunks, nobody but the last says that it's over, and that one has the id."""
    async with network(tmp_path, speaks("Hel", "lo the", "re.")) as net:
        options = {"include_usage": True}
        chunks = await net.complete(stream=True, stream_options=options)
        said = [c.choices[0].delta.content for c in chunks if c.choices]
        assert "".join(text for text in said if text) == "Hello there."
        finishes = [c.choices[0].finish_reason for c in chunks if c.choices]
        assert finishes == [None] * (len(finishes) - 1) + ["stop"]
        assert chunks[-1].usage.completion_tokens > 0
        assert chunks[-1].model_extra["request_id"] == chunks[0].id.removeprefix("chatcmpl-")
        assert len({chunk.id for chunk in chunks}) == 1


async def test_long_stream_is_acknowledged_window_by_window(tmp_path: Path) -> None:
    """A node that never runs a window ahead gets every acknowledgement it waits for."""
    tokens: list[int] = []

    async def careful(work: Work) -> None:
        counter = model().tokenizer.stream()
        for word in STORY.split(" ")[:-1]:
            while counter.count - work.acks.tokens >= 32:
                await work.take()
            counter.feed(word + " ")
            await work.say(word + " ")
        await work.say("end", finish="stop")
        tokens.append(counter.feed("end"))
        await work.end()

    async with network(tmp_path, careful) as net:
        answer = await net.complete(max_tokens=2000 - 200)
        assert answer.choices[0].message.content == STORY + "end"
        receipt = await net.receipt()
        assert receipt.segments[0].acks == 1 + tokens[0] // 32 > 4
        assert receipt.segments[0].result == Reason.NONE
        delivery = net.coordinator.only.delivery
        assert delivery is not None
        assert delivery.message.outcome == Outcome.COMPLETE
