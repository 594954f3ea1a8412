"""The journal on a real database: once per award, whatever fails and whoever restarts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from node.errors import AwardUsed
from node.journal import MOST_REFUSALS, Journal, Owed
from pinaivu.codes import Finish
from pinaivu.messages import Completion, Receipt, Segment
from pinaivu.store.database import StorageFailed, open_database
from pinaivu.store.writer import open_writer
from pinaivu.typed_data import Signed
from tests.faults.storage import Fault, FaultyDatabase
from tests.unit import node_support as n

DIGEST = b"\x71" * 32


@asynccontextmanager
async def _journal(path: Path) -> AsyncIterator[Journal]:
    database = open_database(f"sqlite:///{path / 'node.db'}", "node")
    async with open_writer(database) as writer:
        yield Journal(writer)
    database.close()


def _completion(digest: bytes = DIGEST, **changes: Any) -> Signed[Completion]:
    values = Completion(
        award_digest=digest,
        node=n.NODE.address,
        fingerprint=n.FINGERPRINT,
        segment_commitment=b"\x72" * 32,
        response_commitment=bytes(32),
        start_byte=0,
        end_byte=10,
        prompt_tokens=5,
        output_tokens=7,
        acks=1,
        last_preimage=b"\x73" * 32,
        finish=int(Finish.STOP),
        started_ms=n.NOW,
        first_token_ms=n.NOW + 1,
        finished_ms=n.NOW + 2,
        audit_commitment=bytes(32),
    )
    return Signed.by(n.NODE, n.DOMAIN, msgspec.structs.replace(values, **changes))


async def test_an_award_is_used_once_ever(tmp_path: Path) -> None:
    """Also by the process after the next."""
    async with _journal(tmp_path) as journal:
        await journal.use(DIGEST, n.LOG, b"award", n.NOW)
        with pytest.raises(AwardUsed):
            await journal.use(DIGEST, n.LOG, b"award", n.NOW)
        await journal.use(b"\x74" * 32, n.LOG, b"other", n.NOW)
    async with _journal(tmp_path) as journal:
        with pytest.raises(AwardUsed):
            await journal.use(DIGEST, n.LOG, b"award", n.NOW)


async def test_the_first_completion_stands(tmp_path: Path) -> None:
    """A second one, even of another process, is never sent."""
    first = _completion()
    async with _journal(tmp_path) as journal:
        assert await journal.complete(first, n.LOG, n.NOW) == first
    async with _journal(tmp_path) as journal:
        assert await journal.complete(_completion(output_tokens=8), n.LOG, n.NOW + 5) == first
        assert await journal.owed(n.LOG) == [Owed(DIGEST, first.to_bytes())]


async def test_what_is_owed_survives_until_it_is_taken(tmp_path: Path) -> None:
    """Oldest first, each log's own."""
    other = b"\x75" * 32
    async with _journal(tmp_path) as journal:
        await journal.complete(_completion(other), n.LOG, n.NOW + 1)
        await journal.complete(_completion(), n.LOG, n.NOW)
    async with _journal(tmp_path) as journal:
        assert [owed.award_digest for owed in await journal.owed(n.LOG)] == [DIGEST, other]
        assert await journal.owed(b"\x12" * 32) == []
        await journal.taken(DIGEST)
    async with _journal(tmp_path) as journal:
        assert [owed.award_digest for owed in await journal.owed(n.LOG)] == [other]


async def test_a_completion_refused_too_often_is_given_up(tmp_path: Path) -> None:
    """It is kept, though no longer offered."""
    async with _journal(tmp_path) as journal:
        await journal.complete(_completion(), n.LOG, n.NOW)
        again = [await journal.refused(DIGEST) for _ in range(MOST_REFUSALS)]
        assert again == [True] * (MOST_REFUSALS - 1) + [False]
        assert await journal.owed(n.LOG) == []
        assert await journal.complete(_completion(output_tokens=9), n.LOG, n.NOW) == _completion()


