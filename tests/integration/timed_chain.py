"""A real chain whose every transaction stands alone in a block of a second that the test chooses.

`TimedChain` sends as anybody: anvil signs for addresses whose keys nobody has. A transaction that
the contracts refuse is mined too, and raises what they refused it with. `Market` is a deployment on
it with the roles in different hands, logs with epochs whose keys we hold, payers and nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pinaivu.chain.abi import decode_revert, load
from pinaivu.chain.anvil import CHAIN_ID, fund
from pinaivu.chain.calls import Call, Calls
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployer import Powers, Settings, deploy
from pinaivu.chain.deployment import CONTRACTS
from pinaivu.chain.records import Anchor
from pinaivu.chain.rpc import HttpRpc
from pinaivu.chain.transactor import Transactor
from pinaivu.chain.views import View, view
from pinaivu.chain.words import from_hex, quantity
from pinaivu.codes import Role
from pinaivu.keccak import keccak
from pinaivu.keys import SecretKey
from pinaivu.merkle.hashing import leaf_hash
from pinaivu.merkle.tree import Tree
from pinaivu.messages import Batch, PeerBinding, Verdict
from pinaivu.typed_data import Signed, digest
from tests.integration.chain_support import QUICK

EPOCH_PAIR: Final = (b"\x3e" * 32, b"\x9a" * 32)
GAS: Final = 8_000_000
EVER: Final = 2**256 - 1


def key_of(name: str) -> SecretKey:
    """The same key for the same name, on every run: failures repeat."""
    return SecretKey(keccak(b"pinaivu test party: " + name.encode()))


def packed(rows: dict[bytes, int]) -> bytes:
    """Rows of a batch as they should be."""
    return b"".join(party + amount.to_bytes(12) for party, amount in sorted(rows.items()))


class TimedChain:
    """One anvil, with its clock in our hands."""

    def __init__(self, rpc: HttpRpc) -> None:
        self.rpc = rpc
        rpc.call("anvil_autoImpersonateAccount", True)
        self._funded: set[bytes] = set()

    @property
    def now(self) -> int:
        """The latest block's second."""
        return quantity(self.rpc.call("eth_getBlockByNumber", "latest", False)["timestamp"])

    def send(self, sender: bytes, call: Call, at: int) -> dict[str, Any]:
        """The receipt of a call mined at second `at`; `Reverted` where it was refused."""
        if sender not in self._funded:
            fund(self.rpc, sender)
            self._funded.add(sender)
        request = {**call.request(sender), "gas": hex(GAS)}
        self.rpc.call("evm_setNextBlockTimestamp", at)
        tx_hash = self.rpc.call("eth_sendTransaction", request)
        receipt: dict[str, Any] | None = None
        while receipt is None:
            receipt = self.rpc.call("eth_getTransactionReceipt", tx_hash)
        if quantity(receipt["status"]) != 1:
            trace = self.rpc.call("debug_traceTransaction", tx_hash, {"tracer": "callTracer"})
            raise decode_revert(call.what, from_hex(trace.get("output", "0x")))
        return receipt

    def snapshot(self) -> object:
        """A point to come back to, once."""
        return self.rpc.call("evm_snapshot")

    def restore(self, point: object) -> None:
        """Back, as if all later blocks had never been."""
        assert self.rpc.call("evm_revert", point)
        self._funded.clear()  # that too is undone


@dataclass
class TestLog:
    """A log whose leaves we make up."""

    __test__ = False
    operator: bytes
    log_id: bytes
    key: SecretKey
    tree: Tree = field(default_factory=Tree)

    def grow(self, leaves: int) -> None:
        """Append leaves that were never there before."""
        for _ in range(leaves):
            self.tree.append(leaf_hash(self.log_id + len(self.tree).to_bytes(8)))


