"""An engine as a process of its own: it pours out one long answer and says how far it got.

    python -m tests.integration.pouring_engine [--events N] [--bytes B] [--hold N]

It prints its port. Each event brings one token and B bytes of log probabilities; `--hold`: after N
events it says nothing more. GET /stats tells how many requests have come, how many bytes of the
answers were taken from it, how many answers were whole, and how many connections were closed on it
in mid-answer. What it can't see is why.
"""

import argparse
import sys
from contextlib import suppress
from functools import partial
from typing import Final

import h11
import msgspec
import trio

TOKEN: Final = " lit"
"""What each event says: one token of the tests' tokenizer, alone and repeated."""

_SOCKET_BUFFER: Final = 64 << 10


class PouringEngine:
    """The server; `events` of `size` bytes each."""

    def __init__(self, events: int, size: int, hold: int | None) -> None:
        self._events = events
        self._hold = hold
        logprob = {"token": TOKEN.ljust(size, "."), "logprob": -0.5, "bytes": None}
        choice = {"index": 0, "delta": {"content": TOKEN}, "finish_reason": None}
        self._event = _event(choice | {"logprobs": {"content": [logprob | {"top_logprobs": []}]}})
        self.stats = {"requests": 0, "taken": 0, "whole": 0, "closed": 0}

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one request on a connection."""
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, _SOCKET_BUFFER)
        http = h11.Connection(h11.SERVER)
        async with stream:
            if await _target(stream, http) == b"/stats":
                raw = msgspec.json.encode(self.stats)
                await _send(stream, http, h11.Response(status_code=200, headers=_length(raw)))
                await _send(stream, http, h11.Data(data=raw), h11.EndOfMessage())
                return
            self.stats["requests"] += 1
            head = [("content-type", "text/event-stream")]
            await _send(stream, http, h11.Response(status_code=200, headers=head))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._notice_end, stream, nursery.cancel_scope)
                try:
                    await self._pour(stream, http)
                except trio.BrokenResourceError:
                    self.stats["closed"] += 1
                nursery.cancel_scope.cancel()

    async def _pour(self, stream: trio.SocketStream, http: h11.Connection) -> None:
        for number in range(self._events):
            if number == self._hold:
                await trio.sleep_forever()
            await _send(stream, http, h11.Data(data=self._event))
            self.stats["taken"] += len(self._event)
        last = _event({"index": 0, "delta": {}, "finish_reason": "stop"}) + b"data: [DONE]\n\n"
        await _send(stream, http, h11.Data(data=last), h11.EndOfMessage())
        self.stats["whole"] += 1

    async def _notice_end(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        """The client closed its connection; a broken write may tell first, so once only."""
        with suppress(trio.BrokenResourceError):
            await stream.receive_some(1)
        if not scope.cancel_called:
            self.stats["closed"] += 1
        scope.cancel()


def _event(choice: dict[str, object]) -> bytes:
    return b"data: " + msgspec.json.encode({"choices": [choice]}) + b"\n\n"


def _length(raw: bytes) -> list[tuple[str, str]]:
    return [("content-length", str(len(raw)))]


async def _send(stream: trio.SocketStream, http: h11.Connection, *parts: h11.Event) -> None:
    await stream.send_all(b"".join(http.send(part) or b"" for part in parts))


async def _target(stream: trio.SocketStream, http: h11.Connection) -> bytes:
    """The request's target, once all of the request is there."""
    target = b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Request):
            target = event.target
        elif isinstance(event, h11.EndOfMessage):
            return target


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--hold", type=int)
    chosen = parser.parse_args()
    engine = PouringEngine(chosen.events, chosen.bytes, chosen.hold)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, engine.serve, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        sys.stdout.write(f"{listeners[0].socket.getsockname()[1]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main)
