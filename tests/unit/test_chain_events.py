"""Reading logs from endpoints that limit ranges or answer badly (doubles, no chain)."""

from collections.abc import Sequence
from typing import Any

import pytest

from pinaivu.chain.errors import ChainUnavailable, RpcRefused
from pinaivu.chain.events import LogReader
from pinaivu.chain.rpc import Request


class LimitedEndpoint:
    """Serves no logs, and at most `limit` blocks at once."""

    endpoint = "double"

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.asked: list[int] = []

    def call(self, method: str, *params: Any) -> Any:
        """Only ``eth_getLogs``."""
        query = params[0]
        first, last = int(query["fromBlock"], 16), int(query["toBlock"], 16)
        if last - first + 1 > self.limit:
            raise RpcRefused(method, -32005, "block range too large")
        self.asked += range(first, last + 1)
        return []

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        """One after another."""
        return [self.call(method, *params) for method, params in requests]


def test_a_range_that_is_too_large_is_halved_until_it_fits() -> None:
    """Every block is asked for exactly once, in order."""
    endpoint = LimitedEndpoint(limit=3)
    assert LogReader(endpoint, {}).read(5, 24) == ()
    assert endpoint.asked == list(range(5, 25))


def test_an_endpoint_that_refuses_single_blocks_is_not_asked_for_ever() -> None:
    with pytest.raises(RpcRefused, match="too large"):
        LogReader(LimitedEndpoint(limit=0), {}).read(1, 1_000_000)


@pytest.mark.parametrize(
    "logs",
    [None, "0x", [{}], [{"address": "0x00"}], ["0x"], [{"address": "0xzz", "topics": []}]],
    ids=["null", "text", "empty log", "no topics", "no object", "no hex"],
)
def test_malformed_logs_are_the_endpoints_failure(logs: object) -> None:
    with pytest.raises(ChainUnavailable):
        LogReader(LimitedEndpoint(0), {}).decode(logs)
