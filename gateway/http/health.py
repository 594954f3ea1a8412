"""What a gateway says of itself without a key, to balancers, supervisors and monitors.

    GET /health, /healthz   200 while the database and a log's coordinator answer, else 503
    GET /ready              200 while a new request has a chance, else 503 and what is missing

`/ready` also needs a node that has laid a stream ready, and is 503 from the moment the gateway was
told to stop. Neither proves that a request will be served: that is the market's.
"""

from typing import Final

from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from gateway.http.surface import Gateway
from pinaivu.encoding import to_hex
from pinaivu.store.database import StorageFailed

_NOT_READY: Final = {"retry-after": "5"}


def add_health_routes(app: FastAPI, gateway: Gateway) -> None:
    """Add the routes about the gateway itself."""

    async def health() -> Response:
        return await _health(gateway)

    for path in ("/health", "/healthz"):
        app.add_api_route(path, health, methods=["GET"])

    @app.get("/ready")
    async def ready() -> Response:
        return await _ready(gateway)


async def _health(gateway: Gateway) -> Response:
    """200 while requests can be served, by one log at least; what is missing, otherwise."""
    database = await _database(gateway)
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


async def _ready(gateway: Gateway) -> Response:
    there = {
        "database": await _database(gateway),
        "coordinator": bool(gateway.logs.connected),
        "nodes": bool(gateway.desk.pool.peers()),
    }
    missing = [name for name, found in there.items() if not found]
    if gateway.traffic.draining:
        return _not_ready("draining", missing)
    if missing:
        return _not_ready("unavailable", missing)
    return JSONResponse({"status": "ready", "missing": []})


def _not_ready(status: str, missing: list[str]) -> Response:
    body = {"status": status, "missing": missing}
    return JSONResponse(body, status_code=503, headers=_NOT_READY)


async def _database(gateway: Gateway) -> bool:
    try:
        await gateway.ledger.request(bytes(16))
    except StorageFailed:
        return False
    return True
