"""Bodies of requests: read within bounds, and heard to their end where nobody needs the rest.

A client, or the proxy before it, may still be sending when its request is refused. Were the
connection closed with bytes unread, the kernel would reset it, and the reset takes the answer away
that the client hasn't read yet. So the answer is sent at once, what still comes is thrown away
within bounds, and only then the answer ends: the connection lives on and serves the next request.
"""

from contextlib import aclosing
from typing import Final

import trio
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import ApiError, client_gone

WITHIN_S: Final = 60.0
"""How long a body may take."""
LINGER_S: Final = 5.0
LINGER_BYTES: Final = 16 << 20


async def read_body(request: Request, most: int) -> bytes:
    """The whole body; `ApiError` 413 as soon as it is too large, 408 where it takes too long.

    499, which nobody sees, where the client has gone.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most:
        raise _too_large(most)
    body = bytearray()
    with trio.move_on_after(WITHIN_S):
        try:
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > most:
                        raise _too_large(most)
        except ClientDisconnect as gone:
            raise client_gone() from gone
        return bytes(body)
    raise ApiError(
        408, "request_timeout", f"The body took longer than {WITHIN_S:.0f} s; send it again."
    )


class Lingering:
    """ASGI middleware over the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        unread = True

        async def reading() -> Message:
            nonlocal unread
            message = await receive()
            unread = _goes_on(message)
            return message

        async def sending(message: Message) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body")
            if last and unread:
                await send({**message, "more_body": True})
                await _throw_away(receive)
                message = {"type": "http.response.body"}
            await send(message)

        await self._app(scope, reading, sending)


async def _throw_away(receive: Receive) -> None:
    """The rest of a body, as far as the bounds allow."""
    taken = 0
    with trio.move_on_after(LINGER_S):
        while taken <= LINGER_BYTES:
            message = await receive()
            taken += len(message.get("body", b""))
            if not _goes_on(message):
                return


def _goes_on(message: Message) -> bool:
    return message["type"] == "http.request" and bool(message.get("more_body"))


def _too_large(most: int) -> ApiError:
    return ApiError(
        413, "request_too_large", f"The body is larger than {most} bytes; send less at once."
    )
