"""Standings after `kill -9`: those of one that never stopped, and of a stranger's replay."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path

import pytest
from sqlmodel import col, select

from pinaivu.messages import Receipt
from pinaivu.reputation import Reputation
from pinaivu.store.coordinator import LeafRow
from pinaivu.store.database import Database, open_database
from pinaivu.typed_data import signed_from_bytes
from tests.faults.standing_child import serve_one
from tests.unit.coordinator_world import RULES, open_world
from tests.unit.ledger_support import EPOCH, secret

SECOND = secret(33)  # the next boot's key
SERVED = 12


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/c.db"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = open_database(url, "coordinator")
    yield opened
    opened.close()


def killed(url: str) -> dict[int, str]:
    """What a coordinator said before it was killed: its state after so many leaves."""
    command = [sys.executable, "-m", "tests.faults.standing_child", url]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout
        said = [line.split() for line in islice(child.stdout, SERVED)]
        child.send_signal(signal.SIGKILL)
        said += [line.split() for line in child.stdout]
    assert child.returncode == -signal.SIGKILL
    return {int(size): state for size, state in said}


def replayed(database: Database) -> dict[int, bytes]:
    """The state after so many leaves of the stored log, as anybody computes it from receipts."""
    reputation, states = Reputation(RULES), {}
    query = select(LeafRow).order_by(col(LeafRow.position))
    with database.read() as session:
        for row in session.exec(query):
            if row.kind == "Receipt":
                reputation.learn(signed_from_bytes(Receipt, row.signed).message)
            states[row.position + 1] = reputation.to_bytes()
    return states


async def test_a_killed_coordinator_comes_back_with_the_same_standings(
    url: str, database: Database
) -> None:
    """Byte for byte: before the kill, right after the boot, and after more jobs."""
    said = killed(url)
    before = replayed(database)
    assert len(said) >= SERVED
    assert said == {size: sha256(before[size]).hexdigest() for size in said}

    signers = {1: EPOCH.address, 2: SECOND.address}
    async with open_world(database, epoch=2, key=SECOND, signers=signers) as world:
        assert world.reputation.to_bytes() == before[max(before)]
        for left in list(world.docket.jobs.values()):
            world.sequencer.close(left)
            await left.receipted.wait()
        for number in range(1001, 1007):
            await serve_one(world, number)
        now = world.reputation.to_bytes()
    after = replayed(database)
    assert now == after[max(after)]
    assert now != before[max(before)]
