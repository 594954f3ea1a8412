"""One award carried out on one stream: dispatch, chunks, acknowledgements, end.

Every frame is handed to the client's answer and counted with the model's tokenizer; all that one
read of the network brought are acknowledged together, where due. The acknowledgement after i·32
tokens is released when our own count reaches that; a node whose own count is a little ahead of ours
would then wait for ever, so when it falls silent within the tolerance of the next border, that
acknowledgement is released.

Nothing is read while too much of the answer waits for the client (`gateway.outlet`). Then no
acknowledgement is released either, the node stops reading its engine within a window of 32 tokens,
and the muxer's flow control bounds what a node that goes on regardless can put on the way.

What a node may send is bounded in tokens by its award, in events and bytes by what that many tokens
can need; and in time: for a first token, between frames, and by the job's deadline. A stream that
ends without its end frame has failed, whatever came before.
"""

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from gateway.answers import Answer
from gateway.checks import require_completion
from gateway.drafts import Draft
from gateway.errors import AttemptFailed
from gateway.outlet import ClientStalled
from gateway.ports import ServedModel
from pinaivu.codes import Feature, Finish, JobKind, Reason
from pinaivu.commitments import (
    TOKENS_PER_ACK,
    AckChain,
    acks_due,
    chain_length,
    tokens_acknowledged,
)
from pinaivu.errors import InvalidEncoding, PinaivuError, TransportFailure
from pinaivu.messages import Award, Completion, Job
from pinaivu.metering import Tolerance
from pinaivu.openai import BadResponse
from pinaivu.p2p import wire
from pinaivu.p2p.frames import FrameStream
from pinaivu.store.database import StorageFailed
from pinaivu.tokens import LateCounter
from pinaivu.typed_data import Domain, Signed, signed_from_bytes

_NUDGE_AFTER_S: Final = 0.25
_SLICE: Final = 4 << 10  # characters; a window of 32 tokens has less
_WORDS_PER_TOKEN: Final = 4
_EVENTS_APART: Final = 1024
_BYTES_PER_TOKEN: Final = 8 << 10  # an event with twenty alternatives of its token, spelt in bytes
_TEXT_PER_TOKEN: Final = 128  # bytes of its text alone, escaped
_TEXT_APART: Final = 1 << 20  # what an engine tells beside it, the prompt's token ids for example
_BYTES_PER_VECTOR: Final = 64 << 10  # of 12,000 dimensions
_BYTES_APART: Final = wire.MAX_WORK_FRAME
_WHOLE: Final = frozenset({Finish.STOP, Finish.LENGTH, Finish.TOOL_CALLS, Finish.CONTENT_FILTER})
_REFUSALS: Final = range(Reason.REFUSED, Reason.PASSED_OVER)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a node may be silent; seconds. Promises come from its offer."""

    first_token: float
    between: float
    after_cancel: float

    @classmethod
    def of(cls, awarded: wire.Awarded, floor_s: float, after_cancel_s: float) -> "Patience":
        """Four times what was promised, and never less than the floor."""
        window_s = TOKENS_PER_ACK * 1000 / max(1, awarded.tps_milli)
        return cls(
            first_token=max(floor_s, 4 * awarded.ttft_ms / 1000),
            between=max(floor_s, 4 * window_s),
            after_cancel=after_cancel_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one attempt is about."""

    award: Signed[Award]
    award_digest: bytes
    chain: AckChain
    draft: Draft
    model: ServedModel
    domain: Domain
    tolerance: Tolerance
    body: bytes
    prefix: str
    choices: int


