"""What an AccessManager says now: members, open functions, delays, announced calls.

Its events say whom to ask about, its views give the answer, all at one block. An endpoint that
keeps events back could hide a member; ask another one, or your own. A deployment file that begins
too late would hide some as well: `require_all_events` asks when the contract came to be.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pinaivu.chain.abi import load
from pinaivu.chain.deployment import Deployment
from pinaivu.chain.errors import RpcRefused
from pinaivu.chain.events import Event, LogReader
from pinaivu.chain.roles import ADMIN_ROLE, Target
from pinaivu.chain.rpc import JsonRpc
from pinaivu.chain.views import View, read_many, view
from pinaivu.chain.words import from_hex, to_hex
from pinaivu.errors import PeerFault, TransportFailure

_SECOND: Final = 1000
_CHANGES: Final = {"RoleAdminChanged", "RoleGuardianChanged", "RoleGrantDelayChanged"}


class ManagerOlder(PeerFault):
    """The AccessManager stood before the block at which its events are said to begin."""


class HistoryMissing(TransportFailure):
    """The endpoint doesn't keep the state that would show when the AccessManager began."""


@dataclass(frozen=True, slots=True)
class Member:
    """An account with a role, from `since_ms` on, whose calls are announced `delay_ms` before.

    `next_delay_ms` takes over at `next_delay_from_ms`, if that is not 0.
    """

    role: int
    account: bytes
    since_ms: int
    delay_ms: int
    next_delay_ms: int
    next_delay_from_ms: int


@dataclass(frozen=True, slots=True)
class RoleSettings:
    """A role's own settings: who grants it, who may veto. Its grant delay only slows grants."""

    admin: int
    guardian: int


@dataclass(frozen=True, slots=True)
class Announced:
    """A call that was scheduled, neither made nor cancelled, and can be made from `from_ms` on."""

    id: bytes
    caller: bytes
    target: bytes
    data: bytes
    from_ms: int


@dataclass(frozen=True, slots=True)
class Access:
    """All of it at one block. `functions` holds every target and selector ever set.

    `deployer` and `first_tx` are of the first grant, which the constructor makes; empty: none.
    """

    deployer: bytes
    first_tx: bytes
    members: tuple[Member, ...]
    roles: dict[int, RoleSettings]
    functions: dict[tuple[bytes, bytes], int]
    closed: frozenset[bytes]
    announced: tuple[Announced, ...]


def read_access(
    rpc: JsonRpc, deployment: Deployment, targets: Iterable[Target], block: int
) -> Access:
    """Ask `deployment`'s AccessManager, as of `block`."""
    reader = _Reader(rpc, deployment, block)
    grants = reader.named("RoleGranted")
    roles = {event.arguments["roleId"] for event in reader.events if event.name in _CHANGES}
    roles |= {event.arguments["roleId"] for event in grants} | {ADMIN_ROLE}
    updated = reader.named("TargetFunctionRoleUpdated")
    functions = {(e.arguments["target"], e.arguments["selector"]) for e in updated}
    known = [target for target in targets if target.address]
    functions |= {(t.address, power.selector) for t in known for power in t.powers}
    places = {place for place, _ in functions} | {t.address for t in known}
    places |= {event.arguments["target"] for event in reader.named("TargetClosed")}
    return Access(
        deployer=grants[0].arguments["account"] if grants else b"",
        first_tx=grants[0].tx_hash if grants else b"",
        members=reader.members(grants),
        roles=reader.roles(sorted(roles)),
        functions=reader.functions(sorted(functions)),
        closed=frozenset(reader.closed(sorted(places))),
        announced=reader.announced(),
    )


def require_all_events(rpc: JsonRpc, deployment: Deployment, first_tx: bytes) -> None:
    """Nothing happened at the AccessManager before `deployment.block`, where reading began.

    Either `first_tx` created it, which receipts say, or it had no code a block before, which takes
    an endpoint with history. Errors: `ManagerOlder`; `HistoryMissing` where neither can be seen.
    """
    manager, before = to_hex(deployment.access_manager), max(deployment.block - 1, 0)
    receipt = rpc.call("eth_getTransactionReceipt", to_hex(first_tx)) if first_tx else None
    if receipt and str(receipt.get("contractAddress")).lower() == manager:
        return
    try:
        code = from_hex(rpc.call("eth_getCode", manager, hex(before)))
    except RpcRefused as error:
        raise HistoryMissing(
            f"that the AccessManager was made in block {deployment.block}: {error}; ask an endpoint"
            " with history (an archive node)"
        ) from error
    if code:
        raise ManagerOlder(
            f"the AccessManager stood in block {before} already, its events are only read from"
            f" block {deployment.block} on: who was given what before is not known"
        )


class _Reader:
    def __init__(self, rpc: JsonRpc, deployment: Deployment, block: int) -> None:
        self._rpc = rpc
        self._manager = deployment.access_manager
        self._block = block
        logs = LogReader(rpc, {self._manager: load("AccessManager")})
        self.events = logs.read(deployment.block, block)

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]

    def members(self, grants: list[Event]) -> tuple[Member, ...]:
        asked = sorted({(e.arguments["roleId"], e.arguments["account"]) for e in grants})
        found = read_many(self._rpc, [self._view("getAccess", *key) for key in asked], self._block)
        return tuple(
            Member(role, account, *(seconds * _SECOND for seconds in answer))
            for (role, account), answer in zip(asked, found, strict=True)
            if answer[0]
        )

    def roles(self, ids: list[int]) -> dict[int, RoleSettings]:
        asked = ("getRoleAdmin", "getRoleGuardian")
        found = self._each([(name, (role,)) for role in ids for name in asked])
        pairs = zip(found[::2], found[1::2], strict=True)
        return {role: RoleSettings(*pair) for role, pair in zip(ids, pairs, strict=True)}

    def functions(self, keys: list[tuple[bytes, bytes]]) -> dict[tuple[bytes, bytes], int]:
        found = self._each([("getTargetFunctionRole", key) for key in keys])
        return dict(zip(keys, found, strict=True))

    def closed(self, places: list[bytes]) -> list[bytes]:
        found = self._each([("isTargetClosed", (place,)) for place in places])
        return [place for place, is_closed in zip(places, found, strict=True) if is_closed]

    def announced(self) -> tuple[Announced, ...]:
        latest = {
            event.arguments["operationId"]: event for event in self.named("OperationScheduled")
        }
        found = self._each([("getSchedule", (operation,)) for operation in latest])
        return tuple(
            Announced(
                operation,
                event.arguments["caller"],
                event.arguments["target"],
                event.arguments["data"],
                seconds * _SECOND,
            )
            for (operation, event), seconds in zip(latest.items(), found, strict=True)
            if seconds
        )

    def _view(self, name: str, *arguments: object) -> View:
        return view("AccessManager", self._manager, name, *arguments)

    def _each(self, asked: list[tuple[str, tuple[object, ...]]]) -> list[int]:
        views = [self._view(name, *arguments) for name, arguments in asked]
        return [answer[0] for answer in read_many(self._rpc, views, self._block)]
