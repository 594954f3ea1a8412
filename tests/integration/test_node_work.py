"""Orders over real streams: the happy path, every way to stop, and what never happens twice."""

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from node.journal import Journal
from pinaivu.codes import Finish, JobKind, Reason
from pinaivu.commitments import response_commitment, response_digest, segment_commitment
from pinaivu.messages import Completion
from pinaivu.p2p import wire
from pinaivu.store.database import StorageFailed
from pinaivu.typed_data import signed_from_bytes
from tests.integration.node_peers import Conversation, Place, Step, place, text_in
from tests.integration.p2p_support import until
from tests.unit import node_support as n

LONG = " ".join(f"ship {number}" for number in range(60))


def _completion(frame: wire.WorkUp, talk: Conversation) -> Completion:
    """The completion of a last frame, which the node signed for this award."""
    assert isinstance(frame, wire.End | wire.NodeRefused)
    assert frame.completion is not None
    signed = signed_from_bytes(Completion, frame.completion)
    signed.require(n.DOMAIN, n.NODE.address)
    assert signed.message.award_digest == talk.digest
    return signed.message


async def _begun(here: Place, *rest: Step) -> Conversation:
    """A conversation in mid-stream: two words have come, one acknowledgement was accepted.

    The engine goes on with `rest`; without any it says nothing more.
    """
    gate = trio.Event()
    words = n.answer_events("It is lit")
    here.engine.script = [*words[:2], gate, words[2], *(rest or [trio.Event()])]
    talk = await here.gateway.dispatch(here.job(), await here.offered())
    await talk.next()
    talk.ack(1)
    gate.set()
    await talk.next()
    return talk


def _count(frames: list[wire.WorkUp]) -> int:
    return n.tokenizer().count_text(text_in(frames))


def _refusal(frame: wire.WorkUp) -> wire.NodeRefused:
    assert isinstance(frame, wire.NodeRefused), frame
    return frame


async def test_an_order_is_answered_and_signed(tmp_path: Path) -> None:
    """Chunks, then an end with the completion; the coordinator gets the same one."""
    async with place(tmp_path) as here, here.node():
        job = here.job()
        talk = await here.gateway.dispatch(job, await here.offered())
        frames = await talk.rest()
        text = text_in(frames).encode()
        completion = _completion(frames[-1], talk)
        assert isinstance(frames[-1], wire.End)
        assert text == b"It is lit now "
        assert completion.segment_commitment == segment_commitment(job.salts.segment(1), text)
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": text.decode()},
        }
        whole = response_commitment(job.salts.response, response_digest([choice]))
        assert completion.response_commitment == whole
        assert (completion.start_byte, completion.end_byte) == (0, len(text))
        assert completion.output_tokens == n.tokenizer().count_text(text.decode())
        assert completion.prompt_tokens == n.tokenizer().count_prompt(n.BODY)
        assert (completion.acks, completion.last_preimage) == (1, job.acks.preimage(1))
        assert completion.finish == Finish.STOP
        assert completion.started_ms <= completion.first_token_ms <= completion.finished_ms
        (handed_in,) = await here.coordinator.completions.reach(1)
        assert handed_in.to_bytes() == frames[-1].completion
        (asked,) = here.engine.requests.items
        assert asked["messages"] == n.BODY["messages"]


async def test_two_orders_run_side_by_side_and_a_third_is_refused(tmp_path: Path) -> None:
    """Slots are for this log; more than were offered are not served."""
    async with place(tmp_path) as here, here.node():
        go_on = trio.Event()
        here.engine.script = [*n.answer_events("It")[:2], go_on, *n.answer_events("is")[1:]]
        offer = await here.offered()
        talks = [await here.gateway.dispatch(here.job(), offer) for _ in range(2)]
        for talk in talks:
            assert isinstance(await talk.next(), wire.Chunk)
        third = await here.gateway.dispatch(here.job(), offer)
        assert _refusal(await third.next()).reason == Reason.REFUSED_CAPACITY
        go_on.set()
        for talk in talks:
            talk.ack(1)
            assert isinstance((await talk.rest())[-1], wire.End)
        assert isinstance(
            (await (await here.gateway.dispatch(here.job(), offer)).rest())[-1], wire.End
        )