class Relay:
    """Runs one attempt; what it saw stands in its attributes, however it ended."""

    def __init__(
        self,
        stream: FrameStream,
        order: Order,
        answer: Answer,
        patience: Patience,
        may_release: Callable[[int], Awaitable[None]],
        now_ms: Callable[[], int],
    ) -> None:
        """`may_release(k)` returns once releasing k acknowledgements is on disk."""
        self._stream = stream
        self._order = order
        self._answer = answer
        self._patience = patience
        self._may_release = may_release
        self._now_ms = now_ms
        self._kind = JobKind(order.draft.job.message.kind)
        self._counter = LateCounter(order.model.tokenizer.output_counter(self._kind))
        most = order.award.message.max_output_tokens
        self._events_left = _WORDS_PER_TOKEN * most + _EVENTS_APART
        self._bytes_left = _BYTES_PER_TOKEN * most + _BYTES_APART
        if self._kind == JobKind.EMBEDDING:  # which has no tokens
            self._bytes_left += _BYTES_PER_VECTOR * order.choices
        self._job = order.draft.job.message
        self._longest_event = _longest_event(self._job, most)
        self._most_acks = chain_length(order.award.message.max_output_tokens)
        self.acks = 0
        self.first_token_ms = 0
        self.finished_ms = 0
        self.completion: Signed[Completion] | None = None
        # One scope for all the waiting: making one for each frame costs more than counting it.
        self._silence = trio.CancelScope()
        self._last_wait = False
        self._began = trio.current_time()
        self._held_up_s = 0.0
        self._near_border = 0  # from this count on, a node may be waiting for an acknowledgement
        self._whole_count: int | None = None

    async def run(self) -> None:
        """Return when the answer has come whole. Can be cancelled.

        Raises `AttemptFailed`, `ClientStalled` when the client takes nothing any more, and
        `StorageFailed` when an acknowledgement can't be made durable.
        """
        try:
            with self._silence:
                await self._to_the_end()
            if self.completion is None:
                raise self._too_late()
        except (InvalidEncoding, BadResponse) as error:
            raise AttemptFailed(Reason.PROTOCOL_VIOLATION, str(error)) from error
        except (StorageFailed, ClientStalled):  # not the node's fault
            raise
        except TransportFailure as error:
            raise AttemptFailed(Reason.STREAM_BROKEN, str(error)) from error
        finally:
            self.finished_ms = self._now_ms()
        self._require_whole(self.completion.message)
        self._whole_count = self._final_count()

    async def _to_the_end(self) -> None:
        self._stream.send(wire.encode(self._dispatch()))
        while self.completion is None:
            await self._drained()
            for payload in await self._receive():
                await self._take(wire.read_work_up(payload))
            if self._answer.shown:  # nothing is as urgent as the first token
                await self._answer.outlet.begun()
            await self._acknowledge()

    async def _drained(self) -> None:
        """Wait for the client, and remember how long: that time is not the node's."""
        began = trio.current_time()
        await self._answer.outlet.drained()
        self._held_up_s += trio.current_time() - began

    @property
    def output_tokens(self) -> int:
        """Our count of what has come, at most what was awarded; whole, in the text's order."""
        counted = self._counter.count if self._whole_count is None else self._whole_count
        return min(counted, self._order.award.message.max_output_tokens)

    async def stop(self) -> None:
        """Tell the node to stop, and give it a moment to sign what it did."""
        with suppress(PinaivuError), trio.move_on_after(self._patience.after_cancel):
            self._stream.send(wire.encode(wire.Cancel()))
            while self.completion is None:
                frame = wire.read_work_up(await self._stream.receive())
                if not isinstance(frame, wire.Chunk):
                    self._keep(frame.completion)
                    return

    def _dispatch(self) -> wire.Dispatch:
        salts, award = self._order.draft.salts, self._order.award
        return wire.Dispatch(
            award=award.to_bytes(),
            body=self._order.body,
            salt_request=salts.request,
            salt_response=salts.response,
            salt_segment=salts.segment(award.message.rank),
            prefix=self._order.prefix,
            kind=int(self._kind),
        )

    async def _receive(self) -> list[bytes]:
        if self._close_to_border():
            with trio.move_on_after(min(_NUDGE_AFTER_S, self._left())):
                return await self._stream.receive_many()
            self._left()
            await self._release(self.acks + 1)
        left = self._left()
        self._last_wait = left <= self._awaited
        self._silence.deadline = trio.current_time() + min(self._awaited, left)
        frames = await self._stream.receive_many()
        self._silence.deadline = math.inf
        return frames

    def _left(self) -> float:
        """Seconds to the job's deadline. Behind it, raises for whoever is to blame."""
        left = (self._job.deadline_ms - self._now_ms()) / 1000
        if left <= 0:
            raise self._behind_the_deadline()
        return left

    def _behind_the_deadline(self) -> AttemptFailed | ClientStalled:
        """Whose fault it is: the client's, where most of the time was spent waiting for it."""
        if self._held_up_s > (trio.current_time() - self._began) / 2:
            return ClientStalled("the client took its answer too slowly for the job's deadline")
        return AttemptFailed(Reason.TOO_SLOW, "the job's deadline came before the answer's end")

    @property
    def _awaited(self) -> float:
        """How long the node may be silent now, seconds."""
        return self._patience.between if self.first_token_ms else self._patience.first_token

    def _too_late(self) -> AttemptFailed | ClientStalled:
        """Why what was waited for last has not come."""
        if self._last_wait:
            return self._behind_the_deadline()
        reason = Reason.TOO_SLOW if self.first_token_ms else Reason.SILENT
        return AttemptFailed(reason, f"the node sent nothing for {self._awaited:g} s")

    def _close_to_border(self) -> bool:
        """Whether a node that counts as it may could be waiting for the next acknowledgement."""
        return 0 < self.acks < self._order.chain.length and self._counter.reaches(self._near_border)

    async def _take(self, frame: wire.WorkUp) -> None:
        match frame:
            case wire.Chunk(events=events):
                await self._chunk(events)
            case wire.End(completion=completion):
                self._keep(completion)
            case wire.NodeRefused(reason=reason, detail=detail):
                with suppress(PinaivuError):
                    self._keep(frame.completion)
                known = reason if reason in _REFUSALS else Reason.PROTOCOL_VIOLATION
                status = frame.engine_status if reason == Reason.REFUSED else 0
                raise AttemptFailed(known, f"the node refused: {detail[:200]}", status)

    async def _chunk(self, events: list[bytes]) -> None:
        self._events_left -= len(events)
        self._bytes_left -= sum(map(len, events))
        if not events or min(self._events_left, self._bytes_left) < 0:
            raise AttemptFailed(Reason.PROTOCOL_VIOLATION, "empty or endless chunks")
        texts = []
        for event in events:
            if len(event) > self._longest_event:
                raise AttemptFailed(Reason.PROTOCOL_VIOLATION, "an endless event")
            if len(event) > _SLICE:
                await trio.lowlevel.checkpoint()
            texts.append(self._answer.add(event))
        if text := "".join(texts):
            self.first_token_ms = self.first_token_ms or self._now_ms()
            await self._count(text)
        self._answer.flush()

    async def _count(self, text: str) -> None:
        """Count in slices: to the award's border and no further, and others have their turn."""
        for start in range(0, len(text), _SLICE):
            if start:
                await trio.lowlevel.checkpoint()
            self._counter.feed(text[start : start + _SLICE])
            self._require_no_more_than_awarded()

    async def _acknowledge(self) -> None:
        """Accept what has come; the prompt, too, once there is content or an end without any."""
        if self.completion or not (self.first_token_ms or self._answer.complete):
            return
        most = self._job.max_output_tokens
        if self.acks and not self._counter.reaches(tokens_acknowledged(self.acks + 1, most)):
            return
        due = min(acks_due(self._counter.count, most), self._most_acks)
        if due > self.acks:
            await self._release(due)

    async def _release(self, acks: int) -> None:
        await self._may_release(acks)
        if self._stream.over:
            return  # the node has said its last already, and it lies here: this would come too late
        self.acks = acks
        self._near_border = self._order.tolerance.least(TOKENS_PER_ACK * acks)
        self._stream.send(wire.encode(wire.Ack(acks, self._order.chain.preimage(acks))))

    def _require_no_more_than_awarded(self) -> None:
        most = self._order.award.message.max_output_tokens
        # Tokenized again, an engine's text may have a few tokens more than it sampled.
        if self._counter.reaches(most + max(TOKENS_PER_ACK, most // 8) + 1):
            self._answer.spoil()
            raise AttemptFailed(Reason.PROTOCOL_VIOLATION, f"more than the {most} tokens awarded")

    def _keep(self, raw: bytes | None) -> None:
        if raw is None:
            return
        signed = signed_from_bytes(Completion, raw)
        require_completion(
            signed,
            self._order.award.message,
            self._order.award_digest,
            self._order.domain,
            self._job,
            self._order.model.fingerprint,
            self.acks,
        )
        self.completion = signed

    def _require_whole(self, completion: Completion) -> None:
        """An end frame after the engine's own end, and only that, makes an answer whole."""
        if completion.finish not in _WHOLE:
            engine = completion.finish == Finish.ENGINE_ERROR
            reason = Reason.ENGINE_ERROR if engine else Reason.STREAM_BROKEN
            raise AttemptFailed(reason, f"the node stopped early (finish {completion.finish})")
        if not self._answer.complete:
            raise AttemptFailed(Reason.PROTOCOL_VIOLATION, "an end frame before the answer's end")

    def _final_count(self) -> int:
        if self._answer.append_only:
            return self._counter.finish()
        start = self._order.award.message.start_byte
        text = self._answer.text()[start:].decode("utf-8")
        return self._order.model.tokenizer.count_output(text, self._kind)


def _longest_event(job: Job, tokens: int) -> int:
    """The bytes of an event that brings all of the tokens at once: who reads one, stops for it."""
    if job.kind == JobKind.EMBEDDING:
        return _BYTES_APART
    per_token = _BYTES_PER_TOKEN if job.features & Feature.LOGPROBS else _TEXT_PER_TOKEN
    return per_token * tokens + _TEXT_APART
