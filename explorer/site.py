"""What every page needs: database, log and chain of one configuration, and the verification policy.

Answers of log and chain may be missing: a page then says so and shows what the database holds.
"""

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from explorer.config import Config
from explorer.reading import Reader
from explorer.sources import HttpLog, LogSource
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployment import Deployment
from pinaivu.chain.facts import ContractFacts
from pinaivu.chain.rpc import HttpRpc
from pinaivu.chain.views import read, view
from pinaivu.errors import PinaivuError
from pinaivu.store.database import open_database
from pinaivu.verify import Policy, Verifier, development, strict


@dataclass(frozen=True)
class Site:
    """One explorer: shared by all sessions, safe to use from several threads."""

    config: Config
    reader: Reader
    log: LogSource
    client: ChainClient
    policy: Policy

    def now_ms(self) -> int:
        """Wall time."""
        return time.time_ns() // 1_000_000

    def verifier(self) -> Verifier:
        """A verifier over the chain as it is now, or over none where it doesn't answer."""
        try:
            return Verifier(self.policy, ContractFacts(self.client))
        except PinaivuError:
            return Verifier(self.policy)

    @property
    def symbol(self) -> str:
        """The settlement token's symbol, as its contract says; "tokens" while it can't be asked."""
        try:
            return self._symbol
        except PinaivuError:
            return "tokens"

    @cached_property
    def _symbol(self) -> str:
        token = self.client.deployment.token
        (symbol,) = read(self.client.rpc, view("TestToken", token, "symbol"))
        return str(symbol)[:12]


def open_site(config: Config) -> Site:
    """Open everything a configuration names; `Misconfigured` where that can't be."""
    deployment = Deployment.load(Path(config.deployment))
    policies = {"development": development, "strict": strict}
    return Site(
        config=config,
        reader=Reader(open_database(config.database, "explorer")),
        log=HttpLog(config.log_url),
        client=ChainClient(HttpRpc(config.rpc), deployment),
        policy=policies[config.policy](deployment.domain).without_copies(),
    )
