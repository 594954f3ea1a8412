"""A small network on a real chain, without its services: contracts, log, epoch, parties, books.

Receipts are real messages with real signatures; what they say was served is made up.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pinaivu.chain.anvil import CHAIN_ID, catch_up, fund
from pinaivu.chain.calls import Calls
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployer import LOCAL, Powers, deploy, fill
from pinaivu.chain.deployment import Deployment
from pinaivu.chain.records import Anchor, ModelRecord
from pinaivu.chain.rpc import HttpRpc
from pinaivu.chain.transactor import Transactor, TxOutcome
from pinaivu.codes import Role
from pinaivu.keys import SecretKey
from pinaivu.merkle.hashing import leaf_hash
from pinaivu.merkle.tree import Tree
from pinaivu.messages import Batch, PeerBinding, Receipt, Segment, Verdict
from pinaivu.settlement import net
from pinaivu.typed_data import Message, Signed, digest, schema
from tests.integration.chain_support import QUICK

MODEL = "smollm2-135m-instruct"
MODEL_RECORD = ModelRecord(b"\x0f" * 32, b"\x70" * 32, 250_000, 8192)
MEASUREMENT = b"\x3e" * 32
PARAMETERS = b"\x9a" * 32
EPOCH_PAIR = (MEASUREMENT, PARAMETERS)
GENESIS_AGE_S = 2 * LOCAL.times.admin_delay_ms // 1000


Maker = Callable[[HttpRpc, Transactor, Powers], Deployment]
"""Puts the contracts on a chain."""


def filled(cls: type[Message], **values: object) -> Any:
    """A message of zeros and empties, but for `values`."""
    empty = {"string": MODEL, "bytes": b""}
    zeros: dict[str, object] = {}
    for name, kind in schema(cls).kinds.items():
        if kind.solidity.endswith("[]"):
            zeros[name] = ()
        elif kind.solidity.startswith("uint"):
            zeros[name] = 0
        elif kind.solidity == "address":
            zeros[name] = bytes(20)
        elif kind.solidity.startswith("bytes") and kind.solidity != "bytes":
            zeros[name] = bytes(int(kind.solidity[5:]))
        else:
            zeros[name] = empty[kind.solidity]
    return cls(**zeros | values)


def new_key() -> SecretKey:
    """A fresh random key."""
    return SecretKey.generate(os.urandom)


@dataclass
class Books:
    """A coordinator's running totals, as far as receipts need them."""

    counters: dict[bytes, int] = field(default_factory=dict)
    totals: dict[bytes, int] = field(default_factory=dict)

    def advance(self, party: bytes, amount: int) -> tuple[int, int]:
        """The party's next counter, and its total with `amount` added."""
        self.counters[party] = self.counters.get(party, 0) + 1
        self.totals[party] = self.totals.get(party, 0) + amount
        return self.counters[party], self.totals[party]


