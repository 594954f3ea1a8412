"""One log of a local network: names, places and accounts of its own, for each log another set.

The first log's are those of a network with one log only, so that a folder stays what it was.
"""

from dataclasses import dataclass

from msgspec import Struct

from pinaivu.local.folder import Folder
from pinaivu.local.ports import Ports, keep


class LogPorts(Struct, frozen=True, forbid_unknown_fields=True):
    """TCP ports of a further log's coordinator, on the loopback address."""

    p2p: int
    http: int


@dataclass(slots=True)
class LocalLog:
    """A log; the names are those of its keys, processes, database and files."""

    coordinator: str
    submitter: str
    operator: str
    payer: str
    ports: LogPorts
    log_id: bytes = b""

    @property
    def url(self) -> str:
        """Its public server."""
        return f"http://127.0.0.1:{self.ports.http}"

    @property
    def address(self) -> str:
        """Where its coordinator is dialed, without peer id."""
        return f"/ip4/127.0.0.1/tcp/{self.ports.p2p}"


def local_logs(folder: Folder, ports: Ports, number: int) -> list[LocalLog]:
    """The logs of a network, each with its own operator and payer."""
    logs = [_log("", LogPorts(ports.coordinator_p2p, ports.coordinator_http))]
    for place in range(2, number + 1):
        further = keep(folder.root / f"ports-log-{place}.json", LogPorts)
        logs.append(_log(f"-{place}", further))
    return logs


def _log(suffix: str, ports: LogPorts) -> LocalLog:
    return LocalLog(
        coordinator=f"coordinator{suffix}",
        submitter=f"submitter{suffix}",
        operator=f"operator{suffix}",
        payer=f"payer{suffix}",
        ports=ports,
    )
