"""A lean HTTP/1.1 client for one engine: streams answers, one batch of events per socket read.

    async with client.stream(JobKind.CHAT, body) as events:
        async for batch in events:          # payloads of `data:` lines, without [DONE]
            ...

Embeddings come whole from an engine and are given in parts of the same kind (see `embeddings`).

A connection serves one request. That costs a fraction of a millisecond on loopback, and leaving
the block closes the connection, which is how an engine learns that nobody listens any more and
frees the slot; an idle connection that the engine closes at the wrong moment can't exist.

The loop ends without an error only if the engine said `[DONE]`, or gave its answer whole. Nothing
in a streamed payload is checked.
"""

import json
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlsplit

import h11
import trio

from node.engines.embeddings import parts
from node.engines.errors import (
    CLIENT_ERRORS,
    EngineBrokeOff,
    EngineRefused,
    EngineTimedOut,
    EngineUnreachable,
    EngineUnusable,
)
from node.engines.spec import GaugeNames
from node.engines.sse import EventDecoder, EventTooLong
from pinaivu.codes import JobKind

_READ_BYTES: Final = 64 << 10
_REFUSAL_BYTES: Final = 64 << 10
_ANSWER_BYTES: Final = 4 << 20
_EMBEDDINGS_BYTES: Final = 64 << 20
PATHS: Final = {
    JobKind.CHAT: "/v1/chat/completions",
    JobKind.COMPLETION: "/v1/completions",
    JobKind.EMBEDDING: "/v1/embeddings",
}
"""Where each kind of request goes."""
_OK: Final = 200
_DONE: Final = b"[DONE]"
_ERROR: Final = b'{"error"'


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait: for a connection, for a short answer, for a first token, for each next."""

    connect_s: float = 5.0
    answer_s: float = 10.0
    first_token_s: float = 120.0
    token_s: float = 30.0


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """Requests an engine works on, and requests that wait for a slot."""

    running: int
    waiting: int


class EngineClient:
    """Speaks to the engine at `url` (`http` or `https`, a path in it is kept as a prefix).

    Every call raises `EngineUnreachable`, `EngineRefused`, `EngineBrokeOff` or `EngineTimedOut`. A
    connection that fails before the first byte of an answer is tried once more, so an engine must
    tolerate seeing a request twice; completions do.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        patience: Patience = Patience(),  # frozen
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EngineUnusable(f"{url!r} is no http or https URL of an engine")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._prefix = parts.path.rstrip("/")
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._patience = patience
        self._headers = [("host", parts.netloc.rpartition("@")[2]), ("connection", "close")]
        if api_key:
            self._headers.append(("authorization", f"Bearer {api_key}"))
        self.url = url

    @asynccontextmanager
    async def stream(self, kind: JobKind, body: bytes) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        """Stream an answer; `body` is the request's JSON, with `"stream": true` where text comes.

        Entering waits for the status, so a refusal is raised here. Leaving, also by cancellation,
        closes the connection at once.
        """
        deadline = trio.current_time() + self._patience.first_token_s
        with _fail_at(deadline):
            exchange = await self._open("POST", PATHS[kind], body)
        try:
            if kind == JobKind.EMBEDDING:
                yield _embeddings(exchange, deadline)
            else:
                yield Events(exchange, deadline, self._patience.token_s)
        finally:
            await exchange.close()

    async def get(self, path: str) -> bytes:
        """The body of a small answer."""
        return await self._request("GET", path, b"", self._patience.answer_s)

    async def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        """The body of the answer to a JSON document, waiting as long as for a first token."""
        raw = json.dumps(body).encode()
        return await self._request("POST", path, raw, self._patience.first_token_s)

    async def models(self) -> list[str]:
        """The names of what the engine serves."""
        try:
            entries = json.loads(await self.get("/v1/models"))["data"]
            return [str(entry["id"]) for entry in entries]
        except (ValueError, LookupError, TypeError) as error:
            raise EngineUnusable(f"{self.url} does not list its models as OpenAI does") from error

    async def load(self, gauges: GaugeNames) -> EngineLoad:
        """What the engine is doing, by its own gauges (Prometheus text, summed over labels)."""
        values = {gauges.running: 0.0, gauges.waiting: 0.0}
        for line in (await self.get("/metrics")).decode(errors="replace").splitlines():
            name, _, value = line.rpartition(" ")
            if (family := name.partition("{")[0]) in values:
                values[family] += float(value)
        return EngineLoad(int(values[gauges.running]), int(values[gauges.waiting]))

    async def _request(self, method: str, path: str, body: bytes, seconds: float) -> bytes:
        with _fail_at(trio.current_time() + seconds):
            exchange = await self._open(method, path, body)
            try:
                return await exchange.read_all(_ANSWER_BYTES)
            finally:
                await exchange.close()

    async def _open(self, method: str, path: str, body: bytes) -> "_Exchange":
        """Send a request until an answer begins; it is a 200."""
        request = h11.Request(
            method=method,
            target=self._prefix + path,
            headers=[
                *self._headers,
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
            ],
        )
        try:
            exchange = await self._begin(request, body)
        except EngineUnreachable:
            exchange = await self._begin(request, body)
        if exchange.status == _OK:
            return exchange
        try:
            raise EngineRefused(exchange.status, await exchange.read_all(_REFUSAL_BYTES, cut=True))
        finally:
            await exchange.close()

    async def _begin(self, request: h11.Request, body: bytes) -> "_Exchange":
        stream = await self._connect()
        exchange = _Exchange(stream)
        try:
            await exchange.send(request, body)
            await exchange.read_status()
        except BaseException:
            await exchange.close()
            raise
        return exchange

    async def _connect(self) -> trio.abc.Stream:
        try:
            with trio.fail_after(self._patience.connect_s):
                stream = await trio.open_tcp_stream(self._host, self._port)
        except (OSError, trio.TooSlowError) as error:
            raise EngineUnreachable(f"no connection to {self.url}: {error}") from error
        if self._tls is None:
            return stream
        return trio.SSLStream(stream, self._tls, server_hostname=self._host, https_compatible=True)


