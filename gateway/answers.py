"""The answer as the client gets it, and as it is committed to: one object, filled by the relay.

Streaming, each engine event becomes a chunk of ours as it comes: own id, model and time, the
engine's `choices` cut to the members that commitments cover (and logprobs). What says that a choice
is over is kept back until the node's end frame has been checked, so nothing looks whole that isn't.
Without streaming the same events build one body.

The reader may be slower than the node; what waits for it is bounded by the relay, which stops
acknowledging while more than `MOST_WAITING` bytes do.
"""

from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec
import trio

from gateway.demands import Demand
from gateway.errors import ApiError
from pinaivu.codes import JobKind
from pinaivu.errors import TransportFailure
from pinaivu.openai import Aggregator, BadResponse

MOST_WAITING: Final = 1 << 20
_DELTA: Final = frozenset(
    {"role", "content", "refusal", "reasoning", "reasoning_content", "tool_calls"}
)
_STALL_S: Final = 60
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_encode: Final = msgspec.json.Encoder().encode


class ClientStalled(TransportFailure):
    """The client is there and takes nothing; it counts as gone."""


class Answer:
    """What has come of one response, and what of it still waits for the client."""

    def __init__(self, demand: Demand, request_id: str, created_s: int) -> None:
        self._demand = demand
        self.rename(request_id, created_s)
        self._aggregator = Aggregator(JobKind.CHAT, demand.request.choices)
        self._told_role: set[int] = set()
        self._logprobs: dict[int, dict[str, list[Any]]] = {}
        self._next: list[bytes] = []  # chunks of the frame being read
        self._waiting = bytearray()
        self._news = trio.Event()
        self._drained = trio.Event()
        self._spoiled = False
        self._unread = False
        self.over = trio.Event()
        """Set when nothing more will come: the answer is whole, or `error` says why it isn't."""
        self.shown = False
        """Whether the client has been given a part of it."""
        self.error: ApiError | None = None
        self.body: dict[str, object] | None = None
        self.begun = trio.Event()
        """Set when there is something to show: content, the end, or an error."""

    def rename(self, request_id: str, created_s: int) -> None:
        """Another job answers the request; only before anything of the answer has come."""
        self._request_id = request_id
        self._created_s = created_s
        self._head = b"data: " + self._envelope("chat.completion.chunk")[:-1] + b',"choices":'

    # Filled by the relay

    def add(self, event: bytes) -> str:
        """Take one engine event; the text it brought. `BadResponse` for what is none."""
        try:
            text = self._aggregator.feed(event)
            self._show(event)
        except BadResponse:
            self._spoiled = True
            raise
        return text

    def flush(self) -> None:
        """Hand what `add` brought to the client, once there is any text or call."""
        if self._next and self._aggregator.size:
            self._waiting += b"".join(self._next)
            self._next.clear()
            if self._unread:
                self._waiting.clear()
            self.shown = True
            self.begun.set()
            self._wake()

    async def drained(self) -> None:
        """Wait until the client has taken enough for more to be fetched; else `ClientStalled`."""
        if len(self._waiting) <= MOST_WAITING:
            return
        with trio.move_on_after(_STALL_S):
            while len(self._waiting) > MOST_WAITING:
                self._drained = trio.Event()
                await self._drained.wait()
            return
        raise ClientStalled(f"the client took nothing for {_STALL_S} s")

    def restart(self) -> None:
        """Forget an attempt that brought no text, for another node to begin anew."""
        self._aggregator = Aggregator(JobKind.CHAT, self._demand.request.choices)
        self._told_role.clear()
        self._logprobs.clear()
        self._next.clear()
        self._spoiled = False

    def finish(self, output_tokens: int) -> None:
        """The answer is whole: show its end."""
        usage = self._usage(output_tokens)
        if self._demand.streams:
            self._waiting += b"".join(self._next) + self._end(usage)
        else:
            self.body = self._whole(usage)
        self._end_all()

    def forsake(self) -> None:
        """Nobody reads any more: from now on nothing waits for the client."""
        self._unread = True
        self._waiting.clear()
        self._drained.set()

    def fail(self, error: ApiError) -> None:
        """The answer can't be had, or not to its end; `error` is the last thing the client sees."""
        self.error = error
        if self.shown:
            self._waiting += b"data: " + _encode(error.body(self._request_id)) + b"\n\n"
        self._end_all()

    # What it is, for commitments

    @property
    def size(self) -> int:
        """Bytes of text so far."""
        return self._aggregator.size

    @property
    def complete(self) -> bool:
        """Whether every choice has come to its end."""
        return self._aggregator.complete

    @property
    def append_only(self) -> bool:
        """Whether the text only ever grew at its end."""
        return self._aggregator.append_only

    @property
    def continuable(self) -> bool:
        """Whether another node could go on from here: nothing but one choice's content so far."""
        return self._demand.request.continuable and self._aggregator.plain and not self._spoiled

    def text(self) -> bytes:
        """The text so far."""
        return self._aggregator.text()

    def choices(self) -> list[dict[str, object]]:
        """The canonical choices so far."""
        return self._aggregator.choices()

    def whole(self, output_tokens: int) -> bytes:
        """The finished answer as one JSON body, however it was asked for."""
        return _encode(self._whole(self._usage(output_tokens)))

    # Read by the client's side

    async def parts(self) -> AsyncGenerator[bytes]:
        """Server-sent events as they come, many at once where many wait."""
        while True:
            if self._waiting:
                part = bytes(self._waiting)
                self._waiting.clear()
                self._drained.set()
                yield part
            elif self.over.is_set():
                return
            else:
                self._news = trio.Event()
                await self._news.wait()

    def _end_all(self) -> None:
        self.over.set()
        self.begun.set()
        self._drained.set()
        self._wake()

    def _wake(self) -> None:
        self._news.set()

    def _envelope(self, kind: str) -> bytes:
        return _encode(
            {
                "id": f"chatcmpl-{self._request_id}",
                "object": kind,
                "created": self._created_s,
                "model": self._demand.model.name,
            }
        )

    def _show(self, event: bytes) -> None:
        """Queue an event's choices as a chunk of ours, without their finish."""
        shown = []
        for choice in _decode(event).get("choices") or ():
            index = choice.get("index", 0)
            delta = self._delta(index, choice.get("delta") or choice.get("message") or {})
            logprobs = choice.get("logprobs")
            if logprobs:
                self._keep_logprobs(index, logprobs)
            if delta or logprobs:
                part = {"index": index, "delta": delta, "finish_reason": None}
                shown.append(part | ({"logprobs": logprobs} if logprobs else {}))
        if shown and self._demand.streams:
            self._next.append(self._head + _encode(shown) + b"}\n\n")

    def _delta(self, index: int, raw: dict[str, Any]) -> dict[str, Any]:
        """The members that count; the role once only, whoever goes on with the answer."""
        delta = {name: raw[name] for name in raw.keys() & _DELTA if raw[name] is not None}
        if "role" in delta:
            if index in self._told_role:
                del delta["role"]
            self._told_role.add(index)
        return delta

    def _keep_logprobs(self, index: int, logprobs: object) -> None:
        if not isinstance(logprobs, dict):
            raise BadResponse("logprobs are an object")
        kept = self._logprobs.setdefault(index, {})
        for name in ("content", "refusal"):
            found = logprobs.get(name)
            if isinstance(found, list):
                kept.setdefault(name, []).extend(found)

    def _end(self, usage: dict[str, int]) -> bytes:
        """Finish reasons, usage where asked for, and the end mark; the last has the request id."""
        closing = [
            {"index": c["index"], "delta": {}, "finish_reason": c["finish_reason"]}
            for c in self.choices()
        ]
        tail = b',"request_id":' + _encode(self._request_id) + b"}\n\n"
        last = self._head + _encode(closing)
        if self._demand.wants_usage:
            counted = self._head + b'[],"usage":' + _encode(usage)
            return last + b"}\n\n" + counted + tail + b"data: [DONE]\n\n"
        return last + tail + b"data: [DONE]\n\n"

    def _usage(self, output_tokens: int) -> dict[str, int]:
        return {
            "prompt_tokens": self._demand.prompt_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": self._demand.prompt_tokens + output_tokens,
        }

    def _whole(self, usage: dict[str, int]) -> dict[str, object]:
        choices = []
        for choice in self.choices():
            message = {"role": "assistant", "content": None, "refusal": None}
            found = choice["message"]
            assert isinstance(found, dict)
            index = choice["index"]
            assert isinstance(index, int)
            choices.append(
                {
                    "index": index,
                    "message": message | found,
                    "finish_reason": choice["finish_reason"],
                    "logprobs": self._logprobs.get(index),
                }
            )
        head: dict[str, object] = _decode(self._envelope("chat.completion"))
        return head | {"choices": choices, "usage": usage, "request_id": self._request_id}
