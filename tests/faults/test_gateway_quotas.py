"""Limits and Idempotency-Keys shared by real processes, one of which is killed: SQLite, PostgreSQL.

The lease is 2 s here, where it is 15 s outside; nothing asserts a time.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlmodel import col, func, select

from pinaivu.store.database import Database, open_database
from pinaivu.store.gateway import MeterRow, RequestRow, ReservationRow
from pinaivu.store.gateway_keys import create_key
from pinaivu.store.gateway_meters import forget, read_meter
from pinaivu.store.gateway_policy import Policy
from tests.faults.quota_child import USED, now_ms

LEASE_MS = 2_000
PATIENCE_S = 60
Urls = Callable[[str], str]


class Process:
    """A child and its lines."""

    def __init__(self, url: str, key_id: str) -> None:
        command = [sys.executable, "-m", "tests.faults.quota_child", url, key_id, str(LEASE_MS)]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def send(self, command: str) -> None:
        """Tell it what to do."""
        assert self._child.stdin
        self._child.stdin.write(command + "\n")
        self._child.stdin.flush()

    def answer(self) -> str:
        """What it says next."""
        assert self._child.stdout
        return self._child.stdout.readline().strip()

    def do(self, command: str) -> str:
        """Both."""
        self.send(command)
        return self.answer()

    def kill(self) -> None:
        """As `kill -9` does."""
        self._child.kill()
        self._child.communicate()


@contextmanager
def processes(url: str, policy: Policy) -> Iterator[tuple[Database, str, Process, Process]]:
    database = open_database(url, "gateway")
    key_id = create_key(
        database, payer=b"p" * 20, label="", random=os.urandom, now_ms=now_ms(), policy=policy
    ).key_id
    both = Process(url, key_id), Process(url, key_id)
    try:
        assert [process.answer() for process in both] == ["ready", "ready"]
        yield database, key_id, *both
    finally:
        for process in both:
            process.kill()
        database.close()


def audit(database: Database, key_id: str) -> int:
    """The meter is what requests and reservations say; the day's tokens."""
    with database.begin() as session:
        rows = database.rows_of(session)
        before = read_meter(rows, key_id, now_ms())
        forget(session, key_id)
        session.flush()
        after = read_meter(rows, key_id, now_ms())
    assert before == after
    return before.day_tokens


def eventually(process: Process, command: str, expected: str) -> None:
    """Ask again until it says so."""
    ends = time.monotonic() + PATIENCE_S
    while (said := process.do(command)) != expected:
        assert time.monotonic() < ends, said


def eventually_streams(database: Database, expected: int) -> None:
    """What a killed process held is given back one by one."""
    ends, query = time.monotonic() + PATIENCE_S, select(func.sum(col(ReservationRow.streams)))
    while True:
        with database.read() as session:
            found = session.exec(query).one()
        if found == expected:
            return
        assert time.monotonic() < ends, found


def spent(database: Database) -> int:
    """Tokens that requests have really used."""
    with database.read() as session:
        used = col(RequestRow.prompt_tokens) + col(RequestRow.output_tokens)
        return session.exec(select(func.coalesce(func.sum(used), 0))).one()


def test_two_processes_use_a_cap_up_and_never_overshoot_it(url_of: Urls) -> None:
    """Each request reserves much and uses little; in the end less than one reservation is left."""
    cap, most = 300, 40
    with processes(url_of("gateway"), Policy(daily_tokens=cap)) as (database, key, one, other):
        one.send(f"race {most}")
        other.send(f"race {most}")
        seen = []
        while spent(database) <= cap - most - 8 * USED:
            with database.read() as session:
                found = session.exec(select(MeterRow.day_tokens)).one()
            seen.append(found)
        let_in = sum(int(process.answer().removeprefix("raced ")) for process in (one, other))
        assert all(tokens <= cap for tokens in seen)
        assert cap - most < spent(database) == let_in * USED <= cap
        assert audit(database, key) == spent(database)


def test_two_processes_share_the_streams(url_of: Urls) -> None:
    with processes(url_of("gateway"), Policy(streams=3)) as (_database, _key, one, other):
        said = [process.do("hold 1") for process in (one, other, one, other, one)]
        assert said == ["held", "held", "held", "limited", "limited"]


def test_what_a_killed_process_held_is_given_back(url_of: Urls) -> None:
    """What it never stored wholly; what it may have dispatched stays counted at its most."""
    policy = Policy(daily_tokens=100, streams=2)
    with processes(url_of("gateway"), policy) as (database, key, killed, other):
        assert killed.do("keep 60") == "held"
        assert killed.do("hold 40") == "held"
        assert other.do("keep 1") == "limited"
        killed.kill()
        eventually(other, "keep 60", "held")
        assert other.do("keep 1") == "limited"
        assert audit(database, key) == 100
        eventually_streams(database, 1)


@pytest.mark.parametrize("policy", [Policy(), Policy(daily_tokens=100)])
def test_idempotency_key_of_a_killed_process_never_runs_twice(url_of: Urls, policy: Policy) -> None:
    """What it had only claimed may be run by another; what it may have dispatched by nobody."""
    with processes(url_of("gateway"), policy) as (_database, _key, killed, other):
        assert killed.do("claim first") == "claimed"
        assert killed.do("run second") == "claimed"
        assert other.do("run first") == "running"
        assert other.do("run second") == "running"
        killed.kill()
        eventually(other, "run second", "ended")
        assert other.do("run first") == "claimed"
        assert other.do("run first") == "running"


def test_of_two_processes_one_gets_an_idempotency_key(url_of: Urls) -> None:
    with processes(url_of("gateway"), Policy()) as (_database, _key, one, other):
        for number in range(20):
            for process in (one, other):
                process.send(f"claim name-{number}")
            assert sorted(process.answer() for process in (one, other)) == ["claimed", "running"]
