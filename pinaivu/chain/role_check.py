"""Compares a deployment on a chain with what it is meant to be: code, wiring, times, powers.

`check_roles` needs no key and no trust in whoever deployed. It reads one block, and returns every
deviation as a sentence, and the table of who can do what after how long. It proves what the
contracts are and who commands them at that block, as far as the endpoint tells the truth; not that
the holders are who they say, that the token is honest, or that the code has no error.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pinaivu.chain.abi import SELECTOR_BYTES, load
from pinaivu.chain.access import (
    Access,
    HistoryMissing,
    ManagerOlder,
    Member,
    read_access,
    require_all_events,
)
from pinaivu.chain.code import ForeignCode, expected_immutables, is_ours, read_immutables
from pinaivu.chain.deployment import CONTRACTS, Deployment
from pinaivu.chain.records import Times
from pinaivu.chain.role_settings import check_beneficiary, check_debit_limit, check_times
from pinaivu.chain.role_state import RoleState
from pinaivu.chain.role_verifiers import check_verifiers
from pinaivu.chain.roles import ADMIN_ROLE, LOCAL_CHAINS, TARGETS, Delay, Power, Role, Target, roles
from pinaivu.chain.rpc import JsonRpc, require_chain
from pinaivu.chain.words import quantity
from pinaivu.keys import checksum

PUBLIC_ROLE: Final = 2**64 - 1
_SECOND: Final = 1000
_MANAGED: Final = ("settlement", "enclave_registry", "model_registry")
_TIMES: Final = (  # in the struct's order
    *("UNSETTLED_MAX", "PAUSE_MAX", "WITHDRAWAL_DELAY", "ADMIN_DELAY"),
    *("PAUSE_INTERVAL", "LIMITER_WINDOW"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that one account can do, announced `delay_ms` before, effective so much later."""

    role: str
    member: bytes
    contract: str
    function: str
    delay_ms: int
    built_in_ms: int
    meaning: str


@dataclass(frozen=True, slots=True)
class RoleReport:
    """What was found at `block`.

    Without `deviations` all that was looked at is as meant; `unchecked` is what the endpoint could
    not show. `notes` are true and may matter, such as changes that wait.
    """

    chain_id: int
    block: int
    times: Times | None
    rows: tuple[Row, ...]
    deviations: tuple[str, ...]
    unchecked: tuple[str, ...]
    notes: tuple[str, ...]


def check_roles(rpc: JsonRpc, deployment: Deployment) -> RoleReport:
    """Check `deployment` on the chain behind `rpc`, as of its head."""
    require_chain(rpc, deployment.chain_id)
    head = quantity(rpc.call("eth_blockNumber"))
    local = deployment.chain_id in LOCAL_CHAINS
    state = RoleState(rpc, deployment, head, local=local)
    if local:
        state.notes.append("a local chain: AccessManager announces nothing before it is done")
    _check_code(state)
    check_beneficiary(state)
    times = _times(state)
    rows: tuple[Row, ...] = ()
    if times is not None:
        check_times(state, times)
        check_debit_limit(state)
        rows = tuple(_check_powers(state, times))
    found = (state.wrong, state.unchecked, state.notes)
    return RoleReport(deployment.chain_id, head, times, rows, *map(tuple, found))


def _check_powers(state: RoleState, times: Times) -> Iterator[Row]:
    targets = _targets(state, times)
    access = read_access(state.rpc, state.deployment, targets, state.block)
    try:
        require_all_events(state.rpc, state.deployment, access.first_tx)
    except ManagerOlder as error:
        state.wrong.append(f"roles: {error}")
    except HistoryMissing as error:
        state.unchecked.append(str(error))
    _check_members(state, access, times)
    _check_functions(state, access, targets)
    _note_announced(state, access, targets)
    return _rows(access, targets, times)


def _check_code(state: RoleState) -> None:
    named = CONTRACTS | {"access_manager": "AccessManager"}
    for place, name in named.items():
        address = getattr(state.deployment, place)
        words = _own_words(state, name, address)
        for member, expected in expected_immutables(name, state.deployment).items():
            if words is not None and words[member] != expected:
                state.wrong.append(
                    f"wiring: {name}.{member} is 0x{words[member].hex()}, not 0x{expected.hex()}"
                )
    token = state.code(state.deployment.token)
    if is_ours("TestToken", token):
        state.only_locally("the settlement token is TestToken, which anybody can mint")
    elif not token:
        state.wrong.append(f"code: no token at {checksum(state.deployment.token)}")


def _own_words(state: RoleState, name: str, address: bytes) -> Mapping[str, bytes] | None:
    try:
        state.words[name] = read_immutables(load(name), state.code(address))
    except ForeignCode as error:
        state.wrong.append(f"code: {name} at {checksum(address)}: {error}")
        return None
    return state.words[name]


def _times(state: RoleState) -> Times | None:
    """From Settlement's code; None where that isn't Settlement's."""
    words = state.words.get("Settlement")
    if words is None:
        return None
    return Times(*(int.from_bytes(words[name]) * _SECOND for name in _TIMES))


