"""The logs a gateway works with, and which of them a request is put to.

A payer's balance belongs to one log at a time, and a grant names one. So who wants to be served
when a log is away keeps money at two: a key may have several payers, each assigned to a log of its
own. `Logs.ways` says which of their grants to try, in the key's order: those whose coordinator is
connected. The stream to a frozen one breaks within `pinaivu.p2p.host.Liveness.bound`; from then on
its log is not tried until it greets us again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.drafts import Draft
from gateway.market import Market
from gateway.outbox import Outbox
from gateway.ports import PublicLog, Registry
from pinaivu.manifest import Parameters
from pinaivu.messages import Grant
from pinaivu.typed_data import Signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One log as this gateway uses it."""

    log_id: bytes
    market: Market
    registry: Registry
    public: PublicLog
    outbox: Outbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A job drafted for one log, by the parameters of its active epoch."""

    log: Log
    draft: Draft
    rules: Parameters


class Logs(Mapping[bytes, Log]):
    """All logs by id."""

    def __init__(self, logs: Sequence[Log]) -> None:
        self._logs = {log.log_id: log for log in logs}

    def __getitem__(self, log_id: bytes) -> Log:
        return self._logs[log_id]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._logs)

    def __len__(self) -> int:
        return len(self._logs)

    @property
    def connected(self) -> list[bytes]:
        """The logs whose coordinator can be asked at this moment."""
        return [log_id for log_id, log in self._logs.items() if log.market.connected]

    @property
    def waiting(self) -> int:
        """How many jobs are still without their receipt."""
        return sum(log.outbox.waiting for log in self._logs.values())

    def ways(self, grants: Sequence[Signed[Grant]]) -> list[Signed[Grant]]:
        """The grants whose log can be asked now; the first one, where that holds for none."""
        connected = set(self.connected)
        up = [grant for grant in grants if grant.message.log_id in connected]
        return up or list(grants[:1])
