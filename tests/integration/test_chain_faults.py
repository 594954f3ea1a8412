"""Bonds and objective faults on a real chain, by calls and as anybody's command line."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from pinaivu.chain.anvil import AnvilProcess
from pinaivu.chain.deployer import LOCAL
from pinaivu.chain.errors import Reverted
from pinaivu.chain.facts import BOOK_SKEW_MS, ContractFacts
from pinaivu.chain.records import NodeBond
from pinaivu.chain.rpc import HttpRpc
from pinaivu.chain.transactor import Transactor
from pinaivu.checkpoints import CheckpointSigner
from pinaivu.codes import Role
from pinaivu.keys import ZERO_ADDRESS, SecretKey
from pinaivu.messages import Checkpoint, Completion
from pinaivu.typed_data import M, Signed
from tests.integration.chain_network import GENESIS_AGE_S, Network, filled, new_key

pytestmark = pytest.mark.chain

WALLET = b"\xfa" * 20
REPORTER = b"\x4e" * 20
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    began = int(time.time()) - GENESIS_AGE_S
    state = tmp_path_factory.mktemp("faults") / "state.json"
    with AnvilProcess(state, genesis_s=began) as chain, HttpRpc(chain.url) as endpoint:
        yield Network(endpoint)


@dataclass(frozen=True)
class BondedNode:
    """A registered node whose key we hold."""

    key: SecretKey
    sender: Transactor

    @property
    def address(self) -> bytes:
        """Address of the key."""
        return self.key.address


def node(net: Network, bond: int = 0) -> BondedNode:
    key, peer = new_key(), new_key()
    sender = net.sender(key)
    proof = net.binding(key.address, Role.NODE, peer)
    sender.send(net.calls.register_node(WALLET, peer.point, proof))
    if bond:
        fund(net, sender, bond)
        sender.send(net.calls.bond(key.address, bond))
    return BondedNode(key, sender)


def fund(net: Network, sender: Transactor, amount: int) -> None:
    sender.send(net.calls.mint(sender.address, amount))
    sender.send(net.calls.approve_bond(amount))


def reserve(net: Network, amount: int) -> None:
    net.admin.send(net.calls.mint(net.admin.address, amount))
    net.admin.send(net.calls.approve(amount))
    net.admin.send(net.calls.fund_reserve(net.log_id, amount))


def later(net: Network, ms: int) -> None:
    net.rpc.call("evm_increaseTime", ms // 1000)
    net.rpc.call("evm_mine")


def sign(net: Network, key: SecretKey, message: M) -> Signed[M]:
    return Signed.by(key, net.deployment.domain, message)


def completions(net: Network, key: SecretKey) -> tuple[Signed[Completion], Signed[Completion]]:
    """Two for one fresh award that differ in a count."""
    award = os.urandom(32)
    first: Completion = filled(Completion, award_digest=award, node=key.address, output_tokens=7)
    return sign(net, key, first), sign(net, key, replace(first, output_tokens=8))


def checkpoint(net: Network, epoch: int, size: int, root: bytes) -> Checkpoint:
    return Checkpoint(log_id=net.log_id, epoch=epoch, size=size, root=root, time_ms=1)


class TestBonds:
    """Posted, seen, taken back by whoever paid."""

    def test_a_bond_comes_back_after_the_delay(self, net: Network) -> None:
        """And is seen with its funder until then."""
        some = node(net)
        assert net.client.bond_of(some.address) == NodeBond(
            some.address, 0, ZERO_ADDRESS, 0, ZERO_ADDRESS
        )
        fund(net, some.sender, 500)
        some.sender.send(net.calls.bond(some.address, 500))
        held = net.client.bond_of(some.address)
        assert (held.amount, held.funder, held.unbonding_at_ms) == (500, some.address, 0)
        some.sender.send(net.calls.request_unbonding(some.address))
        asked = net.client.block().time_ms
        held = net.client.bond_of(some.address)
        assert held.unbonding_at_ms == asked + LOCAL.unbonding_delay_ms
        with pytest.raises(Reverted, match="TooEarly"):
            some.sender.send(net.calls.withdraw_bond(some.address, WALLET))
        some.sender.send(net.calls.cancel_unbonding(some.address))
        some.sender.send(net.calls.request_unbonding(some.address))
        later(net, LOCAL.unbonding_delay_ms)
        before = net.client.token_balance(WALLET)
        some.sender.send(net.calls.withdraw_bond(some.address, WALLET))
        assert net.client.token_balance(WALLET) == before + 500
        assert net.client.bond_of(some.address).amount == 0

    def test_somebody_who_was_allowed_funds(self, net: Network) -> None:
        """Once; a stranger doesn't."""
        some, funder = node(net), net.sender()
        fund(net, funder, 100)
        call = net.calls.bond(some.address, 100)
        with pytest.raises(Reverted, match="NotAllowedToFund"):
            funder.send(call)
        some.sender.send(net.calls.allow_funder(some.address, funder.address))
        assert net.client.bond_of(some.address).allowed_funder == funder.address
        funder.send(call)
        held = net.client.bond_of(some.address)
        assert (held.funder, held.allowed_funder) == (funder.address, ZERO_ADDRESS)
        with pytest.raises(Reverted, match="NotNodeOrPayout"):
            net.sender().send(net.calls.request_unbonding(some.address))
        some.sender.send(net.calls.request_unbonding(some.address))
        assert net.client.bond_of(some.address).unbonding_at_ms

    def test_verification_sees_the_funder_of_each_block(self, net: Network) -> None:
        """From before the bond until after it was slashed."""
        some = node(net)
        blocks = [net.client.head()]
        fund(net, some.sender, 100)
        some.sender.send(net.calls.bond(some.address, 100))
        blocks.append(net.client.head())
        net.admin.send(net.calls.report_completions(*completions(net, some.key), net.admin.address))
        blocks.append(net.client.head())
        facts = ContractFacts(net.client)
        found = [facts.node(some.address, block) for block in blocks]
        assert [fact.bond_funder for fact in found if fact] == [
            ZERO_ADDRESS,
            some.address,
            ZERO_ADDRESS,
        ]

    def test_a_book_may_know_of_a_bond_a_little_late(self, net: Network) -> None:
        """What was in force within the skew is told beside what is in force."""
        some = node(net)
        fund(net, some.sender, 100)
        later(net, BOOK_SKEW_MS)
        some.sender.send(net.calls.bond(some.address, 100))
        bonded = net.client.head()
        later(net, BOOK_SKEW_MS - 10_000)
        close = net.client.head()
        later(net, 10_000)
        facts = ContractFacts(net.client)
        for block, lately in (
            (bonded - 1, []),
            (bonded, [ZERO_ADDRESS]),
            (close, [ZERO_ADDRESS]),
            (net.client.head(), []),
        ):
            fact = facts.node(some.address, block)
            assert fact is not None
            assert fact.lately == {(WALLET, funder) for funder in lately}, block


