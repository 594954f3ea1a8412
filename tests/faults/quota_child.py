"""A process of a gateway as far as keys are concerned, told by lines what to do until it is killed.

python -m tests.faults.quota_child DATABASE_URL KEY_ID LEASE_MS

race TOKENS        asks for requests of TOKENS until refused: "raced N", the number let in
hold TOKENS        stores a request and never ends it: "held" or "limited"
keep TOKENS        reserves and never stores the request: the same
claim NAME         claims an Idempotency-Key: "claimed", "running" or "ended"
run NAME           claims one and stores its request: the same
"""

import os
import sys
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256

import trio

from gateway.errors import ApiError
from gateway.ledger import Conclusion, Ledger
from gateway.quotas import Quotas, Reservation
from pinaivu.store import gateway_claims as claims
from pinaivu.store.database import open_database
from pinaivu.store.gateway import RequestRow
from pinaivu.store.gateway_keys import find_key
from pinaivu.store.gateway_policy import Policy
from pinaivu.store.writer import Writer, open_writer

USED = 3
"""Tokens that every request uses, whatever it reserved."""


class Child:
    """One process; its methods are its commands."""

    def __init__(self, writer: Writer, quotas: Quotas, key_id: str, policy: Policy) -> None:
        self._writer = writer
        self._ledger = Ledger(writer)
        self._quotas = quotas
        self._key_id = key_id
        self._policy = policy

    async def race(self, tokens: str) -> str:
        """Ask for requests until refused, four at a time; end those that were let in."""
        let_in = 0

        async def ask() -> None:
            nonlocal let_in
            while True:
                try:
                    held = await self._reserve(int(tokens))
                except ApiError:
                    return
                let_in += 1
                job_id = await self._store(held)
                await self._ledger.conclude(
                    Conclusion(
                        job_id=job_id,
                        frame=b"",
                        output_tokens=USED - 1,
                        units=1,
                        completions={},
                        response=None,
                        now_ms=now_ms(),
                    )
                )
                await self._quotas.settle(held, (USED, 1))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
        return f"raced {let_in}"

    async def hold(self, tokens: str) -> str:
        """Store a request and never end it."""
        try:
            await self._store(await self._reserve(int(tokens)))
        except ApiError:
            return "limited"
        return "held"

    async def keep(self, tokens: str) -> str:
        """Reserve and never store the request."""
        try:
            await self._reserve(int(tokens))
        except ApiError:
            return "limited"
        return "held"

    async def claim(self, name: str) -> str:
        """Claim an Idempotency-Key."""
        return await self._take(self._claim(name))

    async def _take(self, wanted: claims.Claim) -> str:
        earlier = await self._writer.write_rows_apart(
            lambda rows: claims.claim(rows, wanted), synced=True
        )
        if earlier is None:
            return "claimed"
        return "running" if earlier.running else "ended"

    async def run(self, name: str) -> str:
        """Claim an Idempotency-Key and store its request."""
        wanted = self._claim(name)
        said = await self._take(wanted)
        if said == "claimed":
            held = await self._quotas.reserve(self._key_id, self._policy, 1, 1, claim=wanted)
            await self._store(held)
        return said

    async def _reserve(self, tokens: int) -> Reservation:
        return await self._quotas.reserve(self._key_id, self._policy, tokens, 1)

    async def _store(self, held: Reservation) -> bytes:
        row = RequestRow(
            job_id=os.urandom(16),
            key_id=self._key_id,
            model="",
            job=b"",
            grant=b"",
            salt_root=b"",
            state="open",
            created_ms=now_ms(),
            prompt_tokens=1,
        )
        await self._ledger.open(row, held.bind)
        return row.job_id

    def _claim(self, name: str) -> claims.Claim:
        return claims.Claim(
            key_id=self._key_id,
            name=sha256(name.encode()).digest(),
            body_digest=bytes(32),
            process_id=self._quotas.process_id,
            begun_ms=now_ms(),
        )


def now_ms() -> int:
    """The machine's clock."""
    return time.time_ns() // 1_000_000


async def main(url: str, key_id: str, lease_ms: int) -> None:
    """Do what each line says and answer it by one."""
    database = open_database(url, "gateway")
    policy = find_key(database, key_id).policy
    async with open_writer(database) as writer, trio.open_nursery() as nursery:
        quotas = Quotas(writer, now_ms, os.urandom, lease_ms)
        await quotas.enter()
        nursery.start_soon(quotas.run)
        child = Child(writer, quotas, key_id, policy)
        commands: dict[str, Callable[[str], Awaitable[str]]] = {
            name: getattr(child, name) for name in ("race", "hold", "keep", "claim", "run")
        }
        print("ready", flush=True)  # noqa: T201 - its answers
        async for line in trio.wrap_file(sys.stdin):
            command, argument = line.split()
            print(await commands[command](argument), flush=True)  # noqa: T201
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
