"""Which logs and gateways there are, as the chain knows them.

Anybody can open a log that nobody serves. A log counts as known when it has an active epoch, for
which an allowed code was attested; among those, payers' money decides. Where a known log is served
is `ChainClient.log_endpoints`, read with `pinaivu.endpoints`.

Anybody can register a gateway, too, and nothing on chain tells a busy one from an abandoned one:
whoever serves them all bounds how many.
"""

from itertools import islice
from typing import Final

from pinaivu.chain.abi import load
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployment import CONTRACTS
from pinaivu.chain.events import RANGE_BLOCKS, LogReader
from pinaivu.chain.views import read, read_many, view

MOST_LOOKED_AT: Final = 512
"""Logs looked at, the first opened first: who floods the list comes after those who were there."""

_MOST_EPOCHS_READ: Final = 64


def known_logs(client: ChainClient, most: int) -> tuple[bytes, ...]:
    """Up to `most` logs with an active epoch, those with the most money assigned first.

    All at one block, in few round trips; raises `ChainUnavailable`.
    """
    at = client.head()
    ids = _opened(client, at)
    assigned = dict(zip(ids, _assigned(client, ids, at), strict=True))
    richest = sorted(ids, key=lambda log_id: (-assigned[log_id], log_id))[:_MOST_EPOCHS_READ]
    active = (log_id for log_id in richest if client.active_epoch(log_id, at))
    return tuple(islice(active, most))


def _opened(client: ChainClient, block: int) -> list[bytes]:
    abi, contract = CONTRACTS["receipt_log"], client.deployment.receipt_log
    (count,) = read(client.rpc, view(abi, contract, "logCount"), block)
    asked = [
        view(abi, contract, "logAt", position) for position in range(min(count, MOST_LOOKED_AT))
    ]
    return [bytes(log_id) for (log_id,) in read_many(client.rpc, asked, block)]


def _assigned(client: ChainClient, ids: list[bytes], block: int) -> list[int]:
    """Base units that payers have assigned to each log."""
    contract = client.deployment.settlement
    asked = [view(CONTRACTS["settlement"], contract, "logStateOf", log_id) for log_id in ids]
    return [int(state[1]) for (state,) in read_many(client.rpc, asked, block)]


def registered_gateways(
    client: ChainClient, first: int | None = None
) -> tuple[tuple[bytes, ...], int]:
    """Gateways that registered or moved from block `first` on (None: ever), in that order.

    Also the block to go on from. Raises `ChainUnavailable`.
    """
    reader = LogReader.of(client.rpc, client.deployment)
    topics = (load(CONTRACTS["gateway_registry"]).event("GatewayRegistered").topic,)
    start, end = client.deployment.block if first is None else first, client.head()
    found = dict[bytes, None]()
    for low in range(start, end + 1, RANGE_BLOCKS):
        for event in reader.read(low, min(low + RANGE_BLOCKS - 1, end), topics=topics):
            found[bytes(event.arguments["gateway"])] = None
    return tuple(found), max(start, end + 1)
