"""A recent block for the manifest, read over JSON-RPC.

The block bounds the attestation's age from below: nobody knew its hash earlier. A server that lies
about it harms nothing but this boot, as no verifier accepts a document over an unknown block; hence
the first server that answers is believed here, whatever the parameters demand for money, and no TLS
root of theirs is pinned.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import httpx

from pinaivu.encoding import from_hex
from pinaivu.errors import InvalidEncoding, Misconfigured, TransportFailure
from pinaivu.manifest import Block

TIMEOUT_SECONDS: Final = 10.0
_HASH_BYTES: Final = 32


class BlockSource(Protocol):
    """Where boot learns of a recent block of its chain.

    Reads only. Raises `TransportFailure` when no answer can be had (the caller gives up; whoever
    started it may try again) and `Misconfigured` for another chain than expected.
    """

    def latest(self) -> Block:
        """The newest block that its reader holds for settled."""


class JsonRpcBlocks:
    """`BlockSource` over HTTP: the first of several servers that answers."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        chain_id: int,
        finality_blocks: int,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._urls = tuple(urls)
        self._chain_id = chain_id
        self._finality_blocks = finality_blocks
        self._transport = transport

    def latest(self) -> Block:
        """See `BlockSource.latest`: `finality_blocks` below the head."""
        failures = []
        with httpx.Client(
            timeout=TIMEOUT_SECONDS, transport=self._transport, trust_env=False
        ) as client:
            for url in self._urls:
                try:
                    return self._read(client, url)
                except TransportFailure as error:
                    failures.append(f"{url}: {error}")
        raise TransportFailure(
            "no chain server answered; start it or check the address: " + "; ".join(failures)
        )

    def _read(self, client: httpx.Client, url: str) -> Block:
        chain_id = _quantity(_call(client, url, "eth_chainId"))
        if chain_id != self._chain_id:
            raise Misconfigured(
                f"{url} serves chain {chain_id}, this boot is for {self._chain_id}:"
                " correct --chain-id or the parameters' rpc"
            )
        head = _quantity(_call(client, url, "eth_blockNumber"))
        number = max(0, head - self._finality_blocks)
        block = _call(client, url, "eth_getBlockByNumber", hex(number), False)
        try:
            return Block(number=number, hash=from_hex(block["hash"], _HASH_BYTES))
        except (InvalidEncoding, KeyError, TypeError) as error:
            raise TransportFailure(f"no usable block {number}") from error


def _call(client: httpx.Client, url: str, method: str, *params: object) -> Any:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    try:
        response = client.post(url, json=request).raise_for_status()
        return response.json()["result"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise TransportFailure(f"{method}: {error!r}") from error


def _quantity(raw: object) -> int:
    try:
        return int(str(raw), 16)
    except ValueError as error:
        raise TransportFailure(f"{raw!r} is no quantity") from error