async def test_nothing_follows_the_first_frame_without_preimage_1(tmp_path: Path) -> None:
    """Not even the end of a whole answer; the engine is stopped and nothing is claimed."""
    async with place(tmp_path) as here:
        here.ack_timeout_s = 0.3
        here.engine.text = LONG
        async with here.node():
            talk = await here.gateway.dispatch(here.job(), await here.offered())
            first = await talk.next()
            assert isinstance(first, wire.Chunk)
            last = _refusal(await talk.next())
            assert (last.reason, last.completion) == (Reason.PROTOCOL_VIOLATION, None)
            assert _count([first]) <= 32 + 5
        assert here.coordinator.completions.items == []


async def test_not_even_the_end_follows_without_preimage_1(tmp_path: Path) -> None:
    """An answer that fits into one frame is not completed on trust either."""
    async with place(tmp_path) as here:
        here.ack_timeout_s = 0.3
        here.engine.script = [[event for batch in n.answer_events("Yes") for event in batch]]
        async with here.node():
            talk = await here.gateway.dispatch(here.job(), await here.offered())
            assert text_in([await talk.next()]) == "Yes "
            last = _refusal(await talk.next())
            assert (last.reason, last.completion) == (Reason.PROTOCOL_VIOLATION, None)


async def test_the_node_never_runs_more_than_a_window_ahead(tmp_path: Path) -> None:
    """With k preimages held, what was sent stays within one event of 32·k tokens."""
    async with place(tmp_path) as here:
        here.ack_timeout_s = 0.5
        here.engine.text = LONG
        async with here.node():
            job = here.job(max_output_tokens=1000)
            talk = await here.gateway.dispatch(job, await here.offered())
            frames = [await talk.next()]
            talk.ack(1)
            while _count(frames) < 32:
                frames.append(await talk.next())
            talk.ack(2)
            while isinstance(frames[-1], wire.Chunk):
                frames.append(await talk.next())
            assert _refusal(frames[-1]).reason == Reason.PROTOCOL_VIOLATION
            assert 64 <= _count(frames) <= 64 + 5, "two preimages are two windows"
            completion = _completion(frames[-1], talk)
            assert (completion.acks, completion.output_tokens) == (2, _count(frames))


async def test_a_wrong_preimage_ends_the_work(tmp_path: Path) -> None:
    """What was proven before stays claimed."""
    async with place(tmp_path) as here, here.node():
        here.engine.script = [*n.answer_events(LONG)[:-2], trio.Event()]
        job = here.job(max_output_tokens=1000)
        talk = await here.gateway.dispatch(job, await here.offered())
        await talk.next()
        talk.ack(1)
        talk.send(wire.Ack(2, b"\x01" * 32))
        frame: wire.WorkUp = wire.Chunk([])
        while isinstance(frame, wire.Chunk):
            frame = await talk.next()
        assert _refusal(frame).reason == Reason.PROTOCOL_VIOLATION
        assert _completion(frame, talk).acks == 1
        await here.engine.gone.reach(1)


async def test_a_cancelled_order_is_dropped_at_once_and_signed(tmp_path: Path) -> None:
    """The engine sees its client go; what was acknowledged is claimed as cancelled."""
    async with place(tmp_path) as here, here.node():
        talk = await _begun(here)
        talk.send(wire.Cancel())
        last = await talk.next()
        await here.engine.gone.reach(1)
        assert isinstance(last, wire.End)
        completion = _completion(last, talk)
        assert completion.finish == Finish.CANCELLED
        assert completion.response_commitment == bytes(32)
        salt = talk.job.salts.segment(1)
        assert completion.segment_commitment == segment_commitment(salt, b"It is ")
        assert completion.end_byte == len(b"It is ")


async def test_a_cancelled_order_without_an_acknowledgement_claims_nothing(tmp_path: Path) -> None:
    """There is nothing that anybody has accepted."""
    async with place(tmp_path) as here, here.node():
        here.engine.script = [*n.answer_events("It is lit")[:2], trio.Event()]
        talk = await here.gateway.dispatch(here.job(), await here.offered())
        await talk.next()
        talk.send(wire.Cancel())
        assert _refusal(await talk.next()).completion is None
        await here.engine.gone.reach(1)