def _targets(state: RoleState, times: Times) -> list[Target]:
    """Every contract with restricted functions, the verifiers in force and waiting among them."""
    powers: dict[str, list[Power]] = {name: [] for name in TARGETS}
    for entry in roles():
        for power in entry.functions:
            powers[power.contract].append(power)
    targets = [
        Target(name, getattr(state.deployment, name), tuple(powers[name])) for name in _MANAGED
    ]
    own = tuple(powers["attestation_verifier"])
    quorums = check_verifiers(state, times)
    targets += [Target("attestation_verifier", address, own) for address in quorums]
    for target in targets:
        (authority,) = state.ask(TARGETS[target.name], target.address, "authority")
        if authority != state.deployment.access_manager:
            state.wrong.append(f"wiring: {target.name} obeys {checksum(authority)}")
    return targets


def _check_members(state: RoleState, access: Access, times: Times) -> None:
    by_id = {entry.id: entry for entry in roles()}
    for member in access.members:
        shown = checksum(member.account)
        entry = by_id.get(member.role)
        if entry is None:
            state.wrong.append(f"roles: {shown} has role {member.role}, which nothing knows")
            continue
        state.wrong.extend(_wrong_in_member(state, member, entry, times, access))
    for entry in roles():
        state.wrong.extend(_wrong_in_role(access, entry))
        if not any(member.role == entry.id for member in access.members):
            state.wrong.append(f"roles: nobody is {entry.name}")


def _wrong_in_member(
    state: RoleState, member: Member, entry: Role, times: Times, access: Access
) -> Iterator[str]:
    shown = f"{checksum(member.account)} is {entry.name}"
    holders = state.deployment.holders
    meant = None if holders is None else getattr(holders, entry.name)
    if member.account == access.deployer and member.account != meant:
        yield f"roles: {shown} and has deployed all this: the deployer must keep nothing"
    elif meant is not None and member.account != meant:
        yield f"roles: {shown}, which was meant to be {checksum(meant)} alone"
    if member.since_ms > state.now_ms:
        yield f"roles: {shown} only from second {member.since_ms // _SECOND} on"
    due = entry.delay_ms(times, state.deployment.chain_id)
    if member.delay_ms < due:
        yield f"delays: {shown} with {member.delay_ms // _SECOND} s, less than {due // _SECOND} s"
    if member.next_delay_from_ms and member.next_delay_ms < due:
        yield f"delays: {shown}, soon with {member.next_delay_ms // _SECOND} s"


def _wrong_in_role(access: Access, entry: Role) -> Iterator[str]:
    settings = access.roles.get(entry.id)
    if settings is None:
        return
    guardian = next((r.id for r in roles() if r.name == entry.vetoed_by), ADMIN_ROLE)
    if settings.admin != ADMIN_ROLE:
        yield f"roles: {entry.name} is granted by role {settings.admin}, not by admin"
    if settings.guardian != guardian:
        yield f"roles: calls of {entry.name} can be cancelled by role {settings.guardian}"


def _check_functions(state: RoleState, access: Access, targets: list[Target]) -> None:
    expected = {
        (target.address, power.selector): entry.id
        for target in targets
        for entry in roles()
        for power in target.powers
        if power in entry.functions
    }
    names = {target.address: target for target in targets}
    for (address, selector), found in access.functions.items():
        due = expected.get((address, selector), ADMIN_ROLE)
        if found == due:
            continue
        what = _function_name(names.get(address), address, selector)
        to = "PUBLIC_ROLE: anybody" if found == PUBLIC_ROLE else f"role {found}"
        state.wrong.append(f"functions: {what} is open to {to}, not to role {due}")
    for address in access.closed:
        what = names[address].name if address in names else checksum(address)
        state.wrong.append(f"functions: {what} is closed: nobody can call what is restricted")


def _function_name(target: Target | None, address: bytes, selector: bytes) -> str:
    if target is None:
        return f"{checksum(address)}.0x{selector.hex()}"
    known = load(TARGETS[target.name]).function_of(selector)
    return f"{target.name}.{known.name if known else '0x' + selector.hex()}"


def _note_announced(state: RoleState, access: Access, targets: list[Target]) -> None:
    names = {target.address: TARGETS[target.name] for target in targets}
    names[state.deployment.access_manager] = "AccessManager"
    for call in access.announced:
        abi = load(names[call.target]) if call.target in names else None
        item = abi and abi.function_of(call.data[:SELECTOR_BYTES])
        what = f"{item.contract}.{item.name}" if item else f"0x{call.data.hex():.10}"
        state.notes.append(
            f"announced by {checksum(call.caller)}: {what} of {checksum(call.target)},"
            f" possible from second {call.from_ms // _SECOND} on (calldata 0x{call.data.hex()})"
        )


def _rows(access: Access, targets: list[Target], times: Times) -> Iterator[Row]:
    for entry in roles():
        for member in (m for m in access.members if m.role == entry.id):
            if entry.id == ADMIN_ROLE:
                what = ("access_manager", "everything", member.delay_ms, 0, entry.meaning)
                yield Row(entry.name, member.account, *what)
            for target in targets:
                for power in (p for p in target.powers if p in entry.functions):
                    yield Row(
                        entry.name,
                        member.account,
                        target.name,
                        power.name,
                        member.delay_ms,
                        Delay(power.built_in).ms(times),
                        power.meaning,
                    )
