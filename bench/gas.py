"""Gas of every operation, as whole transactions: what the sender pays, calldata included.

    make bench-gas           # measure, compare with the snapshot, write bench/out/gas.json
    make bench-gas WRITE=1   # accept: write the figures to bench/gas_snapshot.json

Each figure is `gasUsed` of the one transaction on anvil under the rules of today's mainnet, sent to
the contracts that `pinaivu.chain.deployer` puts there, in steady state unless its name says
otherwise: slots that the operation writes hold something already. Batches are signed, trees and
proofs real (`bench.gas_network`). Figures repeat exactly, so a change in one is a change in the
contracts. They say nothing about fees, and of tokens only OpenZeppelin's ERC-20.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from bench.gas_network import DEPOSIT, GasNetwork, gas_network, key_of
from pinaivu.chain.deployer import LOCAL
from pinaivu.codes import Role
from pinaivu.messages import GatewayRegistration, NodeRegistration
from pinaivu.typed_data import Signed

HERE: Final = Path(__file__).parent
OUT: Final = HERE / "out" / "gas.json"
SNAPSHOT: Final = HERE / "gas_snapshot.json"
TOLERANCE: Final = 0.01
START: Final = 1_000_000
LARGEST_LOG: Final = 1 << 24
WORST_GROWTH: Final = 1_000
LIMITS: Final = {"w1000": 410, "w1000_worst": 420, "w10000": 42}
"""Aims, in gas per request."""

Figures = dict[str, dict[str, float]]


def measure(network: GasNetwork) -> Figures:
    """Every figure, by name."""
    figures: Figures = {}
    _measure_batches(network, figures)
    for name, operation in OPERATIONS.items():
        with network.undone():
            figures[name] = {"gas": operation(network)}
    return figures


def _measure_batches(network: GasNetwork, figures: Figures) -> None:
    """Settle a first batch that touches every slot, then each case from there.

    Leaves the log behind it, with credit for every node.
    """
    payers, nodes = network.payers(500), network.nodes(100)
    network.endow(payers)
    with network.undone():
        gas = network.settle(1_000, payers[:50], nodes[:5])
        figures["w1000_first_of_log"] = _per_request(gas, 1_000)
    network.settle(START, payers, nodes)
    strangers = network.nodes(5, "new node")
    cases = {
        "w1000": (1_000, payers[:50], nodes[:5]),
        "w10000": (10_000, payers[:50], nodes[:5]),
        "w1000_first_touch": (1_000, payers[:50], strangers),
        "w1000_200_payers_50_nodes": (1_000, payers[:200], nodes[:50]),
        "w10000_500_payers_100_nodes": (10_000, payers, nodes),
        "w1000_no_rows": (1_000, [], []),
    }
    for name, (requests, debited, credited) in cases.items():
        with network.undone():
            gas = network.settle(START + requests, debited, credited)
            figures[name] = _per_request(gas, requests)
    with network.undone():
        _, size = unluckiest(LARGEST_LOG - WORST_GROWTH)
        network.settle(size, [], [])
        gas = network.settle(size + WORST_GROWTH, payers[:50], nodes[:5])
        figures["w1000_worst"] = _per_request(gas, WORST_GROWTH) | {"from_size": size}


def _per_request(gas: int, requests: int) -> dict[str, float]:
    return {"gas": gas, "requests": requests, "gas_per_request": gas / requests}


def _deposit(network: GasNetwork) -> int:
    (payer,) = network.payers(1)
    return network.send(network.admin, network.calls.deposit_for(payer, DEPOSIT))


def _deposit_with_permit(network: GasNetwork) -> int:
    payer = network.sender("payer")
    network.send(network.admin, network.calls.mint(payer.address, 2 * DEPOSIT))
    deadline_s = network.client.block().time_ms // 1000 + 3600
    permit = network.client.permit_digest(payer.address, DEPOSIT, deadline_s)
    signature = key_of("payer").sign(permit)
    call = network.calls.deposit_with_permit(payer.address, DEPOSIT, deadline_s, signature)
    return network.send(payer, call)


def _first_deposit(network: GasNetwork) -> int:
    payer = network.sender("new payer")
    network.send(network.admin, network.calls.mint(payer.address, 2 * DEPOSIT))
    network.send(payer, network.calls.approve(2 * DEPOSIT))
    return network.send(payer, network.calls.deposit(DEPOSIT))


def _assign(network: GasNetwork) -> int:
    _first_deposit(network)
    return network.send(network.sender("new payer"), network.calls.assign(network.log_id))


def _bump_grant_epoch(network: GasNetwork) -> int:
    return network.send(network.sender("payer"), network.calls.bump_grant_epoch())


def _request_withdrawal(network: GasNetwork) -> int:
    return network.send(network.sender("payer"), network.calls.request_withdrawal(DEPOSIT // 2))


def _withdraw(network: GasNetwork) -> int:
    payer = network.sender("payer")
    network.send(network.admin, network.calls.mint(payer.address, 1))
    _request_withdrawal(network)
    network.wait(LOCAL.times.withdrawal_delay_ms)
    return network.send(payer, network.calls.withdraw(payer.address))


def _withdraw_credit(network: GasNetwork) -> int:
    network.register(1)
    return network.send(network.sender("node"), network.calls.withdraw_credit())


def _payout(count: int) -> "Operation":
    """Each wallet has never held the token: the dearest case."""

    def measured(network: GasNetwork) -> int:
        network.register(count)
        return network.send(network.admin, network.calls.payout(network.nodes(count)))

    return measured


def _register_node(network: GasNetwork) -> int:
    return network.send(network.sender("node"), network.registration(0))


def _register_node_relayed(network: GasNetwork) -> int:
    node, peer = key_of("node"), key_of("node peer")
    registration = NodeRegistration(
        node=node.address,
        payout=key_of("wallet").address,
        peer_x=peer.point[:32],
        peer_y=peer.point[32:],
        nonce=0,
        deadline_ms=network.client.block().time_ms + 3_600_000,
    )
    signed = Signed.by(node, network.deployment.domain, registration)
    binding = network.binding(node.address, Role.NODE, peer)
    return network.send(network.admin, network.calls.register_node_by_signature(signed, binding))


_ENDPOINTS: Final = (
    "https://gateway.example",
    "/dns4/gateway.example/tcp/4001/p2p/16Uiu2HAm1111111111111111111111111111111111111111111",
)


def _register_gateway(network: GasNetwork) -> int:
    gateway, peer = network.sender("gateway"), key_of("gateway peer")
    binding = network.binding(gateway.address, Role.GATEWAY, peer)
    return network.send(gateway, network.calls.register_gateway(peer.point, _ENDPOINTS, binding))


def _register_gateway_relayed(network: GasNetwork) -> int:
    gateway, peer = key_of("gateway"), key_of("gateway peer")
    registration = GatewayRegistration(
        gateway=gateway.address,
        peer_x=peer.point[:32],
        peer_y=peer.point[32:],
        nonce=0,
        deadline_ms=network.client.block().time_ms + 3_600_000,
        endpoints=_ENDPOINTS,
    )
    signed = Signed.by(gateway, network.deployment.domain, registration)
    binding = network.binding(gateway.address, Role.GATEWAY, peer)
    return network.send(network.admin, network.calls.register_gateway_by_signature(signed, binding))


def _open_log(network: GasNetwork) -> int:
    return network.send(network.admin, network.calls.open_log(_ENDPOINTS))


def _activate(network: GasNetwork) -> int:
    """A later epoch, with the simulator's one signature; a quorum's cost that of its members'."""
    return network.send(network.admin, network.activation(key_of("epoch", 2)))


