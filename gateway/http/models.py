"""The routes that say what is served: what the registry says of a model, and what stands on offer.

    {"id": "…", "context_length": 8192, "fingerprint": "0x…",
     "market": [{"log_id": "0x…", "nodes": 3, "slots": 5, "context_length": 2048,
                 "price_in": {"cheapest": …, "median": …}, "price_out": {…}}]}

Each entry of `market` is the word of that log's public server, seconds old; prices are base units
per million tokens, as nodes stand for them: an auction may end above the cheapest. A log that
can't be reached, or where nobody offers the model, has no entry.
"""

from typing import Any, Final

import trio
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from gateway.errors import ApiError
from gateway.http.surface import Gateway
from gateway.logs import Log
from gateway.ports import ServedModel, Standing
from pinaivu.encoding import to_hex
from pinaivu.errors import TransportFailure

_WITHIN_S: Final = 2.0
_MILLION: Final = 10**6


def add_model_routes(app: FastAPI, gateway: Gateway) -> None:
    """Add the routes under /v1/models."""

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        await gateway.holder(request)
        data = [_shown(model) for model in gateway.models.values()]
        async with trio.open_nursery() as nursery:
            for shown in data:
                nursery.start_soon(_add_market, gateway, shown)
        return JSONResponse({"object": "list", "data": data})

    @app.get("/v1/models/{name:path}")
    async def model(name: str, request: Request) -> Response:
        await gateway.holder(request)
        if name not in gateway.models:
            raise ApiError(
                404,
                "model_not_found",
                f"The model {name!r} is not served here; list /v1/models.",
                param="model",
            )
        shown = _shown(gateway.models[name])
        await _add_market(gateway, shown)
        return JSONResponse(shown)


def _shown(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "pinaivu",
        "context_length": model.context_tokens,
        "fingerprint": to_hex(model.fingerprint),
    }


async def _add_market(gateway: Gateway, shown: dict[str, Any]) -> None:
    """Ask all logs at once; who doesn't answer soon is left out."""
    model = gateway.models[shown["id"]]
    found: dict[bytes, dict[str, Any]] = {}

    async def ask(log: Log) -> None:
        try:
            standing = await log.public.market(model.name)
        except TransportFailure:
            return
        if standing is not None:
            found[log.log_id] = _facts(log.log_id, standing, model.ratio_ppm)

    with trio.move_on_after(_WITHIN_S):
        async with trio.open_nursery() as nursery:
            for log in gateway.logs.values():
                nursery.start_soon(ask, log)
    shown["market"] = [found[log_id] for log_id in gateway.logs if log_id in found]


def _facts(log_id: bytes, standing: Standing, ratio_ppm: int) -> dict[str, Any]:
    out = standing.price_out
    prices = {"cheapest": out.cheapest, "median": out.median}
    return {
        "log_id": to_hex(log_id),
        "nodes": standing.nodes,
        "slots": standing.slots,
        "context_length": standing.context_tokens,
        "price_in": {name: price * ratio_ppm // _MILLION for name, price in prices.items()},
        "price_out": prices,
    }