@pytest.mark.parametrize("fault", Fault)
async def test_a_failed_write_raises_whether_it_happened_or_not(
    tmp_path: Path,
    fault: Fault,
) -> None:
    """The caller must treat the award as used and the completion as unsent; a restart tells."""
    database = open_database(f"sqlite:///{tmp_path / 'node.db'}", "node")
    failing, kept = FaultyDatabase(database), fault == Fault.PERSISTED
    async with open_writer(failing) as writer:
        failing.next_commit = fault
        with pytest.raises(StorageFailed):
            await Journal(writer).use(DIGEST, n.LOG, b"award", n.NOW)
        failing.next_commit = fault
        with pytest.raises(StorageFailed):
            await Journal(writer).complete(_completion(), n.LOG, n.NOW)
    async with open_writer(database) as writer:
        journal = Journal(writer)
        if kept:
            with pytest.raises(AwardUsed):
                await journal.use(DIGEST, n.LOG, b"award", n.NOW)
        else:
            await journal.use(DIGEST, n.LOG, b"award", n.NOW)
        assert bool(await journal.owed(n.LOG)) == kept
        assert await journal.complete(_completion(), n.LOG, n.NOW) == _completion()
    database.close()


def receipt(counter: int, total: int, *, log_id: bytes = n.LOG) -> Signed[Receipt]:
    """A receipt on which the node earned 9 of 10."""
    segment = Segment(
        node=n.NODE.address,
        rank=1,
        award_digest=counter.to_bytes(32),
        completion_digest=bytes(32),
        segment_commitment=bytes(32),
        start_byte=0,
        end_byte=1,
        prompt_billed=1,
        output_billed=1,
        output_node=1,
        output_gateway=1,
        acks=1,
        price_in=1,
        price_out=1,
        clearing=1,
        result=0,
        amount=10,
        fee=1,
        node_counter=counter,
        node_total=total,
    )
    passed_over = msgspec.structs.replace(segment, rank=0, amount=0, fee=0, node_counter=0)
    foreign = msgspec.structs.replace(segment, node=n.STRANGER.address, node_counter=77)
    values = Receipt(
        log_id=log_id,
        epoch=1,
        job_id=counter.to_bytes(16),
        gateway=n.GATEWAY.address,
        payer=b"\x62" * 20,
        account=bytes(32),
        job_digest=bytes(32),
        grant_digest=bytes(32),
        delivery_digest=bytes(32),
        fingerprint=n.FINGERPRINT,
        request_commitment=bytes(32),
        response_commitment=bytes(32),
        status=1,
        reason=0,
        total=20,
        payer_counter=1,
        payer_total=20,
        account_counter=0,
        account_total=0,
        account_limit=0,
        grant_spent=20,
        grant_spent_day=20,
        nonce=bytes(32),
        bids_root=bytes(32),
        bids=2,
        received_ms=n.NOW,
        awarded_ms=n.NOW,
        first_token_ms=n.NOW,
        finished_ms=n.NOW,
        closed_ms=n.NOW,
        measurement=bytes(32),
        parameters_digest=bytes(32),
        supersedes=bytes(32),
        model=n.MODEL,
        segments=(passed_over, foreign, segment),
    )
    return Signed.by(n.COORDINATOR, n.DOMAIN, values)


async def _keep(journal: Journal, signed: Signed[Receipt]) -> None:
    digest = signed.digest(n.DOMAIN)
    await journal.keep_receipt(signed, digest, n.NODE.address, 5, n.NOW)


async def test_earnings_are_this_nodes_segments_each_once(tmp_path: Path) -> None:
    """A receipt that comes twice changes nothing; passed over and foreign segments earn nothing."""
    async with _journal(tmp_path) as journal:
        for signed in (receipt(1, 9), receipt(2, 18), receipt(2, 18)):
            await _keep(journal, signed)
        (found,) = await journal.earnings()
    assert (found.known_total, found.running_total) == (18, 18)
    assert (found.receipts, found.missing) == (2, 0)


async def test_a_receipt_that_never_came_is_missed(tmp_path: Path) -> None:
    """Counters are gapless and totals run, so the last receipt tells what is missing."""
    async with _journal(tmp_path) as journal:
        await _keep(journal, receipt(1, 9))
        await _keep(journal, receipt(4, 36))
        (found,) = await journal.earnings()
    assert (found.known_total, found.running_total, found.missing) == (18, 36, 2)


async def test_each_log_has_its_own_account(tmp_path: Path) -> None:
    """Counters of two logs don't meet."""
    async with _journal(tmp_path) as journal:
        await _keep(journal, receipt(1, 9))
        await _keep(journal, receipt(1, 9, log_id=b"\x12" * 32))
        assert [log.running_total for log in await journal.earnings()] == [9, 9]
