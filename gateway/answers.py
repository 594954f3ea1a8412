"""The answer as the client gets it, and as it is committed to: one object, filled by the relay.

Streaming, each engine event becomes a chunk of ours as it comes: own id, model and time, the
engine's `choices` as `forms` cuts them. What says that a choice is over is kept back until the
node's end frame has been checked, so nothing looks whole that isn't. Without streaming the same
events build one body.

The reader may be slower than the node; what waits for it is the outlet's business.
"""

from typing import Any, Final

import msgspec
import trio

from gateway.demands import Demand
from gateway.errors import ApiError
from gateway.forms import form_of
from gateway.outlet import Outlet
from pinaivu.openai import BadResponse, gather

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_encode: Final = msgspec.json.Encoder().encode
_BY_LENGTH: Final = b'{"choices":[{"index":0,"finish_reason":"length"}]}'


class Answer:
    """What has come of one response, and what of it still waits for the client."""

    def __init__(self, demand: Demand, request_id: str, created_s: int) -> None:
        self._demand = demand
        self._next: list[bytes] = []  # chunks of the frame being read
        self._begin()
        self.rename(request_id, created_s)
        self.outlet = Outlet()
        """The way to a client that streams."""
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
        self._more: dict[str, Any] = {"request_id": request_id}  # beside OpenAI's members
        self._head = b"data: " + self._envelope(self._form.chunk_object)[:-1] + b',"choices":'

    # Filled by the relay

    def add(self, event: bytes) -> str:
        """Take one engine event; the text it brought. `BadResponse` for what is none."""
        try:
            text = self._gathered.feed(event)
            self._show()
        except BadResponse:
            self.spoil()
            raise
        return text

    def spoil(self) -> None:
        """What came last is none of the answer: it is never shown, and nobody goes on behind it."""
        self._next.clear()
        self._spoiled = True

    def flush(self) -> None:
        """Hand what `add` brought to the client, once there is any text or call."""
        if self._next and self._gathered.size:
            self._send(b"".join(self._next))
            self._next.clear()

    def begin_silent(self) -> None:
        """Begin the stream before there is a token, so that nobody on the way takes it for dead.

        From now on an error can only be the stream's last event.
        """
        self._send(b": waiting for the first token\n\n")

    def _send(self, events: bytes) -> None:
        self.outlet.write(events)
        self.shown = True
        self.begun.set()

    def restart(self) -> None:
        """Forget an attempt that brought no text, for another node to begin anew."""
        self._next.clear()
        self._begin()

    def end_by_length(self, output_tokens: int) -> bool:
        """Whether a text of so many tokens, by our own count, is as long as it may ever become.

        Then its choice is over: as the engine said, or else by its length.
        """
        over = output_tokens >= self._demand.max_output_tokens
        if not (over and self.size and self.continuable):
            return False
        if not self.complete:
            self._gathered.feed(_BY_LENGTH)
        return True

    def finish(self, output_tokens: int, receipt: dict[str, Any] | None = None) -> None:
        """The answer is whole: show its end, with the summary of its receipt where there is one."""
        if receipt is not None:
            self._more["pinaivu"] = {"receipt": receipt}
        usage = self._usage(output_tokens)
        if self._demand.streams:
            self.outlet.write(b"".join(self._next) + self._end(usage))
        else:
            self.body = self._whole(usage)
        self._end_all()

    def forsake(self) -> None:
        """Nobody reads any more: from now on nothing waits for the client."""
        self.outlet.forsake()

    def fail(self, error: ApiError) -> None:
        """The answer can't be had, or not to its end; `error` is the last thing the client sees."""
        self.error = error
        if self.shown:
            self.outlet.write(b"data: " + _encode(error.body(self._request_id)) + b"\n\n")
        self._end_all()

    # What it is, for commitments

    @property
    def size(self) -> int:
        """Bytes of text so far."""
        return self._gathered.size

    @property
    def complete(self) -> bool:
        """Whether every choice has come to its end."""
        return self._gathered.complete

    @property
    def append_only(self) -> bool:
        """Whether the text only ever grew at its end."""
        return self._gathered.append_only

    @property
    def continuable(self) -> bool:
        """Whether another node could go on from here: nothing but one choice's content so far."""
        return self._demand.request.continuable and self._gathered.plain and not self._spoiled

    def text(self) -> bytes:
        """The text so far."""
        return self._gathered.text()

    def choices(self) -> list[dict[str, object]]:
        """The canonical choices so far."""
        return self._gathered.choices()

    def _begin(self) -> None:
        request = self._demand.request
        self._gathered = gather(request.kind, request.choices)
        self._form = form_of(self._demand)
        self._spoiled = False

    def whole(self, output_tokens: int) -> bytes:
        """The finished answer as one JSON body, however it was asked for."""
        return _encode(self._whole(self._usage(output_tokens)))

    def _end_all(self) -> None:
        self.over.set()
        self.begun.set()
        self.outlet.close()

    def _envelope(self, kind: str) -> bytes:
        return _encode(
            {
                "id": f"{self._form.id_prefix}{self._request_id}",
                "object": kind,
                "created": self._created_s,
                "model": self._demand.model.name,
            }
        )

    def _show(self) -> None:
        """Queue what was taken of an event as a chunk of ours, without its choices' finish."""
        if self._gathered.took_back and self._demand.streams:
            raise BadResponse("reasoning is said anew under another name")
        shown = self._form.shown(self._gathered.taken)
        if shown and self._demand.streams:
            self._next.append(self._head + _encode(shown) + b"}\n\n")

    def _end(self, usage: dict[str, int]) -> bytes:
        """Finish reasons, usage where asked for, and the end mark; the last has the request id."""
        tail = b"," + _encode(self._more)[1:] + b"\n\n"
        last = self._head + _encode(self._form.closing(self.choices()))
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
        head = _decode(self._envelope(self._form.whole_object))
        return self._form.whole(head, self.choices(), usage) | self._more