class Events:
    """The batches of one stream; an asynchronous iterator that lives as long as its block."""

    def __init__(self, exchange: "_Exchange", deadline: float, token_s: float) -> None:
        self._exchange = exchange
        self._decoder = EventDecoder()
        self._deadline: float | None = deadline
        self._token_s = token_s
        self._done = False
        self._begun = False  # something of an answer was given
        self._error = b""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[bytes]:
        """The payloads of the next read that holds any. Time that the caller takes is not counted.

        An error that the engine sends inside the stream is `EngineBrokeOff`, behind what came
        before it; `EngineRefused` where it is all that comes and names a status from 400 to 499.
        """
        if self._error:
            raise self._failure()
        if self._done:
            raise StopAsyncIteration
        deadline = self._deadline or trio.current_time() + self._token_s
        self._deadline = None
        with _fail_at(deadline):
            while not (batch := await self._next()):
                pass  # a comment that keeps the connection alive, or a part of an event
        for place, payload in enumerate(batch):
            if payload.startswith(_ERROR):
                self._error = payload
                if place:
                    self._begun = True
                    return batch[:place]
                raise self._failure()
        if batch[-1] == _DONE:
            self._done = True
            batch.pop()
            if not batch:
                raise StopAsyncIteration
        self._begun = True
        return batch

    def _failure(self) -> EngineRefused | EngineBrokeOff:
        if not self._begun and (status := _status(self._error)) in CLIENT_ERRORS:
            return EngineRefused(status, self._error)
        return EngineBrokeOff(f"the engine failed: {self._error[:500].decode(errors='replace')}")

    async def _next(self) -> list[bytes]:
        chunk = await self._exchange.read()
        if chunk is None:
            raise EngineBrokeOff("the engine's stream ended without [DONE]")
        try:
            return self._decoder.feed(chunk)
        except EventTooLong as error:
            raise EngineBrokeOff(f"the engine's stream is no event stream: {error}") from error


def _status(error: bytes) -> int:
    """What an error event gives as its status; 0 where it gives none."""
    try:
        return int(json.loads(error)["error"]["code"])
    except (ValueError, LookupError, TypeError, OverflowError):
        return 0


async def _embeddings(exchange: "_Exchange", deadline: float) -> AsyncIterator[list[bytes]]:
    """The parts of an embedding answer, once it is there as a whole."""
    with _fail_at(deadline):
        answer = await exchange.read_all(_EMBEDDINGS_BYTES)
    for batch in parts(answer):
        yield batch


class _Exchange:
    """One request and its answer on one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self._answered = False  # a first byte has arrived
        self._ended = False
        self.status = 0

    async def send(self, request: h11.Request, body: bytes) -> None:
        parts = (request, h11.Data(data=body), h11.EndOfMessage())
        raw = b"".join(self._http.send(part) or b"" for part in parts)
        try:
            await self._stream.send_all(raw)
        except (OSError, trio.BrokenResourceError) as error:
            raise EngineUnreachable(f"the engine closed the connection: {error}") from error

    async def read_status(self) -> None:
        """Wait for the answer's status and headers."""
        while True:
            event = self._event()
            if event is h11.NEED_DATA:
                await self._receive()
            elif isinstance(event, h11.Response):
                self.status = event.status_code
                return
            elif not isinstance(event, h11.InformationalResponse):
                raise EngineBrokeOff("the engine closed the connection before its answer")

    async def read(self) -> bytes | None:
        """All content of the next socket read that has any, or None at the answer's end."""
        content: list[bytes] = []
        while not self._ended:
            event = self._event()
            if isinstance(event, h11.Data):
                content.append(bytes(event.data))
            elif event is not h11.NEED_DATA:
                self._ended = True
            elif content:
                break
            else:
                await self._receive()
        return b"".join(content) or None

    async def read_all(self, limit: int, *, cut: bool = False) -> bytes:
        """The rest of the answer; beyond `limit` bytes it is cut, or else refused."""
        content = b""
        while (chunk := await self.read()) is not None:
            content += chunk
            if len(content) > limit:
                if cut:
                    return content[:limit]
                raise EngineBrokeOff(f"the engine's answer is longer than {limit} bytes")
        return content

    async def close(self) -> None:
        """Close the connection at once."""
        await trio.aclose_forcefully(self._stream)

    def _event(self) -> Any:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise EngineBrokeOff(f"the engine broke HTTP: {error}") from error

    async def _receive(self) -> None:
        try:
            raw = await self._stream.receive_some(_READ_BYTES)
        except (OSError, trio.BrokenResourceError) as error:
            if self._answered:
                raise EngineBrokeOff(f"the engine broke off: {error}") from error
            raise EngineUnreachable(f"the engine closed the connection: {error}") from error
        if not raw and not self._answered:
            raise EngineUnreachable("the engine closed the connection without an answer")
        self._answered = True
        self._http.receive_data(raw)


@contextmanager
def _fail_at(deadline: float) -> Iterator[None]:
    """A deadline whose passing is `EngineTimedOut`."""
    try:
        with trio.fail_at(deadline):
            yield
    except trio.TooSlowError as error:
        raise EngineTimedOut("the engine was silent for too long") from error
