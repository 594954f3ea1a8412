"""Bodies of requests: how much is read, how long it is waited for, and what a refusal leaves."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.errors import ApiError
from gateway.http.bodies import LINGER_BYTES, LINGER_S, WITHIN_S, Lingering, read_body


@dataclass
class Client:
    """A client that sends `parts` of `size` bytes, one every `pause` seconds; and what it got."""

    parts: int
    size: int = 10
    pause: float = 0
    leaves: bool = False
    sent: int = 0
    got: list[Message] = field(default_factory=list)

    async def receive(self) -> Message:
        """The next part."""
        await trio.sleep(self.pause)
        if self.sent == self.parts:
            assert self.leaves, "nothing was left to read"
            return {"type": "http.disconnect"}
        self.sent += 1
        more = self.leaves or self.sent < self.parts
        return {"type": "http.request", "body": bytes(self.size), "more_body": more}

    async def send(self, message: Message) -> None:
        """Keep what it got."""
        self.got.append(message)

    def request(self, **headers: str) -> Request:
        """Its request, not read yet."""
        raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
        return Request({"type": "http", "headers": raw}, self.receive)

    async def ask(self, app: Callable[[Scope, Receive, Send], Any]) -> None:
        """Have `app` answer."""
        await Lingering(app)({"type": "http"}, self.receive, self.send)

    @property
    def answer(self) -> bytes:
        """The answer's body, once it has ended."""
        *_, last = [message.get("more_body", False) for message in self.got]
        assert not last
        return b"".join(message.get("body", b"") for message in self.got[1:])


no = PlainTextResponse("no")


async def test_a_body_is_read_up_to_the_limit_and_no_further() -> None:
    client = Client(100)
    with pytest.raises(ApiError, match="larger than 25 bytes"):
        await read_body(client.request(), 25)
    assert client.sent == 3
    with pytest.raises(ApiError, match="larger than 25 bytes"):
        await read_body(client.request(content_length="26"), 25)
    assert client.sent == 3
    assert len(await read_body(Client(100).request(content_length="1000"), 1000)) == 1000


async def test_who_leaves_is_no_fault_of_the_gateways() -> None:
    with pytest.raises(ApiError) as caught:
        await read_body(Client(3, leaves=True).request(), 1000)
    assert caught.value.status == 499


async def test_a_body_that_trickles_is_refused_in_time(autojump_clock: MockClock) -> None:
    with pytest.raises(ApiError, match="longer than 60 s") as caught:
        await read_body(Client(100, pause=1).request(), 1000)
    assert caught.value.status == 408
    assert autojump_clock.current_time() == pytest.approx(WITHIN_S)


async def test_the_answer_is_there_before_the_rest_is_read(
    autojump_clock: MockClock,  # noqa: ARG001 - the rest comes at once
) -> None:
    client = Client(5, pause=0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.ask, no)
        await wait_all_tasks_blocked()
        assert [message.get("body") for message in client.got] == [None, b"no"]
    assert (client.answer, client.sent) == (b"no", 5)


@pytest.mark.parametrize(
    ("client", "sent", "seconds"),
    [
        (Client(10**9, size=LINGER_BYTES // 4), 5, 0),
        (Client(10**9, pause=1), 4, LINGER_S),
        (Client(3, pause=1, leaves=True), 3, 4),
    ],
    ids=["bytes", "seconds", "gone"],
)
async def test_the_rest_is_read_within_bounds(
    client: Client, sent: int, seconds: float, autojump_clock: MockClock
) -> None:
    await client.ask(no)
    assert (client.answer, client.sent) == (b"no", sent)
    assert autojump_clock.current_time() == pytest.approx(seconds)


async def test_an_answer_to_a_whole_request_waits_for_nothing() -> None:
    client = Client(3)

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(Request({**scope, "headers": []}, receive), 1000)
        await PlainTextResponse(body)(scope, receive, send)

    await client.ask(echo)
    assert client.answer == bytes(30)
    assert [message.get("more_body") for message in client.got] == [None, None]
