"""Two hundred streams at once; their clients stall, vanish and return.

Gateway, coordinator's double and scripted nodes are in this process here, so its memory is all of
theirs. The same clients through a whole network are in `bench.gateway_load`, for `make test-deep`.
"""

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from bench.gateway_client import request_bytes
from bench.gateway_load import GROWTH, KINDS, Client, Load
from bench.gateway_usage import Usage
from pinaivu.errors import PinaivuError
from pinaivu.p2p.host import Liveness
from tests.integration.gateway_support import QUICK, Network, network, request
from tests.integration.p2p_support import until
from tests.integration.scripted_node import Work

SHORT = Load(streams=200, rounds=2, stall_s=1.0, arrivals_s=2.0)
PATIENT = QUICK.model_copy(
    update={"ready_within_s": 60, "patience_s": 60, "submit_within_s": 60, "after_cancel_s": 10}
)
UNHURRIED = Liveness(ping_after=5.0, answer_within=120.0)
WORDS = 5


async def paced(work: Work) -> None:
    """A word now and then, until it is told to stop."""
    with suppress(PinaivuError):  # the client has gone, and the stream with it
        for number in range(WORDS):
            await work.say(" word", finish="stop" if number == WORDS - 1 else None)
            with trio.move_on_after(0.4):
                await work.wait_cancel()
                break
        await work.end()


async def play_round(net: Network) -> Counter[str]:
    """All clients of a round, until each has what it came for."""
    answers: Counter[str] = Counter()
    port = urlsplit(net.url).port
    assert port
    raw = request_bytes(net.secret, request(stream=True))
    async with trio.open_nursery() as nursery:
        for number in range(SHORT.streams):
            client = Client(port, raw, SHORT, number / SHORT.streams)
            nursery.start_soon(client.play, KINDS[number % len(KINDS)], answers)
    await until(lambda: net.gateway.traffic.exchanges == 0 and net.gateway.logs.waiting == 0, 120)
    return answers


def require_told(answers: Counter[str]) -> None:
    """Whoever stayed got a whole answer; on a machine too busy for that, a few a 503 at once."""
    stayed = {kind: number for kind, number in answers.items() if ": gone" not in kind}
    whole = sum(number for kind, number in stayed.items() if kind.endswith(": whole"))
    told = sum(number for kind, number in stayed.items() if ": HTTP/1.1 503" in kind)
    assert whole + told == sum(stayed.values()), answers
    assert 10 * whole >= 9 * sum(stayed.values()), answers


@pytest.mark.timeout(900)
async def test_two_hundred_streams_leave_nothing_behind(tmp_path: Path) -> None:
    """When all are gone, so is what they took of memory."""
    resident = []
    async with network(tmp_path, paced, limits=PATIENT, liveness=UNHURRIED) as net:
        for _ in range(SHORT.rounds):
            answers = await play_round(net)
            require_told(answers)
            net.nodes[0].works.clear()  # the double's memory of each is not the gateway's
            (size,) = Usage.of({"gateway": os.getpid()}).resident.values()
            resident.append(size)
            assert net.gateway.traffic.answering == 0
    assert max(resident[1:]) - resident[0] <= GROWTH, resident
