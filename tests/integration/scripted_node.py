# ruff: noqa: D102 - scripts and doubles, described at their class
"""A node that plays one script per award: real host, ready streams, frames and signatures."""

import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import trio

from pinaivu.codes import Finish, JobKind, Reason
from pinaivu.commitments import (
    AckCounter,
    response_commitment,
    response_digest,
    segment_commitment,
)
from pinaivu.keys import SecretKey, peer_id_of_point
from pinaivu.messages import Award, Completion
from pinaivu.openai import Aggregator, finish_of
from pinaivu.p2p import PeerId, wire
from pinaivu.p2p.frames import FrameLimits, FrameStream
from pinaivu.p2p.host import Liveness, open_host
from pinaivu.p2p.links import keep_ready
from pinaivu.typed_data import Signed, signed_from_bytes
from tests.unit.gateway_facts import DOMAIN, FINGERPRINT, model

AS_IN_SERVICE: Final = Liveness()


class Work:
    """One award at a scripted node: what a script can do with it, honestly unless told not to."""

    def __init__(self, key: SecretKey, stream: FrameStream, dispatch: wire.Dispatch) -> None:
        self.key = key
        self.stream = stream
        self.dispatch = dispatch
        self.signed = signed_from_bytes(Award, dispatch.award)
        self.award = self.signed.message
        self.acks = AckCounter(
            self.award.job_id, self.award.rank, self.award.max_output_tokens, self.award.anchor
        )
        self.cancelled = False
        self._aggregator = Aggregator(JobKind.CHAT)
        if dispatch.prefix:
            self._aggregator.add({"choices": [{"delta": {"content": dispatch.prefix}}]})
        self._first = True

    def send(self, *deltas: dict[str, Any], finish: str | None = None) -> None:
        """One frame with an event for each delta; the last one ends the choice."""
        events = []
        for number, delta in enumerate(deltas):
            last = number == len(deltas) - 1
            choice = {"index": 0, "delta": delta, "finish_reason": finish if last else None}
            event = msgspec.json.encode({"object": "chat.completion.chunk", "choices": [choice]})
            self._aggregator.feed(event)
            events.append(event)
        self.stream.send(wire.encode(wire.Chunk(events)))

    async def say(self, *texts: str, finish: str | None = None) -> None:
        """Content, the first frame with the role; waits for the first acknowledgement."""
        deltas: list[dict[str, Any]] = [{"content": text} for text in texts]
        if self._first:
            deltas.insert(0, {"role": "assistant", "content": ""})
        self.send(*deltas, finish=finish)
        if self._first:
            self._first = False
            await self.wait_acks(1)

    async def wait_acks(self, count: int) -> None:
        """Take acknowledgements, each checked against the anchor, until there are `count`."""
        while self.acks.acks < count:
            await self.take()

    async def take(self) -> None:
        frame = wire.read_work_down(await self.stream.receive())
        if isinstance(frame, wire.Ack):
            self.acks.accept(frame.index, frame.preimage)
        else:
            assert isinstance(frame, wire.Cancel)
            self.cancelled = True

    def text(self) -> bytes:
        return self._aggregator.text()[self.award.start_byte :]

    def completion(self, **changes: Any) -> Signed[Completion]:
        """The completion that is true, but for `changes`."""
        text = self.text()
        reason = self._aggregator.finish_reason
        whole = response_commitment(
            self.dispatch.salt_response, response_digest(self._aggregator.choices())
        )
        tokenizer = model().tokenizer
        fields: dict[str, Any] = {
            "award_digest": self.signed.digest(DOMAIN),
            "node": self.key.address,
            "fingerprint": FINGERPRINT,
            "segment_commitment": segment_commitment(self.dispatch.salt_segment, text),
            "response_commitment": whole if reason else bytes(32),
            "start_byte": self.award.start_byte,
            "end_byte": self.award.start_byte + len(text),
            "prompt_tokens": self.award.prompt_tokens,
            "output_tokens": tokenizer.count_text(text.decode()),
            "acks": self.acks.acks,
            "last_preimage": self.acks.last_preimage,
            "finish": int(finish_of(reason) if reason else Finish.CANCELLED),
            "started_ms": self.award.awarded_ms,
            "first_token_ms": self.award.awarded_ms + 1,
            "finished_ms": self.award.awarded_ms + 2,
            "audit_commitment": bytes(32),
        }
        return Signed.by(self.key, DOMAIN, Completion(**fields | changes))

    async def end(self, **changes: Any) -> None:
        self.stream.send(wire.encode(wire.End(self.completion(**changes).to_bytes())))
        await self.stream.flush()

    async def refuse(self, reason: Reason, detail: str = "as scripted") -> None:
        self.stream.send(wire.encode(wire.NodeRefused(reason, detail)))
        await self.stream.flush()

    async def break_off(self) -> None:
        """What was sent arrives; then the stream is gone without an end."""
        await self.stream.flush()
        await trio.sleep(0.05)  # a reset overtakes what the peer has not read yet
        self.stream.reset("as scripted")

    async def wait_cancel(self) -> None:
        while not self.cancelled:
            await self.take()


Script = Callable[[Work], Awaitable[None]]


def speaks(*texts: str, finish: str = "stop") -> Script:
    """An honest node that says `texts`, a frame each."""

    async def play(work: Work) -> None:
        for text in texts[:-1]:
            await work.say(text)
        await work.say(texts[-1], finish=finish)
        await work.end()

    return play


def refuses(reason: Reason, detail: str, engine_status: int = 0) -> Script:
    """A node that serves no award; `engine_status`: because its engine answers so."""

    async def play(work: Work) -> None:
        refused = wire.NodeRefused(reason, detail, engine_status=engine_status)
        work.stream.send(wire.encode(refused))
        await work.stream.flush()

    return play


class ScriptedNode:
    """Lays ready streams at the gateway and plays its script for every award."""

    def __init__(self, script: Script, liveness: Liveness = AS_IN_SERVICE) -> None:
        self.key = SecretKey.generate(os.urandom)
        self.peer_secret = os.urandom(32)
        self.script = script
        self.liveness = liveness
        self.works: list[Work] = []

    @property
    def peer(self) -> PeerId:
        return PeerId(peer_id_of_point(SecretKey(self.peer_secret).point))

    async def run(self, gateway_address: str) -> None:
        async with (
            open_host(self.peer_secret, liveness=self.liveness) as host,
            trio.open_nursery() as nursery,
        ):
            peer = await host.connect(gateway_address)
            limits = FrameLimits.of(wire.MAX_WORK_FRAME)
            await keep_ready(
                host, peer, wire.WORK_PROTOCOL, self._job, jobs=nursery, idle=2, limits=limits
            )

    async def _job(self, stream: FrameStream, first: bytes) -> None:
        dispatch = wire.read_work_down(first)
        assert isinstance(dispatch, wire.Dispatch)
        work = Work(self.key, stream, dispatch)
        self.works.append(work)
        await self.script(work)
