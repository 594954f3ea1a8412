"""The HTTP application: OpenAI's surface, and what is Pinaivu's own beside it.

    POST /v1/chat/completions          streaming and not
    POST /v1/completions               the same
    POST /v1/embeddings
    GET  /v1/models, /v1/models/{id}
    GET  /v1/receipts/{id}             202 until the receipt exists
    GET  /v1/receipts/{id}/bundle      for the key's holder: the public bundle, opened for it
    GET  /v1/usage                     what the key has used
    GET  /v1/balance                   what the key can pay with
    GET  /v1/receipts                  the key's requests, oldest first
         /v1/admin/keys, /v1/admin/log for administrators, see `admin`
    GET  /healthz                      without a key

Every error has OpenAI's form. `create_app` makes as many applications as it is called.
"""

import logging

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from gateway.errors import ApiError, internal, storage, unreachable
from gateway.http.admin import add_admin_routes
from gateway.http.inference import add_inference_routes
from gateway.http.models import add_model_routes
from gateway.http.payers import add_payer_routes
from gateway.http.rates import RateHeaders
from gateway.http.receipts import add_receipt_routes
from gateway.http.surface import Gateway, error_response
from pinaivu.encoding import to_hex
from pinaivu.errors import TransportFailure
from pinaivu.store.database import StorageFailed

_log = logging.getLogger(__name__)


def create_app(gateway: Gateway) -> FastAPI:
    """The application over a running gateway."""
    app = FastAPI(title="Pinaivu gateway", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(RateHeaders, gateway=gateway)
    _add_error_handlers(app)
    add_inference_routes(app, gateway)
    add_model_routes(app, gateway)
    add_receipt_routes(app, gateway)
    add_payer_routes(app, gateway)
    add_admin_routes(app, gateway)
    add_admin_routes(app, gateway)

    @app.get("/healthz")
    async def health() -> Response:
        return await _health(gateway)

    return app


async def _health(gateway: Gateway) -> Response:
    """200 while requests can be served, by one log at least; what is missing, otherwise."""
    database = True
    try:
        await gateway.ledger.request(bytes(16))
    except StorageFailed:
        database = False
    connected = gateway.logs.connected
    well = database and bool(connected)
    body = {
        "status": "ok" if well else "unavailable",
        "database": database,
        "coordinator": bool(connected),
        "node_peers": len(gateway.desk.pool.peers()),
        "awaiting_receipts": gateway.logs.waiting,
        "logs": {to_hex(log_id): log_id in connected for log_id in gateway.logs},
    }
    return JSONResponse(body, status_code=200 if well else 503)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error_response(error)

    @app.exception_handler(TransportFailure)
    async def transport(_request: Request, error: Exception) -> Response:
        _log.warning("refusing a request: %s", error)
        return error_response(storage() if isinstance(error, StorageFailed) else unreachable())

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        advice = "; see the gateway's documentation for what it serves."
        return error_response(ApiError(error.status_code, code, f"{error.detail}{advice}"))

    @app.exception_handler(Exception)
    async def unexpected(_request: Request, _cause: Exception) -> Response:
        return error_response(internal())