def _bond(network: GasNetwork) -> int:
    """By the node itself."""
    node = network.sender("node")
    network.register(1)
    network.send(network.admin, network.calls.mint(node.address, 2 * DEPOSIT))
    network.send(node, network.calls.approve_bond(2 * DEPOSIT))
    return network.send(node, network.calls.bond(node.address, DEPOSIT))


def _slash_bond(network: GasNetwork) -> int:
    """Two completions of one award; the reporter has never held the token."""
    _bond(network)
    first, second = (network.completion(key_of("node"), tokens) for tokens in (7, 8))
    reporter = key_of("reporter").address
    return network.send(network.admin, network.calls.report_completions(first, second, reporter))


def _slash_reserve(network: GasNetwork) -> int:
    """Two checkpoints of one size; the reporter has never held the token."""
    first, second = (network.checkpoint(bytes([root]) * 32) for root in (1, 2))
    reporter = key_of("reporter").address
    return network.send(network.admin, network.calls.report_checkpoints(first, second, reporter))


Operation = Callable[[GasNetwork], int]

OPERATIONS: Final[Mapping[str, Operation]] = {
    "deposit": _deposit,
    "deposit_first": _first_deposit,
    "deposit_with_permit": _deposit_with_permit,
    "assign": _assign,
    "bump_grant_epoch": _bump_grant_epoch,
    "request_withdrawal": _request_withdrawal,
    "withdraw": _withdraw,
    "withdraw_credit": _withdraw_credit,
    "payout_1": _payout(1),
    "payout_10": _payout(10),
    "payout_50": _payout(50),
    "register_node": _register_node,
    "register_node_relayed": _register_node_relayed,
    "register_gateway": _register_gateway,
    "register_gateway_relayed": _register_gateway_relayed,
    "open_log": _open_log,
    "activate_epoch": _activate,
    "bond": _bond,
    "slash_bond": _slash_bond,
    "slash_reserve": _slash_reserve,
}


