"""The HTTP application: OpenAI's surface, and what is Pinaivu's own beside it.

    POST /v1/chat/completions          streaming and not
    POST /v1/completions               the same
    POST /v1/embeddings
    GET  /v1/models, /v1/models/{id}   with what stands on offer
    GET  /v1/receipts/{id}             202 until the receipt exists
    GET  /v1/receipts/{id}/bundle      for the key's holder: the public bundle, opened for it
    GET  /v1/usage                     what the key has used
    GET  /v1/balance                   what the key can pay with
    GET  /v1/receipts                  the key's requests, oldest first
    GET  /v1/attestation               who signs for each log
         /v1/admin/keys, /v1/admin/log for administrators, see `admin`
    GET  /health, /healthz, /ready     without a key

Every error has OpenAI's form. `create_app` makes as many applications as it is called.
"""

import logging

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from gateway.errors import ApiError, internal, storage, unreachable
from gateway.http.admin import add_admin_routes
from gateway.http.attestation import add_attestation_route
from gateway.http.cors import cors_of
from gateway.http.gate import Counted, Gate
from gateway.http.health import add_health_routes
from gateway.http.inference import add_inference_routes
from gateway.http.models import add_model_routes
from gateway.http.payers import add_payer_routes
from gateway.http.rates import RateHeaders
from gateway.http.receipts import add_receipt_routes
from gateway.http.surface import Gateway, error_response
from pinaivu.errors import TransportFailure
from pinaivu.store.database import StorageFailed

_log = logging.getLogger(__name__)


def create_app(gateway: Gateway, counted: Counted = lambda _route, _status: None) -> FastAPI:
    """The application over a running gateway; `counted` is told of each answer."""
    app = FastAPI(title="Pinaivu gateway", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(RateHeaders, gateway=gateway)
    _add_error_handlers(app)
    add_inference_routes(app, gateway)
    add_model_routes(app, gateway)
    add_receipt_routes(app, gateway)
    add_payer_routes(app, gateway)
    add_attestation_route(app, gateway)
    add_admin_routes(app, gateway)
    add_health_routes(app, gateway)
    if gateway.cors_origins:
        app.add_middleware(CORSMiddleware, **cors_of(gateway.cors_origins))
    app.add_middleware(Gate, traffic=gateway.traffic, counted=counted)
    return app


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error_response(error, _id_of(request))

    @app.exception_handler(TransportFailure)
    async def transport(request: Request, error: Exception) -> Response:
        _log.warning("refusing a request: %s", error)
        answer = storage() if isinstance(error, StorageFailed) else unreachable()
        return error_response(answer, _id_of(request))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        advice = "; see the gateway's documentation for what it serves."
        answer = ApiError(error.status_code, code, f"{error.detail}{advice}")
        return error_response(answer, _id_of(request))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, _cause: Exception) -> Response:
        return error_response(internal(), _id_of(request))


def _id_of(request: Request) -> str | None:
    """The request id, where the route has one."""
    found: str | None = getattr(request.state, "request_id", None)
    return found