async def test_a_gateway_that_disappears_leaves_a_completion(tmp_path: Path) -> None:
    """Nobody is there to take it but the coordinator; the engine is stopped."""
    async with place(tmp_path) as here, here.node():
        talk = await _begun(here)
        talk.stream.reset()
        await here.engine.gone.reach(1)
        (signed,) = await here.coordinator.completions.reach(1)
        assert signed.message.award_digest == talk.digest
        assert (signed.message.finish, signed.message.acks) == (Finish.CANCELLED, 1)


async def test_an_engine_that_dies_in_mid_stream_is_no_end(tmp_path: Path) -> None:
    """The gateway is told, and gets a completion for what it acknowledged."""
    async with place(tmp_path) as here, here.node():
        talk = await _begun(here, "break")
        last = _refusal(await talk.next())
        assert last.reason == Reason.ENGINE_ERROR
        assert _completion(last, talk).finish == Finish.ENGINE_ERROR


async def test_an_engine_that_dies_before_an_acknowledgement_leaves_no_claim(
    tmp_path: Path,
) -> None:
    """The first frame was sent on trust."""
    async with place(tmp_path) as here, here.node():
        here.engine.script = [*n.answer_events("It is lit")[:2], "break"]
        talk = await here.gateway.dispatch(here.job(), await here.offered())
        await talk.next()
        last = _refusal(await talk.next())
        assert (last.reason, last.completion) == (Reason.ENGINE_ERROR, None)


async def test_an_answer_without_a_finish_reason_is_no_whole_one(tmp_path: Path) -> None:
    """Even if the engine says it is done."""
    async with place(tmp_path) as here, here.node():
        here.engine.script = [*n.answer_events("It is lit")[:3]]
        talk = await here.gateway.dispatch(here.job(), await here.offered())
        frames = await talk.rest()
        assert _refusal(frames[-1]).reason == Reason.ENGINE_ERROR


async def test_an_engine_that_refuses_is_passed_on(tmp_path: Path) -> None:
    """Its words reach the gateway; the award is spent."""
    async with place(tmp_path) as here, here.node():
        here.engine.status = 400
        talk = await here.gateway.dispatch(here.job(), await here.offered())
        last = _refusal(await talk.next())
        assert last.reason == Reason.REFUSED
        assert "no such thing" in last.detail


async def test_an_award_that_runs_out_ends_the_work(tmp_path: Path) -> None:
    """Nobody pays for what comes after its last moment."""
    async with place(tmp_path) as here, here.node():
        here.engine.script = [*n.answer_events("It is lit")[:2], trio.Event()]
        job = here.job()
        offer = await here.offered()
        talk = await here.gateway.dispatch(job, offer, expires_ms=here.now_ms() + 700)
        await talk.next()
        talk.ack(1)
        last = _refusal(await talk.next())
        assert last.reason == Reason.REFUSED_EXPIRED
        assert _completion(last, talk).acks == 1


async def test_an_award_is_run_once_also_after_a_crash(tmp_path: Path) -> None:
    """Neither while it runs, nor afterwards, nor by the next process."""
    async with place(tmp_path) as here:
        job = here.job()
        async with here.killed():
            offer = await here.offered()
            go_on = trio.Event()
            here.engine.script = [*n.answer_events("It is lit")[:2], go_on]
            talk = await here.gateway.dispatch(job, offer)
            await talk.next()
            again = await here.gateway.send(job, talk.award, job.dispatch(talk.award))
            assert "used before" in _refusal(await again.next()).detail
        async with here.node():
            await here.offered()
            again = await here.gateway.send(job, talk.award, job.dispatch(talk.award))
            assert "used before" in _refusal(await again.next()).detail
        assert len(here.engine.requests.items) == 1


async def test_another_body_than_was_committed_to_is_refused(tmp_path: Path) -> None:
    """The engine is not asked, the award is not spent."""
    async with place(tmp_path) as here, here.node():
        job = here.job()
        award = job.award(await here.offered())
        other = msgspec.json.encode(n.BODY | {"temperature": 2})
        frame = msgspec.structs.replace(job.dispatch(award), body=other)
        talk = await here.gateway.send(job, award, frame)
        assert "commitment" in _refusal(await talk.next()).detail
        talk = await here.gateway.send(job, award, job.dispatch(award))
        assert isinstance((await talk.rest())[-1], wire.End)
        assert len(here.engine.requests.items) == 1


