"""Hosted keys' sub-accounts: which one a key has, and what is left of it.

A hosted key spends from the gateway's own wallet. Its jobs name a sub-account, the hash of that
wallet and 32 secret bytes: the public sees which receipts are of one account and can't tell whose
it is; the key's holder gets the secret with its bundles and sees that all of them are its own,
without a gap and within the limit.

The coordinator enforces the limit, across all processes of a gateway. What is left is computed here
only so that a job asks for no more than that, and is judged by what it could really cost.
"""

from collections.abc import Callable
from typing import Final

import trio
from msgspec import Struct

from gateway.errors import MarketRefused, from_refusal
from gateway.ledger import Ledger
from pinaivu.commitments import account_of
from pinaivu.p2p import wire

_BELIEVED_S: Final = 2.0
_MOST_KEYS: Final = 10_000


class Account(Struct, frozen=True, kw_only=True):
    """A hosted key's sub-account; `limit_units` is all it may ever cost, base units."""

    key_id: str
    secret: bytes
    limit_units: int

    def at(self, payer: bytes) -> bytes:
        """The account as jobs and receipts name it, one for each wallet that may pay."""
        return account_of(payer, self.secret)


class Accounts:
    """The sub-accounts of one gateway's keys; a changed limit is noticed within two seconds."""

    def __init__(self, ledger: Ledger, now_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._now_ms = now_ms
        self._known: dict[str, tuple[float, Account | None]] = {}

    async def of(self, key_id: str) -> Account | None:
        """The key's sub-account; None where its payer is its holder's own wallet."""
        known = self._known.get(key_id)
        if known and trio.current_time() - known[0] < _BELIEVED_S:
            return known[1]
        row = await self._ledger.account(key_id)
        found = None
        if row is not None:
            found = Account(key_id=key_id, secret=row.secret, limit_units=row.limit_units)
        if len(self._known) >= _MOST_KEYS:
            self._known.clear()
        self._known[key_id] = (trio.current_time(), found)
        return found

    async def spent(self, account: Account) -> int:
        """Base units that the key's requests have cost so far, by their receipts as they come."""
        return await self._ledger.account_spent(account.key_id, self._now_ms())

    async def left(self, account: Account, under_way: int, quota_left: int | None) -> int:
        """What a request may cost: the least of the account's rest and the quota's.

        `under_way` is what requests being served could still cost. An `ApiError`, as the
        coordinator's refusal would be, where nothing is left of the account.
        """
        left = account.limit_units - await self.spent(account) - under_way
        if left <= 0:
            detail = f"the key's account of {account.limit_units} base units is used up"
            raise from_refusal(MarketRefused(wire.Refused("account_exhausted", detail)))
        return left if quota_left is None else min(left, quota_left)
