"""Request, reply and push over one `FrameStream`, in both directions at once.

    calls = Calls(stream, on_call=answer, on_notice=note)
    nursery.start_soon(calls.run)
    reply = await calls.call(payload, timeout=1.0)
    calls.notify(payload)

Every frame is one envelope in MessagePack: kind, version, correlation id, payload. What the
payloads mean is the callers' business (`pinaivu.p2p.wire`). Calls are answered by a bounded
number of worker tasks, in any order; notices are handed over in the order they came, before the
next frame is looked at, and their handler can't wait. A call is tried once: without a reply
nobody knows whether the peer acted, so what is called must be safe to repeat or be looked up.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Final

import msgspec
import trio

from pinaivu.errors import PinaivuError
from pinaivu.p2p import PeerId
from pinaivu.p2p.errors import (
    BadEnvelope,
    CallBusy,
    CallRefused,
    CallTimeout,
    StreamBroken,
    StreamEnded,
)
from pinaivu.p2p.frames import FrameStream

VERSION: Final = 1
_BUSY: Final = "busy"
_logger = logging.getLogger(__name__)

CallHandler = Callable[[bytes], Awaitable[bytes]]
"""Answers a call. One of our errors goes back as its text, anything else as "internal error"."""

NoticeHandler = Callable[[bytes], None]
"""Takes a notice, at once: it hands over what takes time."""


class _Call(msgspec.Struct, frozen=True, array_like=True, tag=1):
    version: int
    correlation: int
    payload: bytes


class _Reply(msgspec.Struct, frozen=True, array_like=True, tag=2):
    version: int
    correlation: int
    payload: bytes


class _Refusal(msgspec.Struct, frozen=True, array_like=True, tag=3):
    version: int
    correlation: int
    reason: str


class _Notice(msgspec.Struct, frozen=True, array_like=True, tag=4):
    version: int
    correlation: int
    payload: bytes


_Envelope = _Call | _Reply | _Refusal | _Notice
_decoder: Final[msgspec.msgpack.Decoder[_Envelope]] = msgspec.msgpack.Decoder(_Envelope)
_encode: Final = msgspec.msgpack.Encoder().encode


class Calls:
    """One end of a conversation; `run` must be running for anything to be received."""

    def __init__(
        self,
        stream: FrameStream,
        *,
        on_call: CallHandler | None = None,
        on_notice: NoticeHandler | None = None,
        workers: int = 32,
        backlog: int = 256,
    ) -> None:
        """At most `workers` calls are answered at a time; beyond `backlog` waiting ones: busy."""
        self.stream = stream
        self._on_call = on_call
        self._on_notice = on_notice
        self._workers_left = workers
        self._incoming, self._work = trio.open_memory_channel[_Call](backlog)
        self._pending: dict[int, _Pending] = {}
        self._correlations = count(1)
        self._over: PinaivuError | None = None

    async def call(self, payload: bytes, timeout: float) -> bytes:  # noqa: ASYNC109 - part of the contract
        """Send `payload` and return the reply's.

        Raises `CallTimeout` after `timeout` seconds, `CallRefused` with the peer's reason,
        `CallBusy` when the peer didn't act, and what broke the stream as soon as it breaks.
        """
        if self._over is not None:
            raise StreamBroken(f"no call possible: {self._over}")
        correlation = next(self._correlations)
        pending = self._pending[correlation] = _Pending()
        try:
            self.stream.send(_encode(_Call(VERSION, correlation, payload)))
            with trio.move_on_after(timeout):
                await pending.done.wait()
        finally:
            del self._pending[correlation]
        return pending.result(self.stream.peer, timeout)

    def notify(self, payload: bytes) -> None:
        """Send `payload` without expecting a reply; raises as `FrameStream.send`."""
        self.stream.send(_encode(_Notice(VERSION, 0, payload)))

    async def run(self) -> None:
        """Receive until the peer ends the stream; raise what broke it otherwise.

        Raises `BadEnvelope` for a frame that is none of ours, which resets the stream. Pending
        calls fail as soon as the stream is over. Handlers under way are not cancelled, `run`
        waits for them; calls that still wait for one are dropped.
        """
        end: PinaivuError = StreamBroken("the conversation was given up on this side")
        try:
            async with trio.open_nursery() as nursery, self._incoming:
                try:
                    end = await self._receive(nursery)
                finally:
                    self._finish(end)
        finally:
            self._work.close()
        if not isinstance(end, StreamEnded):
            raise end

    async def _receive(self, nursery: trio.Nursery) -> PinaivuError:
        """Take frames until there are no more; why is the result."""
        try:
            while True:
                for frame in await self.stream.receive_many():
                    self._dispatch(_parse(frame), nursery)
        except BadEnvelope as error:
            self.stream.reset(str(error))
            return error
        except PinaivuError as error:
            return error

    def _dispatch(self, envelope: _Envelope, nursery: trio.Nursery) -> None:
        match envelope:
            case _Notice():
                self._take_notice(envelope.payload)
            case _Call():
                self._queue(envelope, nursery)
            case _:
                pending = self._pending.get(envelope.correlation)
                if pending is not None:  # else it came after the caller's timeout
                    pending.settle(envelope)

    def _take_notice(self, payload: bytes) -> None:
        if self._on_notice is None:
            raise BadEnvelope("no notices are taken on this stream")
        try:
            self._on_notice(payload)
        except PinaivuError as error:
            _logger.info("notice of %s: %s", self.stream.peer, error)
        except Exception:  # one bad notice doesn't end the conversation
            _logger.exception("notice handler failed on a notice of %s", self.stream.peer)

    def _queue(self, call: _Call, nursery: trio.Nursery) -> None:
        if self._on_call is None:
            raise BadEnvelope("no calls are answered on this stream")
        idle = self._incoming.statistics().tasks_waiting_receive  # who was just given one isn't
        if not idle and self._workers_left:
            self._workers_left -= 1
            nursery.start_soon(self._answer_calls, self._on_call)
        try:
            self._incoming.send_nowait(call)
        except trio.WouldBlock:
            self.stream.send(_encode(_Refusal(VERSION, call.correlation, _BUSY)))

    async def _answer_calls(self, handler: CallHandler) -> None:
        while True:
            try:
                call = await self._work.receive()
            except trio.EndOfChannel:
                return
            if self._over is not None:
                return
            answer = await self._answer(handler, call)
            with suppress(PinaivuError):  # the stream is over; `run` says so
                self.stream.send(_encode(answer))

    async def _answer(self, handler: CallHandler, call: _Call) -> _Reply | _Refusal:
        try:
            return _Reply(VERSION, call.correlation, await handler(call.payload))
        except PinaivuError as error:
            return _Refusal(VERSION, call.correlation, f"{type(error).__name__}: {error}")
        except Exception:  # a handler's bug fails one call, not the conversation
            _logger.exception("call handler failed on a call of %s", self.stream.peer)
            return _Refusal(VERSION, call.correlation, "internal error")

    def _finish(self, end: PinaivuError) -> None:
        self._over = end
        for pending in self._pending.values():
            pending.fail(end)


class _Pending:
    """A call that waits for its answer."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self._answer: _Reply | _Refusal | None = None
        self._end: PinaivuError | None = None

    def settle(self, answer: _Reply | _Refusal) -> None:
        self._answer = answer
        self.done.set()

    def fail(self, end: PinaivuError) -> None:
        self._end = end
        self.done.set()

    def result(self, peer: PeerId, timeout: float) -> bytes:
        match self._answer:
            case _Reply(payload=payload):
                return payload
            case _Refusal(reason=reason) if reason == _BUSY:
                raise CallBusy(f"{peer} has too many calls waiting")
            case _Refusal(reason=reason):
                raise CallRefused(reason)
        if self._end is not None:
            raise StreamBroken(f"no reply from {peer}: {self._end}") from self._end
        raise CallTimeout(f"no reply from {peer} within {timeout:g} s")


def _parse(frame: bytes) -> _Envelope:
    try:
        envelope = _decoder.decode(frame)
    except msgspec.DecodeError as error:
        raise BadEnvelope(f"not an envelope of version {VERSION}: {error}") from error
    if envelope.version != VERSION:
        raise BadEnvelope(f"envelope version {envelope.version}; we speak {VERSION}")
    return envelope