@cache
def unluckiest(limit: int, growth: int = WORST_GROWTH) -> tuple[int, int]:
    """The size up to `limit` from which growing by `growth` has the dearest proof, and its cost.

    Exact: a size either has its largest power of two `k` inside the new tree's left half, and then
    costs one left sibling more than the rest beside it, or it is one of the few sizes that grow
    across `k`. Returned as (cost, size).
    """
    best = (0, 0)
    for height in range((limit - 1).bit_length() + 1):
        k = 1 << height
        for size in range(max(1, k - growth + 1), min(k, limit) + 1):
            best = max(best, (proof_cost(size, size + growth), size))
        rest = min(limit, 2 * k - growth) - k
        if rest > 0:
            cost, size = unluckiest(rest, growth)
            best = max(best, (cost + LEFT_SIBLING, k + size))
    return best


LEFT_SIBLING: Final = 1_200
RIGHT_SIBLING: Final = 950
"""Rough gas of a proof's hash that enters both roots, or only the new one; for `unluckiest`."""


def proof_cost(old_size: int, new_size: int) -> int:
    """What the consistency proof between two sizes costs, roughly (RFC 9162, 2.1.4.1)."""
    cost, whole = 0, True  # whole: the old tree still begins where the subtree does
    while old_size != new_size:
        middle = 1 << ((new_size - 1).bit_length() - 1)
        if old_size <= middle:
            cost, new_size = cost + RIGHT_SIBLING, middle
        else:
            cost, old_size, new_size = cost + LEFT_SIBLING, old_size - middle, new_size - middle
            whole = False
    return cost if whole else cost + RIGHT_SIBLING


def grown(figures: Figures, snapshot: Figures) -> list[str]:
    """What costs more than the snapshot says, or is not in it; figures that fell are fine."""
    found = []
    for name, figure in figures.items():
        before = snapshot.get(name, {}).get("gas")
        if before is None:
            found.append(f"{name}: {figure['gas']:,.0f} gas, not in the snapshot")
        elif figure["gas"] > before * (1 + TOLERANCE):
            found.append(f"{name}: {figure['gas']:,.0f} gas, {before:,.0f} before")
    return found


def run() -> Figures:
    """All figures on a chain of their own."""
    with tempfile.TemporaryDirectory() as folder, gas_network(Path(folder)) as network:
        return measure(network)


def load_snapshot() -> Figures:
    """The committed figures; none if there is no file yet."""
    found: Figures = json.loads(SNAPSHOT.read_text()) if SNAPSHOT.exists() else {}
    return found


def show(figures: Figures) -> None:
    """Print the table."""
    snapshot = load_snapshot()
    for name, figure in figures.items():
        each = figure.get("gas_per_request")
        per_request = "" if each is None else f"{each:8.2f} per request"
        aim = f"   aim {LIMITS[name]}" if name in LIMITS else ""
        before = snapshot.get(name, {}).get("gas")
        change = "" if before in (None, figure["gas"]) else f"   ({figure['gas'] - before:+,.0f})"
        print(f"{name:28} {figure['gas']:12,.0f} {per_request:20}{aim}{change}")


def main() -> None:
    """Print the table, write `bench/out/gas.json`, and fail where a figure grew."""
    began = time.perf_counter()
    figures = run()
    show(figures)
    print(f"{time.perf_counter() - began:.1f} s")
    text = json.dumps(figures, indent=2) + "\n"
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(text)
    if "--write" in sys.argv:
        SNAPSHOT.write_text(text)
    found = grown(figures, load_snapshot())
    if found:
        sys.exit("grew by more than 1 %; accept with WRITE=1:\n" + "\n".join(found))


if __name__ == "__main__":
    main()
