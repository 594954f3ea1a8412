"""The routes that have a model work: chat completions, completions, embeddings.

Every request becomes an exchange of its own, which goes on to its signed end whatever the client
does. Not here: what a body may say (`demands`) and what an answer looks like (`forms`).
"""

import math
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Final

import msgspec
import trio
from fastapi import FastAPI, Request
from sse_starlette import EventSourceResponse
from starlette.responses import Response

from gateway.answers import Answer
from gateway.claims import Replay
from gateway.exchange import Exchange
from gateway.http.surface import Gateway, error_response
from pinaivu.codes import JobKind

PATHS: Final = {
    "/v1/chat/completions": JobKind.CHAT,
    "/v1/completions": JobKind.COMPLETION,
    "/v1/embeddings": JobKind.EMBEDDING,
}
"""Where each kind of request is sent."""
_LARGE: Final = 1 << 18  # encoding it would be felt by every stream


def add_inference_routes(app: FastAPI, gateway: Gateway) -> None:
    """Add a route for each kind of request."""
    for path, kind in PATHS.items():
        _add_route(app, gateway, path, kind)


def _add_route(app: FastAPI, gateway: Gateway, path: str, kind: JobKind) -> None:
    @app.post(path)
    async def infer(request: Request) -> Response:
        request.state.request_id = gateway.new_request_id()  # until there is a job with its own
        exchange = await gateway.begin(request, kind)
        answer, streams = exchange.answer, exchange.streams
        something, ping = answer.begun if streams else answer.over, gateway.limits.heartbeat_s
        with trio.move_on_after(ping if streams else math.inf):
            await _wait_for(something, request, exchange)
        if not something.is_set():
            assert isinstance(answer, Answer)  # a replay has begun
            answer.begin_silent()
        request.state.request_id = exchange.request_id
        if answer.error is not None and not (streams and answer.shown):
            return error_response(answer.error, exchange.request_id)
        if streams:
            events = _events(exchange)
            return EventSourceResponse(events, headers=exchange.headers, ping=ping, sep="\n")
        encode = partial(msgspec.json.encode, answer.body)
        body = await trio.to_thread.run_sync(encode) if answer.size > _LARGE else encode()
        return Response(body, media_type="application/json", headers=exchange.headers)


async def _wait_for(event: trio.Event, request: Request, exchange: Exchange | Replay) -> None:
    """Wait for `event`; a client that goes away meanwhile stops its exchange, which sets it."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        exchange.leave()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await event.wait()
        nursery.cancel_scope.cancel()


async def _events(exchange: Exchange | Replay) -> AsyncIterator[bytes]:
    try:
        async with aclosing(exchange.answer.outlet.parts()) as parts:
            async for part in parts:
                yield part
    finally:  # cancelled when the client goes away; nothing to do when it stayed
        exchange.leave()
