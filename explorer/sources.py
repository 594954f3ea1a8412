"""The log's public server as the explorer reads it: no key, nothing but GET.

What comes back is only brought into shape here. Whether it is true is checked by whoever asked: the
indexer against checkpoint, keys and chain, a request's page by `pinaivu.verify`.
"""

from typing import Any, Final, Protocol
from uuid import UUID

import httpx
import msgspec

from pinaivu.encoding import to_hex
from pinaivu.errors import InvalidEncoding, TransportFailure
from pinaivu.merkle.tiles import Tile

TIMEOUT_S: Final = 10.0
MAX_BODY: Final = 16 << 20
_decode: Final = msgspec.json.decode


class LogUnavailable(TransportFailure):
    """The log's public server gave no usable answer; the same question may succeed later."""


class NotThere(LogUnavailable):
    """The server answers and doesn't have it (404), now."""


class LogSource(Protocol):
    """One log's public resources. No retries; every method may raise `LogUnavailable`.

    Answers of one source need not be of one moment: a tile may be asked for by the size of an older
    checkpoint, never of a newer one.
    """

    def checkpoint(self) -> str:
        """The newest signed note; `NotThere` before the first."""
        ...

    def tile(self, tile: Tile) -> bytes:
        """A tile's or bundle's content."""
        ...

    def epochs(self) -> list[dict[str, Any]]:
        """Every epoch with its manifest, as ``/attestation`` lists them."""
        ...

    def batches(self, after: int) -> list[dict[str, Any]]:
        """Signed batches of higher sequence, ascending, at most some hundred at once."""
        ...

    def receipts(self, request_id: UUID) -> list[dict[str, Any]]:
        """Receipts of a request id; empty where there is none."""
        ...

    def bundle(self, gateway: bytes, request_id: UUID) -> bytes:
        """A packed bundle; `NotThere` until the receipt is under a checkpoint."""
        ...

    def book(self, root: bytes) -> dict[str, Any]:
        """The book of this root, ``{"rows": […]}``; `NotThere` without one."""
        ...

    def market(self) -> dict[str, int]:
        """Model → standing offers."""
        ...


class HttpLog:
    """`LogSource` over HTTP with kept-open connections; safe to use from several threads."""

    def __init__(self, url: str, client: httpx.Client | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = client or httpx.Client(timeout=TIMEOUT_S, trust_env=False)

    def checkpoint(self) -> str:
        """See `LogSource.checkpoint`."""
        try:
            return self._get("/checkpoint").decode()
        except UnicodeDecodeError as error:
            raise LogUnavailable(f"{self.url}/checkpoint is no text") from error

    def tile(self, tile: Tile) -> bytes:
        """See `LogSource.tile`."""
        return self._get(f"/{tile.path}")

    def epochs(self) -> list[dict[str, Any]]:
        """See `LogSource.epochs`."""
        return self._list("/attestation", "epochs")

    def batches(self, after: int) -> list[dict[str, Any]]:
        """See `LogSource.batches`."""
        return self._list(f"/batches?after={after}", "batches")

    def receipts(self, request_id: UUID) -> list[dict[str, Any]]:
        """See `LogSource.receipts`."""
        try:
            return self._list(f"/receipts/{request_id}", "receipts")
        except NotThere:
            return []

    def bundle(self, gateway: bytes, request_id: UUID) -> bytes:
        """See `LogSource.bundle`."""
        return self._get(f"/bundles/{to_hex(gateway)}/{request_id}")

    def book(self, root: bytes) -> dict[str, Any]:
        """See `LogSource.book`."""
        return self._json(f"/books/{to_hex(root)}")

    def market(self) -> dict[str, int]:
        """See `LogSource.market`."""
        models = self._json("/market").get("models")
        if not isinstance(models, dict):
            raise LogUnavailable(f"{self.url}/market lists no models")
        return {str(model): int(offers) for model, offers in models.items()}

    def _list(self, path: str, member: str) -> list[dict[str, Any]]:
        items = self._json(path).get(member)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise LogUnavailable(f"{self.url}{path} has no list of {member}")
        return items

    def _json(self, path: str) -> dict[str, Any]:
        try:
            return _decode(self._get(path), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise LogUnavailable(f"{self.url}{path}: {error}") from error

    def _get(self, path: str) -> bytes:
        try:
            answer = self._http.get(self.url + path)
        except httpx.HTTPError as error:
            raise LogUnavailable(f"{self.url}{path}: {error or type(error).__name__}") from error
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise NotThere(f"{self.url}{path} is not there")
        if answer.status_code != httpx.codes.OK:
            raise LogUnavailable(f"{self.url}{path} answered {answer.status_code}")
        if len(answer.content) > MAX_BODY:
            raise InvalidEncoding(f"{self.url}{path} has more than {MAX_BODY} bytes")
        return answer.content
