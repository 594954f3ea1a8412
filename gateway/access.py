"""Who may ask, for what and on whose money: keys, scopes, models, grants. It fails closed.

A key is looked up by its hash and believed for two seconds, so a revocation or a changed limit
takes effect within that; a key nobody knows is looked up each time. How much a key may use is
`gateway.quotas`.

When the database can't be asked, nobody is let in.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

import trio

from gateway.errors import ApiError
from gateway.ledger import Ledger
from gateway.seals import Seal
from pinaivu.errors import Misconfigured
from pinaivu.messages import Grant
from pinaivu.store.database import StorageFailed
from pinaivu.store.gateway import KeyRow
from pinaivu.store.gateway_keys import KEY_PREFIX, hash_key
from pinaivu.store.gateway_policy import Policy, Scope, policy_of
from pinaivu.typed_data import Signed

_BELIEVED_S: Final = 2.0
_MOST_KEYS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Holder:
    """An authenticated key, what it may do, and who pays for it: the first one that can.

    `seal` opens what is kept of its requests; it is as secret as the key.
    """

    key_id: str
    payers: tuple[bytes, ...]
    seal: Seal = field(repr=False, compare=False)
    policy: Policy = Policy()  # noqa: RUF009 - a frozen value


@dataclass(frozen=True, slots=True)
class _Known:
    """A key as last read, at a time of trio's clock."""

    at: float
    holder: Holder
    revoked: bool


class Access:
    """Keys and grants of one gateway."""

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
        self._known: dict[bytes, _Known] = {}
        self._grants: dict[bytes, tuple[float, list[Signed[Grant]]]] = {}

    async def authenticate(self, authorization: str | None, scope: Scope | None = None) -> Holder:
        """The holder named by an Authorization header; 401 for anybody else.

        403 where the key lacks `scope`; None asks for any scope but that of administrators.
        """
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise ApiError(
                401,
                "missing_api_key",
                f"Send your key in the header `Authorization: Bearer {KEY_PREFIX}…`.",
            )
        found = await self._key(secret.strip())
        if found is None or found.revoked:
            raise ApiError(
                401,
                "invalid_api_key",
                "This key is unknown or revoked; use a key of this gateway, or have one made.",
            )
        self._require_valid(found.holder.policy, scope)
        return found.holder

    def _require_valid(self, policy: Policy, scope: Scope | None) -> None:
        if policy.expires_ms is not None and self._now_ms() >= policy.expires_ms:
            raise ApiError(
                401, "expired_api_key", "This key has expired; have it extended or a new one made."
            )
        if scope not in policy.scopes if scope else "admin" in policy.scopes:
            may = ", ".join(policy.scopes)
            raise ApiError(
                403,
                "scope_missing",
                f"This key may be used for {may} and for nothing else; use another key here.",
            )

    async def grants(self, holder: Holder, model: str) -> list[Signed[Grant]]:
        """What may pay for `model` now; 403 where nothing does.

        By the key's order of payers, and of each the newest grant for each log.
        """
        models = holder.policy.models
        if models and model not in models:
            raise ApiError(
                403,
                "model_not_allowed",
                f"This key may not be used for {model!r}, but for {', '.join(models)}; have the"
                " model added to the key or use another one.",
                param="model",
            )
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

    async def _key(self, secret: str) -> _Known | None:
        key_hash = hash_key(secret)
        known = self._known.get(key_hash)
        if known and trio.current_time() - known.at < _BELIEVED_S:
            return known
        self._known.pop(key_hash, None)
        row = await self._ledger.key(key_hash)
        if row is None:
            return None
        found = await self._read(row, secret)
        if len(self._known) >= _MOST_KEYS:
            self._known.clear()
        self._known[key_hash] = found
        return found

    async def _read(self, row: KeyRow, secret: str) -> _Known:
        try:
            policy = policy_of(row)
        except Misconfigured as error:
            raise StorageFailed(f"{error}; run the newest version") from error
        payers = (row.payer, *await self._ledger.further_payers(row.key_id))
        holder = Holder(row.key_id, payers if row.payer else (), Seal.of(secret), policy)
        return _Known(trio.current_time(), holder, row.revoked_ms is not None)

    async def _grants_of(self, payer: bytes) -> list[Signed[Grant]]:
        known = self._grants.get(payer)
        if known and trio.current_time() - known[0] < _BELIEVED_S:
            return known[1]
        found = await self._ledger.grants(payer)
        self._grants[payer] = (trio.current_time(), found)
        return found
