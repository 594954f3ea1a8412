"""The outermost layer of the HTTP application: counts what is under way, refuses when draining.

It wraps all routes, so an answer counts until its last byte was handed to the connection, streams
included. The routes about the gateway itself are always let through.
"""

from collections.abc import Callable
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import ApiError
from gateway.traffic import Traffic

ABOUT_ITSELF: Final = frozenset({"/health", "/healthz", "/ready"})
RETRY_AFTER_S: Final = 5
Counted = Callable[[str, int], None]
"""Told the route's pattern and the status of each answer."""


class Gate:
    """ASGI middleware over the whole application."""

    def __init__(self, app: ASGIApp, traffic: Traffic, counted: Counted) -> None:
        self._app = app
        self._traffic = traffic
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] in ABOUT_ITSELF:
            await self._app(scope, receive, send)
            return
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._traffic.answer():
            app = _refuse if self._traffic.draining else self._app
            try:
                await app(scope, receive, noting)
            finally:
                self._counted(_pattern(scope), status)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    error = ApiError(
        503,
        "draining",
        "The gateway is shutting down and begins nothing new; retry in a few seconds.",
        retry_after_s=RETRY_AFTER_S,
    )
    answer = JSONResponse(error.body(), status_code=503, headers=error.headers())
    await answer(scope, receive, send)


def _pattern(scope: Scope) -> str:
    """The route that answered, as it was declared: there are few, whatever strangers ask for."""
    return str(getattr(scope.get("route"), "path", "none"))
