# ruff: noqa: ARG001 - the virtual clock acts by being there
"""Epochs: only keys the chain activated count, and a boot ends when the next takes over."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from sqlmodel import select
from trio.testing import MockClock

from coordinator.epochs import activation, known_signers, parameters_by_epoch, watch
from coordinator.errors import LogDiverged
from coordinator.ports import EpochRecord
from pinaivu.encoding import jcs
from pinaivu.store.coordinator import EpochRow
from pinaivu.store.database import Database, open_database
from pinaivu.testing.parties import EpochParty, make_epoch, make_parties
from pinaivu.testing.sources import SeededRandom
from tests.unit.coordinator_world import RULES, ChainDouble, with_rules
from tests.unit.ledger_support import DOMAIN, LOG, NOW, secret

RANDOM = SeededRandom(1)
BOOT: EpochParty = make_epoch(
    1, make_parties(DOMAIN, RANDOM, NOW), RANDOM, lambda _manifest: b"document", RULES
)
RECORD = EpochRecord(1, BOOT.key.address, 0, BOOT.manifest.digest())


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A store with one epoch."""
    opened = open_database(f"sqlite:///{tmp_path}/c.db", "coordinator")
    row = EpochRow(
        number=1,
        signer=BOOT.key.address,
        manifest=jcs(BOOT.manifest.to_json()).decode(),
        parameters=jcs(BOOT.parameters.to_json()).decode(),
        document=BOOT.document,
    )
    with opened.begin() as session:
        session.add(row)
    yield opened
    opened.close()


def test_the_chains_keys_are_known(database: Database) -> None:
    with database.read() as session:
        assert known_signers(session, ChainDouble(epochs={1: RECORD}), LOG) == {1: RECORD.key}
        assert parameters_by_epoch(session) == {1: RULES}


@pytest.mark.parametrize(
    "change",
    [
        {"signer": secret(99).address},
        {"parameters": jcs(with_rules(fee_bps=9_999).to_json()).decode()},
        {"manifest": jcs(BOOT.manifest.to_json()).decode().replace("0.1.0", "0.1.1")},
        {"number": 2},
    ],
    ids=["signer", "parameters", "manifest", "number"],
)
def test_an_epoch_that_the_chain_does_not_have(
    database: Database, change: dict[str, object]
) -> None:
    """A host's own key, fees or number in the store are never worked with."""
    with database.begin() as session:
        row = session.exec(select(EpochRow)).one()
        for name, value in change.items():
            setattr(row, name, value)
    with database.read() as session, pytest.raises(LogDiverged, match="not the one on chain"):
        known_signers(session, ChainDouble(epochs={1: RECORD}), LOG)


async def read_again(chain: ChainDouble) -> None:
    """Virtual time passes until the chain has been read twice, so once from beginning to end."""
    before = chain.reads
    while chain.reads < before + 2:  # noqa: ASYNC110 - the double has no events
        await trio.sleep(1)


async def test_a_boot_waits_until_its_own_key_is_active(autojump_clock: MockClock) -> None:
    """Over an unreachable chain and another's epoch."""
    chain, found = ChainDouble(down=True), []

    async def wait() -> None:
        found.append(await activation(chain, LOG, secret(33).address))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await read_again(chain)
        chain.down = False
        chain.epochs[1] = RECORD
        await read_again(chain)
        assert found == []
        chain.epochs[2] = EpochRecord(2, secret(33).address, 0)
    assert found == [chain.epochs[2]]


async def test_a_later_boot_ends_this_one(autojump_clock: MockClock) -> None:
    """A chain that is away or has rolled back doesn't."""
    chain = ChainDouble(epochs={1: RECORD})
    with pytest.RaisesGroup(pytest.RaisesExc(LogDiverged, match="epoch 2 has ended this one")):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, chain, LOG, RECORD)
            await read_again(chain)
            chain.down = True
            await read_again(chain)
            chain.down = False
            chain.epochs.clear()
            await read_again(chain)
            chain.epochs[2] = EpochRecord(2, secret(33).address, 0)
            await trio.sleep_forever()
