"""Hardhat Ignition deploys to a real chain: once, to the end, with nothing left to the deployer."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pinaivu.chain.abi import load
from pinaivu.chain.anvil import AnvilProcess, fund
from pinaivu.chain.calls import Call
from pinaivu.chain.client import ChainClient
from pinaivu.chain.role_check import check_roles
from pinaivu.chain.rpc import HttpRpc
from pinaivu.chain.transactor import Transactor
from pinaivu.chain.words import quantity, to_hex
from pinaivu.keys import SecretKey, checksum
from tests.integration.chain_network import GENESIS_AGE_S, Network, new_key
from tests.integration.chain_support import QUICK, deploy_code, until
from tests.integration.deploy_support import NETWORK, Task, ignite

pytestmark = pytest.mark.chain

PUBLIC = 424_242
TRANSACTIONS = 11
TUSD = 10**6
DAY_MS = 86_400_000
PEOPLE = ("admin", "administrator", "guardian", "registrar", "beneficiary", "one", "two", "three")
KEYS = {name: SecretKey(bytes([number]) * 32) for number, name in enumerate(PEOPLE, 1)}


@pytest.fixture
def rpc(tmp_path: Path) -> Iterator[HttpRpc]:
    """A chain that is no local one, by its number."""
    with AnvilProcess(tmp_path / "chain.json", chain_id=PUBLIC) as chain, HttpRpc(chain.url) as rpc:
        yield rpc


@pytest.fixture
def task(rpc: HttpRpc, tmp_path: Path) -> Task:
    """A deployer with coin, and parameters that are in order."""
    task = Task(tmp_path, rpc.endpoint, new_key())
    fund(rpc, task.key.address)
    task.write_parameters(parameters(_token(rpc)))
    return task


def parameters(token: bytes, **changes: Any) -> dict[str, Any]:
    """A public network's, with every default."""
    shown = {name: checksum(key.address) for name, key in KEYS.items()}
    members = [shown[name] for name in ("three", "one", "two")]
    given = {
        "chainId": PUBLIC,
        "token": checksum(token),
        "holders": {name: shown[name] for name in PEOPLE[:4]},
        "beneficiary": shown["beneficiary"],
        "verifiers": {"members": members, "threshold": 2},
    }
    return given | changes


def _token(rpc: HttpRpc) -> bytes:
    """A token of six decimals that isn't TestToken: a proxy that has it do the work."""
    key = new_key()
    fund(rpc, key.address)
    sender = Transactor(rpc, PUBLIC, key, pace=QUICK)
    play = sender.send(Call("create", b"", load("TestToken").creation())).contract
    assert play is not None
    before = bytes.fromhex("363d3d373d3d3d363d73")  # ERC-1167
    after = bytes.fromhex("5af43d82803e903d91602b57fd5bf3")
    return deploy_code(sender, before + play + after)


def kill_after(transactions: int, rpc: HttpRpc, task: Task) -> None:
    """Begin a run, and end it by SIGKILL when so many of its transactions are mined."""
    child = task.start()
    until(lambda: sent(rpc, task) >= transactions, timeout_s=60)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()


def forget_after(nonce: int, task: Task, *, notes: int = 1) -> None:
    """Cut the journal after "about to send transaction `nonce`", or `notes` - 1 lines before.

    The lines before are the request and the beginning of the step. Half a line stays, too.
    """
    journal = task.folder / "journal" / NETWORK / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    note = f'"nonce":{nonce},"type":"TRANSACTION_PREPARE_SEND"'
    last = next(number for number, line in enumerate(lines) if note in line)
    journal.write_text("".join(lines[: last + 2 - notes]) + '{"futu')


def sent(rpc: HttpRpc, task: Task) -> int:
    """How many transactions of the deployer were mined."""
    return quantity(rpc.call("eth_getTransactionCount", to_hex(task.key.address), "latest"))


