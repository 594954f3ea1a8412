# ruff: noqa: D102 - doubles implement methods that are documented where they belong
"""One attempt, frame by frame: when what is acknowledged, and when an attempt has failed."""

import base64
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from gateway.answers import Answer
from gateway.demands import Demand, read_demand
from gateway.drafts import Draft
from gateway.errors import AttemptFailed
from gateway.outlet import MOST_WAITING, STALL_S, ClientStalled
from gateway.relay import Order, Patience, Relay
from pinaivu.codes import JobKind, Reason
from pinaivu.encoding import jcs
from pinaivu.p2p import wire
from pinaivu.p2p.errors import SlowPeer
from pinaivu.p2p.frames import FrameLimits, FrameStream
from pinaivu.store.database import StorageFailed
from pinaivu.tokens import Tokenizer
from tests.unit.gateway_facts import (
    MODEL,
    NOW,
    OTHER,
    completion_for,
    demand,
    draft,
    drafted,
    model,
    order_for,
)
from tests.unit.p2p_pipes import connected

PATIENCE = Patience(first_token=10, between=5, after_cancel=3)
WORDS = "The keeper's lamp isn't lit, and they've seen 12 ships pass; we'll wait. " * 12


class Rig:
    """A relay that runs, and the node's end of its stream."""

    def __init__(
        self,
        gateway: FrameStream,
        node: FrameStream,
        relay: Relay,
        order: Order,
        answer: Answer,
    ) -> None:
        self.gateway = gateway
        self.node = node
        self.relay = relay
        self.order = order
        self.answer = answer
        self.failure: Exception | None = None
        self.over = trio.Event()
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        try:
            with self.scope:
                await self.relay.run()
        except (AttemptFailed, StorageFailed, ClientStalled) as error:
            self.failure = error
        self.over.set()

    def send(self, *texts: str, finish: str | None = None) -> None:
        events = [
            msgspec.json.encode(
                {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}
            )
            for text in texts
        ]
        self.node.send(wire.encode(wire.Chunk(events)))

    async def acks(self) -> list[int]:
        """The acknowledgements that have come, once nothing moves any more."""
        await trio.testing.wait_all_tasks_blocked()
        found = []
        with trio.move_on_after(0):
            for payload in await self.node.receive_many():
                frame = wire.read_work_down(payload)
                if isinstance(frame, wire.Ack):
                    assert frame.preimage == self.order.chain.preimage(frame.index)
                    found.append(frame.index)
        return found

    async def ended(self) -> Exception | None:
        await self.over.wait()
        return self.failure


Allowed = Callable[[int], Any]


async def anything(_acks: int) -> None:
    await trio.lowlevel.checkpoint()


@asynccontextmanager
async def running(
    may_release: Allowed = anything,
    wants: Demand | None = None,
    asked: Draft | None = None,
    limits: FrameLimits | None = None,
    **award: Any,
) -> AsyncGenerator[Rig]:
    """The gateway's clock is the loop's, so that a virtual one moves both."""
    found = asked or draft()
    wanted = wants or demand()
    order = order_for(found, wanted.request.choices, **award)
    answer = Answer(wanted, "id-1", 1)
    started = trio.current_time()

    def now_ms() -> int:
        return NOW + int(1000 * (trio.current_time() - started))

    async with connected(limits) as (here, there), trio.open_nursery() as nursery:
        relay = Relay(here, order, answer, PATIENCE, may_release, now_ms)
        rig = Rig(here, there, relay, order, answer)
        nursery.start_soon(rig.run)
        first = wire.read_work_down(await there.receive())
        assert isinstance(first, wire.Dispatch)
        assert first.salt_segment == found.salts.segment(1)
        yield rig
        nursery.cancel_scope.cancel()


def text_of(tokens: int) -> str:
    """A text of so many tokens."""
    found = ""
    for letter in WORDS:
        found += letter
        if model().tokenizer.count_text(found) == tokens:
            return found
    raise AssertionError("too few words")


async def test_first_frame_accepts_the_prompt() -> None:
    async with running() as rig:
        rig.send("A")
        assert await rig.acks() == [1]
        assert NOW <= rig.relay.first_token_ms < NOW + 10_000


