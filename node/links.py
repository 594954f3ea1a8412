"""Ready streams to a gateway: kept up for ever, each good for one order.

The node dials, so it needs no open port. A gateway is configured by its multiaddr, or by its
registered address: then where it is served, and under which peer key, is read from the registry
before every attempt, and one that moves is found again.

Orders run in a nursery of their own and outlive the connection's loss; they notice it on their
streams.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import trio

from node.executor import Executor
from node.ports import Chain
from pinaivu.endpoints import parse_endpoints
from pinaivu.errors import PeerFault, TransportFailure
from pinaivu.p2p import wire
from pinaivu.p2p.errors import NotConnected
from pinaivu.p2p.frames import FrameLimits
from pinaivu.p2p.host import Host
from pinaivu.p2p.links import Backoff, connect_any, keep_ready

_logger: Final = logging.getLogger(__name__)

Where = Callable[[], Awaitable[tuple[str, ...]]]
"""Multiaddrs with peer id of a gateway as of now; one of our errors while there are none."""


def gateway_at(configured: str, chain: Chain, *, private: bool) -> Where:
    """How to find a gateway: ``0x`` and its address for the registry, else its multiaddr."""

    async def as_configured() -> tuple[str, ...]:
        return (configured,)

    async def as_registered() -> tuple[str, ...]:
        gateway = bytes.fromhex(configured[2:])
        record = await trio.to_thread.run_sync(chain.gateway, gateway)
        if record is None:
            raise NotConnected(f"gateway {configured} is not registered")
        places = parse_endpoints(record.endpoints, private=private)
        if not places.multiaddrs:
            raise NotConnected(f"gateway {configured} has registered no address to dial")
        return places.under(record.peer_id)

    return as_registered if configured.startswith("0x") else as_configured


async def keep_serving(
    host: Host,
    where: Where,
    executor: Executor,
    *,
    jobs: trio.Nursery,
    idle: int,
    random: Callable[[], float],
    backoff: Backoff | None = None,
) -> NoReturn:
    """Keep `idle` streams ready at the gateway that `where` finds.

    Raises `Misconfigured` for the text of no address.
    """
    policy = backoff or Backoff(most=5.0)
    failures = 0
    while True:
        started = trio.current_time()
        try:
            peer = await connect_any(host, await where())
            await keep_ready(
                host,
                peer,
                wire.WORK_PROTOCOL,
                executor.serve,
                jobs=jobs,
                idle=idle,
                limits=FrameLimits.of(wire.MAX_WORK_FRAME),
            )
        except (TransportFailure, PeerFault) as error:
            _logger.info("a gateway: %s", error)
        lasted = trio.current_time() - started
        failures = 1 if lasted >= policy.healthy_after else failures + 1
        await trio.sleep(policy.delay(failures, random))
