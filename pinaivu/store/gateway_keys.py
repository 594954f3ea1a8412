"""API keys and grants of a gateway, as whoever runs it manages them: synchronous, for a CLI.

    database = open_database("sqlite:///state/gateway.db", "gateway")
    add_grant(database, domain, signed_grant, now_ms=…)
    key = create_key(database, payer=…, label="laptop", random=os.urandom, now_ms=…)
    print(key.secret)  # the only time it is seen

A key is 32 random bytes; only its SHA-256 is stored, which suffices because it can't be guessed.
A running gateway notices a new, changed or revoked key within seconds. All functions raise
`StorageFailed` when the database can't be used.
"""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from msgspec import Struct
from sqlmodel import col, select

from pinaivu.errors import Misconfigured
from pinaivu.messages import Grant
from pinaivu.store.database import Database
from pinaivu.store.gateway import AccountRow, GrantRow, KeyRow, PayerRow
from pinaivu.typed_data import Domain, Signed, signed_from_bytes

KEY_PREFIX: Final = "sk-pnv-"
_SECRET_BYTES: Final = 32
_SHOWN: Final = len(KEY_PREFIX) + 6


class NewKey(Struct, frozen=True):
    """A key just made; `secret` is stored nowhere."""

    key_id: str
    secret: str


class KeyInfo(Struct, frozen=True, kw_only=True):
    """What is known of a key; limits are per UTC day, `None` for none, amounts base units."""

    key_id: str
    shown: str
    label: str
    payer: bytes
    daily_tokens: int | None
    daily_units: int | None
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
    daily_tokens: int | None = None,
    daily_units: int | None = None,
    further_payers: Sequence[bytes] = (),
    hosted_limit_units: int | None = None,
) -> NewKey:
    """Make a key that `payer`'s grants pay for; `further_payers`' in order, where those can't.

    With `hosted_limit_units` the payer is the gateway's own and the key gets a blinded sub-account
    of it, with that limit on every receipt.
    """
    drawn = urlsafe_b64encode(random(_SECRET_BYTES)).decode("ascii").rstrip("=")
    new = NewKey("key-" + random(6).hex(), KEY_PREFIX + drawn)
    row = KeyRow(
        key_id=new.key_id,
        key_hash=hash_key(new.secret),
        shown=new.secret[:_SHOWN] + "…",
        label=label,
        payer=payer,
        daily_tokens=daily_tokens,
        daily_units=daily_units,
        created_ms=now_ms,
    )
    with database.begin() as session:
        session.add(row)
        for place, further in enumerate(further_payers):
            session.add(PayerRow(key_id=new.key_id, place=place, payer=further))
        if hosted_limit_units is not None:
            secret = random(_SECRET_BYTES)
            session.add(
                AccountRow(key_id=new.key_id, secret=secret, limit_units=hosted_limit_units)
            )
    return new


def list_keys(database: Database) -> list[KeyInfo]:
    """All keys, revoked ones too, oldest first."""
    with database.read() as session:
        rows = session.exec(select(KeyRow).order_by(col(KeyRow.created_ms))).all()
        return [_info(row) for row in rows]


def _info(row: KeyRow) -> KeyInfo:
    return KeyInfo(**{name: getattr(row, name) for name in KeyInfo.__struct_fields__})


def find_key(database: Database, secret: str) -> KeyInfo | None:
    """What is known of the key with this secret, revoked or not."""
    with database.read() as session:
        row = session.exec(select(KeyRow).where(KeyRow.key_hash == hash_key(secret))).first()
        return _info(row) if row else None


def revoke_key(database: Database, key_id: str, now_ms: int) -> None:
    """End a key; `Misconfigured` where there is none of that id. Ending it again is nothing."""
    with database.begin() as session:
        row = session.get(KeyRow, key_id)
        if row is None:
            raise Misconfigured(f"there is no key {key_id!r}; list the keys to see their ids")
        row.revoked_ms = row.revoked_ms or now_ms


def add_grant(database: Database, domain: Domain, signed: Signed[Grant], now_ms: int) -> bytes:
    """Store a payer's grant, once its signature holds (else `BadSignature`); its digest."""
    digest = signed.require(domain, signed.message.payer)
    with database.begin() as session:
        if session.get(GrantRow, digest) is None:
            session.add(
                GrantRow(
                    digest=digest,
                    payer=signed.message.payer,
                    signed=signed.to_bytes(),
                    added_ms=now_ms,
                )
            )
    return digest


def list_grants(database: Database) -> list[Signed[Grant]]:
    """All grants, newest first."""
    with database.read() as session:
        rows = session.exec(select(GrantRow).order_by(col(GrantRow.added_ms).desc())).all()
        return [signed_from_bytes(Grant, row.signed) for row in rows]
