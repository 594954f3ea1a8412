"""What an `Idempotency-Key` stands for where the database fails: one run, and no dead end."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.claims import Claims
from gateway.errors import ApiError
from gateway.quotas import Quotas
from gateway.seals import Seal
from pinaivu.store.database import open_database
from pinaivu.store.gateway_claims import Claim
from pinaivu.store.gateway_keys import create_key
from pinaivu.store.gateway_policy import Policy
from pinaivu.store.writer import open_writer
from tests.faults.storage import Fault, FaultyDatabase
from tests.unit.gateway_facts import NOW, PAYER, Drawn, demand
from tests.unit.test_gateway_access import Clock


class Desk:
    """A process of a gateway, as far as names of requests are concerned."""

    def __init__(self, database: FaultyDatabase, quotas: Quotas, claims: Claims) -> None:
        self.database = database
        self.quotas = quotas
        self._claims = claims
        made = create_key(database, payer=PAYER.address, label="", random=Drawn(), now_ms=NOW)
        self._key_id, self._seal = made.key_id, Seal.of(made.secret)

    async def take(self) -> Claim:
        """Claim the name; `ApiError` where it stands for a request."""
        taken = await self._claims.take(self._key_id, "order 66", demand(), self._seal)
        assert isinstance(taken, Claim)
        return taken

    async def find_it_taken(self) -> None:
        """Ask again while the name stands for a request under way."""
        with pytest.raises(ApiError) as caught:
            await self.take()
        assert caught.value.code == "idempotency_in_progress"

    async def come_to_nothing(self, claim: Claim) -> None:
        """The claim's request is let in, and refused by the market."""
        held = await self.quotas.reserve(claim.key_id, Policy(), 1, 1, claim)
        await self.quotas.settle(held, (0, 0))


@asynccontextmanager
async def desk(folder: Path) -> AsyncGenerator[Desk]:
    database = FaultyDatabase(open_database(f"sqlite:///{folder / 'g.db'}", "gateway"))
    clock = Clock()
    async with open_writer(database) as writer:
        quotas = Quotas(writer, clock, Drawn())
        await quotas.enter()
        yield Desk(database, quotas, Claims(writer, quotas.process_id, clock))
    database.close()


async def test_what_is_settled_late_leaves_the_next_claim_alone(tmp_path: Path) -> None:
    """The name was free again, but the database did not say so; meanwhile it was taken anew."""
    async with desk(tmp_path) as found:
        first = await found.take()
        found.database.next_unsynced = Fault.PERSISTED
        await found.come_to_nothing(first)
        await found.take()
        await found.quotas.beat()
        await found.find_it_taken()


async def test_what_is_released_twice_leaves_the_next_claim_alone(tmp_path: Path) -> None:
    async with desk(tmp_path) as found:
        first = await found.take()
        await found.come_to_nothing(first)
        await found.take()
        await found.quotas.release(first)
        await found.find_it_taken()


async def test_a_name_that_could_not_be_released_is_free_a_beat_later(tmp_path: Path) -> None:
    async with desk(tmp_path) as found:
        first = await found.take()
        found.database.next_unsynced = Fault.NOT_PERSISTED
        await found.quotas.release(first)
        await found.find_it_taken()
        await found.quotas.beat()
        await found.take()
