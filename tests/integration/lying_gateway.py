"""A gateway that answers what it is told to: real HTTP, made-up network, whatever bundle it likes.

Answer and bundle are of one `BundleFactory` request, so that the truth verifies; a test changes
the answer on its way, or hands out another bundle, or none.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

from pinaivu.testing.bundles import Made

Json = dict[str, Any]


def _same(answer: Json) -> Json:
    return answer


def _as_written(content: bytes) -> bytes:
    return content


@dataclass
class LyingGateway:
    """What the next requests get. `not_yet`: how many times a bundle is still to come.

    `tell` changes an answer, `spell` the bytes of a whole one or of each event.
    """

    made: Made
    tell: Callable[[Json], Json] = _same
    spell: Callable[[bytes], bytes] = _as_written
    bundle: bytes = b""
    bundle_status: int = 200
    not_yet: int = 0
    breaks_off: bool = False
    ends: bytes = b"data: [DONE]\n\n"
    pieces: int = 7
    url: str = ""
    asked: list[Json] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    @property
    def request_id(self) -> str:
        """The made-up request's id."""
        return str(UUID(bytes=self.made.served.request.job.message.job_id))

    @property
    def body(self) -> Json:
        """What has to be asked for the bundle to be of it; streaming is no part of that."""
        body = dict(self.made.served.request.body)
        del body["stream"]
        return body

    def answer(self) -> Json:
        """The whole answer, as told."""
        copies = self.made.copies.response
        assert copies is not None
        envelope = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
        return self.tell({**envelope, **copies, "request_id": self.request_id})

    def events(self) -> Iterator[bytes]:
        """The same as a stream of chunks, the text cut into pieces of odd lengths."""
        told = self.answer()
        (choice,) = told["choices"]
        text, head = choice["message"]["content"], {"object": "chat.completion.chunk"}
        cuts = range(0, len(text), self.pieces)
        deltas: list[Json] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": text[cut : cut + self.pieces]} for cut in cuts]
        for delta in deltas:
            yield _event(told | head | {"choices": [_choice(delta, None)]}, "request_id")
        yield _event(told | head | {"choices": [_choice({}, choice["finish_reason"])]})


def _choice(delta: Json, finish: str | None) -> Json:
    return {"index": 0, "delta": delta, "finish_reason": finish}


def _event(chunk: Json, *without: str) -> bytes:
    kept = {name: value for name, value in chunk.items() if name not in without}
    return b"data: " + json.dumps(kept).encode() + b"\n\n"


@contextmanager
def serving(gateway: LyingGateway) -> Iterator[LyingGateway]:
    """Serve it on loopback while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            gateway.asked.append(body)
            if body.get("stream"):
                self._stream()
            else:
                content = gateway.spell(json.dumps(gateway.answer()).encode())
                self._send(200, "application/json", content)

        def do_GET(self) -> None:
            gateway.fetched.append(self.headers.get("authorization", ""))
            assert self.path == f"/v1/receipts/{gateway.answer()['request_id']}/bundle"
            if gateway.not_yet:
                gateway.not_yet -= 1
                self._send(202, "application/json", b"{}")
            else:
                kind = "application/octet-stream"
                self._send(gateway.bundle_status, kind, gateway.bundle or gateway.made.raw)

        def _send(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream; charset=utf-8")
            self.send_header("connection", "close")
            self.end_headers()
            for event in gateway.events():
                self.wfile.write(b": heartbeat\n\n" + gateway.spell(event))
                self.wfile.flush()
            if not gateway.breaks_off:
                self.wfile.write(gateway.ends)

        def log_message(self, *_arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    gateway.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
