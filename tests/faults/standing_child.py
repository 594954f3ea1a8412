"""A coordinator that serves jobs until it is killed; after each it says what it has learnt.

    python -m tests.faults.standing_child DATABASE_URL

A line for each receipt: the number of leaves in the log, and SHA-256 of the reputation's state.
"""

import sys
from hashlib import sha256
from itertools import count

import trio

from pinaivu.codes import Reason
from pinaivu.store.database import Database, open_database
from pinaivu.typed_data import Signed
from tests.unit.coordinator_world import World, open_world
from tests.unit.ledger_support import DOMAIN, GATEWAY, NODES, failure


async def serve_one(world: World, number: int) -> None:
    """A job to its receipt; every third one's node fails."""
    world.put_offers(*(1_000_000 + 10_000 * place for place in range(len(NODES))))
    if number % 3 == 0:
        award = await world.awarded(number)
        said = failure(award.message, Reason.SILENT)
        job, _ = await world.evidence.failure(GATEWAY.address, Signed.by(GATEWAY, DOMAIN, said))
        world.sequencer.close(job)
    else:
        job = await world.served(number)
    await job.receipted.wait()


async def main(database: Database) -> None:
    """Serve and say so, for ever."""
    async with open_world(database) as world:
        for number in count(1):
            await serve_one(world, number)
            state = sha256(world.reputation.to_bytes()).hexdigest()
            sys.stdout.write(f"{world.log.size} {state}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main, open_database(sys.argv[1], "coordinator"))
