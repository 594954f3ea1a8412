"""The gateway bench's client: one HTTP connection, one stream after the other, times and counts.

    async with connect(port) as connection:
        seen = await connection.ask(request_bytes(...))

It is as lean as it can be and the same for every arm: it looks at bytes, and parses nothing.
"""

import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import trio

_TEXT: Final = re.compile(rb'"content":\s?"[^"]')
_EVENT: Final = re.compile(rb"data:\s?\{")
_END: Final = b"\r\n0\r\n\r\n"
_DONE: Final = b"[DONE]"
_READ: Final = 256 << 10


class BadAnswer(Exception):
    """A server answered something else than a whole stream."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One stream: seconds to the first text and to the end, and how many events it had."""

    first_s: float
    total_s: float
    events: int


class Connection:
    """A kept-open connection to one server."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def ask(self, request: bytes) -> Seen:
        """Send a request and read its stream to the end; `BadAnswer` for anything else."""
        began = time.perf_counter()
        await self._stream.send_all(request)
        raw, first = bytearray(), 0.0
        while not raw.endswith(_END):
            some = await self._stream.receive_some(_READ)
            if not some:
                raise BadAnswer(f"the connection ended: {bytes(raw[-500:])!r}")
            if not raw and b" 200 " not in some[:16]:
                raise BadAnswer(bytes(some[:800]).decode(errors="replace"))
            raw += some
            if not first and _TEXT.search(raw):
                first = time.perf_counter() - began
        total = time.perf_counter() - began
        if not first or _DONE not in raw[-200:]:
            raise BadAnswer(f"no whole stream: {bytes(raw[-500:])!r}")
        return Seen(first, total, len(_EVENT.findall(raw)))


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Connection]:
    """A connection to a port of this machine."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        yield Connection(stream)


def request_bytes(key: str, body: dict[str, Any]) -> bytes:
    """A POST of a chat completion."""
    raw = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n"
        f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw
