"""A caller's own terms for the market: the same members in a body, in headers, on a key.

    body     {"pinaivu": {"max_cost_units": 900, "auction": "standing", "deny": ["0x…"]}}
    header   x-pinaivu-max-cost-units: 900    (lists: comma-separated)
    key      its defaults and ceilings

`combined` says what holds where they differ: of ceilings the least, so a request never gets above
its key's; of lists what all allow; of everything else what is nearest to the request.

Prices are base units per million tokens, amounts base units, the value of time base units per
second of waiting.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from pinaivu.codes import Mode
from pinaivu.encoding import MAX_SAFE_INTEGER, InvalidParameter

MAX_LISTED: Final = 64
HEADER_PREFIX: Final = "x-pinaivu-"

_Units = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)]
_Address = Annotated[str, Meta(pattern=r"^0x[0-9a-fA-F]{40}\Z")]
_Addresses = Annotated[list[_Address], Meta(max_length=MAX_LISTED)]
_Digest = Annotated[str, Meta(pattern=r"^0x[0-9a-f]{64}\Z")]


class Terms(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The caller's own terms for the market; unset members leave the matter to the grant."""

    max_price_in: _Units | None = None
    max_price_out: _Units | None = None
    max_cost_units: _Units | None = None
    value_of_time: _Units | None = None
    auction: Literal["live", "standing"] | None = None
    allow: _Addresses = []
    deny: _Addresses = []
    fingerprint: _Digest | None = None
    receipt: bool = False

    @property
    def mode(self) -> Mode:
        """How the auction is to be held; live where nothing is said."""
        return Mode.STANDING if self.auction == "standing" else Mode.LIVE


_CEILINGS: Final = ("max_price_in", "max_price_out", "max_cost_units")
_NEAREST: Final = ("value_of_time", "auction", "fingerprint")
_LISTS: Final = ("allow", "deny")


def terms_from_headers(headers: Iterable[tuple[str, str]]) -> Terms:
    """The terms that a request's headers (names in lower case) set; `InvalidParameter` names one.

    A header of ours that is none of the terms is refused: nothing is silently dropped.
    """
    given: dict[str, Any] = {}
    for header, text in headers:
        if header.startswith(HEADER_PREFIX):
            name = header.removeprefix(HEADER_PREFIX).replace("-", "_")
            if name in given:
                raise InvalidParameter(header, "sent more than once")
            given[name] = _one_term(header, name, text.strip())
    return msgspec.convert(given, Terms) if given else Terms()


def _one_term(header: str, name: str, text: str) -> Any:
    value: object = text
    if name in _LISTS:
        value = [part.strip() for part in text.split(",") if part.strip()]
    try:
        found = msgspec.convert({name: value}, Terms, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidParameter(header, str(error)) from error
    return getattr(found, name)


def combined(key: Terms, headers: Terms, body: Terms) -> Terms:
    """What holds of three: `InvalidParameter` where they leave no node."""
    members: dict[str, Any] = {}
    for name in _CEILINGS:
        limits = [getattr(terms, name) for terms in (key, headers, body)]
        members[name] = min((limit for limit in limits if limit is not None), default=None)
    for name in _NEAREST:
        nearest = (getattr(terms, name) for terms in (body, headers, key))
        members[name] = next((value for value in nearest if value is not None), None)
    allow = _allowed_by_all([terms.allow for terms in (key, headers, body) if terms.allow])
    deny = {node.lower() for terms in (key, headers, body) for node in terms.deny}
    if len(deny) > MAX_LISTED:
        raise InvalidParameter("pinaivu.deny", f"key and request deny over {MAX_LISTED} nodes")
    receipt = any(terms.receipt for terms in (key, headers, body))
    return Terms(**members, allow=allow, deny=sorted(deny), receipt=receipt)


def _allowed_by_all(lists: list[list[str]]) -> list[str]:
    """The nodes on every list that names any; none at all means that every node is allowed."""
    if not lists:
        return []
    common = set.intersection(*({node.lower() for node in listed} for listed in lists))
    if not common:
        raise InvalidParameter("pinaivu.allow", "no node is allowed by key and request both")
    return sorted(common)
