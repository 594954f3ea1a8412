"""The route that says who signs what this gateway relies on.

For each log: the epoch that the chain has active, its signing address, the code's measurement and
the parameters' digest that the chain allows it with, and where the attestation document is
published. Nothing of the document is verified here: `pinaivu verify` does, at the reader's.
"""

from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from gateway.http.surface import Gateway
from gateway.logs import Log
from pinaivu.encoding import to_hex
from pinaivu.errors import PeerFault, TransportFailure


def add_attestation_route(app: FastAPI, gateway: Gateway) -> None:
    """Add /v1/attestation."""

    @app.get("/v1/attestation")
    async def attestation(request: Request) -> Response:
        await gateway.holder(request)
        identity = gateway.desk.identity
        body = {
            "object": "attestation",
            "gateway": to_hex(identity.address),
            "chain_id": identity.domain.chain_id,
            "settlement": to_hex(identity.domain.settlement),
            "logs": [await _of(log) for log in gateway.logs.values()],
        }
        return JSONResponse(body)


async def _of(log: Log) -> dict[str, Any]:
    """What is known of a log's coordinator now; only that it is not known, otherwise."""
    known: dict[str, Any] = {"log_id": to_hex(log.log_id), "connected": log.market.connected}
    try:
        epoch, places = await log.registry.epoch(), await log.public.urls()
    except (TransportFailure, PeerFault) as error:
        return known | {"problem": str(error)}
    return known | {
        "epoch": epoch.number,
        "signer": to_hex(epoch.signer),
        "measurement": to_hex(epoch.measurement) if epoch.measurement else None,
        "parameters_digest": to_hex(epoch.parameters.digest()),
        "documents": [f"{url.rstrip('/')}/attestation" for url in places],
    }
