"""The engine client against scripted servers on loopback: what is whole, what is not, and when."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from node.engines.client import PATHS, EngineClient, EngineLoad, Patience
from node.engines.errors import (
    EngineBrokeOff,
    EngineRefused,
    EngineTimedOut,
    EngineUnreachable,
    EngineUnusable,
)
from node.engines.spec import GaugeNames
from pinaivu.codes import JobKind
from pinaivu.errors import TransportFailure

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
QUICK = Patience(connect_s=1, answer_s=0.2, first_token_s=0.2, token_s=0.2)
Handler = Callable[[trio.SocketStream], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(payload: str) -> bytes:
    return chunk(f"data: {payload}\n\n".encode())


def answer(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def read_request(stream: trio.SocketStream) -> bytes:
    """A whole request with its body."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += await stream.receive_some()
    head, _, body = raw.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-le")
    )
    while len(body) < length:
        body += await stream.receive_some()
    return head + b"\r\n\r\n" + body


@asynccontextmanager
async def serving(handler: Handler, patience: Patience = QUICK) -> AsyncIterator[EngineClient]:
    async def one(stream: trio.SocketStream) -> None:
        async with stream:
            await handler(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, one, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        yield EngineClient(f"http://127.0.0.1:{port}/prefix", patience=patience, api_key="k3y")
        nursery.cancel_scope.cancel()


def saying(*parts: bytes) -> Handler:
    """Answer a request with these writes, each once the one before has left."""

    async def handler(stream: trio.SocketStream) -> None:
        await read_request(stream)
        for part in parts:
            await stream.send_all(part)

    return handler


async def collected(client: EngineClient, into: list[list[bytes]] | None = None) -> list[bytes]:
    batches = [] if into is None else into
    async with client.stream(JobKind.CHAT, b"{}") as events:
        async for batch in events:
            batches.append(batch)  # what came before an error is wanted
    return [payload for batch in batches for payload in batch]


async def test_a_stream_ends_at_done() -> None:
    async with serving(saying(HEAD, event("1"), event("2"), event("[DONE]"), END)) as client:
        assert await collected(client) == [b"1", b"2"]


async def test_events_of_one_read_are_one_batch() -> None:
    """HTTP chunks are drained before anything is given: else nothing coalesces."""
    whole = HEAD + b"".join(event(str(n)) for n in range(50)) + event("[DONE]") + END
    batches: list[list[bytes]] = []
    async with serving(saying(whole)) as client:
        await collected(client, batches)
    assert batches == [[str(n).encode() for n in range(50)]]


async def test_an_error_that_is_all_of_the_answer_is_a_refusal() -> None:
    """VLLM looks at some parameters when it has begun a stream: 200, then what is wrong."""
    refusal = b'{"error":{"message":"no such token","code":400}}'
    async with serving(saying(HEAD, event(refusal.decode()), END)) as client:
        with pytest.raises(EngineRefused) as caught:
            await collected(client)
    assert (caught.value.status, caught.value.body) == (400, refusal)


@pytest.mark.parametrize(
    "events",
    [
        ['{"error":{"message":"out of memory","code":500}}'],
        ['{"error":{"message":"no such token","code":"400 or so"}}'],
        ['{"error":"no such token"}'],
        ["1", '{"error":{"message":"too long now","code":400}}'],
    ],
    ids=["the engine's fault", "no status", "no code", "behind an event"],
)
async def test_any_other_error_event_is_an_answer_broken_off(events: list[str]) -> None:
    async with serving(saying(HEAD, *map(event, events), END)) as client:
        with pytest.raises(EngineBrokeOff):
            await collected(client)


async def test_what_came_before_an_error_is_given_first() -> None:
    """Also where both are in one read: the words are the client's, and are paid for."""
    whole = HEAD + event("1") + event("2") + event('{"error":{"message":"out of memory"}}')
    batches: list[list[bytes]] = []
    async with serving(saying(whole)) as client:
        with pytest.raises(EngineBrokeOff, match="out of memory"):
            await collected(client, batches)
    assert batches == [[b"1", b"2"]]


@pytest.mark.parametrize("kind", JobKind)
async def test_each_kind_has_its_path(kind: JobKind) -> None:
    seen: list[bytes] = []

    async def handler(stream: trio.SocketStream) -> None:
        seen.append(await read_request(stream))
        await stream.send_all(answer("200 OK", b'{"data":[{"index":0,"embedding":[1.0]}]}'))

    async with serving(handler) as client, client.stream(kind, b"{}") as events:
        if kind == JobKind.EMBEDDING:
            found = [event async for batch in events for event in batch]
            assert found[0] == b'{"data":[{"index":0,"embedding":"AACAPw=="}]}'
    assert seen[0].startswith(f"POST /prefix{PATHS[kind]} ".encode())


async def test_the_request_carries_path_prefix_length_and_key() -> None:
    seen: list[bytes] = []

    async def handler(stream: trio.SocketStream) -> None:
        seen.append(await read_request(stream))
        await stream.send_all(HEAD + event("[DONE]"))

    async with serving(handler) as client, client.stream(JobKind.CHAT, b'{"a":1}') as events:
        assert [batch async for batch in events] == []
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /prefix/v1/chat/completions HTTP/1.1\r\n")
    assert b"\r\nauthorization: Bearer k3y" in head
    assert b"\r\ncontent-length: 7" in head
    assert body == b'{"a":1}'


async def test_a_refusal_is_raised_on_entering_with_status_and_body() -> None:
    async with serving(saying(answer("400 Bad Request", b'{"error":"long"}'))) as client:
        with pytest.raises(EngineRefused, match="long") as caught:
            await collected(client)
    assert (caught.value.status, caught.value.body) == (400, b'{"error":"long"}')


async def test_a_long_refusal_is_cut() -> None:
    async with serving(saying(answer("500 No", b"x" * 200_000))) as client:
        with pytest.raises(EngineRefused) as caught:
            await collected(client)
    assert len(caught.value.body) == 64 << 10


@pytest.mark.parametrize(
    "parts",
    [
        [HEAD, event("1")],
        [HEAD, event("1"), END],
        [HEAD, event("1"), chunk(b"data: 2")],
        [HEAD, event("1"), b"zz\r\n"],
        [HEAD, event("1"), event('{"error":{"message":"out of memory"}}'), event("[DONE]"), END],
    ],
    ids=["connection closed", "no [DONE]", "cut event", "no chunk", "error event before [DONE]"],
)
async def test_a_stream_that_ends_otherwise_is_no_answer(parts: list[bytes]) -> None:
    batches: list[list[bytes]] = []
    async with serving(saying(*parts)) as client:
        with pytest.raises(EngineBrokeOff):
            await collected(client, batches)
    assert batches in ([[b"1"]], [])  # in one read with its end, the batch is lost with it


async def test_comments_do_not_count_as_progress() -> None:
    """Llama.cpp sends them to keep the connection alive while it says nothing."""

    async def handler(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(HEAD)
        while True:
            await stream.send_all(chunk(b": ping\n\n"))
            await trio.sleep(0.02)

    with trio.fail_after(5):
        async with serving(handler) as client:
            with pytest.raises(EngineTimedOut):
                await collected(client)


@pytest.mark.parametrize("parts", [[], [HEAD], [HEAD, event("1")]])
async def test_silence_is_bounded_at_every_stage(parts: list[bytes]) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        await saying(*parts)(stream)
        await trio.sleep_forever()

    with trio.fail_after(5):
        async with serving(handler) as client:
            with pytest.raises(EngineTimedOut):
                await collected(client)


async def test_time_that_the_caller_takes_is_not_the_engine_s(autojump_clock: object) -> None:
    """A node that waits for a customer's acknowledgement must not blame its engine."""
    del autojump_clock
    patience = Patience(first_token_s=1, token_s=1)
    parts = [HEAD + event("1"), event("2"), event("[DONE]")]
    proceed = trio.Event()

    async def handler(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(parts[0])
        await proceed.wait()
        await stream.send_all(parts[1] + parts[2])

    async with serving(handler, patience) as client, client.stream(JobKind.CHAT, b"{}") as events:
        assert await anext(events) == [b"1"]
        await trio.sleep(50)
        proceed.set()
        assert await anext(events) == [b"2"]


@pytest.mark.parametrize("how", ["left", "cancelled"])
async def test_leaving_closes_the_connection_at_once(how: str) -> None:
    """That is how the engine learns to free the slot."""
    closed = trio.Event()

    async def handler(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(HEAD + event("1"))
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        closed.set()

    async with serving(handler, Patience()) as client:
        with trio.CancelScope() as scope:
            async with client.stream(JobKind.CHAT, b"{}") as events:
                await anext(events)
                if how == "cancelled":
                    scope.cancel()
                    await trio.sleep_forever()
        with trio.fail_after(5):
            await closed.wait()


async def test_a_connection_that_dies_before_the_first_byte_is_tried_once_more() -> None:
    tries = 0

    async def handler(stream: trio.SocketStream) -> None:
        nonlocal tries
        tries += 1
        await read_request(stream)
        if tries == 2:
            await stream.send_all(HEAD + event("1") + event("[DONE]") + END)

    async with serving(handler) as client:
        assert await collected(client) == [b"1"]
    assert tries == 2


@pytest.mark.parametrize(
    ("first_bytes", "tried", "error"),
    [(b"", 2, EngineUnreachable), (b"H", 1, EngineBrokeOff), (HEAD, 1, EngineBrokeOff)],
)
async def test_after_the_first_byte_nothing_is_tried_again(
    first_bytes: bytes, tried: int, error: type[TransportFailure]
) -> None:
    tries = 0

    async def handler(stream: trio.SocketStream) -> None:
        nonlocal tries
        tries += 1
        await saying(first_bytes)(stream)

    async with serving(handler) as client:
        with pytest.raises(error):
            await collected(client)
    assert tries == tried


async def test_nobody_listening_is_unreachable() -> None:
    with pytest.raises(EngineUnreachable, match="no connection"):
        await EngineClient("http://127.0.0.1:1").get("/health")


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://h", "http://", ""])
def test_an_address_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(EngineUnusable, match="URL"):
        EngineClient(url)


async def test_models_are_listed_by_id() -> None:
    body = json.dumps({"data": [{"id": "a"}, {"id": "b"}]}).encode()
    async with serving(saying(answer("200 OK", body))) as client:
        assert await client.models() == ["a", "b"]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data":[1]}', b"<html>"])
async def test_a_stranger_s_list_of_models_is_refused(body: bytes) -> None:
    async with serving(saying(answer("200 OK", body))) as client:
        with pytest.raises(EngineUnusable, match="models"):
            await client.models()


async def test_gauges_are_summed_over_their_labels() -> None:
    text = b'# TYPE e:run gauge\ne:run{g="0"} 2.0\ne:run{g="1"} 1.0\ne:run_total 9\ne:wait 4\n'
    async with serving(saying(answer("200 OK", text))) as client:
        assert await client.load(GaugeNames("e:run", "e:wait")) == EngineLoad(3, 4)


async def test_a_short_answer_that_never_ends_is_refused() -> None:
    async def handler(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(HEAD)
        try:
            while True:
                await stream.send_all(chunk(b"x" * 65536))
        except trio.BrokenResourceError:
            pass

    async with serving(handler, Patience()) as client:
        with pytest.raises(EngineBrokeOff, match="longer than"):
            await client.get("/metrics")
