"""What a stranger's stream may have waiting at the coordinator, over pipes in memory."""

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import trio

from coordinator.directory import Directory
from coordinator.ports import NodeRecord
from coordinator.sessions import Sessions
from pinaivu.p2p import wire
from pinaivu.p2p.calls import Calls
from tests.unit.coordinator_world import ChainDouble, signed_grant, signed_job, signed_offer
from tests.unit.ledger_support import LOG, NODES, NOW
from tests.unit.p2p_pipes import PEER, connected

PATIENCE = 20.0
Serve = Callable[[Sessions], Callable[..., Awaitable[None]]]


class SilentChain(ChainDouble):
    """A chain that knows nobody, and doesn't say so until the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.spoken = threading.Event()
        self.asked = 0

    def _nobody(self) -> None:
        self.asked += 1
        assert self.spoken.wait(PATIENCE)

    def node(self, node: bytes) -> NodeRecord | None:
        """None, in the end."""
        assert len(node) == 20
        self._nobody()
        return None

    def gateway_peer(self, gateway: bytes) -> bytes | None:
        """None, in the end."""
        assert len(gateway) == 20
        self._nobody()
        return None


def _job() -> wire.SubmitJob:
    return wire.SubmitJob(signed_job().to_bytes(), signed_grant().to_bytes())


def _offer() -> wire.PutOffer:
    return wire.PutOffer(signed_offer(NODES[0]).to_bytes())


@pytest.mark.parametrize(
    ("serve", "call", "read"),
    [
        (lambda to: to.serve_gateway, _job, wire.read_gateway_answer),
        (lambda to: to.serve_node, _offer, wire.read_node_answer),
    ],
    ids=["gateway", "node"],
)
async def test_a_strangers_calls_do_not_wait_for_the_chain(
    serve: Serve, call: Callable[[], msgspec.Struct], read: Callable[[bytes], Any]
) -> None:
    """One Hello does; whatever else comes is refused at once, so that nothing piles up."""
    chain = SilentChain()
    sessions = Sessions(Directory(chain), LOG, lambda: NOW)
    first: list[Any] = []
    async with connected() as (ours, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(serve(sessions), PEER, ours)
        calls = Calls(theirs)
        nursery.start_soon(calls.run)

        async def refused(frame: msgspec.Struct) -> str:
            answer = read(await calls.call(wire.encode(frame), PATIENCE))
            assert isinstance(answer, wire.Refused)
            return answer.code

        async def stranger() -> None:
            first.append(await refused(wire.Hello(bytes(20), LOG)))

        nursery.start_soon(stranger)
        while not chain.asked:
            await trio.lowlevel.checkpoint()
        try:
            for number in range(1, 101):
                with trio.fail_after(PATIENCE / 2):
                    assert await refused(wire.Hello(number.to_bytes(20), LOG)) == "in_progress"
                    assert await refused(call()) == "no_hello"
            assert (chain.asked, first) == (1, [])
        finally:
            chain.spoken.set()
        while not first:
            await trio.lowlevel.checkpoint()
        assert first == ["not_registered"]
        assert await refused(wire.Hello(bytes(20), LOG)) == "not_registered"
        nursery.cancel_scope.cancel()