async def test_a_foreign_gateway_is_refused(tmp_path: Path) -> None:
    """An award for one gateway is worth nothing on another's connection."""
    async with place(tmp_path) as here, here.node():
        talk = await here.gateway.dispatch(
            here.job(), await here.offered(), gateway=n.STRANGER.address
        )
        assert "not registered" in _refusal(await talk.next()).detail


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"expires_ms": 1}, Reason.REFUSED_EXPIRED),
        ({"prompt_tokens": 500}, Reason.REFUSED_PROMPT_COUNT),
        ({"epoch": 9}, Reason.REFUSED),
    ],
    ids=["expired", "prompt count off", "another epoch"],
)
async def test_a_wrong_award_is_answered_with_its_reason(
    tmp_path: Path, changes: dict[str, int], reason: Reason
) -> None:
    """The gateway goes on to the next rank by it."""
    async with place(tmp_path) as here, here.node():
        talk = await here.gateway.dispatch(here.job(), await here.offered(), **changes)
        assert _refusal(await talk.next()).reason == reason
        assert here.engine.requests.items == []


async def test_a_stream_that_begins_with_something_else_is_refused(tmp_path: Path) -> None:
    """A dispatch comes first."""
    async with place(tmp_path) as here, here.node():
        await here.offered()
        for payload in (wire.encode(wire.Cancel()), b"\x00rubbish"):
            stream = await here.gateway.stream()
            stream.send(payload)
            with trio.fail_after(20):
                last = wire.read_work_up(await stream.receive())
            assert _refusal(last).reason == Reason.PROTOCOL_VIOLATION


async def test_a_continued_answer_commits_to_the_whole(tmp_path: Path) -> None:
    """The engine gets the text so far; the segment is what this node added."""
    async with place(tmp_path) as here, here.node():
        job = here.job(rank=2, prefix="The lamp: ")
        talk = await here.gateway.dispatch(job, await here.offered(), prior=b"\x01" * 32)
        frames = await talk.rest()
        completion = _completion(frames[-1], talk)
        assert (completion.start_byte, completion.end_byte) == (10, 10 + len("It is lit now "))
        (asked,) = here.engine.requests.items
        assert asked["messages"][-1] == {"role": "assistant", "content": "The lamp: "}
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "The lamp: It is lit now "},
        }
        whole = response_commitment(job.salts.response, response_digest([choice]))
        assert completion.response_commitment == whole


async def test_stopping_signs_what_still_runs(tmp_path: Path) -> None:
    """Offers are withdrawn, the gateway gets what was done, the coordinator its completion."""
    async with place(tmp_path) as here:
        async with here.node():
            talk = await _begun(here)
        last = _refusal(await talk.next())
        assert _completion(last, talk).finish == Finish.DRAINED
        assert here.coordinator.offers.items[-1].message.slots == 0
        (signed,) = await here.coordinator.completions.reach(1)
        assert signed.message == _completion(last, talk)


async def test_stopping_lets_work_finish_in_time(tmp_path: Path) -> None:
    """Within the bound, an order that is under way is answered whole; a new one is refused."""
    async with place(tmp_path) as here:
        gate = trio.Event()
        async with here.node(drain_s=20.0) as node:
            talk = await _begun(here, gate, *n.answer_events("It is lit")[3:])
            late = await here.gateway.stream()
            node.executor._draining = True
            job = here.job()
            late.send(wire.encode(job.dispatch(job.award(await here.offered()))))
            with trio.fail_after(20):
                last = wire.read_work_up(await late.receive())
            assert _refusal(last).reason == Reason.REFUSED_CAPACITY
            gate.set()
        frame = await talk.next()
        while isinstance(frame, wire.Chunk):
            frame = await talk.next()
        assert isinstance(frame, wire.End)
        assert _completion(frame, talk).finish == Finish.STOP


