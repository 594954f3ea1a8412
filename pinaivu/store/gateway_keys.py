"""API keys and grants of a gateway, as whoever runs it manages them: synchronous, for CLI and API.

    database = open_database("sqlite:///state/gateway.db", "gateway")
    add_grant(database, domain, signed_grant, now_ms=…)
    key = create_key(database, payer=…, label="laptop", random=os.urandom, now_ms=…)
    print(key.secret)  # the only time it is seen

A key is 32 random bytes; only its SHA-256 is stored, which suffices because it can't be guessed.
A running gateway notices a new, changed or revoked key within seconds. Every change is logged with
who made it (`gateway_acts`), in its own transaction. All functions raise `StorageFailed` when the
database can't be used, and `Misconfigured` where there is no such key or grant.
"""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlmodel import Session, col, select

from pinaivu.encoding import to_hex
from pinaivu.errors import Misconfigured
from pinaivu.messages import Grant
from pinaivu.store.database import Database
from pinaivu.store.gateway import AccountRow, GrantRow, KeyRow, MeterRow, PayerRow
from pinaivu.store.gateway_acts import record
from pinaivu.store.gateway_meters import forget
from pinaivu.store.gateway_policy import Policy, changed, document_of, policy_of
from pinaivu.typed_data import Domain, Signed, signed_from_bytes

KEY_PREFIX: Final = "sk-pnv-"
_SECRET_BYTES: Final = 32
_SHOWN: Final = len(KEY_PREFIX) + 6
_NOBODY: Final = "local"


class Unknown(Misconfigured):
    """There is no key of that id, or no grant of that digest."""


class NewKey(Struct, frozen=True):
    """A key just made; `secret` is stored nowhere."""

    key_id: str
    secret: str


class KeyInfo(Struct, frozen=True, kw_only=True):
    """What is known of a key; `payer` is empty for one that can't spend."""

    key_id: str
    shown: str
    label: str
    payer: bytes
    policy: Policy
    created_ms: int
    revoked_ms: int | None


def hash_key(secret: str) -> bytes:
    """What is stored of a key."""
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def create_key(
    database: Database,
    *,
    payer: bytes,
    label: str,
    random: Callable[[int], bytes],
    now_ms: int,
    policy: Policy = Policy(),  # noqa: B008 - a frozen value
    further_payers: Sequence[bytes] = (),
    hosted_limit_units: int | None = None,
    who: str = _NOBODY,
) -> NewKey:
    """Make a key that `payer`'s grants pay for; `further_payers`' in order, where those can't.

    With `hosted_limit_units` the payer is the gateway's own and the key gets a blinded sub-account
    of it, with that limit on every receipt.
    """
    secret, key_id = _draw(random), "key-" + random(6).hex()
    row = KeyRow(
        key_id=key_id,
        key_hash=hash_key(secret),
        shown=_shown(secret),
        label=label,
        payer=payer,
        policy=document_of(policy),
        created_ms=now_ms,
    )
    detail = {
        "label": label,
        "payers": [to_hex(one) for one in (payer, *further_payers)],
        "policy": msgspec.to_builtins(policy),
    }
    with database.begin() as session:
        session.add(row)
        session.add(MeterRow(key_id=key_id))
        for place, further in enumerate(further_payers):
            session.add(PayerRow(key_id=key_id, place=place, payer=further))
        if hosted_limit_units is not None:
            blind = random(_SECRET_BYTES)
            session.add(AccountRow(key_id=key_id, secret=blind, limit_units=hosted_limit_units))
        record(session, who, "create key", key_id, now_ms, detail)
    return NewKey(key_id, secret)


def list_keys(database: Database, *, after_ms: int = 0, most: int | None = None) -> list[KeyInfo]:
    """Keys made from a time on, revoked ones too, oldest first, `most` at most."""
    query = select(KeyRow).where(col(KeyRow.created_ms) >= after_ms)
    with database.read() as session:
        rows = session.exec(query.order_by(col(KeyRow.created_ms)).limit(most)).all()
        return [_info(row) for row in rows]


def key_of_secret(database: Database, secret: str) -> KeyInfo | None:
    """What is known of the key with this secret, revoked or not."""
    with database.read() as session:
        row = session.exec(select(KeyRow).where(KeyRow.key_hash == hash_key(secret))).first()
        return _info(row) if row else None


