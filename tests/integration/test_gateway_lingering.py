"""A refusal reaches who is still sending, and the connection serves the next request."""

from pathlib import Path

import h11
import trio

from tests.integration.gateway_support import QUICK, Network, network

_MOST = 2048
_LARGE = 300_000


class Raw:
    """One connection to a gateway, on which the test decides what is sent when."""

    def __init__(self, net: Network, stream: trio.SocketStream) -> None:
        self._headers = [("host", "gateway"), ("authorization", f"Bearer {net.secret}")]
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def ask(self, method: str, path: str, length: int = 0) -> None:
        """The head of a request; the body is what the test sends."""
        headers = [*self._headers, ("content-length", str(length))]
        await self._send(h11.Request(method=method, target=path, headers=headers))
        if not length:
            await self._send(h11.EndOfMessage())

    async def more(self, size: int, *, last: bool = False) -> None:
        """A part of the body."""
        await self._send(h11.Data(data=b" " * size))
        if last:
            await self._send(h11.EndOfMessage())

    async def status(self) -> int:
        """Of the answer, once all that was announced of it has been read."""
        head = await self._next()
        assert isinstance(head, h11.Response)
        left = int(dict(head.headers)[b"content-length"])
        while left:
            part = await self._next()
            assert isinstance(part, h11.Data)
            left -= len(part.data)
        return head.status_code

    async def end(self) -> None:
        """The answer's end; the connection is free for the next request."""
        assert isinstance(await self._next(), h11.EndOfMessage)
        self._http.start_next_cycle()

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self._stream.send_all(data)

    async def _next(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._stream.receive_some())
        return event


async def _refused_while_sending(net: Network, path: str, status: int) -> None:
    address, _, port = net.url.removeprefix("http://").rpartition(":")
    async with await trio.open_tcp_stream(address, int(port)) as stream:
        raw = Raw(net, stream)
        await raw.ask("POST", path, _LARGE)
        await raw.more(_LARGE // 2)
        with trio.fail_after(10):
            assert await raw.status() == status
        for _ in range(10):
            await raw.more(_LARGE // 20 - 1)
        await raw.more(10, last=True)
        await raw.end()
        await raw.ask("GET", "/v1/models")
        with trio.fail_after(10):
            assert await raw.status() == 200


async def test_who_is_still_sending_gets_the_refusal(tmp_path: Path) -> None:
    limits = QUICK.model_copy(update={"max_body_bytes": _MOST})
    async with network(tmp_path, limits=limits) as net:
        await _refused_while_sending(net, "/v1/chat/completions", 413)
        await _refused_while_sending(net, "/v1/nowhere", 404)
