"""The submitter outlives whatever a log's server answers."""

import json
from collections.abc import Callable
from typing import cast

import httpx
import pytest

from coordinator.submitter import Submitter, follow
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployment import CONTRACTS, Deployment
from pinaivu.chain.rpc import JsonRpc
from pinaivu.chain.transactor import Transactor
from pinaivu.errors import PinaivuError

PLACES = (*CONTRACTS, "token", "access_manager")
LOG_ID = b"\x10" * 32


class Enough(Exception):
    """The test has seen what it wanted."""


def submitter(answers: Callable[[httpx.Request], httpx.Response]) -> Submitter:
    """One that never comes to its chain."""
    http = httpx.Client(transport=httpx.MockTransport(answers))
    places = {name: bytes([number]) * 20 for number, name in enumerate(PLACES, 1)}
    deployment = Deployment(chain_id=31_337, block=1, **places)  # type: ignore[arg-type]
    client = ChainClient(cast("JsonRpc", None), deployment)
    return Submitter(http, "http://log", client, cast("Transactor", None))


ODD = {
    "a list": b"[]",
    "a number": b"7",
    "no log id": b"{}",
    "a number as log id": b'{"log_id": 7}',
    "no JSON": b"<html>",
    "an abyss": b"[" * 100_000,
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_an_odd_attestation_is_an_error_of_ours(body: bytes) -> None:
    with pytest.raises(PinaivuError):
        submitter(lambda _: httpx.Response(200, content=body)).log_id()


def test_the_daemon_waits_an_odd_answer_out(caplog: pytest.LogCaptureFixture) -> None:
    """And learns the log's id when the server is itself again."""
    bodies = iter([*ODD.values(), json.dumps({"log_id": "0x" + LOG_ID.hex()}).encode()])
    seen: list[bytes] = []
    one = submitter(lambda _: httpx.Response(200, content=next(bodies)))

    def step(log_id: bytes) -> int:
        seen.append(log_id)
        raise Enough

    one.step = step  # type: ignore[method-assign]
    with pytest.raises(Enough):
        follow(one, lambda _: None)
    assert seen == [LOG_ID]
    assert len(caplog.records) == len(ODD)
