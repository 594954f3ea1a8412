"""`python -m coordinator --config FILE --identity-fd N`: started by boot, which hands over keys.

The exit code is 0 after SIGTERM or SIGINT, 2 where something is set up wrongly.
"""

import argparse
import logging
import signal
import sys
from pathlib import Path

import trio

from coordinator.app import Coordinator, open_coordinator
from coordinator.config import load_config
from pinaivu.epoch_identity import EpochIdentity
from pinaivu.errors import PinaivuError, flatten


def main() -> int:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m coordinator", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument(
        "--identity-fd", type=int, required=True, help="pipe on which boot hands over the identity"
    )
    arguments = parser.parse_args()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    code = 0
    try:
        config = load_config(arguments.config)
        identity = EpochIdentity.read_from_fd(arguments.identity_fd)
        trio.run(_run_until_signal, open_coordinator(config, identity))
    except* PinaivuError as group:
        for error in flatten(group):
            print(f"coordinator: {error}", file=sys.stderr)  # noqa: T201 - a program's last words
        code = 2
    return code


async def _run_until_signal(coordinator: Coordinator) -> None:
    stop = trio.Event()

    async def watch() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                stop.set()
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await coordinator.run(stop.wait)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    sys.exit(main())