class TestReports:
    """Evidence that Python signs is the evidence that the contract reads."""

    def test_two_completions_cost_the_bond(self, net: Network) -> None:
        """Once; a tenth goes to the reporter, the rest waits for the beneficiary."""
        some = node(net, 1_005)
        first, second = completions(net, some.key)
        before = net.client.token_balance(REPORTER)
        net.sender().send(net.calls.report_completions(first, second, REPORTER))
        assert net.client.token_balance(REPORTER) == before + 100
        assert net.client.bond_of(some.address).amount == 0
        with pytest.raises(Reverted, match="AlreadyReported"):
            net.sender().send(net.calls.report_completions(second, first, REPORTER))
        left = net.client.token_balance(net.deployment.objective_faults)
        beneficiary = net.client.token_balance(net.admin.address)
        net.sender().send(net.calls.sweep())
        assert net.client.token_balance(net.admin.address) == beneficiary + left
        assert left >= 905

    def test_one_completion_sent_twice_costs_nothing(self, net: Network) -> None:
        """Nor do those of two awards."""
        some = node(net, 100)
        first, _ = completions(net, some.key)
        other, _ = completions(net, some.key)
        for pair, refusal in (((first, first), "SameCompletion"), ((first, other), "DifferentAw")):
            with pytest.raises(Reverted, match=refusal):
                net.sender().send(net.calls.report_completions(*pair, REPORTER))
        assert net.client.bond_of(some.address).amount == 100

    def test_two_roots_of_two_epochs_cost_the_reserve(self, net: Network) -> None:
        """Each signed by its own epoch's key."""
        reserve(net, 2_000)
        next_key = new_key()
        net.activate(next_key)
        epoch = net.client.epoch_count(net.log_id)
        first = sign(net, net.epoch_key, checkpoint(net, 1, 9, b"\x01" * 32))
        same = sign(net, next_key, checkpoint(net, epoch, 9, b"\x01" * 32))
        with pytest.raises(Reverted, match="SameRoot"):
            net.sender().send(net.calls.report_checkpoints(first, same, REPORTER))
        forked = sign(net, next_key, checkpoint(net, epoch, 9, b"\x02" * 32))
        before = net.client.token_balance(REPORTER)
        net.sender().send(net.calls.report_checkpoints(first, forked, REPORTER))
        assert net.client.token_balance(REPORTER) == before + 200
        assert net.client.log_state(net.log_id).reserve == 0

    def test_a_receipt_that_does_not_add_up_costs_the_reserve(self, net: Network) -> None:
        """One that does costs nothing."""
        reserve(net, 1_000)
        honest = net.serve(WALLET, REPORTER, 500, 10)
        signed = sign(net, net.epoch_key, honest)
        with pytest.raises(Reverted, match=r"RightTotal\(total=500\)"):
            net.sender().send(net.calls.report_receipt(signed, REPORTER))
        wrong = sign(net, net.epoch_key, replace(honest, total=501))
        net.sender().send(net.calls.report_receipt(wrong, REPORTER))
        assert net.client.log_state(net.log_id).reserve == 0
        net.forget()


