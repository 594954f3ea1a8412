"""A payer's permission to a gateway, put together: caps in base units, signed by the wallet.

    signed = sign_grant(wallet, domain, log_id, gateway, grant_epoch, Caps(), now_ms=…, salt=…)

The message is `pinaivu.messages.Grant`; what its caps stop, and what not, is docs/payer.md. Nothing
here knows whether the wallet has a balance, or is assigned to the log.
"""

from msgspec import Struct

from pinaivu.fields import MAX_U64, MAX_U96
from pinaivu.keys import SecretKey
from pinaivu.messages import Grant
from pinaivu.typed_data import Domain, Signed

_DAY_MS = 86_400_000
_TOKEN = 10**6


class Caps(Struct, frozen=True, kw_only=True):
    """What a grant allows: base units per job, per UTC day and ever; prices per million tokens."""

    per_job: int = _TOKEN
    per_day: int = 10 * _TOKEN
    total: int = 100 * _TOKEN
    max_price: int = 20_000_000
    days: int = 30

    def of(self, grant: Grant) -> bool:
        """Whether a grant has these caps, whenever it was signed."""
        said = (grant.max_per_job, grant.max_per_day, grant.max_total)
        prices = (grant.max_price_in, grant.max_price_out)
        return said == (self.per_job, self.per_day, self.total) and prices == (self.max_price,) * 2


def sign_grant(
    wallet: SecretKey,
    domain: Domain,
    log_id: bytes,
    gateway: bytes,
    grant_epoch: int,
    caps: Caps,
    *,
    now_ms: int,
    salt: bytes,
) -> Signed[Grant]:
    """The wallet's grant to `gateway` at one log, valid from now on; `salt` is 32 random bytes."""
    message = Grant(
        log_id=log_id,
        payer=wallet.address,
        gateway=gateway,
        grant_epoch=grant_epoch,
        max_total=min(caps.total, MAX_U96),
        max_per_job=caps.per_job,
        max_per_day=caps.per_day,
        max_price_in=caps.max_price,
        max_price_out=caps.max_price,
        not_before_ms=0,
        not_after_ms=min(now_ms + caps.days * _DAY_MS, MAX_U64),
        salt=salt,
        models=(),
    )
    return Signed.by(wallet, domain, message)
