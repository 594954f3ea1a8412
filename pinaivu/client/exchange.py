"""What an SDK sent and what it was given, as far as it can be verified: no input or output.

What is checked must be what the application reads. So nothing of an answer is passed on as it came:
every event and every body is parsed once and written anew, and a stream's end is held back.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from pinaivu.client.errors import AnswerRefuted, ReceiptMissing
from pinaivu.codes import JobKind
from pinaivu.encoding import parse_json
from pinaivu.errors import InvalidEncoding
from pinaivu.openai import Aggregator, BadResponse
from pinaivu.openai.requests import MAX_CHOICES

KINDS: Final = {
    "/chat/completions": JobKind.CHAT,
    "/completions": JobKind.COMPLETION,
    "/embeddings": JobKind.EMBEDDING,
}
DONE: Final = b"data: [DONE]\n\n"
_MOST_EVENT_BYTES: Final = 8 << 20
_decode: Final = msgspec.json.Decoder().decode
encode: Final = msgspec.json.Encoder().encode


class Asked(Struct, frozen=True, kw_only=True):
    """A request as it was sent: `api` is the URL of ``…/v1``."""

    kind: JobKind
    body: dict[str, Any]
    api: str
    sent_ms: int


class Given(Struct, frozen=True, kw_only=True):
    """The answer to it: its choices as an SDK has them, and the id it names."""

    request_id: str
    response: dict[str, Any]


def read_asked(url: str, content: bytes, sent_ms: int) -> Asked | None:
    """A request that can be verified; None for one of another kind, or that is none."""
    suffix = next((suffix for suffix in KINDS if url.endswith(suffix)), None)
    if suffix is None:
        return None
    try:
        body = parse_json(content)
    except InvalidEncoding:
        return None
    if not isinstance(body, dict):
        return None
    return Asked(kind=KINDS[suffix], body=body, api=url.removesuffix(suffix), sent_ms=sent_ms)


def read_given(content: bytes) -> tuple[Given, bytes]:
    """A whole answer and the bytes to pass on; `AnswerRefuted` for what is none."""
    found = _object(content)
    return Given(request_id=_request_id(found), response=found), encode(found)


class Stream:
    """A streamed answer: what may be passed on as it comes, and what only after verification.

    From the first finish reason on, events are held back: an application that reads a finish
    reason may take the answer for whole.
    """

    def __init__(self, asked: Asked) -> None:
        self._aggregator = Aggregator(asked.kind, MAX_CHOICES)
        self._buffer = b""
        self._held: list[bytes] = []
        self._request_id = ""
        self._ended = False
        self.broken = False
        """Whether the gateway itself said that the answer is not to be had."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the stream; what may be passed on now. `AnswerRefuted` for nonsense."""
        self._buffer = (self._buffer + data).replace(b"\r\n", b"\n")
        *events, self._buffer = self._buffer.split(b"\n\n")
        if len(self._buffer) > _MOST_EVENT_BYTES:
            raise AnswerRefuted("an event of the stream does not end")
        return b"".join(self._event(event) for event in events)

    def given(self) -> Given:
        """The whole answer; `ReceiptMissing` where the stream just stopped."""
        if not self._ended:
            raise ReceiptMissing("the stream broke off before its end; send the request again")
        if not self._request_id:
            raise ReceiptMissing("the answer names no request_id, so no receipt can be asked for")
        response = {"choices": self._aggregator.choices()}
        return Given(request_id=self._request_id, response=response)

    def rest(self) -> bytes:
        """What was held back, to be passed on once the answer is verified."""
        return b"".join(self._held) + DONE

    def _event(self, event: bytes) -> bytes:
        lines = event.split(b"\n")
        data = b"\n".join(line[5:].lstrip(b" ") for line in lines if line.startswith(b"data:"))
        if not data or self._ended:
            return b""
        if data == b"[DONE]":
            self._ended = True
            return b""
        found = _object(data)
        written = b"data: " + encode(found) + b"\n\n"
        if found.get("error"):
            self.broken = True
            return written
        return self._chunk(found, written)

    def _chunk(self, found: dict[str, Any], written: bytes) -> bytes:
        try:
            self._aggregator.add(found)
        except BadResponse as error:
            raise AnswerRefuted(str(error)) from error
        self._request_id = found.get("request_id") or self._request_id
        if self._held or self._aggregator.finish_reason:
            self._held.append(written)
            return b""
        return written


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = _decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AnswerRefuted(f"the answer is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise AnswerRefuted("the answer is no JSON object")
    return found


def _request_id(found: dict[str, Any]) -> str:
    request_id = found.get("request_id")
    if not isinstance(request_id, str) or not request_id:
        raise ReceiptMissing("the answer names no request_id, so no receipt can be asked for")
    return request_id
