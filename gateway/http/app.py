"""The HTTP application: OpenAI's surface, and what is Pinaivu's own beside it.

    POST /v1/chat/completions          streaming and not
    GET  /v1/models, /v1/models/{id}
    GET  /v1/receipts/{id}             202 until the receipt exists
    GET  /v1/receipts/{id}/bundle      for the key's holder: the public bundle, opened for it
    GET  /v1/usage                     what the key has used
    GET  /health, /healthz, /ready     without a key

Every error has OpenAI's form. `create_app` makes as many applications as it is called.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing

import trio
from fastapi import FastAPI, Request
from sse_starlette import EventSourceResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from gateway.errors import ApiError, internal, storage, unreachable
from gateway.exchange import Exchange
from gateway.http.cors import cors_of
from gateway.http.gate import Counted, Gate
from gateway.http.health import add_health_routes
from gateway.http.receipts import add_receipt_routes
from gateway.http.surface import Gateway
from gateway.ports import ServedModel
from pinaivu.encoding import to_hex
from pinaivu.errors import TransportFailure
from pinaivu.store.database import StorageFailed

_PING_S = 15
_log = logging.getLogger(__name__)


def create_app(gateway: Gateway, counted: Counted = lambda _route, _status: None) -> FastAPI:
    """The application over a running gateway; `counted` is told of each answer."""
    app = FastAPI(title="Pinaivu gateway", docs_url=None, redoc_url=None, openapi_url=None)
    _add_error_handlers(app)
    _add_chat_route(app, gateway)
    _add_model_routes(app, gateway)
    add_receipt_routes(app, gateway)
    add_health_routes(app, gateway)
    if gateway.cors_origins:
        app.add_middleware(CORSMiddleware, **cors_of(gateway.cors_origins))
    app.add_middleware(Gate, traffic=gateway.traffic, counted=counted)
    return app


def _add_chat_route(app: FastAPI, gateway: Gateway) -> None:
    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        exchange = await gateway.begin(request)
        answer, streams = exchange.answer, exchange.streams
        await _wait_for(answer.begun if streams else answer.over, request, exchange)
        headers = {"x-request-id": exchange.request_id}
        if answer.error is not None and not (streams and answer.shown):
            return _error(answer.error, exchange.request_id)
        if not streams:
            return JSONResponse(answer.body, headers=headers)
        return EventSourceResponse(_events(exchange), headers=headers, ping=_PING_S, sep="\n")


async def _wait_for(event: trio.Event, request: Request, exchange: Exchange) -> None:
    """Wait for `event`; a client that goes away meanwhile stops its exchange, which sets it."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        exchange.leave()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await event.wait()
        nursery.cancel_scope.cancel()


async def _events(exchange: Exchange) -> AsyncIterator[bytes]:
    try:
        async with aclosing(exchange.answer.parts()) as parts:
            async for part in parts:
                yield part
    finally:  # cancelled when the client goes away; nothing to do when it stayed
        exchange.leave()


def _add_model_routes(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        await gateway.holder(request)
        served = [_shown(model) for model in gateway.models.values()]
        return JSONResponse({"object": "list", "data": served})

    @app.get("/v1/models/{name:path}")
    async def model(name: str, request: Request) -> Response:
        await gateway.holder(request)
        if name not in gateway.models:
            raise ApiError(
                404, "model_not_found", f"The model {name!r} is not served here; list /v1/models."
            )
        return JSONResponse(_shown(gateway.models[name]))


def _shown(model: ServedModel) -> dict[str, object]:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "pinaivu",
        "context_length": model.context_tokens,
        "fingerprint": to_hex(model.fingerprint),
    }


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return _error(error)

    @app.exception_handler(TransportFailure)
    async def transport(_request: Request, error: Exception) -> Response:
        _log.warning("refusing a request: %s", error)
        return _error(storage() if isinstance(error, StorageFailed) else unreachable())

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        advice = "; see the gateway's documentation for what it serves."
        return _error(ApiError(error.status_code, code, f"{error.detail}{advice}"))

    @app.exception_handler(Exception)
    async def unexpected(_request: Request, _cause: Exception) -> Response:
        return _error(internal())


def _error(error: ApiError, request_id: str | None = None) -> Response:
    headers = error.headers() | ({"x-request-id": request_id} if request_id else {})
    return JSONResponse(error.body(request_id), status_code=error.status, headers=headers)
