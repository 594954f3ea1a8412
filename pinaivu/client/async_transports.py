"""`pinaivu.client.transports` for `httpx.AsyncClient`; bundles are judged in worker threads."""

import time
from collections.abc import AsyncIterator

import anyio
import anyio.to_thread
import httpx

from pinaivu.client.bundles import Poll, require_bounded
from pinaivu.client.exchange import Asked, Given, Stream, read_given
from pinaivu.client.guard import (
    Terms,
    as_unverified,
    bundle_request,
    kept_headers,
    prepare,
    refused,
    refused_event,
    require_verifiable,
    streams,
)
from pinaivu.client.transports import VerifyingTransport
from pinaivu.errors import PinaivuError


class AsyncVerifyingTransport(httpx.AsyncBaseTransport):
    """Around another transport, which is closed with it."""

    def __init__(self, terms: Terms, inner: httpx.AsyncBaseTransport) -> None:
        self._terms = terms
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The gateway's answer once it is verified, or a refusal in its place."""
        try:
            asked = prepare(request, await request.aread(), self._terms.now_ms)
        except PinaivuError as error:
            return refused(as_unverified(error))
        answer = await self._inner.handle_async_request(request)
        if asked is None or answer.status_code != httpx.codes.OK:
            return answer
        if streams(answer):
            return httpx.Response(
                answer.status_code,
                headers=kept_headers(answer),
                stream=_Stream(self, request, asked, answer),
            )
        try:
            require_verifiable(answer)
            given, content = read_given(await answer.aread())
            await self.settle(request, asked, given)
        except PinaivuError as error:
            return refused(as_unverified(error))
        finally:
            await answer.aclose()
        return httpx.Response(answer.status_code, headers=kept_headers(answer), content=content)

    async def settle(self, request: httpx.Request, asked: Asked, given: Given) -> None:
        """Verify an answer, now or later; later by a connection of its own, in a thread."""

        def verify() -> None:
            with VerifyingTransport(self._terms, httpx.HTTPTransport()) as apart:
                apart.verify(request, asked, given)

        if self._terms.later is None:
            await self._verify(request, asked, given)
        else:
            self._terms.later.put(given.request_id, verify)

    async def _verify(self, request: httpx.Request, asked: Asked, given: Given) -> None:
        poll = Poll(asked, given, self._terms.within_s, time.monotonic())
        while True:
            try:
                answer = await self._inner.handle_async_request(bundle_request(request, poll.url))
                content = await _read(answer)
            except httpx.HTTPError as error:
                wait_s: float | None = poll.failed(error, time.monotonic())
            else:
                wait_s = poll.answered(answer.status_code, content, time.monotonic())
            if wait_s is None:
                await anyio.to_thread.run_sync(self._terms.judged, asked, given, content)
                return
            await anyio.sleep(wait_s)

    async def aclose(self) -> None:
        """Close the inner transport; what is not verified by now stays so."""
        if self._terms.later is not None:
            self._terms.later.close()
        await self._inner.aclose()


class _Stream(httpx.AsyncByteStream):
    """A stream's events as they may be passed on; its end, once the answer is verified."""

    def __init__(
        self,
        transport: AsyncVerifyingTransport,
        request: httpx.Request,
        asked: Asked,
        answer: httpx.Response,
    ) -> None:
        self._transport = transport
        self._request = request
        self._asked = asked
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        stream = Stream(self._asked)
        try:
            require_verifiable(self._answer)
            async for data in self._answer.aiter_raw():
                yield stream.feed(data)
                if stream.broken:
                    return
            await self._transport.settle(self._request, self._asked, stream.given())
        except PinaivuError as error:
            yield refused_event(as_unverified(error))
            return
        yield stream.rest()

    async def aclose(self) -> None:
        await self._answer.aclose()


async def _read(answer: httpx.Response) -> bytes:
    """A bounded answer, whole."""
    parts = list[bytes]()
    try:
        async for part in answer.aiter_raw():
            parts.append(part)
            require_bounded(parts)
    finally:
        await answer.aclose()
    return b"".join(parts)
