"""``python -m explorer.indexer --config FILE``: index log and chain until ended.

With ``--tethered`` it ends when its standard input does, that is, with the process that started it,
however that ends.
"""

import argparse
import contextlib
import logging
import os
import sys
import threading
import time
from pathlib import Path

from explorer.config import Config, load_config
from explorer.indexer.batches import BatchFollower
from explorer.indexer.chain_follower import ChainFollower, load_cursor
from explorer.indexer.history import History
from explorer.indexer.log_follower import LogFollower
from explorer.indexer.runner import Indexer
from explorer.sources import HttpLog
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployment import Deployment
from pinaivu.chain.events import Follower, LogReader
from pinaivu.chain.facts import ContractFacts
from pinaivu.chain.rpc import HttpRpc
from pinaivu.errors import PinaivuError
from pinaivu.store.database import Database, open_database

_LOOK_EVERY_S = 0.5


def build(config: Config, database: Database) -> Indexer:
    """The indexer of a configuration, over an opened database."""
    deployment = Deployment.load(Path(config.deployment))
    rpc, source = HttpRpc(config.rpc), HttpLog(config.log_url)
    client = ChainClient(rpc, deployment)

    def follow_chain() -> ChainFollower:
        client.check()
        reader = LogReader.of(rpc, deployment)
        steps = Follower(rpc, reader, deployment.block, resume=load_cursor(database))
        return ChainFollower(steps, lambda n: client.block(n).time_ms, database, config.log)

    return Indexer(
        database=database,
        log=LogFollower(source, lambda: ContractFacts(client)),
        batches=BatchFollower(source, database),
        load_history=lambda: History(database, deployment.domain, config.log),
        follow_chain=follow_chain,
        now_ms=lambda: time.time_ns() // 1_000_000,
    )


def main() -> int:
    """Run until ended; 2 where the configuration is wrong."""
    parser = argparse.ArgumentParser(prog="python -m explorer.indexer", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the configuration (JSON)")
    parser.add_argument("--tethered", action="store_true", help="end with standard input")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for chatty in ("alembic", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if arguments.tethered:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        config = load_config(arguments.config)
        indexer = build(config, open_database(config.database, "explorer"))
    except PinaivuError as error:
        print(f"explorer: {error}", file=sys.stderr)  # noqa: T201 - a program's last words
        return 2
    with contextlib.suppress(KeyboardInterrupt):
        indexer.run(lambda: time.sleep(_LOOK_EVERY_S))
    return 0


def _end_with_parent() -> None:
    """The database survives this at any moment, as it does a crash."""
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
