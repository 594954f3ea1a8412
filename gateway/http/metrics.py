"""The metrics' own little server: `GET /metrics` on an address that is not the clients'.

It asks for no key, so it belongs on the loopback address or a monitoring network.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.config import Config as HttpConfig
from hypercorn.trio import serve
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.http.surface import Gateway
from gateway.metrics import Metrics
from pinaivu.encoding import to_hex
from pinaivu.errors import Misconfigured


def metrics_of(gateway: Gateway) -> Metrics:
    """The gateway's metrics, from now on."""

    def gauges() -> dict[str, dict[str, float]]:
        connected = gateway.logs.connected
        return {
            "draining": {"": float(gateway.traffic.draining)},
            "answers_under_way": {"": float(gateway.traffic.answering)},
            "exchanges_under_way": {"": float(gateway.traffic.exchanges)},
            "node_peers": {"": float(len(gateway.desk.pool.peers()))},
            "coordinator_connected": {to_hex(log): float(log in connected) for log in gateway.logs},
            "awaiting_receipts": {
                to_hex(log_id): float(log.outbox.waiting) for log_id, log in gateway.logs.items()
            },
        }

    metrics = Metrics(gauges)
    gateway.traffic.heard.append(metrics.served)
    gateway.ledger.differed.append(metrics.differed)
    return metrics


async def serve_metrics(
    metrics: Metrics,
    listen: str,
    stopping: Callable[[], Awaitable[None]] = trio.sleep_forever,
    task_status: Any = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve them at ``host:port`` until `stopping` returns or this is cancelled."""

    async def expose(_request: Request) -> Response:
        return Response(metrics.exposed(), media_type=CONTENT_TYPE_LATEST)

    settings = HttpConfig()
    settings.bind = [listen]
    settings.include_server_header = False
    settings.graceful_timeout = 0
    settings.errorlog = logging.getLogger("gateway.metrics")
    app = Starlette(routes=[Route("/metrics", expose)])
    try:
        await serve(
            app,  # type: ignore[arg-type]
            settings,
            shutdown_trigger=stopping,
            task_status=task_status,
            mode="asgi",
        )
    except OSError as error:
        raise Misconfigured(
            f"can't listen on {listen} ({error.strerror}); choose another port for the metrics"
        ) from error
