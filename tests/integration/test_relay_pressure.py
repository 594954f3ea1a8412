"""From a client's socket to an engine process: who stalls holds all up, who leaves frees them.

Gateway and node are real, the engine is a double and a process of its own, the coordinator is
scripted.
"""

import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import openai
import pytest
import trio

from gateway import exchange
from gateway.answers import Answer
from gateway.outlet import MOST_WAITING
from gateway.relay import Relay
from pinaivu.codes import Finish, Reason, Status
from tests.integration.gateway_support import Network, in_thread, request
from tests.integration.pouring_engine import TOKEN
from tests.integration.real_node import Engine, RealNode, pouring, served

EVENTS: Final = 900
EVENT_BYTES: Final = 14 << 10
WINDOW: Final = 32
SLICE: Final = 64 << 10
ONE_READ: Final = 1 << 20


class Watched:
    """The answers and relays that the gateway makes, for measuring what they hold."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.relays: list[Relay] = []

    @property
    def held(self) -> tuple[int, int]:
        """Bytes that wait for the client, and bytes from the node that nobody has read."""
        (answer,), (relay,) = self.answers, self.relays
        return answer.outlet.waiting, relay._stream._inbox_bytes


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """All that is made in this test."""
    found = Watched()

    def answer(*arguments: Any) -> Answer:
        found.answers.append(Answer(*arguments))
        return found.answers[-1]

    plain = Relay.__init__

    def relay(self: Relay, *arguments: Any) -> None:
        plain(self, *arguments)
        found.relays.append(self)

    monkeypatch.setattr(exchange, "Answer", answer)
    monkeypatch.setattr(Relay, "__init__", relay)
    return found


@contextmanager
def stalling_client(net: Network, **body: Any) -> Generator[socket.socket]:
    """A client that has asked for a stream and reads nothing of it; its own buffer is small."""
    parts = urlsplit(net.url)
    raw = msgspec.json.encode(request(stream=True, **body))
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        f"authorization: Bearer {net.secret}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(raw)}\r\n\r\n"
    )
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 << 10)
        client.settimeout(20)
        client.connect((parts.hostname, parts.port))
        client.sendall(head.encode() + raw)
        yield client


def _rest(client: socket.socket) -> bytes:
    """Everything up to the last of HTTP's chunks."""
    found = bytearray()
    while not found.endswith(b"\r\n0\r\n\r\n"):
        part = client.recv(1 << 20)
        assert part, "the connection was closed in mid-answer"
        found += part
    return bytes(found)


def _node_holds(node: RealNode) -> int:
    """Bytes that the node has from its engine and has not handed to the network."""
    assert node.executor
    (work,) = node.executor._running
    return work._stream._outbox_bytes + sum(map(len, work._held))


async def test_client_that_stalls_stops_the_reading_of_the_engine(
    tmp_path: Path, watched: Watched
) -> None:
    """Everything stands still within bounded memory; when it reads on it gets all of the answer."""
    options = ("--events", str(EVENTS), "--bytes", str(EVENT_BYTES))
    whole = EVENTS * EVENT_BYTES
    with pouring(*options) as engine:
        async with served(tmp_path, engine) as (net, node):
            with stalling_client(net, max_tokens=1900, logprobs=True) as client:
                stopped = await _stand_still(engine, watched)
                waiting, unread = watched.held
                assert stopped["taken"] < whole, "the engine still has a part of it"
                assert MOST_WAITING < waiting < MOST_WAITING + ONE_READ
                window = (WINDOW + 1) * (EVENT_BYTES + 1024) + SLICE
                assert unread <= window
                assert _node_holds(node) <= window
                raw = await in_thread(lambda: _rest(client))
            assert raw.count(b'"content":"%s"' % TOKEN.encode()) == EVENTS
            assert b"data: [DONE]" in raw
            receipt = await net.receipt()
            assert (receipt.status, receipt.segments[0].output_billed) == (Status.COMPLETED, EVENTS)


async def _stand_still(engine: Engine, watched: Watched) -> dict[str, int]:
    """The engine's figures once the client's outlet is full and nothing moves any more."""
    before, same = await engine.until(requests=1), 0
    while same < 5:
        await trio.sleep(0.1)
        now = await engine.stats()
        full = bool(watched.relays) and watched.held[0] > MOST_WAITING
        same = same + 1 if full and now == before else 0
        before = now
    return before


async def test_stream_that_is_closed_closes_the_engines(tmp_path: Path) -> None:
    """Also while the engine says nothing: no next token is waited for."""
    with pouring("--events", "100", "--hold", "40") as engine:
        async with served(tmp_path, engine) as (net, _):

            def read_and_leave() -> str:
                with net.client.chat.completions.create(**request(stream=True)) as stream:
                    said = ""
                    for chunk in stream:
                        said += chunk.choices[0].delta.content or ""
                        if len(said) >= 40 * len(TOKEN):
                            break
                    return said

            assert await in_thread(read_and_leave) == 40 * TOKEN
            figures = await engine.until(closed=1)
            assert (figures["closed"], figures["whole"]) == (1, 0)
            receipt = await net.receipt()
            (segment,) = receipt.segments
            assert (receipt.status, segment.result) == (Status.CANCELLED, Reason.CLIENT_GONE)
            assert (segment.output_billed, segment.output_node) == (WINDOW, 40)
            delivered = net.coordinator.only.completions[0].message
            assert delivered.finish == Finish.CANCELLED


@pytest.mark.parametrize("streams", [True, False], ids=["streaming", "not streaming"])
async def test_client_that_leaves_before_the_first_token_frees_the_engine(
    tmp_path: Path, *, streams: bool
) -> None:
    """While the prompt is being read, too; nothing was accepted, nothing is paid."""
    with pouring("--hold", "0") as engine:
        async with served(tmp_path, engine) as (net, _):

            def give_up() -> None:
                client = net.client.with_options(timeout=1)
                with pytest.raises(openai.APITimeoutError):
                    client.chat.completions.create(**request(stream=streams))

            await in_thread(give_up)
            await engine.until(closed=1)
            receipt = await net.receipt()
            assert (receipt.status, receipt.total) == (Status.CANCELLED, 0)
