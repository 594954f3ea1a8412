"""The world that `bench.gas` measures: the real contracts on anvil, and the same bytes every time.

Keys, amounts, leaves and block times are derived from counters, so calldata and figures repeat
exactly. Set-up transactions are impersonated and mined many to a block; what is measured is signed
and sent alone (`send`). Trees are real RFC 9162 trees of equal leaves, which makes a root of 2^24
leaves a matter of 24 hashes.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pinaivu.chain.anvil import CHAIN_ID, AnvilProcess, fund
from pinaivu.chain.calls import Call, Calls
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployer import LOCAL, Powers, deploy, fill
from pinaivu.chain.records import Anchor
from pinaivu.chain.rpc import HttpRpc
from pinaivu.chain.transactor import Pace, Transactor, TxOutcome
from pinaivu.chain.words import quantity, to_hex
from pinaivu.codes import Role
from pinaivu.keccak import keccak
from pinaivu.keys import SecretKey
from pinaivu.merkle.hashing import leaf_hash, node_hash
from pinaivu.merkle.tree import Tree
from pinaivu.messages import Batch, Checkpoint, Completion, PeerBinding, Verdict
from pinaivu.typed_data import Message, Signed, digest

GENESIS_S: Final = 1_800_000_000
CODE: Final = (b"\x3e" * 32, b"\x9a" * 32)  # measurement, parameters digest
DEPOSIT: Final = 10**12
LARGEST_TREE: Final = 1 << 25
_FEE_BPS: Final = 500
_BPS: Final = 10_000
_SET_UP_GAS: Final = 250_000
_PER_BLOCK: Final = 100
_QUICK: Final = Pace(poll_s=0.005)


def key_of(label: str, number: int = 0) -> SecretKey:
    """A key that is the same in every run."""
    return SecretKey(keccak(f"{label} {number}".encode()))


class EqualLeaves(Tree):
    """A tree of up to 2^25 equal leaves, which keeps one hash per level."""

    def __init__(self) -> None:
        super().__init__()
        self._by_height = [leaf_hash(b"\x1e" * 32)]
        for _ in range(LARGEST_TREE.bit_length()):
            self._by_height.append(node_hash(self._by_height[-1], self._by_height[-1]))

    def __len__(self) -> int:
        return LARGEST_TREE

    def _perfect(self, height: int, number: int) -> bytes:
        del number  # all are the same
        return self._by_height[height]


class GasNetwork:
    """One operator with one log and its first epoch, and parties as they are asked for."""

    def __init__(self, rpc: HttpRpc) -> None:
        self.rpc = rpc
        self.tree = EqualLeaves()
        rpc.call("anvil_setBlockTimestampInterval", 1)
        self.admin = self.sender("admin")
        self.simulator = key_of("simulator")
        self.epoch_key = key_of("epoch")
        me = self.admin.address
        self.deployment = deploy(rpc, self.admin, Powers(me, me, me, self.simulator.address))
        self.client = ChainClient(rpc, self.deployment)
        self.calls = Calls(self.deployment)
        fill(self.client, self.admin, {}, [CODE])
        self.wait(LOCAL.times.admin_delay_ms)
        self.log_id = self.client.next_log_id(me)
        self.admin.send(self.calls.open_log([]))
        self.admin.send(self.activation(self.epoch_key))
        self.admin.send(self.calls.mint(me, 10**18))
        self.admin.send(self.calls.approve(10**18))
        self.admin.send(self.calls.fund_reserve(self.log_id, DEPOSIT))

    def sender(self, label: str, number: int = 0) -> Transactor:
        """A transactor with coin for gas."""
        key = key_of(label, number)
        fund(self.rpc, key.address)
        return Transactor(self.rpc, CHAIN_ID, key, pace=_QUICK)

    def send(self, sender: Transactor, call: Call) -> int:
        """Gas used by one ordinary transaction."""
        outcome: TxOutcome = sender.send(call)
        return outcome.gas_used

    def wait(self, duration_ms: int) -> None:
        """Let chain time pass."""
        now_s = self.client.block().time_ms // 1000
        self.rpc.call("evm_setNextBlockTimestamp", now_s + duration_ms // 1000 + 1)
        self.rpc.call("evm_mine")

    @contextmanager
    def undone(self) -> Iterator[None]:
        """What happens inside is undone afterwards."""
        before = self.rpc.call("evm_snapshot")
        yield
        self.rpc.call("evm_revert", before)

    def set_up(self, steps: Iterable[tuple[bytes, Call]]) -> None:
        """Run calls of many senders, impersonated, a hundred to a block."""
        pending = list(steps)
        self.rpc.call("anvil_autoImpersonateAccount", True)
        self.rpc.call("evm_setAutomine", False)
        for start in range(0, len(pending), _PER_BLOCK):
            self._one_block(pending[start : start + _PER_BLOCK])
        self.rpc.call("evm_setAutomine", True)
        self.rpc.call("anvil_autoImpersonateAccount", False)

    def _one_block(self, steps: Sequence[tuple[bytes, Call]]) -> None:
        senders = {to_hex(sender) for sender, _ in steps}
        self.rpc.batch([("anvil_setBalance", [sender, hex(10**20)]) for sender in sorted(senders)])
        gas = hex(_SET_UP_GAS)
        requests = [{**call.request(sender), "gas": gas} for sender, call in steps]
        hashes = self.rpc.batch([("eth_sendTransaction", [request]) for request in requests])
        self.rpc.call("evm_mine")
        for receipt in self.rpc.batch([("eth_getTransactionReceipt", [sent]) for sent in hashes]):
            if quantity(receipt["status"]) != 1:
                raise AssertionError(f"a set-up transaction failed: {receipt}")

    # Parties

    def payers(self, count: int) -> list[bytes]:
        """Addresses of `count` payers; the same ones first."""
        return [key_of("payer", number).address for number in range(count)]

    def nodes(self, count: int, label: str = "node") -> list[bytes]:
        """Addresses of `count` nodes; the same ones first."""
        return [key_of(label, number).address for number in range(count)]

    def endow(self, payers: Sequence[bytes]) -> None:
        """Assign payers to the log and give each a deposit."""
        assign = self.calls.assign(self.log_id)
        self.set_up((payer, assign) for payer in payers)
        me = self.admin.address
        self.set_up((me, self.calls.deposit_for(payer, DEPOSIT)) for payer in payers)

    def register(self, count: int) -> None:
        """Register the first `count` nodes, each with a wallet of its own."""
        self.set_up(
            (key_of("node", number).address, self.registration(number)) for number in range(count)
        )

    def registration(self, number: int) -> Call:
        """The registration that node `number` sends itself."""
        node, peer = key_of("node", number), key_of("node peer", number)
        wallet = key_of("wallet", number).address
        binding = self.binding(node.address, Role.NODE, peer)
        return self.calls.register_node(wallet, peer.point, binding)

    def binding(self, owner: bytes, role: Role, peer: SecretKey) -> bytes:
        """The peer key's signature that it belongs to `owner`."""
        x, y = peer.point[:32], peer.point[32:]
        return self.sign(peer, PeerBinding(owner=owner, role=int(role), peer_x=x, peer_y=y))

    def sign(self, key: SecretKey, message: Message) -> bytes:
        """`key`'s signature under the deployment's domain."""
        return key.sign(digest(self.deployment.domain, message))

    def activation(self, key: SecretKey) -> Call:
        """Start the log's next epoch with `key`."""
        block = self.client.block()
        verdict = Verdict(
            log_id=self.log_id,
            key=key.address,
            measurement=CODE[0],
            parameters_digest=CODE[1],
            manifest_digest=b"\x3a" * 32,
            payload_digest=b"\xc0" * 32,
            block_number=block.number,
            block_hash=block.hash,
            document_ms=block.time_ms,
            expires_ms=block.time_ms + 600_000,
        )
        return self.calls.activate(verdict, self.sign(self.simulator, verdict))

    # Evidence of faults

    def completion(self, node: SecretKey, tokens: int) -> Signed[Completion]:
        """A node's word on one award, the same but for the tokens counted."""
        completion = Completion(
            award_digest=b"\xaa" * 32,
            node=node.address,
            fingerprint=b"\x0f" * 32,
            segment_commitment=b"\x5e" * 32,
            response_commitment=b"\x4e" * 32,
            start_byte=0,
            end_byte=900,
            prompt_tokens=120,
            output_tokens=tokens,
            acks=8,
            last_preimage=b"\x1a" * 32,
            finish=1,
            started_ms=1_800_000_000_000,
            first_token_ms=1_800_000_000_400,
            finished_ms=1_800_000_004_000,
            audit_commitment=bytes(32),
        )
        return Signed.by(node, self.deployment.domain, completion)

    def checkpoint(self, root: bytes) -> Signed[Checkpoint]:
        """The epoch key's word on one size of the log, with any root."""
        checkpoint = Checkpoint(
            log_id=self.log_id, epoch=1, size=77, root=root, time_ms=1_800_000_000_000
        )
        return Signed.by(self.epoch_key, self.deployment.domain, checkpoint)

    # Batches

    def batch(
        self, last: Anchor, new_size: int, payers: Sequence[bytes], nodes: Sequence[bytes]
    ) -> Signed[Batch]:
        """The next batch of the log, signed by the epoch key; amounts differ from row to row."""
        debits = {payer: 24_000 + 673 * number for number, payer in enumerate(payers)}
        due = sum(debits.values())
        share = (due - due * _FEE_BPS // _BPS) // len(nodes) if nodes else 0
        credits_ = dict.fromkeys(nodes, share)
        batch = Batch(
            log_id=self.log_id,
            epoch=1,
            sequence=last.sequence + 1,
            prev_size=last.new_size,
            new_size=new_size,
            prev_root=last.new_root,
            new_root=self.tree.root(new_size),
            parties=len(payers) + len(nodes),
            statement_root=keccak(b"statements"),
            fees=due - sum(credits_.values()),
            time_ms=self.client.block().time_ms,
            debits=_rows(debits),
            credits=_rows(credits_),
        )
        return Signed.by(self.epoch_key, self.deployment.domain, batch)

    def settle(self, new_size: int, payers: Sequence[bytes], nodes: Sequence[bytes]) -> int:
        """Gas of settling everything up to `new_size`, submitted by the operator."""
        last = self.client.anchor(self.log_id)
        proof = self.tree.consistency_proof(last.new_size, new_size)
        batch = self.batch(last, new_size, payers, nodes)
        return self.send(self.admin, self.calls.settle(batch, proof, last))


def _rows(amounts: dict[bytes, int]) -> bytes:
    """Packed rows as a batch carries them (`PackedRows.sol`)."""
    return b"".join(party + amount.to_bytes(12) for party, amount in sorted(amounts.items()))


@contextmanager
def gas_network(folder: Path) -> Iterator[GasNetwork]:
    """A fresh chain whose first block has always the same time, and the contracts on it."""
    state = folder / "chain.json"
    with AnvilProcess(state, genesis_s=GENESIS_S) as chain, HttpRpc(chain.url) as rpc:
        yield GasNetwork(rpc)