async def test_a_lost_gateway_is_dialed_again(tmp_path: Path) -> None:
    """New ready streams are laid as soon as the connection is back."""
    async with place(tmp_path) as here, here.node():
        offer = await here.offered()
        await here.gateway.stream()
        here.gateway.host.drop(n.peer_of(n.NODE_PEER), "a test")
        await until(lambda: not here.gateway.pool.count(n.peer_of(n.NODE_PEER)))
        talk = await here.gateway.dispatch(here.job(), offer)
        assert isinstance((await talk.rest())[-1], wire.End)


class FailingJournal:
    """A journal whose disk is full, before the work or after it."""

    def __init__(self, real: Journal, failing: str) -> None:
        self._real = real
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        if name == self._failing:
            return self._fail
        return getattr(self._real, name)

    async def _fail(self, *_: object) -> None:
        raise StorageFailed("the disk is full")


class SlowJournal(FailingJournal):
    """A journal whose disk takes its time."""

    def __init__(self, real: Journal, failing: str) -> None:
        super().__init__(real, failing)
        self.go_on = trio.Event()

    async def _fail(self, *what: Any) -> None:
        await self.go_on.wait()
        await getattr(self._real, self._failing)(*what)


async def test_nothing_leaves_before_the_award_is_marked_used(tmp_path: Path) -> None:
    """The engine works meanwhile, and somebody who sends the award again gets nothing, too."""
    async with place(tmp_path) as here, here.node() as node:
        job, offer = here.job(), await here.offered()
        slow = SlowJournal(node.journal, "use")
        node.executor._journal = slow  # type: ignore[assignment]
        talk = await here.gateway.dispatch(job, offer)
        await here.engine.requests.reach(1)
        (work,) = node.executor._running
        again = await here.gateway.send(job, talk.award, job.dispatch(talk.award))
        assert "used before" in _refusal(await again.next()).detail
        assert not work.answer.begun
        slow.go_on.set()
        assert isinstance((await talk.rest())[-1], wire.End)
        assert len(here.engine.requests.items) == 1


@pytest.mark.parametrize(("failing", "asked"), [("use", 0), ("complete", 1)])
async def test_without_a_journal_nothing_is_run_or_claimed(
    tmp_path: Path, failing: str, asked: int
) -> None:
    """What can't be kept is not done, and what can't be kept is not sent."""
    async with place(tmp_path) as here, here.node() as node:
        offer = await here.offered()
        real = node.journal
        node.executor._journal = FailingJournal(real, failing)  # type: ignore[assignment]
        frames = await (await here.gateway.dispatch(here.job(), offer)).rest()
        assert _refusal(frames[-1]).completion is None
        assert "journal" in _refusal(frames[-1]).detail
        assert len(here.engine.requests.items) == asked
        node.executor._journal = real
        frames = await (await here.gateway.dispatch(here.job(), offer)).rest()
        assert isinstance(frames[-1], wire.End), "the slot was given back"


async def test_many_embeddings_leave_other_orders_alone(tmp_path: Path) -> None:
    """More than a stream's outbox holds: they go out as the gateway takes them."""
    inputs, dimensions = 512, 4096
    vector = base64.b64encode(bytes(4 * dimensions)).decode()
    data = [{"index": index, "embedding": vector} for index in range(inputs)]
    async with place(tmp_path) as here, here.node() as node:
        offer = await here.offered()
        other = await _begun(here)
        here.engine.embedding = msgspec.json.encode({"data": data, "usage": {"prompt_tokens": 1}})
        body = msgspec.json.encode({"model": n.MODEL, "input": ["a"] * inputs})
        job = here.job(kind=JobKind.EMBEDDING, body=body, max_output_tokens=0)
        talk = await here.gateway.dispatch(job, offer)
        frames: list[wire.WorkUp] = [await talk.next()]
        talk.ack(1)
        while isinstance(frames[-1], wire.Chunk):
            frames.append(await talk.next())
        assert isinstance(frames[-1], wire.End)
        events = [
            event
            for frame in frames[:-1]
            if isinstance(frame, wire.Chunk)
            for event in frame.events
        ]
        assert len(events) == inputs + 1
        assert node.host.drops == {}
        assert not other.stream.over