def find_key(database: Database, key_id: str) -> KeyInfo:
    """One key."""
    with database.read() as session:
        return _info(_row(session, key_id))


def change_policy(
    database: Database,
    key_id: str,
    changes: dict[str, Any],
    *,
    now_ms: int,
    who: str = _NOBODY,
) -> Policy:
    """Set members of a key's policy (None: no limit) and leave the others; the whole of it then.

    `terms` is a table of the terms to set, by the same rule.
    What was used and is reserved in this minute, day and month counts against the new limits.
    """
    with database.begin() as session:
        row = _row(session, key_id, lock=True)
        policy = changed(policy_of(row), changes)
        row.policy = document_of(policy)
        forget(session, key_id)
        record(session, who, "limit key", key_id, now_ms, msgspec.to_builtins(changes))
        return policy


def revoke_key(database: Database, key_id: str, now_ms: int, who: str = _NOBODY) -> None:
    """End a key. Ending it again is nothing."""
    with database.begin() as session:
        row = _row(session, key_id, lock=True)
        if row.revoked_ms is None:
            row.revoked_ms = now_ms
            record(session, who, "revoke key", key_id, now_ms, {})


def rotate_key(
    database: Database,
    key_id: str,
    *,
    random: Callable[[int], bytes],
    now_ms: int,
    who: str = _NOBODY,
) -> NewKey:
    """Give a key a new secret; the old one ends within seconds. What was used stays counted."""
    secret = _draw(random)
    with database.begin() as session:
        row = _row(session, key_id, lock=True)
        if row.revoked_ms is not None:
            raise Misconfigured(f"{key_id} is revoked: make a new key")
        row.key_hash, row.shown = hash_key(secret), _shown(secret)
        record(session, who, "rotate key", key_id, now_ms, {"shown": row.shown})
    return NewKey(key_id, secret)


def add_grant(
    database: Database, domain: Domain, signed: Signed[Grant], now_ms: int, who: str = _NOBODY
) -> bytes:
    """Store a payer's grant, once its signature holds (else `BadSignature`); its digest."""
    payer = signed.message.payer
    digest = signed.require(domain, payer)
    with database.begin() as session:
        if session.get(GrantRow, digest) is None:
            row = GrantRow(digest=digest, payer=payer, signed=signed.to_bytes(), added_ms=now_ms)
            session.add(row)
            record(session, who, "add grant", to_hex(digest), now_ms, {"payer": to_hex(payer)})
    return digest


def remove_grant(database: Database, digest: bytes, now_ms: int, who: str = _NOBODY) -> None:
    """Use a grant no longer. Its payer revokes it on chain; this only forgets it here."""
    with database.begin() as session:
        row = session.get(GrantRow, digest)
        if row is None:
            raise Unknown(f"there is no grant {to_hex(digest)}; list the grants to see them")
        session.delete(row)
        record(session, who, "remove grant", to_hex(digest), now_ms, {"payer": to_hex(row.payer)})


def list_grants(database: Database) -> list[Signed[Grant]]:
    """All grants, newest first."""
    with database.read() as session:
        rows = session.exec(select(GrantRow).order_by(col(GrantRow.added_ms).desc())).all()
        return [signed_from_bytes(Grant, row.signed) for row in rows]


def _draw(random: Callable[[int], bytes]) -> str:
    drawn = urlsafe_b64encode(random(_SECRET_BYTES)).decode("ascii").rstrip("=")
    return KEY_PREFIX + drawn


def _shown(secret: str) -> str:
    return secret[:_SHOWN] + "…"


def _row(session: Session, key_id: str, *, lock: bool = False) -> KeyRow:
    row = session.get(KeyRow, key_id, with_for_update=lock or None)
    if row is None:
        raise Unknown(f"there is no key {key_id!r}; list the keys to see their ids")
    return row


def _info(row: KeyRow) -> KeyInfo:
    return KeyInfo(
        key_id=row.key_id,
        shown=row.shown,
        label=row.label,
        payer=row.payer,
        policy=policy_of(row),
        created_ms=row.created_ms,
        revoked_ms=row.revoked_ms,
    )
