"""Puts the whole set of contracts on a chain, once, and fills the registries.

`deploy_once` is safe to repeat: what its file names and the chain holds is left alone. A run that
broke off leaves contracts that nobody names, and the next run begins anew; the file is written when
everything stands, roles included. The contracts refuse each other unless they were made for one
another, so a wrong wiring can't come out of this.

For local networks: the settlement token is play money, the attestation verifier believes a
simulator's key, and `LOCAL` scales the delays down together.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

import rlp  # type: ignore[import-untyped]

from pinaivu.chain.abi import load
from pinaivu.chain.calls import Call, Calls
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployment import CONTRACTS, Deployment, Holders
from pinaivu.chain.errors import ChainUnavailable, NotDeployed
from pinaivu.chain.records import ModelRecord, Times
from pinaivu.chain.roles import ADMIN_ROLE, Role, role, roles
from pinaivu.chain.rpc import JsonRpc
from pinaivu.chain.transactor import Transactor
from pinaivu.chain.words import quantity, to_hex
from pinaivu.keccak import keccak

_CREATED_BEFORE_FAULTS: Final = 8
_CREATED_BEFORE_SETTLEMENT: Final = 9
_SECOND: Final = 1000
_MINUTE: Final = 60 * _SECOND
_DAY: Final = 24 * 60 * _MINUTE


@dataclass(frozen=True, slots=True)
class Settings:
    """What is fixed at deployment: delays, and the limit of debits."""

    times: Times
    payout_delay_ms: int
    unbonding_delay_ms: int
    epoch_lifetime_ms: int
    debit_limit_ppm: int


@dataclass(frozen=True, slots=True)
class Powers:
    """Addresses of the role holders, and of the attestation simulator's key.

    The administrator of a local network also hands out roles, and gets what is slashed.
    """

    administrator: bytes
    guardian: bytes
    registrar: bytes
    simulator: bytes


LOCAL: Final = Settings(
    times=Times(
        unsettled_max_ms=1 * _MINUTE,
        pause_max_ms=90 * _SECOND,
        withdrawal_delay_ms=3 * _MINUTE,
        admin_delay_ms=4 * _MINUTE,
        pause_interval_ms=10 * _MINUTE,
        limiter_window_ms=60 * _MINUTE,
    ),
    payout_delay_ms=4 * _MINUTE,
    unbonding_delay_ms=4 * _MINUTE,
    epoch_lifetime_ms=30 * _DAY,
    debit_limit_ppm=500_000,
)
"""Delays of a network on one machine, in the proportions of a real one as far as patience goes."""


def deploy_once(
    rpc: JsonRpc,
    sender: Transactor,
    powers: Powers,
    path: Path,
    *,
    settings: Settings = LOCAL,
    renew: bool = False,
) -> Deployment:
    """The deployment that `path` names, made now if there is no such file.

    Where the chain doesn't hold what the file names: `WrongChain`, or `NotDeployed` unless `renew`,
    which is for development chains that may be reset: then all is deployed anew.
    """
    if path.exists():
        recorded = Deployment.load(path)
        try:
            ChainClient(rpc, recorded).check()
        except NotDeployed:
            if not renew:
                raise
        else:
            return recorded
    made = deploy(rpc, sender, powers, settings)
    made.save(path)
    return made


def deploy(
    rpc: JsonRpc, sender: Transactor, powers: Powers, settings: Settings = LOCAL
) -> Deployment:
    """Create every contract, hand out the roles, and check the result. Not repeatable.

    No other transaction of `sender`'s key may come between: the addresses of ObjectiveFaults and
    Settlement are counted from its nonce, and contracts made for another address are refused
    (`Reverted`). What faults cost and no reporter gets goes to the administrator.
    """
    first = quantity(rpc.call("eth_getTransactionCount", to_hex(sender.address), "latest"))
    block = quantity(rpc.call("eth_blockNumber")) + 1
    judge = created_address(sender.address, first + _CREATED_BEFORE_FAULTS)
    settlement = created_address(sender.address, first + _CREATED_BEFORE_SETTLEMENT)
    times = tuple(ms // _SECOND for ms in astuple(settings.times))  # in the struct's order
    admin_delay_s = settings.times.admin_delay_ms // _SECOND

    manager = _create(sender, "AccessManager", sender.address)
    token = _create(sender, "TestToken")
    log = _create(sender, "ReceiptLog", settlement)
    verifier = _create(sender, "SimulatedAttestationVerifier", settlement, powers.simulator)
    lifetime_s = settings.epoch_lifetime_ms // _SECOND
    enclaves = _create(sender, "EnclaveRegistry", manager, log, verifier, admin_delay_s, lifetime_s)
    payout_delay_s = settings.payout_delay_ms // _SECOND
    bonds = (token, judge, settings.unbonding_delay_ms // _SECOND)
    nodes = _create(sender, "NodeRegistry", settlement, payout_delay_s, *bonds)
    gateways = _create(sender, "GatewayRegistry", settlement)
    models = _create(sender, "ModelRegistry", manager)
    _create(sender, "ObjectiveFaults", settlement, nodes, enclaves, powers.administrator)
    parts = (token, manager, log, enclaves, nodes, gateways, models, judge)
    _create(sender, "Settlement", (*parts, settings.debit_limit_ppm, times))

    deployment = Deployment(
        chain_id=quantity(rpc.call("eth_chainId")),
        block=block,
        token=token,
        access_manager=manager,
        settlement=settlement,
        receipt_log=log,
        enclave_registry=enclaves,
        node_registry=nodes,
        objective_faults=judge,
        gateway_registry=gateways,
        model_registry=models,
        holders=Holders(
            admin=powers.administrator,
            administrator=powers.administrator,
            guardian=powers.guardian,
            registrar=powers.registrar,
        ),
    )
    _hand_out(sender, deployment)
    ChainClient(rpc, deployment).check()
    return deployment


def fill(
    client: ChainClient,
    sender: Transactor,
    models: Mapping[str, ModelRecord],
    code: Iterable[tuple[bytes, bytes]],
) -> None:
    """Make the registries hold these models and (measurement, parameters digest) pairs.

    Repeatable. `sender` must be registrar and administrator. A pair is allowed only after the admin
    delay (`ChainClient.pair` says from when).
    """
    calls = Calls(client.deployment)
    for model, record in models.items():
        if client.model(model) != record:
            sender.send(calls.set_model(model, record))
    for measurement, parameters_digest in code:
        pair = client.pair(measurement, parameters_digest)
        if pair is None or pair.revoked_at_ms:
            sender.send(calls.propose_pair(measurement, parameters_digest))


def created_address(creator: bytes, nonce: int) -> bytes:
    """The address of the contract that `creator`'s transaction `nonce` creates."""
    return bytes(keccak(rlp.encode([creator, nonce]))[12:])


