"""The transport that verifies: between an SDK and the gateway, for `httpx.Client`.

Strict, an answer is handed over once it is verified; lazy, at once, and its bundle is judged beside
it (`pinaivu.client.lazy`). Either way what is passed on is what was read, written anew. Answers
with an error status pass as they are: they hold no completion.
"""

import time
from collections.abc import Iterator

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
from pinaivu.errors import PinaivuError


class VerifyingTransport(httpx.BaseTransport):
    """Around another transport, which is closed with it."""

    def __init__(self, terms: Terms, inner: httpx.BaseTransport) -> None:
        self._terms = terms
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The gateway's answer once it is verified, or a refusal in its place."""
        try:
            asked = prepare(request, request.read(), self._terms.now_ms)
        except PinaivuError as error:
            return refused(as_unverified(error))
        answer = self._inner.handle_request(request)
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
            given, content = read_given(answer.read())
            self.settle(request, asked, given)
        except PinaivuError as error:
            return refused(as_unverified(error))
        finally:
            answer.close()
        return httpx.Response(answer.status_code, headers=kept_headers(answer), content=content)

    def settle(self, request: httpx.Request, asked: Asked, given: Given) -> None:
        """Verify an answer, now or later, by the bundle that its own request's key may fetch."""
        if self._terms.later is None:
            self.verify(request, asked, given)
        else:
            self._terms.later.put(given.request_id, lambda: self.verify(request, asked, given))

    def verify(self, request: httpx.Request, asked: Asked, given: Given) -> None:
        """Wait for the bundle and judge it; one of `pinaivu.client.errors` unless it holds."""
        poll = Poll(asked, given, self._terms.within_s, time.monotonic())
        while True:
            try:
                answer = self._inner.handle_request(bundle_request(request, poll.url))
                content = _read(answer)
            except httpx.HTTPError as error:
                wait_s: float | None = poll.failed(error, time.monotonic())
            else:
                wait_s = poll.answered(answer.status_code, content, time.monotonic())
            if wait_s is None:
                self._terms.judged(asked, given, content)
                return
            time.sleep(wait_s)

    def close(self) -> None:
        """Close the inner transport; what is not verified by now stays so."""
        if self._terms.later is not None:
            self._terms.later.close()
        self._inner.close()


class _Stream(httpx.SyncByteStream):
    """A stream's events as they may be passed on; its end, once the answer is verified."""

    def __init__(
        self,
        transport: VerifyingTransport,
        request: httpx.Request,
        asked: Asked,
        answer: httpx.Response,
    ) -> None:
        self._transport = transport
        self._request = request
        self._asked = asked
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        stream = Stream(self._asked)
        try:
            require_verifiable(self._answer)
            for data in self._answer.iter_raw():
                yield stream.feed(data)
                if stream.broken:
                    return
            self._transport.settle(self._request, self._asked, stream.given())
        except PinaivuError as error:
            yield refused_event(as_unverified(error))
            return
        yield stream.rest()

    def close(self) -> None:
        self._answer.close()


def _read(answer: httpx.Response) -> bytes:
    """A bounded answer, whole."""
    parts = list[bytes]()
    try:
        for part in answer.iter_raw():
            parts.append(part)
            require_bounded(parts)
    finally:
        answer.close()
    return b"".join(parts)
