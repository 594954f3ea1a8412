"""The routes that say what is served.

`/v1/models` has what the registry says of each model.
"""

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from gateway.errors import ApiError
from gateway.http.surface import Gateway
from gateway.ports import ServedModel
from pinaivu.encoding import to_hex


def add_model_routes(app: FastAPI, gateway: Gateway) -> None:
    """Add the routes under /v1/models."""

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
