"""`pinaivu wallet`, typed as a payer types it, against the real contracts."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from eth_hash.auto import keccak
from msgspec.structs import replace

from pinaivu.chain.abi import load
from pinaivu.chain.anvil import AnvilProcess
from pinaivu.chain.calls import Call
from pinaivu.chain.rpc import HttpRpc
from pinaivu.encoding import from_hex, to_hex
from pinaivu.keyfiles import load_key
from pinaivu.messages import Grant
from pinaivu.typed_data import signed_from_json
from tests.integration.chain_network import GENESIS_AGE_S, Network

pytestmark = pytest.mark.chain

GATEWAY = "0x" + "aa" * 20


@dataclass(frozen=True)
class Shell:
    """A payer with a fresh key, and the network's endpoints."""

    net: Network
    folder: Path
    url: str

    @property
    def address(self) -> bytes:
        """The wallet's."""
        return load_key(self.folder / "wallet.key", os.urandom).address

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One `pinaivu wallet` command."""
        places = ["--rpc", self.url, "--deployment", str(self.folder / "deployment.json")]
        command = [sys.executable, "-m", "pinaivu", "wallet", *arguments]
        key = ["--key", str(self.folder / "wallet.key")]
        return subprocess.run(
            [*command, *places, *key], cwd=self.folder, capture_output=True, text=True, check=False
        )

    def ok(self, *arguments: str) -> str:
        """What a command that succeeds says."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *arguments: str) -> str:
        """What a command that is refused says."""
        done = self.run(*arguments)
        assert done.returncode == 2, done.stdout
        assert done.stderr.startswith("pinaivu: ")
        return done.stderr

    def later(self) -> None:
        """The withdrawal delay passes."""
        delay_s = self.net.client.times().withdrawal_delay_ms // 1000
        self.net.rpc.call("evm_increaseTime", delay_s)
        self.net.rpc.call("evm_mine")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Network, str]]:
    state = tmp_path_factory.mktemp("wallet") / "state.json"
    began = int(time.time()) - GENESIS_AGE_S
    with AnvilProcess(state, genesis_s=began) as chain, HttpRpc(chain.url) as rpc:
        yield Network(rpc), chain.url


@pytest.fixture
def shell(ground: tuple[Network, str], tmp_path: Path) -> Shell:
    net, url = ground
    net.deployment.save(tmp_path / "deployment.json")
    return Shell(net, tmp_path, url)


def log_id(shell: Shell) -> str:
    return to_hex(shell.net.log_id)


def test_play_money_deposited_by_one_permit_and_assigned(shell: Shell) -> None:
    """Faucet, deposit in one transaction, assign; the balance says all of it."""
    shell.ok("faucet", "5")
    said = shell.ok("deposit", "1.5")
    assert "depositWithPermit" in said
    assert "approve" not in said
    shell.ok("assign", log_id(shell))
    state = shell.net.client.payer(shell.address)
    assert (state.balance, state.log_id) == (1_500_000, shell.net.log_id)
    said = shell.ok("balance")
    assert "tokens in wallet  3.500000" in said
    assert "deposited         1.500000" in said
    assert log_id(shell) in said


def test_a_token_without_permits_is_paid_by_approval(shell: Shell) -> None:
    shell.ok("faucet", "5")
    said = shell.ok("deposit", "2", "--approve")
    assert "approve" in said
    assert shell.net.client.payer(shell.address).balance == 2_000_000


# Tokens of other kinds are the test token with its code changed on the chain: a selector that its
# dispatcher doesn't know is a function that it doesn't have.
PERMIT, SEPARATOR, NONCES = (bytes.fromhex(one) for one in ("d505accf", "3644e515", "7ecebe00"))
GONE = b"\xff\xff\xff\xfe"


@contextmanager
def changed_token(net: Network, *pairs: tuple[bytes, bytes]) -> Iterator[None]:
    """The network's token with parts of its code replaced, put back afterwards."""
    token = to_hex(net.deployment.token)
    before = code = from_hex(net.rpc.call("eth_getCode", token, "latest"))
    for old, new in pairs:
        assert old in code
        code = code.replace(old, new)
    net.rpc.call("anvil_setCode", token, to_hex(code))
    try:
        yield
    finally:
        net.rpc.call("anvil_setCode", token, to_hex(before))


@pytest.mark.parametrize(
    "missing",
    [(PERMIT, SEPARATOR, NONCES), (PERMIT,)],
    ids=["no permits at all", "permits of an older form, as DAI's"],
)
def test_a_token_without_erc_2612_is_approved_by_itself(
    shell: Shell, missing: tuple[bytes, ...]
) -> None:
    """It is found out without sending anything, and said."""
    shell.ok("faucet", "5")
    with changed_token(shell.net, *((b"\x63" + one, b"\x63" + GONE) for one in missing)):
        said = shell.ok("deposit", "2")
    assert "takes no permit" in said
    assert "--approve" in said
    assert "depositWithPermit" not in said
    assert shell.net.client.payer(shell.address).balance == 2_000_000
    assert shell.net.client.allowance(shell.address) == 0


def test_a_permit_is_signed_for_whatever_domain_the_token_says(shell: Shell) -> None:
    """Version 2 in its domain, as some stablecoins have it."""
    one, two = keccak(b"1"), keccak(b"2")
    token, chain = shell.net.deployment.token, shell.net.deployment.chain_id
    domain = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    head = keccak(domain) + keccak(b"Pinaivu Test Dollar")
    tail = chain.to_bytes(32) + token.rjust(32, b"\0")
    shell.ok("faucet", "5")
    separators = keccak(head + one + tail), keccak(head + two + tail)
    with changed_token(shell.net, (one, two), separators):
        said = shell.ok("deposit", "2")
    assert "depositWithPermit" in said
    assert "approve" not in said
    assert shell.net.client.payer(shell.address).balance == 2_000_000


