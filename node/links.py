"""Ready streams to a gateway: kept up for ever, each good for one order.

The node dials, so it needs no open port. Orders run in a nursery of their own and outlive the
connection's loss; they notice it on their streams.
"""

import logging
from collections.abc import Callable
from typing import Final, NoReturn

import trio

from node.executor import Executor
from pinaivu.errors import PeerFault, TransportFailure
from pinaivu.p2p import wire
from pinaivu.p2p.frames import FrameLimits
from pinaivu.p2p.host import Host
from pinaivu.p2p.links import Backoff, keep_ready

_logger: Final = logging.getLogger(__name__)


async def keep_serving(
    host: Host,
    address: str,
    executor: Executor,
    *,
    jobs: trio.Nursery,
    idle: int,
    random: Callable[[], float],
    backoff: Backoff | None = None,
) -> NoReturn:
    """Keep `idle` streams ready at the gateway at `address`; `Misconfigured` if it is none."""
    policy = backoff or Backoff(most=5.0)
    failures = 0
    while True:
        started = trio.current_time()
        try:
            peer = await host.connect(address)
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
            _logger.info("gateway %s: %s", address, error)
        lasted = trio.current_time() - started
        failures = 1 if lasted >= policy.healthy_after else failures + 1
        await trio.sleep(policy.delay(failures, random))
