"""The payer of a local network: signs the gateway's grant and gets an API key for it."""

import os
import time
from collections.abc import Sequence
from typing import Final

from pinaivu.chain.client import ChainClient
from pinaivu.fields import MAX_U64
from pinaivu.local.chain import DEPOSIT
from pinaivu.local.folder import Folder
from pinaivu.messages import Grant
from pinaivu.store.database import open_database
from pinaivu.store.gateway_keys import add_grant, create_key, list_grants
from pinaivu.typed_data import Signed

_YEAR_MS: Final = 365 * 24 * 3600 * 1000
_MAX_PRICE: Final = 20_000_000  # base units per million tokens, in and out


def ensure_grant(
    folder: Folder, client: ChainClient, log_id: bytes, payer_name: str = "payer"
) -> Signed[Grant]:
    """A payer's grant to this gateway; signed anew if there is none that still holds."""
    database = open_database(folder.database("gateway"), "gateway")
    try:
        payer, gateway = folder.key(payer_name), folder.key("gateway")
        grant_epoch = client.payer(payer.address).grant_epoch
        wanted = (log_id, payer.address, grant_epoch)
        for known in list_grants(database):
            held = known.message
            if (held.log_id, held.payer, held.grant_epoch) == wanted:
                return known
        now = time.time_ns() // 1_000_000
        grant = Grant(
            log_id=log_id,
            payer=payer.address,
            gateway=gateway.address,
            grant_epoch=grant_epoch,
            max_total=DEPOSIT,
            max_per_job=DEPOSIT // 100,
            max_per_day=DEPOSIT // 2,
            max_price_in=_MAX_PRICE,
            max_price_out=_MAX_PRICE,
            not_before_ms=0,
            not_after_ms=min(MAX_U64, now + _YEAR_MS),
            salt=os.urandom(32),
            models=(),
        )
        domain = client.deployment.domain
        signed = Signed.by(payer, domain, grant)
        add_grant(database, domain, signed, now)
        return signed
    finally:
        database.close()


def new_api_key(folder: Folder, label: str, payers: Sequence[str] = ("payer",)) -> str:
    """A fresh API key on the accounts of these payers; shown once, stored as its hash."""
    database = open_database(folder.database("gateway"), "gateway")
    try:
        payer, *further = [folder.key(name).address for name in payers]
        made = create_key(
            database,
            payer=payer,
            further_payers=further,
            label=label,
            random=os.urandom,
            now_ms=time.time_ns() // 1_000_000,
        )
        return made.secret
    finally:
        database.close()
