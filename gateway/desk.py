"""What all requests of one gateway share: its identity, its parts, its clock."""

from collections.abc import Callable
from dataclasses import dataclass

import trio

from gateway.access import Access
from gateway.accounts import Accounts
from gateway.claims import Claims
from gateway.config import Limits
from gateway.drafts import Identity
from gateway.ledger import Ledger
from gateway.logs import Logs
from gateway.quotas import Quotas
from pinaivu.p2p.links import ReadyPool


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What all exchanges of a gateway share."""

    identity: Identity
    ledger: Ledger
    access: Access
    accounts: Accounts
    quotas: Quotas
    claims: Claims
    logs: Logs
    pool: ReadyPool
    limits: Limits
    nursery: trio.Nursery
    now_ms: Callable[[], int]
