# ruff: noqa: D102 - doubles and helpers, described at their class
"""What keys may use, on SQLite and PostgreSQL: limits hold, and a meter never lies."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing
from sqlalchemy import TextClause, text
from sqlmodel import col, select

from gateway.errors import ApiError
from gateway.ledger import Ledger
from gateway.quotas import LEASE_MS, Quotas, Reservation
from pinaivu.store.database import Database, StorageFailed, open_database
from pinaivu.store.gateway import MeterRow, ReceiptRow, RequestRow, ReservationRow
from pinaivu.store.gateway_keys import change_policy, create_key
from pinaivu.store.gateway_meters import (
    DAY_MS,
    MINUTE_MS,
    MOST_UNITS,
    forget,
    month_start_ms,
    read_meter,
)
from pinaivu.store.gateway_policy import Policy
from pinaivu.store.writer import open_writer
from tests.unit.gateway_facts import MODEL, NOW, PAYER, Drawn
from tests.unit.test_gateway_access import Clock, conclusion

Urls = Callable[[str], str]


class Desk:
    """A process of a gateway, as far as keys are concerned, with a clock the test sets."""

    def __init__(self, database: Database, ledger: Ledger, quotas: Quotas, clock: Clock) -> None:
        self.database = database
        self.ledger = ledger
        self.quotas = quotas
        self.clock = clock
        self._jobs = 0

    def new_key(self, policy: Policy) -> str:
        return create_key(
            self.database, payer=PAYER.address, label="", random=Drawn(), now_ms=NOW, policy=policy
        ).key_id

    async def dispatch(self, held: Reservation, tokens: int) -> int:
        """Store a request, as it is before anything of it is dispatched; its number."""
        self._jobs += 1
        row = RequestRow(
            job_id=self._jobs.to_bytes(16),
            key_id=held.key_id,
            model=MODEL,
            job=b"",
            grant=b"",
            salt_root=b"",
            state="open",
            created_ms=self.clock(),
            prompt_tokens=tokens,
        )
        await self.ledger.open(row, held.bind)
        return self._jobs

    def audit(self, key_id: str) -> None:
        """The meter is what requests and reservations say, counted anew."""
        with self.database.begin() as session:
            rows = self.database.rows_of(session)
            before = read_meter(rows, key_id, self.clock())
            forget(session, key_id)
            session.flush()
            after = read_meter(rows, key_id, self.clock())
            under_way = session.exec(
                select(ReservationRow).where(
                    ReservationRow.key_id == key_id, ReservationRow.streams == 1
                )
            ).all()
        assert before == after
        assert before.streams == len(under_way)


@asynccontextmanager
async def desk(url: str, seed: int = 0) -> AsyncGenerator[Desk]:
    database, clock, drawn = open_database(url, "gateway"), Clock(), Drawn()
    for _ in range(seed):
        drawn(1)
    async with open_writer(database) as writer:
        quotas = Quotas(writer, clock, drawn)
        await quotas.enter()
        yield Desk(database, Ledger(writer), quotas, clock)
    database.close()


async def refused(found: Desk, key: str, policy: Policy, **wanted: int) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await found.quotas.reserve(key, policy, wanted.get("tokens", 1), wanted.get("units", 1))
    assert caught.value.status == 429
    return caught.value


async def test_quota_counts_what_is_used_and_what_is_under_way(url_of: Urls) -> None:
    policy = Policy(daily_tokens=100, daily_units=50)
    async with desk(url_of("gateway")) as found:
        key = found.new_key(policy)
        first = await found.quotas.reserve(key, policy, tokens=60, units=10)
        error = await refused(found, key, policy, tokens=41)
        assert error.code == "quota_exceeded"
        assert "40 are left" in str(error)
        assert error.retry_after_s == -(-(DAY_MS - NOW % DAY_MS) // 1000)
        await found.dispatch(first, 20)
        await found.ledger.conclude(conclusion(1, output_tokens=10, units=7))
        await found.quotas.settle(first, (30, 7))
        assert "70 are left" in str(await refused(found, key, policy, tokens=71))
        second = await found.quotas.reserve(key, policy, tokens=70, units=1000)
        assert second.units == 43
        assert "0 are left" in str(await refused(found, key, policy, tokens=0))
        found.audit(key)


@pytest.mark.parametrize(
    ("policy", "wanted", "code", "wait_ms"),
    [
        (Policy(streams=2), {}, "too_many_streams", 1000),
        (Policy(requests_per_minute=2), {}, "rate_limit_exceeded", MINUTE_MS - NOW % MINUTE_MS),
        (
            Policy(tokens_per_minute=25),
            {"tokens": 10},
            "rate_limit_exceeded",
            MINUTE_MS - NOW % MINUTE_MS,
        ),
        (
            Policy(monthly_tokens=20),
            {"tokens": 10},
            "quota_exceeded",
            month_start_ms(2026 * 12 + 9) - NOW,
        ),
        (
            Policy(monthly_units=20),
            {"units": 10},
            "quota_exceeded",
            month_start_ms(2026 * 12 + 9) - NOW,
        ),
    ],
)
async def test_every_limit_lets_two_in_and_not_a_third(
    url_of: Urls, policy: Policy, wanted: dict[str, int], code: str, wait_ms: int
) -> None:
    async with desk(url_of("gateway")) as found:
        key = found.new_key(policy)
        for _ in range(2):
            await found.quotas.reserve(key, policy, wanted.get("tokens", 1), wanted.get("units", 1))
        error = await refused(found, key, policy, **wanted)
        assert (error.code, error.retry_after_s) == (code, -(-wait_ms // 1000))
        found.audit(key)


async def test_stream_is_free_again_when_one_ends(url_of: Urls) -> None:
    policy = Policy(streams=1)
    async with desk(url_of("gateway")) as found:
        key = found.new_key(policy)
        with found.database.begin() as session:  # a key that was made without a meter
            session.delete(session.get_one(MeterRow, key))
        held = await found.quotas.reserve(key, policy, 1, 1)
        await refused(found, key, policy)
        await found.quotas.settle(held, (0, 0))
        await found.quotas.settle(held, (0, 0))
        await found.quotas.reserve(key, policy, 1, 1)
        await refused(found, key, policy)


@pytest.mark.parametrize(
    ("policy", "later_ms"),
    [
        (Policy(requests_per_minute=1), MINUTE_MS),
        (Policy(tokens_per_minute=100), MINUTE_MS),
        (Policy(daily_tokens=100), DAY_MS),
        (Policy(daily_units=50), DAY_MS),
        (Policy(monthly_tokens=100, monthly_units=50), 31 * DAY_MS),
    ],
)
async def test_limit_is_whole_again_when_its_window_is_over(
    url_of: Urls, policy: Policy, later_ms: int
) -> None:
    async with desk(url_of("gateway")) as found:
        key = found.new_key(policy)
        held = await found.quotas.reserve(key, policy, 100, 50)
        await refused(found, key, policy)
        found.clock.ms += later_ms
        await found.quotas.reserve(key, policy, 100, 50)
        await refused(found, key, policy)
        await found.quotas.settle(held, (0, 0))  # of a window that is over: changes nothing here
        await refused(found, key, policy)


async def test_limit_set_today_counts_what_was_used_before(url_of: Urls) -> None:
    """Also what was used without any limit, and what is reserved at this moment."""
    async with desk(url_of("gateway")) as found:
        key = found.new_key(Policy())
        free = await found.quotas.reserve(key, Policy(), 1000, 1000)
        assert free.reservation_id is None
        number = await found.dispatch(free, 20)
        await found.ledger.conclude(conclusion(number, output_tokens=10, units=7))
        await found.quotas.settle(free, (30, 7))
        policy = change_policy(found.database, key, {"daily_tokens": 100}, now_ms=NOW)
        assert "70 are left" in str(await refused(found, key, policy, tokens=71))
        await found.quotas.reserve(key, policy, 50, 0)
        policy = change_policy(found.database, key, {"daily_tokens": 90}, now_ms=NOW)
        assert "10 are left" in str(await refused(found, key, policy, tokens=11))
        found.audit(key)


async def test_reservation_of_an_ended_process_is_given_back(url_of: Urls) -> None:
    """Nothing was dispatched: at once. Else: what its receipt says, and the most until then."""
    policy, url = Policy(daily_tokens=300, daily_units=30, streams=3), url_of("gateway")
    async with desk(url) as dead, desk(url, seed=100) as found:
        key = dead.new_key(policy)
        await dead.quotas.reserve(key, policy, 100, 10)
        unfinished = await dead.quotas.reserve(key, policy, 100, 10)
        finished = await dead.quotas.reserve(key, policy, 100, 10)
        jobs = [await dead.dispatch(held, 20) for held in (unfinished, finished)]
        await found.quotas.beat()
        await refused(found, key, policy)
        found.clock.ms += LEASE_MS + 1
        await found.quotas.beat()
        assert "100 are left" in str(await refused(found, key, policy, tokens=101))
        receipt = ReceiptRow(
            job_id=jobs[1].to_bytes(16), signed=b"", position=0, arrived_ms=found.clock.ms
        )
        await found.ledger.conclude(conclusion(jobs[1]))
        await found.ledger.receipt(receipt, (20, 5), 4)
        await found.quotas.beat()
        assert "175 are left" in str(await refused(found, key, policy, tokens=176))
        assert (await found.quotas.reserve(key, policy, 1, 100)).units == 16
        found.audit(key)


async def test_process_that_stood_still_dispatches_nothing(url_of: Urls) -> None:
    """Its reservation was given back: the row that has to stand before a dispatch is refused."""
    policy, url = Policy(daily_tokens=100), url_of("gateway")
    async with desk(url) as frozen, desk(url, seed=100) as found:
        key = frozen.new_key(policy)
        held = await frozen.quotas.reserve(key, policy, 100, 0)
        found.clock.ms += LEASE_MS + 1
        await found.quotas.beat()
        await found.quotas.reserve(key, policy, 100, 0)
        with pytest.raises(StorageFailed, match="stood still"):
            await frozen.dispatch(held, 10)
        assert await frozen.ledger.request((1).to_bytes(16)) is None
        await frozen.quotas.settle(held, (0, 0))
        found.audit(key)


async def test_what_only_the_receipt_tells_stays_reserved_until_it_comes(url_of: Urls) -> None:
    policy = Policy(daily_tokens=100, streams=1)
    async with desk(url_of("gateway")) as found:
        key = found.new_key(policy)
        held = await found.quotas.reserve(key, policy, 90, 0)
        number = await found.dispatch(held, 20)
        await found.quotas.settle(held, None)
        await found.quotas.beat()
        assert "10 are left" in str(await refused(found, key, policy, tokens=11))
        await found.ledger.conclude(conclusion(number))
        receipt = ReceiptRow(job_id=number.to_bytes(16), signed=b"", position=0, arrived_ms=NOW)
        await found.ledger.receipt(receipt, (20, 5), 4)
        await found.quotas.beat()
        assert "75 are left" in str(await refused(found, key, policy, tokens=76))
        found.audit(key)


async def test_process_that_leaves_gives_back_at_once(
    url_of: Urls,
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    policy, url = Policy(streams=1), url_of("gateway")
    async with desk(url) as leaving, desk(url, seed=100) as found:
        key = leaving.new_key(policy)
        await leaving.quotas.reserve(key, policy, 1, 1)
        with trio.move_on_after(10):
            await leaving.quotas.run()
        await found.quotas.clear_up()
        await found.quotas.reserve(key, policy, 1, 1)


async def test_settling_is_repeated_until_the_database_takes_it(
    url_of: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(streams=1)
    async with desk(url_of("gateway")) as found:
        key = found.new_key(policy)
        held = await found.quotas.reserve(key, policy, 1, 1)

        async def fails(*_: Any) -> None:
            raise StorageFailed("as told")

        with monkeypatch.context() as patch:
            patch.setattr(found.quotas._writer, "write_rows_apart", fails)
            await found.quotas.settle(held, (1, 1))
            with pytest.raises(StorageFailed):
                await found.quotas.beat()
            with pytest.raises(StorageFailed):
                await found.quotas.reserve(key, policy, 1, 1)
        await refused(found, key, policy)
        await found.quotas.beat()
        await found.quotas.reserve(key, policy, 1, 1)


async def test_many_at_once_never_overshoot(url_of: Urls) -> None:
    """Two sets of connections, eighty requests, room for thirteen."""
    policy, url = Policy(daily_tokens=135), url_of("gateway")
    async with desk(url) as one, desk(url, seed=500) as other:
        key = one.new_key(policy)
        let_in: list[Reservation] = []

        async def ask(found: Desk) -> None:
            with suppress(ApiError):
                let_in.append(await found.quotas.reserve(key, policy, 10, 0))

        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(ask, one)
                nursery.start_soon(ask, other)
        assert len(let_in) == 13
        with one.database.read() as session:
            meter = session.exec(select(MeterRow).where(col(MeterRow.key_id) == key)).one()
        assert meter.day_tokens == 130
        one.audit(key)


async def test_sums_of_requests_without_ceilings_fit(url_of: Urls) -> None:
    """A grant may allow any price: what is reserved for a request has a bound of its own."""
    policy = Policy(streams=1000)
    async with desk(url_of("gateway")) as found:
        key = found.new_key(policy)
        for _ in range(300):
            held = await found.quotas.reserve(key, policy, tokens=2000, units=2**90)
            assert held.units == MOST_UNITS
        found.audit(key)


@pytest.mark.database
async def test_the_meters_lock_comes_first(postgres_url: str) -> None:
    """Who waits for it holds no reservation that its holder may come to want."""
    policy = Policy(streams=1)
    async with desk(postgres_url) as found, trio.open_nursery() as nursery:
        key = found.new_key(policy)
        held = await found.quotas.reserve(key, policy, 1, 1)
        waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        take = text("SELECT 1 FROM reservation FOR UPDATE NOWAIT")
        with found.database.begin() as session:
            read_meter(found.database.rows_of(session), key, NOW)
            nursery.start_soon(found.quotas.settle, held, None)
            with trio.fail_after(10):
                while not _count(found, waiting):
                    await trio.lowlevel.checkpoint()
            assert session.execute(take).scalar() == 1


def _count(found: Desk, query: TextClause) -> int:
    with found.database.read() as session:
        return int(session.execute(query).scalar_one())
