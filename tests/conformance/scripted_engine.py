"""A scripted engine as a process: no model, only answers that were written down beforehand.

    python -m tests.conformance.scripted_engine --port N

It speaks the port that vLLM and llama.cpp speak. A request whose `user` names a case must have
exactly the body that the case expects, else it is answered with 400 and kept under `GET /wrong`;
then the case's script is played. Requests without a case (a node's trial and measurement) get as
many words as they ask for.
"""

import argparse
import json
import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from tests.conformance.cases import ENGINE_MODEL, PATHS, by_name, expected_body
from tests.conformance.scripts import Script, refusal, story

_TRIAL_PAUSE_S: Final = 0.05  # a node that got all of it at once could not tell a speed


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wrong: list[str] = []  # noqa: RUF012 - one list for the process

    def do_GET(self) -> None:  # noqa: D102
        found: dict[str, Any] = {
            "/wrong": self.wrong,
            "/v1/models": {"object": "list", "data": [{"id": ENGINE_MODEL, "object": "model"}]},
        }
        self._play(Script((json.dumps(found[self.path]).encode(),)))

    def do_POST(self) -> None:  # noqa: D102
        raw = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(raw)
        self._play(self._script(body.get("user"), body))

    def _script(self, name: str | None, body: dict[str, Any]) -> Script:
        if name is None:
            return self._trial(body)
        case = by_name(name)
        expected = expected_body(case)
        if self.path != PATHS[case.call] or _canonical(body) != _canonical(expected):
            self.wrong.append(
                f"{name} at {self.path}: {_canonical(body)} != {_canonical(expected)}"
            )
            return refusal(400, "not the body that this case expects")
        return case.script

    @staticmethod
    def _trial(body: dict[str, Any]) -> Script:
        tokens = body["max_tokens"]
        if body.get("stream"):
            return story(tokens, pause_s=_TRIAL_PAUSE_S)
        return Script((json.dumps({"usage": {"completion_tokens": tokens}}).encode(),))

    def _play(self, script: Script) -> None:
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send_response(script.status)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for piece in script.pieces:
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                self.wfile.flush()
                time.sleep(script.pause_s)
            if not script.breaks:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass  # the reader has closed: it wants no more
        self.close_connection = True

    def log_message(self, *_: object) -> None:  # noqa: D102
        pass


def _canonical(body: dict[str, Any]) -> str:
    return json.dumps(body, sort_keys=True)


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="scripted_engine")
    parser.add_argument("--port", type=int, required=True)
    ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler).serve_forever()


if __name__ == "__main__":
    main()