class Network:
    """One operator with one log, whose epoch key we hold, and helpers to make its parties."""

    def __init__(self, rpc: HttpRpc, make: Maker = deploy) -> None:
        self.rpc = rpc
        self.admin = self.sender()
        self.simulator = new_key()
        self.epoch_key = new_key()
        self.forget()
        me = self.admin.address
        self.deployment = make(rpc, self.admin, Powers(me, me, me, self.simulator.address))
        self.client = ChainClient(rpc, self.deployment)
        self.calls = Calls(self.deployment)
        fill(self.client, self.admin, {MODEL: MODEL_RECORD}, [EPOCH_PAIR])
        catch_up(rpc, time.time_ns() // 1_000_000)
        self.log_id = self.client.next_log_id(me)
        self.admin.send(self.calls.open_log(["http://127.0.0.1:1"]))
        self.activate(self.epoch_key)

    def forget(self) -> None:
        """An empty log and empty books."""
        self.tree = Tree()
        self.receipts: list[Receipt] = []
        self.books = Books()

    def sender(self, key: SecretKey | None = None) -> Transactor:
        """A transactor of `key`, or of a fresh one, with coin for gas."""
        key = key or new_key()
        fund(self.rpc, key.address)
        return Transactor(self.rpc, CHAIN_ID, key, pace=QUICK)

    def verdict(self, key: SecretKey, **changes: object) -> Verdict:
        """What the simulator finds about `key`."""
        block = self.client.block()
        values = {
            "log_id": self.log_id,
            "key": key.address,
            "measurement": MEASUREMENT,
            "parameters_digest": PARAMETERS,
            "manifest_digest": b"\x3a" * 32,
            "payload_digest": b"\xc0" * 32,
            "block_number": block.number,
            "block_hash": block.hash,
            "document_ms": block.time_ms,
            "expires_ms": block.time_ms + 600_000,
        }
        return Verdict(**values | changes)  # type: ignore[arg-type]

    def activate(self, key: SecretKey) -> TxOutcome:
        """Start the next epoch of the log with `key`."""
        signed = Signed.by(self.simulator, self.deployment.domain, self.verdict(key))
        return self.admin.send(self.calls.activate(signed.message, signed.signature))

    def binding(self, owner: bytes, role: Role, peer: SecretKey) -> bytes:
        """The peer key's signature that it belongs to `owner`."""
        message = PeerBinding(
            owner=owner, role=int(role), peer_x=peer.point[:32], peer_y=peer.point[32:]
        )
        return peer.sign(digest(self.deployment.domain, message))

    def node(self, payout: bytes) -> Transactor:
        """A registered node."""
        node, peer = self.sender(), new_key()
        proof = self.binding(node.address, Role.NODE, peer)
        node.send(self.calls.register_node(payout, peer.point, proof))
        return node

    def payer(self, amount: int) -> Transactor:
        """A payer with `amount` in the log's ledger."""
        payer = self.sender()
        payer.send(self.calls.mint(payer.address, amount))
        payer.send(self.calls.approve(amount))
        payer.send(self.calls.deposit(amount))
        payer.send(self.calls.assign(self.log_id))
        return payer

    def serve(self, payer: bytes, node: bytes, amount: int, fee: int) -> Receipt:
        """Book one job and append its receipt to the log."""
        node_counter, node_total = self.books.advance(node, amount - fee)
        payer_counter, payer_total = self.books.advance(payer, amount)
        segment = filled(
            Segment,
            node=node,
            rank=1,
            amount=amount,
            fee=fee,
            node_counter=node_counter,
            node_total=node_total,
        )
        receipt: Receipt = filled(
            Receipt,
            log_id=self.log_id,
            epoch=1,
            job_id=os.urandom(16),
            payer=payer,
            status=1,
            total=amount,
            payer_counter=payer_counter,
            payer_total=payer_total,
            segments=(segment,),
        )
        self.tree.append(leaf_hash(digest(self.deployment.domain, receipt)))
        self.receipts.append(receipt)
        return receipt

    def batch(self, last: Anchor, **changes: object) -> Signed[Batch]:
        """Everything after `last`, netted and signed by the epoch key."""
        money = net(self.receipts[last.new_size :])
        values = {
            "log_id": self.log_id,
            "epoch": 1,
            "sequence": last.sequence + 1,
            "prev_size": last.new_size,
            "new_size": len(self.tree),
            "prev_root": last.new_root,
            "new_root": self.tree.root(),
            "parties": len(money.statements),
            "statement_root": money.statement_root,
            "fees": money.fees,
            "time_ms": time.time_ns() // 1_000_000,
            "debits": money.debits,
            "credits": money.credits,
        }
        batch = Batch(**values | changes)  # type: ignore[arg-type]
        return Signed.by(self.epoch_key, self.deployment.domain, batch)

    def proof(self, last: Anchor) -> list[bytes]:
        """That the log now extends what `last` anchored."""
        if not last.new_size:
            return []
        return self.tree.consistency_proof(last.new_size, len(self.tree))

    def settle(self, submitter: Transactor) -> TxOutcome:
        """Settle everything so far, by anybody."""
        last = self.client.anchor(self.log_id)
        return submitter.send(self.calls.settle(self.batch(last), self.proof(last), last))