def _create(sender: Transactor, name: str, *arguments: object) -> bytes:
    created = sender.send(Call(f"creating {name}", b"", load(name).creation(*arguments))).contract
    if created is None:
        raise ChainUnavailable(f"the receipt of {name}'s creation names no contract")
    return created


def _hand_out(sender: Transactor, deployment: Deployment) -> None:
    """Open functions to roles and grant them, in one transaction; the deployer keeps nothing."""
    assert deployment.holders is not None
    manager = load("AccessManager")
    steps = [step for entry in roles() for step in _set_up(entry, deployment)]
    if deployment.holders.admin != sender.address:
        steps.append(manager.function("renounceRole").encode(ADMIN_ROLE, sender.address))
    data = manager.function("multicall").encode(steps)
    sender.send(Call("handing out roles", deployment.access_manager, data))


def _set_up(entry: Role, deployment: Deployment) -> Iterator[bytes]:
    """Calls of the AccessManager that make a role what the table says, on a local chain."""
    manager = load("AccessManager")
    for power in entry.functions:
        if power.contract not in CONTRACTS:
            continue  # the quorum's verifier: here stands the simulator's, which nobody can change
        target = getattr(deployment, power.contract)
        yield manager.function("setTargetFunctionRole").encode(target, [power.selector], entry.id)
    if entry.id != ADMIN_ROLE:
        yield manager.function("labelRole").encode(entry.id, entry.name)
    if entry.vetoed_by is not None:
        yield manager.function("setRoleGuardian").encode(entry.id, role(entry.vetoed_by).id)
    holder = getattr(deployment.holders, entry.name)
    yield manager.function("grantRole").encode(entry.id, holder, 0)
