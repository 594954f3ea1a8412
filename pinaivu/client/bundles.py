"""Asks a gateway for a bundle until it is there, or for as long as the client is ready to wait.

`Poll` decides and does nothing: whoever drives it sends the request and sleeps. `books_at` asks a
log for what a large auction's bundle leaves out.
"""

from collections.abc import Callable, Sequence
from typing import Final

import httpx

from pinaivu.client.errors import ReceiptMissing
from pinaivu.client.exchange import Asked, Given
from pinaivu.encoding import parse_json, to_hex
from pinaivu.errors import InvalidEncoding, TransportFailure

_MOST_BYTES: Final = 64 << 20  # a bundle holds every offer of its auction
_FIRST_S: Final = 0.1
_MOST_S: Final = 2.0
_OK, _ACCEPTED, _CLIENT_ERROR, _SERVER_ERROR = 200, 202, 400, 500


class Poll:
    """One bundle's fetching. Times are seconds on one clock that only goes forward."""

    def __init__(self, asked: Asked, given: Given, within_s: float, now_s: float) -> None:
        self.url = f"{asked.api}/receipts/{given.request_id}/bundle"
        self._request_id = given.request_id
        self._ends_s = now_s + within_s
        self._next_s = _FIRST_S

    def failed(self, why: object, now_s: float) -> float:
        """There was no answer; how long to wait, or `ReceiptMissing`."""
        return self._wait(f"the gateway can't be reached ({why})", now_s)

    def answered(self, status: int, content: bytes, now_s: float) -> float | None:
        """None: `content` is the bundle. Else how long to wait, or `ReceiptMissing`."""
        if status == _OK:
            return None
        if status != _ACCEPTED and _CLIENT_ERROR <= status < _SERVER_ERROR:
            raise ReceiptMissing(
                f"the gateway has no receipt of request {self._request_id}: it answered {status}"
                f" {content[:200].decode('utf-8', 'replace')}"
            )
        return self._wait(f"the gateway answers {status}", now_s)

    def _wait(self, why: str, now_s: float) -> float:
        left, wait = self._ends_s - now_s, self._next_s
        if left <= 0:
            raise ReceiptMissing(f"no receipt of request {self._request_id} in time: {why}")
        self._next_s = min(2 * wait, _MOST_S)
        return min(wait, left)


def require_bounded(parts: Sequence[bytes]) -> None:
    """`ReceiptMissing` for an answer that is longer than any bundle."""
    if sum(map(len, parts)) > _MOST_BYTES:
        raise ReceiptMissing(f"the gateway's bundle is longer than {_MOST_BYTES} bytes")


def books_at(log_url: str) -> Callable[[bytes], object]:
    """Finds books at a log's public server, for `Trust.books`.

    Whatever it serves is checked against the root; `TransportFailure` where it serves nothing.
    """

    def find(root: bytes) -> object:
        url = f"{log_url.rstrip('/')}/books/{to_hex(root)}"
        try:
            return parse_json(httpx.get(url, timeout=30).raise_for_status().content)
        except (httpx.HTTPError, InvalidEncoding) as error:
            raise TransportFailure(f"no book at {url}: {error}") from error

    return find
