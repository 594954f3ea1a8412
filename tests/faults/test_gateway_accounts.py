"""A hosted key's kept sum: what it says is the sum of all its requests, whatever happens."""

import os
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import event, text, update
from sqlmodel import func, select

from gateway.accounts import Accounts
from gateway.ledger import Ledger
from pinaivu.store import gateway_accounts as accounts
from pinaivu.store.database import Database, open_database
from pinaivu.store.gateway import AccountRow, RequestRow
from pinaivu.store.gateway_accounts import APART_MS
from pinaivu.store.gateway_keys import create_key
from pinaivu.store.writer import open_writer

NOW = 1_800_000_000_000
PLAN = (
    "EXPLAIN QUERY PLAN SELECT sum(units) FROM request WHERE key_id = :key AND created_ms >= :line"
)
Urls = Callable[[str], str]


@pytest.fixture
def database(url_of: Urls) -> Iterator[Database]:
    opened = open_database(url_of("gateway"), "gateway")
    yield opened
    opened.close()


@pytest.fixture
def key(database: Database) -> str:
    return create_key(
        database,
        payer=b"p" * 20,
        label="",
        random=os.urandom,
        now_ms=NOW,
        hosted_limit_units=10**9,
    ).key_id


def request(key_id: str, at_ms: int, units: int, state: str = "receipted") -> RequestRow:
    return RequestRow(
        job_id=os.urandom(16),
        key_id=key_id,
        model="m",
        job=b"",
        grant=b"",
        salt_root=b"",
        state=state,
        created_ms=at_ms,
        units=units,
    )


def added(database: Database, *rows: RequestRow) -> list[bytes]:
    with database.begin() as session:
        session.add_all(rows)
        return [row.job_id for row in rows]


def settle(database: Database, key_id: str, now_ms: int = NOW) -> None:
    with database.begin() as session:
        accounts.settle(session, key_id, now_ms)


def spent(database: Database, key_id: str) -> int:
    """What is said, and that all requests come to it."""
    with database.read() as session:
        said, _ = accounts.spent(session, key_id)
        whole = select(func.coalesce(func.sum(RequestRow.units), 0))
        assert said == session.exec(whole.where(RequestRow.key_id == key_id)).one()
        return said


def row_of(database: Database, key_id: str) -> tuple[int, int]:
    with database.read() as session:
        row = session.get_one(AccountRow, key_id)
        return row.settled_units, row.settled_before_ms


def test_what_is_over_is_added_up_once(database: Database, key: str) -> None:
    old = [request(key, NOW - APART_MS - age, 10) for age in (1, 2, 3)]
    added(database, *old, request(key, NOW - APART_MS, 100), request("another", NOW - 10**7, 7))
    assert (spent(database, key), row_of(database, key)) == (130, (0, 0))
    for _ in range(2):
        settle(database, key)
        assert (spent(database, key), row_of(database, key)) == (130, (30, NOW - APART_MS))
    settle(database, key, NOW + 1)
    assert (spent(database, key), row_of(database, key)) == (130, (130, NOW + 1 - APART_MS))
    settle(database, key, NOW - 5)  # a machine whose clock is behind
    assert row_of(database, key) == (130, NOW + 1 - APART_MS)


@pytest.mark.parametrize("state", ["open", "delivered", "unserved"])
def test_a_request_that_waits_for_its_receipt_is_waited_for(
    database: Database, key: str, state: str
) -> None:
    """Its own figure is replaced by the receipt's, however late: the sum follows."""
    before, waiting, after = (NOW - 3 * APART_MS + later for later in range(3))
    (_, job, _) = added(
        database,
        request(key, before, 1),
        request(key, waiting, 10, state),
        request(key, after, 100),
    )
    settle(database, key)
    assert (spent(database, key), row_of(database, key)) == (111, (1, waiting))
    with database.begin() as session:
        closed = update(RequestRow).where(RequestRow.job_id == job)  # type: ignore[arg-type]
        session.execute(closed.values(state="receipted", units=4))
    assert spent(database, key) == 105
    settle(database, key)
    assert (spent(database, key), row_of(database, key)) == (105, (105, NOW - APART_MS))


@pytest.mark.parametrize("kept", [False, True], ids=["not kept", "kept nevertheless"])
def test_a_process_that_dies_moving_the_line_counts_nothing_twice(
    database: Database,
    key: str,
    kept: bool,  # noqa: FBT001 - a case
) -> None:
    added(database, request(key, NOW - 2 * APART_MS, 10))
    with pytest.raises(ZeroDivisionError):
        _settle_and_die(database, key, committed=kept)
    assert spent(database, key) == 10
    assert row_of(database, key)[0] == (10 if kept else 0)
    settle(database, key)
    assert (spent(database, key), row_of(database, key)) == (10, (10, NOW - APART_MS))


def _settle_and_die(database: Database, key_id: str, *, committed: bool) -> None:
    with database.begin() as session:
        accounts.settle(session, key_id, NOW)
        if not committed:
            raise ZeroDivisionError
    raise ZeroDivisionError


def test_only_requests_above_the_line_are_read(database: Database, key: str) -> None:
    """By the index of key and time: neither older ones matter nor those of other keys."""
    added(database, *(request(key, NOW - APART_MS - age, 1) for age in range(1, 500)))
    added(database, *(request("another", NOW + age, 1) for age in range(500)))
    settle(database, key)
    statements = list[str]()

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        statements.append(statement)

    with database.read() as session:
        engine = session.get_bind()
        event.listen(engine, "before_cursor_execute", note)
        assert accounts.spent(session, key) == (499, NOW - APART_MS)
        event.remove(engine, "before_cursor_execute", note)
        (found,) = (one for one in statements if "sum(" in one)
        assert "created_ms >=" in found
        if engine.dialect.name == "sqlite":  # PostgreSQL decides by its statistics
            steps = session.connection().execute(text(PLAN), {"key": key, "line": NOW}).all()
            assert "ix_request_key_created" in str(steps)


async def test_the_line_moves_by_itself_when_it_lies_far_back(database: Database, key: str) -> None:
    """Asked often, an account is settled once in a while; what is said stays the sum."""
    added(database, request(key, NOW - 5 * APART_MS, 10), request(key, NOW, 1))
    async with open_writer(database) as writer:
        asked = Accounts(Ledger(writer), lambda: NOW)
        account = await asked.of(key)
        assert account
        assert [await asked.spent(account) for _ in range(3)] == [11, 11, 11]
        assert row_of(database, key) == (10, NOW - APART_MS)
        added(database, request(key, NOW + 1, 5))
        assert await asked.left(account, 100, None) == account.limit_units - 116
    assert row_of(database, key) == (10, NOW - APART_MS)
