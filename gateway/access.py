"""Who may ask, on whose money, and how much a day: keys, grants, quotas. It fails closed.

A key is looked up by its hash and believed for two seconds, so a revocation takes effect within
that; a key nobody knows is looked up each time. Quotas count what is used up and what requests
under way could still use, per UTC day; this process is the only one that serves its keys.

When the database can't be asked, nobody is let in.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import trio

from gateway.errors import ApiError
from gateway.ledger import DAY_MS, Ledger, Spent
from pinaivu.messages import Grant
from pinaivu.store.gateway import KeyRow
from pinaivu.store.gateway_keys import KEY_PREFIX, hash_key
from pinaivu.typed_data import Signed

_BELIEVED_S: Final = 2.0
_MOST_KEYS: Final = 10_000
_Key = tuple[KeyRow, tuple[bytes, ...]]
"""A key's row and its payers in order."""


@dataclass(frozen=True, slots=True)
class Holder:
    """An authenticated key, and who pays for it: the first one that can."""

    key_id: str
    payers: tuple[bytes, ...]
    daily_tokens: int | None
    daily_units: int | None


@dataclass(slots=True)
class Reservation:
    """What one request under way may use at most; counted against the day it began on."""

    key_id: str
    day: int
    tokens: int
    units: int


class Access:
    """Keys, grants and quotas of one gateway."""

    def __init__(
        self,
        ledger: Ledger,
        gateway: bytes,
        logs: Collection[bytes],
        now_ms: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._gateway = gateway
        self._logs = logs
        self._now_ms = now_ms
        self._known: dict[bytes, tuple[float, _Key]] = {}
        self._grants: dict[bytes, tuple[float, list[Signed[Grant]]]] = {}
        self._spent: dict[tuple[str, int], Spent] = {}
        self._reserved: dict[tuple[str, int], list[Reservation]] = {}

    async def authenticate(self, authorization: str | None) -> Holder:
        """The holder named by an Authorization header; 401 for anybody else."""
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise ApiError(
                401,
                "missing_api_key",
                f"Send your key in the header `Authorization: Bearer {KEY_PREFIX}…`.",
            )
        found = await self._key(hash_key(secret.strip()))
        if found is None or found[0].revoked_ms is not None:
            raise ApiError(
                401,
                "invalid_api_key",
                "This key is unknown or revoked; use a key of this gateway, or have one made.",
            )
        row, payers = found
        return Holder(row.key_id, payers, row.daily_tokens, row.daily_units)

    async def grants(self, holder: Holder, model: str) -> list[Signed[Grant]]:
        """What may pay for `model` now; 403 where nothing does.

        By the key's order of payers, and of each the newest grant for each log.
        """
        found: dict[tuple[bytes, bytes], Signed[Grant]] = {}
        for payer in holder.payers:
            for signed in await self._grants_of(payer):
                if self._allows(signed.message, model):
                    found.setdefault((payer, signed.message.log_id), signed)
        if found:
            return list(found.values())
        raise ApiError(
            403,
            "no_grant",
            f"No valid grant pays for {model!r} with this key; have the payer sign one.",
        )

    def _allows(self, grant: Grant, model: str) -> bool:
        return (
            grant.gateway == self._gateway
            and grant.log_id in self._logs
            and grant.not_before_ms <= self._now_ms() < grant.not_after_ms
            and (not grant.models or model in grant.models)
        )

    async def left(self, holder: Holder) -> tuple[int | None, int | None]:
        """Tokens and base units the holder may still use today; None where there is no limit."""
        used, reserved = await self.usage(holder)
        tokens = _left(holder.daily_tokens, used.tokens + reserved.tokens)
        return tokens, _left(holder.daily_units, used.units + reserved.units)

    async def usage(self, holder: Holder) -> tuple[Spent, Spent]:
        """What is used up today, and what requests under way could still use."""
        at = (holder.key_id, self._now_ms() // DAY_MS)
        if at not in self._spent:
            found = await self._ledger.spent(*at)
            self._spent.setdefault(at, found)
            for old in [k for k in self._spent if k[1] < at[1] - 1]:
                del self._spent[old]
        under_way = self._reserved.get(at, [])
        tokens = sum(entry.tokens for entry in under_way)
        units = sum(entry.units for entry in under_way)
        return self._spent[at], Spent(tokens, units, len(under_way))

    @property
    def under_way(self) -> int:
        """How many requests are being served."""
        return sum(len(entries) for entries in self._reserved.values())

    async def reserve(self, holder: Holder, tokens: int, units: int) -> Reservation:
        """Set aside what a request may use; 429 where the day's quota doesn't hold it."""
        left_tokens, left_units = await self.left(holder)
        if left_tokens is not None and tokens > left_tokens:
            raise self._exhausted(
                f"the request may use {tokens} tokens, {left_tokens} are left today",
                "lower max_tokens, or wait for the next day (UTC)",
            )
        if left_units is not None and (units > left_units or not left_units):
            raise self._exhausted(
                f"the request may cost {units} base units, {left_units} are left today",
                "wait for the next day (UTC) or have the key's daily amount raised",
            )
        entry = Reservation(holder.key_id, self._now_ms() // DAY_MS, tokens, units)
        self._reserved.setdefault((entry.key_id, entry.day), []).append(entry)
        return entry

    def settle(self, entry: Reservation, tokens: int, units: int) -> None:
        """The request is over: count what it used instead of what it might have."""
        at = (entry.key_id, entry.day)
        under_way = self._reserved.get(at, [])
        under_way.remove(entry)
        if not under_way:
            self._reserved.pop(at, None)
        if at in self._spent:
            so_far = self._spent[at]
            self._spent[at] = Spent(
                so_far.tokens + tokens, so_far.units + units, so_far.requests + 1
            )

    def _exhausted(self, what: str, advice: str) -> ApiError:
        midnight = DAY_MS - self._now_ms() % DAY_MS
        return ApiError(
            429,
            "quota_exceeded",
            f"The key's daily quota is used up: {what}; {advice}.",
            retry_after_s=-(-midnight // 1000),
        )

    async def _key(self, key_hash: bytes) -> _Key | None:
        known = self._known.get(key_hash)
        if known and trio.current_time() - known[0] < _BELIEVED_S:
            return known[1]
        self._known.pop(key_hash, None)
        row = await self._ledger.key(key_hash)
        if row is None:
            return None
        found = (row, (row.payer, *await self._ledger.further_payers(row.key_id)))
        if len(self._known) < _MOST_KEYS:
            self._known[key_hash] = (trio.current_time(), found)
        return found

    async def _grants_of(self, payer: bytes) -> list[Signed[Grant]]:
        known = self._grants.get(payer)
        if known and trio.current_time() - known[0] < _BELIEVED_S:
            return known[1]
        found = await self._ledger.grants(payer)
        self._grants[payer] = (trio.current_time(), found)
        return found


def _left(limit: int | None, gone: int) -> int | None:
    return None if limit is None else max(0, limit - gone)