class Market:
    """Contracts, roles and parties; all addresses follow from names."""

    def __init__(
        self, chain: TimedChain, settings: Settings, logs: Sequence[str] = ("log",)
    ) -> None:
        self.chain, self.rpc = chain, chain.rpc
        self.settings = settings
        self.administrator, self.guardian, self.registrar = (
            key_of(name).address for name in ("administrator", "guardian", "registrar")
        )
        self.simulator = key_of("simulator")
        deployer = key_of("deployer")
        fund(self.rpc, deployer.address)
        sender = Transactor(self.rpc, CHAIN_ID, deployer, pace=QUICK)
        powers = Powers(self.administrator, self.guardian, self.registrar, self.simulator.address)
        self.deployment = deploy(self.rpc, sender, powers, settings)
        self.client = ChainClient(self.rpc, self.deployment)
        self.calls = Calls(self.deployment)
        self.domain = self.deployment.domain
        self.do(self.administrator, self.calls.propose_pair(*EPOCH_PAIR))
        self.later(settings.times.admin_delay_ms // 1000)
        self.logs = {name: self._open(name) for name in logs}

    # Time and transactions

    @property
    def now(self) -> int:
        """The latest block's second."""
        return self.chain.now

    def later(self, seconds: int) -> None:
        """Let time pass, with an empty block at its end."""
        self.rpc.call("evm_setNextBlockTimestamp", self.now + seconds)
        self.rpc.call("evm_mine")

    def do(self, sender: bytes, call: Call, after: int = 1) -> dict[str, Any]:
        """A transaction `after` seconds from now."""
        return self.chain.send(sender, call, self.now + after)

    def settlement(self, function: str, *arguments: object) -> View:
        """A read of Settlement."""
        return view("Settlement", self.deployment.settlement, function, *arguments)

    def access(self, function: str, *arguments: object) -> Call:
        """A call to the AccessManager."""
        data = load("AccessManager").function(function).encode(*arguments)
        return Call(f"AccessManager.{function}", self.deployment.access_manager, data)

    def selector(self, field_name: str, function: str) -> bytes:
        """A function's selector, as roles name it."""
        return load(CONTRACTS[field_name]).function(function).selector

    # Parties

    def give(self, owner: bytes, amount: int) -> None:
        """Tokens, and leave for Settlement to take them."""
        self.do(owner, self.calls.mint(owner, amount))
        self.do(owner, self.calls.approve(EVER))

    def payer(self, name: str, amount: int, log: str | None = "log") -> bytes:
        """A payer with `amount` in a log's ledger."""
        payer = key_of(name).address
        self.give(payer, amount)
        self.do(payer, self.calls.deposit(amount))
        if log is not None:
            self.do(payer, self.calls.assign(self.logs[log].log_id))
        return payer

    def node(self, name: str, wallet: bytes) -> bytes:
        """A registered node."""
        node = key_of(name).address
        self.set_payout(name, wallet)
        return node

    def set_payout(self, name: str, wallet: bytes) -> dict[str, Any]:
        """Register, or announce another payout wallet."""
        node, peer = key_of(name).address, key_of(name + " peer")
        binding = PeerBinding(
            owner=node, role=int(Role.NODE), peer_x=peer.point[:32], peer_y=peer.point[32:]
        )
        proof = peer.sign(digest(self.domain, binding))
        return self.do(node, self.calls.register_node(wallet, peer.point, proof))

    def _open(self, name: str) -> TestLog:
        operator, key = key_of(f"{name} operator"), key_of(f"{name} epoch 1")
        log_id = self.client.next_log_id(operator.address)
        self.do(operator.address, self.calls.open_log([]))
        log = TestLog(operator.address, log_id, key)
        self.activate(log, key)
        return log

    # Epochs and batches

    def activation(
        self, log_id: bytes, key: bytes, simulator: SecretKey | None = None, **changes: object
    ) -> Call:
        """Of an epoch of `key`, by the simulator's verdict, or by somebody else's."""
        block = self.client.block()
        values: dict[str, Any] = {
            "log_id": log_id,
            "key": key,
            "measurement": EPOCH_PAIR[0],
            "parameters_digest": EPOCH_PAIR[1],
            "manifest_digest": b"\x3a" * 32,
            "payload_digest": b"\xc0" * 32,
            "block_number": block.number,
            "block_hash": block.hash,
            "document_ms": block.time_ms,
            "expires_ms": block.time_ms + 10**12,
        }
        by = simulator or self.simulator
        signed = Signed.by(by, self.domain, Verdict(**values | changes))
        return self.calls.activate(signed.message, signed.signature)

    def activate(self, log: TestLog, key: SecretKey) -> None:
        """Start an epoch of `key`, now."""
        self.do(log.operator, self.activation(log.log_id, key.address))
        log.key = key

    def batch(
        self,
        log: TestLog,
        debits: dict[bytes, int],
        credits_: dict[bytes, int],
        **changes: object,
    ) -> tuple[Signed[Batch], list[bytes], Anchor]:
        """The log's next batch over one new leaf, signed; with its proof and what it builds on."""
        log.grow(1)
        last = self.client.anchor(log.log_id)
        values: dict[str, Any] = {
            "log_id": log.log_id,
            "epoch": self.client.epoch_count(log.log_id),
            "sequence": last.sequence + 1,
            "prev_size": last.new_size,
            "new_size": len(log.tree),
            "prev_root": last.new_root,
            "new_root": log.tree.root(),
            "parties": len(debits) + len(credits_),
            "statement_root": bytes(32),
            "fees": sum(debits.values()) - sum(credits_.values()),
            "time_ms": self.now * 1000,
            "debits": packed(debits),
            "credits": packed(credits_),
        }
        signed = Signed.by(log.key, self.domain, Batch(**values | changes))
        return signed, log.tree.consistency_proof(last.new_size, len(log.tree)), last

    def settle(self, log: TestLog, debits: dict[bytes, int], credits_: dict[bytes, int]) -> None:
        """Settle a batch of these rows, by a stranger."""
        stranger = key_of("stranger").address
        self.do(stranger, self.calls.settle(*self.batch(log, debits, credits_)))
