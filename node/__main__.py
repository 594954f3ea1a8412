"""`python -m node --config FILE`: serve models on the market until SIGTERM or SIGINT.

The exit code is 0 after a signal, 2 where something is set up wrongly or can't be reached; the last
line on the error stream says what to do.
"""

import argparse
import logging
import os
import random
import signal
import sys
import time
from pathlib import Path

import trio

from node.config import Config, load_config
from node.service import Surroundings, open_node
from pinaivu.core_dumps import forbid_core_dumps
from pinaivu.errors import PinaivuError, flatten
from pinaivu.keys import checksum


def main() -> int:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m node", description="Run a Pinaivu node.")
    parser.add_argument("--config", type=Path, required=True, help="the configuration (JSON)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for chatty in ("alembic", "httpx"):  # each start's migrations, each poll
        logging.getLogger(chatty).setLevel(logging.WARNING)
    code = 0
    forbid_core_dumps()
    try:
        trio.run(_serve, load_config(arguments.config))
    except* PinaivuError as group:
        for error in flatten(group):
            print(f"node: {error}", file=sys.stderr)  # noqa: T201 - a program's last words
        code = 2
    return code


async def _serve(config: Config) -> None:
    around = Surroundings(
        now_ms=lambda: time.time_ns() // 1_000_000,
        clock_ns=time.monotonic_ns,
        random_bytes=os.urandom,
        random=random.random,
        environment=os.environ,
    )
    stop, serving = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals, stop, serving, nursery.cancel_scope)
        async with open_node(config, around) as node:
            serving.set()
            logging.getLogger("node").info("node %s serves", checksum(node.address))
            await node.run(stop.wait)
        nursery.cancel_scope.cancel()


async def _watch_signals(stop: trio.Event, serving: trio.Event, scope: trio.CancelScope) -> None:
    """Stop in order at the first signal; at once while starting, or when asked again."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            if stop.is_set() or not serving.is_set():
                scope.cancel()
            stop.set()


if __name__ == "__main__":
    sys.exit(main())