def test_a_permit_that_somebody_sent_before_is_no_obstacle(shell: Shell) -> None:
    """The allowance is there, so the deposit needs no other."""
    shell.ok("faucet", "5")
    net, key = shell.net, load_key(shell.folder / "wallet.key", os.urandom)
    deadline_s = net.client.block().time_ms // 1000 + 600
    signature = key.sign(net.client.permit_digest(key.address, 3_000_000, deadline_s))
    r, s, v = signature[:32], signature[32:64], signature[64]
    data = (
        load("TestToken")
        .function("permit")
        .encode(key.address, net.deployment.settlement, 3_000_000, deadline_s, v, r, s)
    )
    net.admin.send(Call("somebody's permit", net.deployment.token, data))
    said = shell.ok("deposit", "3")
    assert "depositWithPermit" not in said
    assert "approve" not in said
    assert net.client.payer(shell.address).balance == 3_000_000
    assert net.client.allowance(shell.address) == 0


def test_more_than_the_wallet_holds_is_refused_before_anything_is_sent(shell: Shell) -> None:
    shell.ok("faucet", "5")
    assert "does not hold that many" in shell.refused("deposit", "6")
    assert shell.net.client.allowance(shell.address) == 0


def test_the_faucet_refuses_where_money_is_real(shell: Shell) -> None:
    """By the deployment, before anything is asked of a chain."""
    replace(shell.net.deployment, chain_id=8453).save(shell.folder / "deployment.json")
    assert "no development chain" in shell.refused("faucet", "5")
    assert shell.net.client.token_balance(shell.address) == 0


def test_a_grant_is_signed_for_the_assigned_log_and_revoked_on_chain(shell: Shell) -> None:
    assert "assigned to no log" in shell.refused("grant", GATEWAY)
    shell.ok("faucet", "5")
    shell.ok("deposit", "1")
    shell.ok("assign", log_id(shell))
    said = shell.ok("grant", GATEWAY, "--per-day", "2", "--per-job", "0.5", "--total", "3")
    signed = signed_from_json(Grant, json.loads(said))
    signed.require(shell.net.deployment.domain, shell.address)
    grant = signed.message
    assert (grant.max_per_day, grant.max_per_job, grant.max_total) == (
        2_000_000,
        500_000,
        3_000_000,
    )
    assert (grant.log_id, grant.grant_epoch) == (shell.net.log_id, 0)
    shell.ok("revoke")
    assert shell.net.client.payer(shell.address).grant_epoch == 1


def test_a_withdrawal_takes_its_delay_and_nobody_elses_help(shell: Shell) -> None:
    shell.ok("faucet", "5")
    shell.ok("deposit", "4")
    assert "nothing was asked for" in shell.refused("withdraw")
    assert "`pinaivu wallet withdraw` works from" in shell.ok("request-withdrawal", "1.5")
    assert "withdrawal        1.500000 from" in shell.ok("balance")
    assert "the delay is not over" in shell.refused("withdraw")
    shell.later()
    shell.ok("withdraw")
    assert shell.net.client.token_balance(shell.address) == 2_500_000
    shell.ok("request-withdrawal", "1")
    shell.ok("request-withdrawal", "0")
    assert "withdrawal " not in shell.ok("balance")


def test_a_withdrawal_may_be_paid_elsewhere(shell: Shell) -> None:
    home = "0x" + "0e" * 20
    shell.ok("faucet", "5")
    shell.ok("deposit", "4")
    shell.ok("request-withdrawal", "3")
    shell.later()
    before = shell.net.client.token_balance(b"\x0e" * 20)
    shell.ok("withdraw", "--to", home)
    assert shell.net.client.token_balance(b"\x0e" * 20) - before == 3_000_000


def test_a_deposit_moves_to_another_log_after_the_delay(shell: Shell) -> None:
    other = shell.net.client.next_log_id(shell.net.admin.address)
    shell.net.admin.send(shell.net.calls.open_log(["http://127.0.0.1:2"]))
    shell.ok("faucet", "5")
    shell.ok("deposit", "4")
    shell.ok("assign", log_id(shell))
    assert "`pinaivu wallet move` changes it" in shell.refused("assign", to_hex(other))
    assert "`pinaivu wallet move --complete` works from" in shell.ok("move", to_hex(other))
    assert f"to {to_hex(other)} from" in shell.ok("balance")
    assert "the delay is not over" in shell.refused("move", "--complete")
    shell.later()
    shell.ok("move", "--complete")
    state = shell.net.client.payer(shell.address)
    assert (state.log_id, state.balance) == (other, 4_000_000)
    shell.ok("move", "none")
    shell.ok("move", to_hex(other))
    assert "move  " not in shell.ok("balance")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("move",), "name the LOG_ID"),
        (("move", "0x12"), "is no id of a log"),
        (("assign", "12"), "is no id of a log"),
        (("deposit", "1.0000001"), "no amount of tokens"),
        (("grant", "0x12"), "is no address"),
    ],
)
def test_wrong_usage_is_said(shell: Shell, arguments: tuple[str, ...], said: str) -> None:
    if arguments[0] == "grant":
        shell.ok("faucet", "5")
        shell.ok("assign", log_id(shell))
    done = shell.run(*arguments)
    assert done.returncode == 3
    assert said in done.stderr


def test_more_than_the_wallet_holds_is_said_in_words(shell: Shell) -> None:
    shell.ok("faucet", "5")
    assert "does not hold that many tokens" in shell.refused("deposit", "6")
    assert "above zero" in shell.refused("deposit", "0")
    assert "no log of this id" in shell.refused("assign", "0x" + "01" * 32)
