"""A parent that runs an engine under a supervisor until it is killed; prints the engine's ids.

    python -m tests.integration.engine_parent DIRECTORY

Started by a test that kills it with SIGKILL. Prints `TETHER ENGINE_URL` once the engine serves.
"""

import sys
from pathlib import Path

import trio

from node.engines.client import EngineClient
from node.engines.supervisor import Limits, Supervisor
from tests.integration.test_engine_supervisor import double


async def main(directory: Path) -> None:
    supervisor = Supervisor(
        double("--ignore-term", "--worker", str(directory / "worker")),
        log_path=directory / "log",
        report=lambda _: None,
        limits=Limits(grace_s=0.3),
    )
    async with trio.open_nursery() as nursery:
        client: EngineClient = await nursery.start(supervisor.run)
        print(supervisor.pid, client.url, flush=True)  # noqa: T201  # read by the test


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
