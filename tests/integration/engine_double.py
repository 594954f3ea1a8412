"""A stand-in for an engine, for the supervisor's tests: the endpoints, no model.

    python engine_double.py [OPTIONS] --port N

`--fail` writes TEXT and ends with 3; `--hang` never answers; `--refuse` is healthy and fails every
completion; `--ignore-term` survives SIGTERM; `--worker` starts a process of its own that sleeps for
ever, and writes its id to FILE. GET `/mute` makes it stop answering, GET `/exit` ends it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ANSWER = {"choices": [{"message": {"content": "x"}}], "usage": {"completion_tokens": 1}}


class Handler(BaseHTTPRequestHandler):
    """The endpoints that a supervisor looks at."""

    refuse = False
    mute = False

    def do_GET(self) -> None:  # noqa: D102
        if self.path == "/exit":
            os._exit(7)
        if self.path == "/mute":
            type(self).mute = True
        if type(self).mute:
            threading.Event().wait()
        elif self.path == "/environ":
            self._send(200, dict(os.environ))
        else:
            self._send(200, {"data": [{"id": "double"}]})

    def do_POST(self) -> None:  # noqa: D102
        self.rfile.read(int(self.headers["content-length"]))
        self._send(500 if self.refuse else 200, ANSWER)

    def _send(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:  # noqa: D102
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("--refuse", "--hang", "--ignore-term"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--fail")
    parser.add_argument("--worker", type=Path)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    if arguments.fail:
        parser.exit(3, f"loading weights\n{arguments.fail}\n")
    if arguments.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if arguments.worker:
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        arguments.worker.write_text(str(worker.pid))
    if arguments.hang:
        time.sleep(3600)
    Handler.refuse = arguments.refuse
    ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
