"""JSON-RPC over HTTP: the port through which everything here reaches a chain.

`JsonRpc` promises nothing about consistency between two calls (an endpoint may be a pool of
servers) and does not retry; callers that need one view pin a block. web3.py is not used: importing
it costs two seconds of CPU per process, and its typed log reader is fifteen times slower.
"""

from collections.abc import Iterator, Sequence
from ssl import SSLContext
from typing import Any, Final, Protocol, Self

import httpx
import msgspec

from pinaivu.chain.errors import ChainUnavailable, RpcRefused, WrongChain
from pinaivu.chain.words import quantity

BATCH_CALLS: Final = 100

Request = tuple[str, Sequence[object]]


class JsonRpc(Protocol):
    """One chain endpoint. Safe to call from several threads at once.

    Errors: `ChainUnavailable` when no usable answer came (the call may or may not have been
    carried out), `RpcRefused` when the endpoint answered with an error. No retries.
    """

    @property
    def endpoint(self) -> str:
        """The endpoint's name for messages, without credentials."""

    def call(self, method: str, *params: object) -> Any:
        """The `result` of one call."""

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        """The `result` of each request, in order; the first error among them is raised."""


class _Reply(msgspec.Struct):
    id: int | None = None
    result: Any = None
    error: dict[str, Any] | None = None


_ONE: Final = msgspec.json.Decoder(_Reply)
_MANY: Final = msgspec.json.Decoder(_Reply | list[_Reply])


class HttpRpc:
    """`JsonRpc` by HTTP POST with kept-open connections.

    `timeout_s` bounds each network step. `tls` replaces the default trust roots. Call `close`, or
    use it as a context manager.
    """

    def __init__(self, url: str, *, timeout_s: float = 15.0, tls: SSLContext | None = None) -> None:
        parsed = httpx.URL(url)
        self.endpoint = str(parsed.copy_with(userinfo=b"", query=None))
        self._url = parsed
        self._http = httpx.Client(
            timeout=timeout_s,
            verify=tls or parsed.scheme == "https",  # loading trust roots costs; http needs none
            trust_env=False,
            headers={"content-type": "application/json"},
        )

    def call(self, method: str, *params: object) -> Any:
        """See `JsonRpc.call`."""
        try:
            reply = _ONE.decode(self._post(_body(0, method, params)))
        except msgspec.DecodeError as error:
            raise self._unusable(method, error) from error
        return _result(method, reply)

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        """See `JsonRpc.batch`; sent in groups of at most `BATCH_CALLS`."""
        groups = (
            requests[start : start + BATCH_CALLS] for start in range(0, len(requests), BATCH_CALLS)
        )
        return [result for group in groups for result in self._batch(group)]

    def _batch(self, requests: Sequence[Request]) -> Iterator[Any]:
        bodies = [_body(number, *request) for number, request in enumerate(requests)]
        what = f"batch of {len(bodies)}"
        try:
            replies = _MANY.decode(self._post(bodies))
        except msgspec.DecodeError as error:
            raise self._unusable(what, error) from error
        if isinstance(replies, _Reply):
            _result(what, replies)
            raise self._unusable(what, "one answer to many calls")
        by_id = {reply.id: reply for reply in replies}
        for number, (method, _) in enumerate(requests):
            reply = by_id.get(number)
            if reply is None:
                raise self._unusable(what, "an answer is missing")
            yield _result(method, reply)

    def close(self) -> None:
        """Close the kept-open connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(self, body: object) -> bytes:
        try:
            answer = self._http.post(self._url, content=msgspec.json.encode(body))
        except httpx.HTTPError as error:
            raise self._unusable("no answer", error or type(error).__name__) from error
        # Some servers send JSON-RPC errors with an HTTP error status; their body says more.
        if answer.is_error and not answer.content.lstrip().startswith((b"{", b"[")):
            raise self._unusable("no answer", f"HTTP status {answer.status_code}")
        return answer.content

    def _unusable(self, what: str, why: object) -> ChainUnavailable:
        return ChainUnavailable(f"chain endpoint {self.endpoint}: {what}: {why}")


def require_chain(rpc: JsonRpc, chain_id: int) -> None:
    """Raise `WrongChain` unless the endpoint serves `chain_id`."""
    found = quantity(rpc.call("eth_chainId"))
    if found != chain_id:
        raise WrongChain(rpc.endpoint, chain_id, found)


def _body(number: int, method: str, params: Sequence[object]) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}


def _result(method: str, reply: _Reply) -> Any:
    if reply.error is not None:
        error = reply.error
        code, message = error.get("code", 0), str(error.get("message", "unknown error"))
        raise RpcRefused(method, code, message, error.get("data"))
    return reply.result
