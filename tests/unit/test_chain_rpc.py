"""The JSON-RPC port against answers a server may give."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import msgspec
import pytest

from pinaivu.chain.errors import ChainUnavailable, RpcRefused
from pinaivu.chain.rpc import BATCH_CALLS, HttpRpc


@contextmanager
def _server(answer: Any, status: int = 200) -> Iterator[HttpRpc]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = msgspec.json.decode(self.rfile.read(int(self.headers["content-length"])))
            said = answer(asked) if callable(answer) else answer
            body = said if isinstance(said, bytes) else msgspec.json.encode(said)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with HttpRpc(f"http://user:hidden@127.0.0.1:{server.server_port}/?key=hidden") as rpc:
            yield rpc
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_result_is_returned() -> None:
    with _server({"jsonrpc": "2.0", "id": 0, "result": "0x1"}) as rpc:
        assert rpc.call("eth_chainId") == "0x1"


def test_an_error_object_is_a_refusal_with_its_data() -> None:
    error = {"code": 3, "message": "execution reverted", "data": "0x08c379a0"}
    with (
        _server({"id": 0, "error": error}) as rpc,
        pytest.raises(RpcRefused, match="execution reverted") as caught,
    ):
        rpc.call("eth_call")
    assert (caught.value.code, caught.value.data) == (3, "0x08c379a0")


def test_an_error_object_under_an_http_error_status_is_still_read() -> None:
    error = {"code": -32000, "message": "too many requests"}
    with (
        _server({"id": 0, "error": error}, status=429) as rpc,
        pytest.raises(RpcRefused, match="too many requests"),
    ):
        rpc.call("eth_call")


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"id": 0, "result"', b"[]"])
def test_what_is_no_json_rpc_is_unavailability(body: bytes) -> None:
    with _server(body) as rpc, pytest.raises(ChainUnavailable):
        rpc.call("eth_call")


def test_an_http_error_names_the_status() -> None:
    with _server(b"gone", status=502) as rpc, pytest.raises(ChainUnavailable, match="502"):
        rpc.call("eth_call")


def test_a_dead_endpoint_is_unavailability_and_no_secret_of_its_url_is_shown() -> None:
    """Credentials in the URL stay out of messages."""
    with _server({}) as rpc:
        pass
    with (
        HttpRpc("http://user:hidden@127.0.0.1:1/?key=hidden") as rpc,
        pytest.raises(ChainUnavailable, match=r"127\.0\.0\.1:1") as caught,
    ):
        rpc.call("eth_chainId")
    assert "hidden" not in str(caught.value)


def test_answers_to_a_batch_are_sorted_by_id_and_long_batches_are_split() -> None:
    """Servers may answer in any order; large batches go out in groups."""
    sizes = []

    def reverse(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        sizes.append(len(asked))
        return [{"id": a["id"], "result": a["params"][0]} for a in reversed(asked)]

    count = BATCH_CALLS + 7
    with _server(reverse) as rpc:
        assert rpc.batch([("echo", [i]) for i in range(count)]) == list(range(count))
    assert sizes == [BATCH_CALLS, 7]


def test_a_missing_answer_in_a_batch_is_noticed() -> None:
    with (
        _server(lambda asked: [{"id": a["id"], "result": 1} for a in asked[1:]]) as rpc,
        pytest.raises(ChainUnavailable, match="missing"),
    ):
        rpc.batch([("a", []), ("b", [])])


def test_one_error_for_a_whole_batch_is_a_refusal() -> None:
    with (
        _server({"id": None, "error": {"code": -1, "message": "no batches"}}) as rpc,
        pytest.raises(RpcRefused, match="no batches"),
    ):
        rpc.batch([("a", []), ("b", [])])