async def test_frame_without_content_accepts_nothing() -> None:
    """Neither the prompt nor a time to first token is to be had for a role."""
    async with running() as rig:
        event = b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}'
        rig.node.send(wire.encode(wire.Chunk([event])))
        assert await rig.acks() == []
        assert rig.relay.first_token_ms == 0
        rig.send("A")
        assert await rig.acks() == [1]


async def test_whole_answer_without_content_accepts_the_prompt() -> None:
    """A model may have nothing to say; its node has worked all the same."""
    async with running() as rig:
        rig.send("", finish="stop")
        assert await rig.acks() == [1]


async def test_window_is_accepted_when_our_own_count_reaches_it() -> None:
    """Not a token earlier, however many chunks the text came in."""
    async with running() as rig:
        rig.send(*text_of(29))
        assert await rig.acks() == [1]
        rig.send(text_of(32).removeprefix(text_of(29)))
        assert await rig.acks() == [2]
        assert rig.relay.output_tokens == 32


async def test_several_windows_at_once_take_one_acknowledgement() -> None:
    async with running() as rig:
        rig.send(text_of(70))
        assert await rig.acks() == [3]


async def test_node_that_counts_a_little_ahead_is_not_left_waiting(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    """Silence within the tolerance of a window's border releases its acknowledgement."""
    async with running() as rig:
        rig.send(text_of(30))
        assert await rig.acks() == [1]
        await trio.sleep(0.5)
        assert await rig.acks() == [2]


async def test_silence_far_from_a_border_releases_nothing(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with running() as rig:
        rig.send(text_of(29))
        assert await rig.acks() == [1]
        await trio.sleep(0.5)
        assert await rig.acks() == []


async def test_last_rest_is_accepted_at_the_awards_own_maximum() -> None:
    """No preimage beyond what the award's tokens have is ever released."""
    async with running(max_output_tokens=40) as rig:
        rig.send(text_of(70))
        assert await rig.acks() == [3]
        assert rig.relay.acks == 3  # 1 + ceil(40 / 32)


REASONS: list[tuple[str, bytes | None, Reason]] = [
    ("nothing", None, Reason.SILENT),
    ("no frame", b"\xc1", Reason.PROTOCOL_VIOLATION),
    ("an empty chunk", wire.encode(wire.Chunk([])), Reason.PROTOCOL_VIOLATION),
    ("no JSON", wire.encode(wire.Chunk([b"{"])), Reason.PROTOCOL_VIOLATION),
    ("an error event", wire.encode(wire.Chunk([b'{"error":"x"}'])), Reason.PROTOCOL_VIOLATION),
    ("a refusal", wire.encode(wire.NodeRefused(12, "late")), Reason.REFUSED_EXPIRED),
    ("a strange refusal", wire.encode(wire.NodeRefused(50, "?")), Reason.PROTOCOL_VIOLATION),
    ("no completion", wire.encode(wire.End(b"")), Reason.PROTOCOL_VIOLATION),
]


@pytest.mark.parametrize(
    ("payload", "reason"), [r[1:] for r in REASONS], ids=[r[0] for r in REASONS]
)
async def test_failed_attempts_have_their_reason(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
    payload: bytes | None,
    reason: Reason,
) -> None:
    async with running() as rig:
        if payload is not None:
            rig.node.send(payload)
        failure = await rig.ended()
        assert isinstance(failure, AttemptFailed)
        assert failure.reason == reason


async def test_silence_after_the_first_token_is_slowness(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with running() as rig:
        rig.send("A")
        failure = await rig.ended()
        assert isinstance(failure, AttemptFailed)
        assert failure.reason == Reason.TOO_SLOW
        assert trio.current_time() == pytest.approx(PATIENCE.between)


async def test_more_than_was_awarded_is_a_violation() -> None:
    async with running(max_output_tokens=8) as rig:
        rig.send(text_of(60))
        failure = await rig.ended()
        assert isinstance(failure, AttemptFailed)
        assert failure.reason == Reason.PROTOCOL_VIOLATION


async def test_what_goes_beyond_the_award_is_neither_shown_nor_counted() -> None:
    """Else a node could use up a key's day with text that nobody is billed for."""
    async with running(wants=demand(stream=True), max_output_tokens=8) as rig:
        begun = text_of(4)
        rig.send(begun)
        await trio.testing.wait_all_tasks_blocked()
        await rig.answer.outlet.begun()  # for so long the relay gives way to the first token
        assert await rig.acks() == [1]
        shown = rig.answer.outlet.waiting
        rig.send(text_of(60).removeprefix(begun))
        failure = await rig.ended()
        assert isinstance(failure, AttemptFailed)
        assert failure.reason == Reason.PROTOCOL_VIOLATION
        assert rig.relay.output_tokens == 8
        rig.answer.flush()
        assert rig.answer.outlet.waiting == shown
        assert not rig.answer.continuable


LONG_FRAMES = FrameLimits.of(wire.MAX_WORK_FRAME)


class Tokenized:
    """What the tokenizer was given, and how often another task had had a turn before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[int] = []
        self.turns: list[int] = []
        self._turn = 0
        real = Tokenizer._encode

        def encode(tokenizer: Tokenizer, text: str) -> Any:
            self.texts.append(len(text))
            self.turns.append(self._turn)
            return real(tokenizer, text)

        monkeypatch.setattr(Tokenizer, "_encode", encode)

    async def take_turns(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self._turn += 1


async def test_one_frame_of_a_node_is_counted_to_the_awards_border_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long its text is: else one legal frame stops the gateway for seconds."""
    seen = Tokenized(monkeypatch)
    async with running(limits=LONG_FRAMES, max_output_tokens=10) as rig:
        rig.send("ab " * 300_000)
        failure = await rig.ended()
        assert isinstance(failure, AttemptFailed)
        assert failure.reason == Reason.PROTOCOL_VIOLATION
        assert rig.relay.output_tokens == 10
        assert 0 < sum(seen.texts) < 20_000


async def test_others_have_their_turn_while_a_long_frame_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = Tokenized(monkeypatch)
    async with running(max_output_tokens=100_000) as rig, trio.open_nursery() as nursery:
        nursery.start_soon(seen.take_turns)
        rig.send(WORDS * 100)
        while rig.relay.acks < 1:
            await trio.lowlevel.checkpoint()
        assert max(seen.texts) < 10_000
        assert len(set(seen.turns)) > 5
        nursery.cancel_scope.cancel()


LONG: list[tuple[str, bytes]] = [
    ("of calls", b'{"choices":[{"delta":{"tool_calls":[' + b"{}," * 2000 + b"{}]}}]}"),
    ("of choices", b'{"choices":[' + b"{}," * 200 + b"{}]}"),
    ("of anything", b'{"choices":[],"x":"' + b"x" * 1_100_000 + b'"}'),
]


@pytest.mark.parametrize("event", [one[1] for one in LONG], ids=[one[0] for one in LONG])
async def test_an_event_longer_than_its_tokens_can_need_is_a_violation(event: bytes) -> None:
    """Reading it takes all other streams' time, and counts no token."""
    async with running(limits=LONG_FRAMES) as rig:
        rig.node.send(wire.encode(wire.Chunk([event])))
        failure = await rig.ended()
        assert isinstance(failure, AttemptFailed)
        assert failure.reason == Reason.PROTOCOL_VIOLATION


@pytest.mark.parametrize("logprobs", [False, True])
async def test_an_event_may_bring_all_tokens_at_once(*, logprobs: bool) -> None:
    """Some engines tell a tool call's arguments when they are over, however long they are."""
    long = 5_000_000 if logprobs else 1_000_000
    asked = draft(logprobs=logprobs)
    async with running(asked=asked, limits=LONG_FRAMES, max_output_tokens=1000) as rig:
        choice = {"delta": {"content": "A"}, "logprobs": {"content": ["x" * long]}}
        rig.node.send(wire.encode(wire.Chunk([msgspec.json.encode({"choices": [choice]})])))
        await rig.node.flush()
        assert await rig.acks() == [1]


async def test_endless_empty_events_are_a_violation() -> None:
    async with running() as rig:
        rig.node.send(wire.encode(wire.Chunk([b'{"choices":[]}'] * 3000)))
        failure = await rig.ended()
        assert isinstance(failure, AttemptFailed)
        assert failure.reason == Reason.PROTOCOL_VIOLATION


async def test_more_bytes_than_the_tokens_can_need_are_a_violation() -> None:
    """A node can't fill the gateway's memory with what counts as no token."""
    async with running() as rig:
        padding = b'{"choices":[],"padding":"' + b"x" * 1_000_000 + b'"}'
        for _ in range(1 + wire.MAX_WORK_FRAME // len(padding)):
            rig.node.send(wire.encode(wire.Chunk([padding])))
            await rig.node.flush()
        assert not rig.over.is_set()
        rig.node.send(wire.encode(wire.Chunk([padding])))
        failure = await rig.ended()
        assert isinstance(failure, AttemptFailed)
        assert failure.reason == Reason.PROTOCOL_VIOLATION


async def test_many_large_embeddings_are_no_violation() -> None:
    """They have no tokens: what they may have of bytes follows from how many were asked for."""
    inputs, dimensions = 512, 4096
    body = jcs({"model": MODEL, "input": ["a"] * inputs})
    asked = read_demand(body, {MODEL: model()}, default_output_tokens=1, kind=JobKind.EMBEDDING)
    vector = base64.b64encode(bytes(4 * dimensions)).decode()
    parts = [{"data": [{"index": index, "embedding": vector}]} for index in range(inputs)]
    async with running(wants=asked, asked=drafted(asked)) as rig:
        for part in parts:
            rig.node.send(wire.encode(wire.Chunk([msgspec.json.encode(part)])))
            await rig.node.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert not rig.over.is_set()
        assert len(rig.answer.choices()) == inputs


async def test_deadline_of_the_job_ends_an_answer_that_never_does(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    """However regularly a word comes: no frame is late, the whole is."""
    async with running() as rig:
        with trio.move_on_after(120):
            while not rig.over.is_set():
                rig.send("a ")
                await trio.sleep(PATIENCE.between - 1)
        assert isinstance(rig.failure, AttemptFailed)
        assert rig.failure.reason == Reason.TOO_SLOW
        assert "deadline" in str(rig.failure)
        deadline_ms = rig.order.draft.job.message.deadline_ms
        assert rig.relay.finished_ms == pytest.approx(deadline_ms, abs=10)


async def test_deadline_holds_near_a_border(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    """An event without text comes before each nudge; no acknowledgement is due for it."""
    async with running() as rig:
        rig.send(text_of(30))
        assert await rig.acks() == [1]
        with trio.move_on_after(120):
            for _ in range(500):
                rig.node.send(wire.encode(wire.Chunk([b'{"choices":[]}'])))
                with trio.move_on_after(0.2):
                    await rig.over.wait()
                    break
        assert isinstance(rig.failure, AttemptFailed)
        assert rig.failure.reason == Reason.TOO_SLOW
        deadline_ms = rig.order.draft.job.message.deadline_ms
        assert rig.relay.finished_ms == pytest.approx(deadline_ms, abs=10)


async def test_deadline_that_the_client_used_up_is_not_the_nodes(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    """It takes something just often enough to be no client that stalls."""
    asked = demand(stream=True, logprobs=True)
    async with running(wants=asked, limits=LONG_FRAMES, max_output_tokens=1000) as rig:
        logprobs = {"content": [{"token": "x" * (MOST_WAITING + 1)}]}
        choice = {"index": 0, "delta": {"content": "ship "}, "logprobs": logprobs}
        frame = wire.encode(wire.Chunk([msgspec.json.encode({"choices": [choice]})]))
        parts = rig.answer.outlet.parts()
        with trio.move_on_after(120):
            while not rig.over.is_set():
                rig.node.send(frame)
                with trio.move_on_after(STALL_S - 1):
                    await rig.over.wait()
                await anext(parts)
        assert isinstance(rig.failure, ClientStalled)
        assert "deadline" in str(rig.failure)


async def test_nothing_is_read_or_accepted_while_the_client_stalls(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    """Memory stays bounded whatever the node sends; then the client counts as gone."""
    async with running(wants=demand(stream=True, logprobs=True)) as rig:
        event = msgspec.json.encode(
            {
                "choices": [
                    {
                        "index": 0,
                        "delta": {"content": "ship "},
                        "logprobs": {"content": [{"token": "x" * 60_000, "logprob": 0}]},
                    }
                ]
            }
        )
        frame = wire.encode(wire.Chunk([event]))
        rig.node.send(frame)
        await trio.testing.wait_all_tasks_blocked()
        await rig.answer.outlet.begun()  # for so long the relay gives way to the first token
        began, sent = trio.current_time(), 1
        for _ in range(100):
            try:
                rig.node.send(frame)
            except SlowPeer:
                break
            sent += 1
            await trio.testing.wait_all_tasks_blocked()
        held = rig.answer.outlet.waiting
        assert MOST_WAITING < held < MOST_WAITING + 2 * len(frame)
        assert rig.relay.output_tokens < sent
        assert await rig.acks() == [1]
        assert isinstance(await rig.ended(), ClientStalled)
        assert trio.current_time() == pytest.approx(began + STALL_S)
        assert rig.answer.outlet.waiting == held


async def test_whole_answer_ends_with_its_completion() -> None:
    async with running() as rig:
        rig.send("Hello", finish="stop")
        assert await rig.acks() == [1]
        signed = completion_for(rig.order, b"Hello", 1)
        rig.node.send(wire.encode(wire.End(signed.to_bytes())))
        assert await rig.ended() is None
        assert rig.relay.completion == signed
        assert rig.relay.output_tokens == model().tokenizer.count_text("Hello")


async def test_node_that_ended_before_the_last_acknowledgement_has_not_failed() -> None:
    """Its end comes while that is being written to disk; the stream is closed on both sides."""
    text, closed = text_of(40), trio.Event()

    async def slowly(acks: int) -> None:
        if acks > 1:
            await closed.wait()

    async with running(slowly) as rig:
        rig.send("A")
        assert await rig.acks() == [1]
        rig.send(text, finish="stop")
        rig.node.send(wire.encode(wire.End(completion_for(rig.order, b"", 1).to_bytes())))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.node.aclose)
            await rig.gateway.wait_over()
            await rig.gateway.aclose()  # as the pool does with a stream that is over
        closed.set()
        assert await rig.ended() is None
        assert rig.relay.acks == 1
        assert rig.relay.output_tokens >= 32


async def test_end_by_another_key_is_no_end() -> None:
    async with running() as rig:
        rig.send("Hello", finish="stop")
        assert await rig.acks() == [1]
        signed = completion_for(rig.order, b"Hello", 1, OTHER)
        rig.node.send(wire.encode(wire.End(signed.to_bytes())))
        assert isinstance(await rig.ended(), AttemptFailed)
        assert rig.relay.completion is None


async def test_nothing_is_released_that_is_not_on_disk() -> None:
    """A database that fails stops the exchange, and the node isn't blamed for it."""

    async def refuses(_acks: int) -> None:
        await trio.lowlevel.checkpoint()
        raise StorageFailed("disk full")

    async with running(refuses) as rig:
        rig.send("A")
        assert isinstance(await rig.ended(), StorageFailed)
        assert await rig.acks() == []
        assert rig.relay.acks == 0


async def test_stop_cancels_and_keeps_the_completion_that_comes() -> None:
    """What was still on its way is not read any more; the node's account of its work is."""
    async with running() as rig:
        rig.send("Hello")
        assert await rig.acks() == [1]
        rig.scope.cancel()
        await rig.over.wait()
        signed = completion_for(rig.order, b"Hello", 1, finish=5)
        rig.send("late")
        rig.node.send(wire.encode(wire.NodeRefused(10, "stopped", signed.to_bytes())))
        await rig.relay.stop()
        assert isinstance(wire.read_work_down(await rig.node.receive()), wire.Cancel)
        assert rig.relay.completion == signed


async def test_stop_waits_a_moment_only(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with running() as rig:
        rig.send("Hello")
        assert await rig.acks() == [1]
        rig.scope.cancel()
        await rig.over.wait()
        started = trio.current_time()
        await rig.relay.stop()
        assert trio.current_time() - started == pytest.approx(PATIENCE.after_cancel)
        assert rig.relay.completion is None