class TestOneRun:
    """From nothing to a network in the right hands."""

    def test_it_ends_as_meant_and_a_second_one_does_nothing(self, rpc: HttpRpc, task: Task) -> None:
        """The check shares no code with the task; the second run sends no transaction."""
        task.run()
        made = task.deployment
        ChainClient(rpc, made).check()
        report = check_roles(rpc, made)
        assert report.deviations == ()
        assert report.times is not None
        assert report.times.admin_delay_ms == 7 * DAY_MS
        assert {row.role: (row.member, row.delay_ms // DAY_MS) for row in report.rows} == {
            "admin": (KEYS["admin"].address, 7),
            "administrator": (KEYS["administrator"].address, 3),
            "guardian": (KEYS["guardian"].address, 0),
            "registrar": (KEYS["registrar"].address, 3),
        }
        assert any("2 of 3 named verifiers" in note for note in report.notes)
        before = sent(rpc, task)
        assert "nothing to do" in task.run()
        assert (sent(rpc, task), task.deployment) == (before, made)
        assert before == TRANSACTIONS

    def test_the_file_lost_the_journal_gives_it_back(self, rpc: HttpRpc, task: Task) -> None:
        """Without another transaction."""
        task.run()
        made = task.deployment
        (task.folder / f"{NETWORK}.json").unlink()
        task.run()
        assert (task.deployment, sent(rpc, task)) == (made, TRANSACTIONS)

    def test_a_batch_settles_on_what_it_made(self, tmp_path: Path) -> None:
        """Deposit, receipt, batch, credit: by the contracts of the local parameters."""
        began = int(time.time()) - GENESIS_AGE_S
        state, deployer = tmp_path / "chain.json", new_key()
        with AnvilProcess(state, genesis_s=began) as chain, HttpRpc(chain.url) as rpc:
            fund(rpc, deployer.address)
            net = Network(rpc, ignite(tmp_path, deployer, chain.url))
            payer, node = net.payer(10 * TUSD), net.node(b"\x0f" * 20)
            net.serve(payer.address, node.address, TUSD, 10_000)
            net.settle(net.sender())
            (credit,) = net.client.node_credits([node.address])
            assert credit.credit == TUSD - 10_000
            assert check_roles(rpc, net.deployment).deviations == ()


class TestBrokenRuns:
    """Whoever pulls the plug finds it finished by the next run."""

    def test_a_killed_run_is_continued(self, rpc: HttpRpc, task: Task) -> None:
        """SIGKILL before the launches, in the middle of a write; nothing is deployed twice."""
        kill_after(6, rpc, task)
        assert not (task.folder / f"{NETWORK}.json").exists()
        addresses = task.folder / "journal" / NETWORK / "deployed_addresses.json"
        addresses.write_text(addresses.read_text()[:40])
        task.run()
        assert check_roles(rpc, task.deployment).deviations == ()
        listed = {text.lower() for text in json.loads(addresses.read_text()).values()}
        assert {
            to_hex(task.deployment.settlement),
            to_hex(task.deployment.access_manager),
        } <= listed
        assert sent(rpc, task) <= TRANSACTIONS + 1  # one may be empty, in place of an unsent one

    @pytest.mark.parametrize("moment", ["begun", "unsent", "sent"])
    def test_a_run_killed_at_a_bad_moment_is_continued(
        self, rpc: HttpRpc, task: Task, moment: str
    ) -> None:
        """A step begun in the journal and no more, or about to be sent, and sent or not."""
        kill_after(9, rpc, task)
        last = sent(rpc, task) - 1
        forget_after(last, task, notes=3 if moment == "begun" else 1)
        if moment != "sent":
            rpc.call("anvil_rollback", 1)
        task.run()
        assert check_roles(rpc, task.deployment).deviations == ()
        assert sent(rpc, task) <= TRANSACTIONS + 1  # one may be empty, in place of an unsent one

    def test_other_transactions_of_the_deployer_do_no_harm(self, rpc: HttpRpc, task: Task) -> None:
        """No address is counted from the account's nonce."""
        kill_after(4, rpc, task)
        forget_after(sent(rpc, task) - 1, task)  # the worst moment
        sender = Transactor(rpc, PUBLIC, task.key, pace=QUICK)
        sender.send(Call("something else", b"\x77" * 20, b""))
        task.run()
        assert check_roles(rpc, task.deployment).deviations == ()


class TestRefusals:
    """Before anything is sent."""

    def test_every_mistake_in_the_parameters_is_named(self, rpc: HttpRpc, task: Task) -> None:
        """All at once, with the line to change."""
        changed = parameters(
            b"\x70" * 20,
            simulator=checksum(b"\x51" * 20),
            beneficiary="0x" + "00" * 20,
            times={"withdrawalDelay": 700_000, "withdrawDelay": 1},
            unbondingDelay=60,
            debitLimitPpm=20,
            colour="red",
        )
        changed["token"] = "test"
        changed["holders"]["guardian"] = changed["holders"]["administrator"]
        task.write_parameters(changed)
        code, output = task.outcome()
        assert (code, sent(rpc, task)) == (1, 0)
        for mistake in (
            "token: an address (0x and 40 digits",
            "simulator: only on local chains",
            "beneficiary: must not be the zero address",
            "times.adminDelay (604800 s) must be longer than times.withdrawalDelay (700000 s)",
            "times.withdrawDelay: there is no such time",
            "unbondingDelay must not be shorter",
            "debitLimitPpm: share of the deposits",
            "colour: there is no such parameter",
            "holders.guardian: is the administrator too",
        ):
            assert mistake in output

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"payoutDelay": 259_199}, "payoutDelay must not be shorter than times.withdrawal"),
            ({"unbondingDelay": 259_199}, "unbondingDelay must not be shorter than times.w"),
            ({"times": {"limiterWindow": 43_199}}, "times.limiterWindow must not be shorter than"),
            ({"times": {"pauseInterval": 259_200}}, "times.pauseInterval must be longer than"),
            ({"times": {"unsettledMax": 172_800, "pauseMax": 172_801}}, "pauseMax together"),
            ({"times": {"withdrawalDelay": 2_592_001}}, "must not be longer than 30 days"),
            ({"debitLimitPpm": 1_000_000}, "debitLimitPpm: share of the deposits"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_settings_that_leave_payers_no_way_out_are_refused(
        self, rpc: HttpRpc, task: Task, changes: dict[str, Any], said: str
    ) -> None:
        """As the contracts and `pinaivu roles` would."""
        task.write_parameters(parameters(b"\x70" * 20, **changes))
        code, output = task.outcome()
        assert (code, said in output, sent(rpc, task)) == (1, True, 0), output

    def test_a_quorum_of_one_is_none(self, task: Task) -> None:
        """And who judges is named, not left out."""
        task.write_parameters(parameters(b"\x70" * 20, verifiers={"members": [], "threshold": 2}))
        code, output = task.outcome()
        assert (code, "verifiers: at least 2 members" in output) == (1, True)

    def test_another_chain_is_refused(self, rpc: HttpRpc, task: Task) -> None:
        """An RPC URL of the wrong network."""
        task.write_parameters(parameters(b"\x70" * 20, chainId=1))
        code, output = task.outcome()
        assert (code, sent(rpc, task)) == (1, 0)
        assert "the RPC URL serves chain 424242, the parameters are for chain 1" in output

    def test_the_deployer_holds_no_role(self, rpc: HttpRpc, task: Task) -> None:
        """Its key was on the machine that deploys."""
        changed = parameters(_token(rpc))
        changed["holders"]["registrar"] = checksum(task.key.address)
        task.write_parameters(changed)
        code, output = task.outcome()
        assert (code, "the deployer must keep nothing" in output) == (1, True)

    def test_a_token_of_other_decimals_is_refused(self, rpc: HttpRpc, task: Task) -> None:
        """Amounts are counted in millionths."""
        fund(rpc, KEYS["one"].address)
        sender = Transactor(rpc, PUBLIC, KEYS["one"], pace=QUICK)
        eighteen = deploy_code(sender, bytes.fromhex("60125f5260205ff3"))
        task.write_parameters(parameters(eighteen))
        code, output = task.outcome()
        assert (code, "decimals() = 18" in output) == (1, True)
