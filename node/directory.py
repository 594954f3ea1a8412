"""`Directory` over HTTP: ``GET {log_url}/attestation``.

The answer is a claim by whoever runs the host. `node.logs` takes over only what the chain confirms;
the attestation documents in it are for `pinaivu verify` and not read here.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, cast

import httpx
import msgspec
import trio

from node.errors import DirectoryUnavailable, DirectoryWrong
from node.ports import Publication, Published
from pinaivu.errors import InvalidEncoding
from pinaivu.manifest import Manifest, Parameters

_MOST_BYTES: Final = 4 << 20
_WITHIN_S: Final = 20.0  # all of it: a server may also dribble


class _Epoch(msgspec.Struct):
    number: int
    manifest: dict[str, Any]
    parameters: dict[str, Any]


class _Document(msgspec.Struct):
    epochs: list[_Epoch]
    addresses: list[str]


_decoder: Final = msgspec.json.Decoder(_Document)


class HttpDirectory:
    """Reads directories with one HTTP client; the caller closes it."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def read(self, url: str) -> Published:
        """See `Directory.read`."""
        place = f"{url.rstrip('/')}/attestation"
        raw = await self._get(place)
        try:
            document = _decoder.decode(raw)
            epochs = tuple(_publication(epoch) for epoch in document.epochs)
        except (msgspec.DecodeError, InvalidEncoding) as error:
            raise DirectoryWrong(f"{place} holds no directory of a log: {error}") from error
        return Published(epochs, tuple(document.addresses))

    async def _get(self, place: str) -> bytes:
        try:
            with trio.fail_after(_WITHIN_S):
                return await self._content(place)
        except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as error:
            why = str(error) or type(error).__name__
            raise DirectoryUnavailable(f"no answer from {place}: {why}") from error

    async def _content(self, place: str) -> bytes:
        parts = list[bytes]()
        size = 0
        async with self._http.stream("GET", place) as answer:
            answer.raise_for_status()
            parts_of = cast("AsyncGenerator[bytes]", answer.aiter_bytes())
            async with aclosing(parts_of) as content:
                async for part in content:
                    size += len(part)
                    if size > _MOST_BYTES:
                        raise DirectoryWrong(f"{place} is longer than {_MOST_BYTES} bytes")
                    parts.append(part)
        return b"".join(parts)


def _publication(epoch: _Epoch) -> Publication:
    return Publication(
        number=epoch.number,
        manifest=Manifest.from_json(epoch.manifest),
        parameters=Parameters.from_json(epoch.parameters),
    )
