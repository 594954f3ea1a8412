"""What an API key may do: a document in its row, read as a whole or not at all.

    Policy(scopes=("inference",), requests_per_minute=60, daily_units=50_000)

A member that is left out is no limit. A document with a member that this version does not know is
refused, so that an older gateway never overlooks a limit that a newer one has set.
"""

from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from pinaivu.errors import Misconfigured
from pinaivu.store.gateway import KeyRow
from pinaivu.terms import Terms

MAX_COUNT: Final = (1 << 53) - 1
MAX_MODELS: Final = 256
S = TypeVar("S", bound=Struct)
Scope = Literal["inference", "receipts", "usage", "admin"]
USER: Final[tuple[Scope, ...]] = ("inference", "receipts", "usage")

_Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
_Models = Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=MAX_MODELS)]


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Scopes, validity, models, limits, and the terms its requests start from.

    Minutes, days and months are those of the clock (UTC). Tokens are prompt and output together,
    units base units of the settlement token. No models: all that the payer's grant allows.
    """

    scopes: tuple[Scope, ...] = USER
    expires_ms: _Count | None = None
    models: _Models = ()
    requests_per_minute: _Count | None = None
    tokens_per_minute: _Count | None = None
    streams: _Count | None = None
    daily_tokens: _Count | None = None
    daily_units: _Count | None = None
    monthly_tokens: _Count | None = None
    monthly_units: _Count | None = None
    terms: Terms = Terms()

    @property
    def metered(self) -> bool:
        """Whether there is a limit to be counted against."""
        return any(getattr(self, name) is not None for name in LIMITS)


LIMITS: Final = (
    "requests_per_minute",
    "tokens_per_minute",
    "streams",
    "daily_tokens",
    "daily_units",
    "monthly_tokens",
    "monthly_units",
)
"""The members that a meter counts against."""


def changed(policy: Policy, changes: dict[str, Any]) -> Policy:
    """A policy with some members set anew (None: as in one that says nothing of it)."""
    members = dict(changes)
    if members.get("terms") is not None:
        members["terms"] = _replaced(policy.terms, members["terms"])
    return _replaced(policy, members)


def _replaced(old: S, members: dict[str, Any]) -> S:
    document = msgspec.to_builtins(old) | members
    kept = {name: value for name, value in document.items() if value is not None}
    try:
        return msgspec.convert(kept, type(old))
    except msgspec.ValidationError as error:
        raise Misconfigured(f"this can't be a key's policy: {error}") from error


def policy_of(row: KeyRow) -> Policy:
    """A key's policy; `Misconfigured` where the row holds none that this version understands."""
    try:
        return msgspec.json.decode(row.policy, type=Policy)
    except msgspec.ValidationError as error:
        raise Misconfigured(f"the policy of key {row.key_id} can't be read: {error}") from error


def document_of(policy: Policy) -> str:
    """What is stored of a policy; `Misconfigured` where it contradicts itself."""
    document = msgspec.json.encode(policy).decode()
    try:
        msgspec.json.decode(document, type=Policy)
    except msgspec.ValidationError as error:
        raise Misconfigured(f"this can't be a key's policy: {error}") from error
    if not policy.scopes:
        raise Misconfigured("a key without a scope could do nothing: name one or more")
    if "admin" in policy.scopes and len(policy.scopes) > 1:
        raise Misconfigured("the scope admin stands alone: make a second key for anything else")
    return document
