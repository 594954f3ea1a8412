"""A world's batches: receipts to put in them, and what the store says of them."""

from sqlmodel import col, select

from pinaivu.messages import Batch
from pinaivu.store.coordinator import BatchRow
from pinaivu.typed_data import signed_from_bytes
from tests.unit.coordinator_world import World
from tests.unit.ledger_support import DOMAIN, EPOCH, secret

SECOND = secret(33)
SIGNERS = {1: EPOCH.address, 2: SECOND.address}


async def receipt(world: World, number: int) -> None:
    world.put_offers(1_000_000, 1_100_000)
    job = await world.served(number)
    await job.receipted.wait()


async def batch(world: World) -> Batch:
    """Time passes, and the settler closes the batch that is due."""
    world.now += world.rules.batch_age_ms
    await world.settler._look()
    return stored(world)[-1][0]


def stored(world: World) -> list[tuple[Batch, str]]:
    """Batches and their states as they are published; signatures checked."""
    with world.writer._database.read() as session:
        rows = session.exec(select(BatchRow).order_by(col(BatchRow.sequence))).all()
    found = []
    for row in rows:
        signed = signed_from_bytes(Batch, row.batch)
        signed.require(DOMAIN, SIGNERS[signed.message.epoch])
        found.append((signed.message, row.state))
    return found


def states(world: World) -> list[str]:
    return [state for _, state in stored(world)]