@dataclass(frozen=True)
class Shell:
    """The command line of somebody who has an RPC URL, a deployment file and perhaps a key."""

    net: Network
    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`pinaivu ARGUMENTS` on this chain."""
        place = ("--rpc", self.net.rpc.endpoint, "--deployment", "deployment.json")
        group = 3 if arguments[0] == "node" else 2
        command = [sys.executable, "-m", "pinaivu", *arguments[:group], *place, *arguments[group:]]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def key(self, name: str, key: SecretKey) -> None:
        """Write a key file."""
        path = self.folder / name
        path.write_text(key.secret.hex())
        path.chmod(0o600)

    def file(self, name: str, signed: Signed[M], **more: object) -> None:
        """Write a signed message, as a bundle or a tile holds it."""
        (self.folder / name).write_text(json.dumps(signed.to_json() | more))


@pytest.fixture
def shell(net: Network, tmp_path: Path) -> Shell:
    net.deployment.save(tmp_path / "deployment.json")
    return Shell(net, tmp_path)


class TestCommands:
    """`pinaivu node bond` and `pinaivu report`."""

    def test_a_node_owner_bonds_and_takes_back(self, net: Network, shell: Shell) -> None:
        """With the node's own key."""
        some = node(net)
        shell.key("node.key", some.key)
        some.sender.send(net.calls.mint(some.address, 3_000_000))
        done = shell.run("node", "bond", "add", "2.5", "--key", "node.key")
        assert done.returncode == 0, done.stderr
        shown = shell.run("node", "bond", "show", "0x" + some.address.hex())
        assert "2.500000  funder 0x" in shown.stdout
        assert shell.run("node", "bond", "request-withdrawal", "--key", "node.key").returncode == 0
        early = shell.run("node", "bond", "withdraw", "--key", "node.key")
        assert early.returncode == 2
        assert "the delay is not over" in early.stderr
        later(net, LOCAL.unbonding_delay_ms)
        assert shell.run("node", "bond", "withdraw", "--key", "node.key").returncode == 0
        assert net.client.token_balance(some.address) == 3_000_000
        assert "no bond" in shell.run("node", "bond", "show", "0x" + some.address.hex()).stdout

    def test_a_stranger_asks_first_and_reports_then(self, net: Network, shell: Shell) -> None:
        """Without a key nothing is sent."""
        some, stranger = node(net, 1_000_000), new_key()
        first, second = completions(net, some.key)
        shell.file("a.json", first)
        shell.file("b.json", second, type="Completion")
        asked = shell.run("report", "completions", "a.json", "b.json")
        assert asked.returncode == 0, asked.stderr
        assert "bond at stake: 1.000000" in asked.stdout
        assert "nothing was sent" in asked.stdout
        assert net.client.bond_of(some.address).amount == 1_000_000
        net.sender(stranger)
        shell.key("stranger.key", stranger)
        done = shell.run("report", "completions", "a.json", "b.json", "--key", "stranger.key")
        assert done.returncode == 0, done.stderr
        assert "slashed 1.000000, of which 0.100000" in done.stdout
        assert net.client.token_balance(stranger.address) == 100_000
        again = shell.run("report", "completions", "a.json", "b.json", "--key", "stranger.key")
        assert again.returncode == 2
        assert "reported this fault already" in again.stderr

    def test_notes_as_the_log_serves_them_are_evidence(self, net: Network, shell: Shell) -> None:
        """No key of the log has to be known."""
        signer = CheckpointSigner(net.deployment.domain, net.log_id, net.epoch_key, bytes(32))
        for name, root in (("one", b"\x01" * 32), ("two", b"\x02" * 32)):
            note = signer.sign(checkpoint(net, 1, 4_711, root))
            (shell.folder / name).write_text(note, encoding="utf-8")
        done = shell.run("report", "checkpoints", "one", "two")
        assert done.returncode == 0, done.stderr
        assert "has two roots at size 4711" in done.stdout
        same = shell.run("report", "checkpoints", "one", "one")
        assert same.returncode == 2
        assert "signing the same root again is no fault" in same.stderr

    def test_a_receipt_in_a_tile_line_is_evidence(self, net: Network, shell: Shell) -> None:
        """Its total and its sum are named."""
        honest = net.serve(WALLET, REPORTER, 500, 10)
        net.forget()
        shell.file("good", sign(net, net.epoch_key, honest), type="Receipt")
        wrong = replace(honest, total=7)
        shell.file("bad", sign(net, net.epoch_key, wrong), type="Receipt")
        shell.file("forged", sign(net, new_key(), wrong))
        assert "the receipt adds up" in shell.run("report", "receipt", "good").stderr
        assert "says 7 and comes to 500" in shell.run("report", "receipt", "bad").stdout
        forged = shell.run("report", "receipt", "forged")
        assert forged.returncode == 2
        assert "not of the key that should have signed" in forged.stderr

    def test_what_is_no_evidence_is_said(self, net: Network, shell: Shell) -> None:
        """With the file's name."""
        first, _ = completions(net, new_key())
        shell.file("a.json", first)
        (shell.folder / "text").write_text("hello")
        for kind, files, said in (
            ("receipt", ["a.json"], "a.json holds no signed Receipt"),
            ("receipt", ["text"], "text holds no signed Receipt"),
            ("checkpoints", ["text", "text"], "text is neither JSON nor a checkpoint note"),
        ):
            done = shell.run("report", kind, *files)
            assert done.returncode == 2
            assert said in done.stderr
        assert shell.run("report", "receipt", "missing").returncode == 3
