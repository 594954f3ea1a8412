"""`python -m gateway --config FILE`: serves until SIGTERM or SIGINT.

The exit code is 0 after one of them, 2 where something is set up wrongly.
"""

import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path

import trio

from gateway.config import load_config
from gateway.log_lines import begin_logging
from gateway.service import Sources, serve
from pinaivu.core_dumps import forbid_core_dumps
from pinaivu.errors import PinaivuError, flatten


def main() -> int:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="TOML, or JSON as .json")
    arguments = parser.parse_args()
    code = 0
    forbid_core_dumps()
    try:
        config = load_config(arguments.config, os.environ)
        begin_logging(config.log_level, config.log_format)
        sources = Sources(
            now_ms=lambda: time.time_ns() // 1_000_000,
            random_bytes=os.urandom,
            random=random.random,
        )
        trio.run(serve, config, sources, _told_to_stop)
    except* PinaivuError as group:
        for error in flatten(group):
            print(f"gateway: {error}", file=sys.stderr)  # noqa: T201 - a program's last words
        code = 2
    return code


async def _told_to_stop() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            return


if __name__ == "__main__":
    sys.exit(main())
