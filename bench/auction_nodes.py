"""The nodes of the auction bench, all in one process, each with a host and a connection of its own.

    python -m bench.auction_nodes COORDINATOR_ADDRESS NODES [plain]

They register offers, renew them as nodes do, and answer calls with signed bids. There is no engine
and no work. A JSON line says when all are in; the process ends with its stdin.
`plain`: with libp2p as it comes.
"""

import sys
from functools import partial
from itertools import count

import trio

from bench.auction_coordinator import orders, say
from bench.auction_market import LOG, PATIENT, bid, key_of, offer
from coordinator.app import now_ms
from node.offers import RENEW_S
from pinaivu.messages import Offer
from pinaivu.p2p import wire
from pinaivu.p2p.calls import Calls
from pinaivu.p2p.frames import FrameLimits, FrameStream
from pinaivu.p2p.host import open_host
from pinaivu.p2p.links import keep_connected

_PATIENCE_S = 60.0


class Bidder:
    """One node's end of its control stream."""

    def __init__(self, number: int, *, patched: bool) -> None:
        self._patched = patched
        self.number = number
        self.key = key_of("node", number)
        self.entered = trio.Event()
        self.standing: Offer | None = None
        self._sequences = count(1)

    async def run(self, address: str) -> None:
        """Stay connected, as nodes do: on a busy machine a connection may be given up."""
        async with open_host(self.key.secret, liveness=PATIENT, patched=self._patched) as host:
            await keep_connected(
                host,
                (address,),
                wire.NODE_PROTOCOL,
                self._session,
                random=lambda: 0.5,
                limits=FrameLimits.of(wire.MAX_CONTROL_FRAME),
            )

    async def _session(self, stream: FrameStream) -> None:
        """Say hello, and keep an offer standing."""
        calls = Calls(stream, on_call=self.answer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.run)
            await calls.call(wire.encode(wire.Hello(self.key.address, LOG)), _PATIENCE_S)
            for sequence in self._sequences:
                signed = offer(self.key, self.number, sequence, now_ms())
                self.standing = signed.message
                await calls.call(wire.encode(wire.PutOffer(signed.to_bytes())), _PATIENCE_S)
                self.entered.set()
                await trio.sleep(RENEW_S)

    async def answer(self, payload: bytes) -> bytes:
        """A bid on a call."""
        await trio.lowlevel.checkpoint()
        call = wire.read_coordinator_to_node(payload)
        assert isinstance(call, wire.AuctionCall)
        assert self.standing
        return wire.encode(wire.BidReply(bid(self.key, self.standing, call).to_bytes()))


async def main(address: str, nodes: int, *, patched: bool) -> None:
    """Bid until stdin ends."""
    async with trio.open_nursery() as nursery:
        for number in range(nodes):
            bidder = Bidder(number, patched=patched)
            nursery.start_soon(bidder.run, address)
            await bidder.entered.wait()  # one at a time: connecting is not what is measured
        say({"nodes": nodes})
        async for _ in orders():
            pass
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(partial(main, sys.argv[1], int(sys.argv[2]), patched="plain" not in sys.argv[3:]))
