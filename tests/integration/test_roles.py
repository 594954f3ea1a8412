"""`pinaivu roles` on real chains: what is as meant passes, each planted deviation is found."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from pinaivu.chain.abi import load
from pinaivu.chain.access import HistoryMissing
from pinaivu.chain.anvil import AnvilProcess
from pinaivu.chain.calls import Call, Calls
from pinaivu.chain.code import FREE, ForeignCode, expected_immutables, read_immutables
from pinaivu.chain.deployment import CONTRACTS, Deployment, Holders
from pinaivu.chain.errors import ChainUnavailable, RpcRefused
from pinaivu.chain.role_check import PUBLIC_ROLE, check_roles
from pinaivu.chain.roles import TARGETS, Delay, role, roles
from pinaivu.chain.rpc import HttpRpc, JsonRpc, Request
from pinaivu.chain.words import to_hex
from pinaivu.cli.roles import command
from pinaivu.keys import checksum
from tests.integration.chain_network import GENESIS_AGE_S, Network

pytestmark = pytest.mark.chain

TREE = Path(__file__).parents[2]
STRANGER = b"\x57" * 20


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    began = int(time.time()) - GENESIS_AGE_S
    state = tmp_path_factory.mktemp("roles") / "state.json"
    with AnvilProcess(state, genesis_s=began) as chain, HttpRpc(chain.url) as endpoint:
        yield Network(endpoint)


@pytest.fixture
def net(network: Network) -> Iterator[Network]:
    """The network, put back afterwards to what it was."""
    before = network.rpc.call("evm_snapshot")
    yield network
    network.rpc.call("evm_revert", before)


def manage(net: Network, function: str, *arguments: object) -> None:
    """The admin's call of the AccessManager."""
    data = load("AccessManager").function(function).encode(*arguments)
    net.admin.send(Call(function, net.deployment.access_manager, data))


def deviations(net: Network, deployment: Deployment | None = None) -> tuple[str, ...]:
    return check_roles(net.rpc, deployment or net.deployment).deviations


def set_code(net: Network, address: bytes, code: bytes) -> None:
    net.rpc.call("anvil_setCode", to_hex(address), to_hex(code))


def code_of(net: Network, address: bytes) -> bytes:
    return bytes.fromhex(net.rpc.call("eth_getCode", to_hex(address), "latest")[2:])


def selector(contract: str, function: str) -> bytes:
    return load(contract).function(function).selector


class TestPowers:
    """Who can do what."""

    def test_a_deployment_as_meant_has_no_deviation(self, net: Network) -> None:
        """Every row of the table is there, with its delays."""
        report = check_roles(net.rpc, net.deployment)
        assert report.deviations == ()
        rows = {(row.role, row.contract, row.function): row for row in report.rows}
        listed = {(r.name, p.contract, p.name) for r in roles() for p in r.functions}
        quorum = {key for key in listed if key[1] == "attestation_verifier"}
        assert set(rows) == listed - quorum | {("admin", "access_manager", "everything")}
        assert report.times is not None
        raised = rows["administrator", "settlement", "setDebitLimit"]
        assert raised.built_in_ms == report.times.admin_delay_ms
        expected = ("a local chain", "TestToken", "faults cost", "limit: 50 %", "SIMULATED")
        for part, note in zip(expected, report.notes, strict=True):
            assert part in note
        assert report.unchecked == ()

    def test_a_function_open_to_anybody_is_found(self, net: Network) -> None:
        """PUBLIC_ROLE has every account as its member."""
        target = net.deployment.settlement
        manage(net, "setTargetFunctionRole", target, [selector("Settlement", "pause")], PUBLIC_ROLE)
        assert deviations(net) == (
            "functions: settlement.pause is open to PUBLIC_ROLE: anybody, not to role 2",
        )

    def test_a_function_given_back_to_the_admin_is_found(self, net: Network) -> None:
        """The guardian could not revoke any more."""
        target = net.deployment.enclave_registry
        manage(net, "setTargetFunctionRole", target, [selector("EnclaveRegistry", "revokePair")], 0)
        assert deviations(net) == (
            "functions: enclave_registry.revokePair is open to role 0, not to role 2",
        )

    def test_a_function_beyond_the_table_is_found(self, net: Network) -> None:
        """Of the manager itself, too: it could grant roles."""
        grant = selector("AccessManager", "grantRole")
        manage(net, "setTargetFunctionRole", net.deployment.access_manager, [grant], 3)
        (found,) = deviations(net)
        assert found.endswith(f".0x{grant.hex()} is open to role 3, not to role 0")

    def test_another_member_is_found(self, net: Network) -> None:
        """One that nobody wrote down."""
        manage(net, "grantRole", role("guardian").id, STRANGER, 0)
        (found,) = deviations(net)
        assert "is guardian, which was meant to be" in found

    def test_a_role_that_nothing_knows_is_found(self, net: Network) -> None:
        """It may be given functions later."""
        manage(net, "grantRole", 77, STRANGER, 0)
        (found,) = deviations(net)
        assert "has role 77, which nothing knows" in found

    def test_a_member_whose_grant_still_waits_is_found(self, net: Network) -> None:
        """A guardian who can't pause yet is none."""
        guardian, ten_days = role("guardian").id, 864_000
        manage(net, "revokeRole", guardian, net.admin.address)
        manage(net, "setGrantDelay", guardian, ten_days)
        net.rpc.call("evm_increaseTime", ten_days)
        manage(net, "grantRole", guardian, net.admin.address, 0)
        assert any("is guardian only from second" in what for what in deviations(net))

    def test_a_role_without_a_member_is_found(self, net: Network) -> None:
        """A network that nobody can pause."""
        guardian = net.admin.address
        manage(net, "revokeRole", role("guardian").id, guardian)
        assert deviations(net) == ("roles: nobody is guardian",)

    def test_a_deployer_that_kept_a_role_is_found(self, net: Network) -> None:
        """Here the deployer is the admin, and was meant to be somebody else."""
        others = Holders(
            admin=STRANGER,
            administrator=net.admin.address,
            guardian=net.admin.address,
            registrar=net.admin.address,
        )
        meant = msgspec.structs.replace(net.deployment, holders=others)
        found = deviations(net, meant)
        assert found[0].endswith(
            "is admin and has deployed all this: the deployer must keep nothing"
        )

    def test_a_deployer_that_kept_a_role_is_found_without_names(self, net: Network) -> None:
        """The manager's first event says who it was."""
        nameless = msgspec.structs.replace(net.deployment, holders=None)
        assert any("the deployer must keep nothing" in what for what in deviations(net, nameless))

    @pytest.mark.parametrize(
        ("function", "value", "said"),
        [
            ("setRoleAdmin", 2, "registrar is granted by role 2, not by admin"),
            ("setRoleGuardian", 0, "calls of registrar can be cancelled by role 0"),
        ],
    )
    def test_another_hand_over_a_role_is_found(
        self, net: Network, function: str, value: int, said: str
    ) -> None:
        """Who grants it, and who may veto."""
        manage(net, function, role("registrar").id, value)
        assert deviations(net) == (f"roles: {said}",)

    def test_a_closed_contract_is_found(self, net: Network) -> None:
        """Nothing restricted can be called there, the guardian's brakes included."""
        manage(net, "setTargetClosed", net.deployment.settlement, True)
        (found,) = deviations(net)
        assert found.startswith("functions: settlement is closed")

    def test_another_authority_is_found(self, net: Network) -> None:
        """The contract obeys another manager."""
        other = net.admin.send(
            Call("create", b"", load("AccessManager").creation(net.admin.address))
        ).contract
        manage(net, "updateAuthority", net.deployment.model_registry, other)
        (found,) = deviations(net)
        assert found.startswith("wiring: model_registry obeys 0x")

    def test_announced_calls_are_told(self, net: Network) -> None:
        """With what they will do: whoever reads in time can leave."""
        manage(net, "grantRole", role("registrar").id, net.admin.address, 60)
        data = Calls(net.deployment).set_model("m", net.client.model("smollm2-135m-instruct")).data  # type: ignore[arg-type]
        manage(net, "schedule", net.deployment.model_registry, data, 0)
        notes = check_roles(net.rpc, net.deployment).notes
        assert any("ModelRegistry.setModel" in note and data.hex() in note for note in notes)


class TestBeginning:
    """Who was given what before the block that the file names can't be seen in later events."""

    @staticmethod
    def hidden(net: Network) -> Deployment:
        """A stranger is made admin, and a file published that begins just after it."""
        manage(net, "grantRole", 0, STRANGER, 0)
        net.rpc.call("evm_mine")
        return msgspec.structs.replace(net.deployment, block=net.client.head())

    def test_a_grant_before_the_named_block_is_found(self, net: Network) -> None:
        """It doesn't help to have others look granted after it."""
        late = self.hidden(net)
        for entry in roles():
            manage(net, "grantRole", entry.id, net.admin.address, 0)
        report = check_roles(net.rpc, late)
        assert all(row.member != STRANGER for row in report.rows)
        (found,) = (what for what in report.deviations if "stood in block" in what)
        assert found.startswith("roles: the AccessManager stood in block")

    def test_without_history_the_creation_is_seen_in_its_receipt(self, net: Network) -> None:
        """Logs and receipts are kept where old state is not."""
        report = check_roles(Forgetful(net.rpc), net.deployment)
        assert (report.deviations, report.unchecked) == ((), ())

    def test_without_history_a_later_block_is_not_as_meant_but_unchecked(
        self, net: Network
    ) -> None:
        """Nothing says whether it hides anything."""
        report = check_roles(Forgetful(net.rpc), self.hidden(net))
        (said,) = report.unchecked
        assert "ask an endpoint with history" in said

    def test_a_manager_made_by_a_contract_is_believed_by_its_missing_code(
        self, net: Network
    ) -> None:
        """Its receipt names no contract."""
        report = check_roles(Nameless(net.rpc), net.deployment)
        assert (report.deviations, report.unchecked) == ((), ())

    def test_a_block_that_is_still_to_come_is_refused(self, net: Network) -> None:
        """An endpoint that lags behind, or a file that lies."""
        late = msgspec.structs.replace(net.deployment, block=net.client.head() + 9)
        with pytest.raises(ChainUnavailable):
            check_roles(net.rpc, late)


@dataclass
class Forgetful:
    """An endpoint without old state."""

    rpc: JsonRpc

    @property
    def endpoint(self) -> str:
        """As the real one."""
        return self.rpc.endpoint

    def call(self, method: str, *params: object) -> Any:
        """Only the newest code."""
        if method == "eth_getCode" and params[1] != self.rpc.call("eth_blockNumber"):
            raise RpcRefused(method, -32000, "missing trie node")
        return self.rpc.call(method, *params)

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        """As the real one."""
        return self.rpc.batch(requests)


class Nameless(Forgetful):
    """An endpoint with old state, on a chain where a factory made the contract."""

    def call(self, method: str, *params: object) -> Any:
        """Receipts of calls."""
        answer = self.rpc.call(method, *params)
        if method == "eth_getTransactionReceipt":
            return answer | {"contractAddress": None}
        return answer


class TestPublicChains:
    """What a local chain may do and a public one may not."""

    @pytest.fixture
    def public(self, net: Network, monkeypatch: pytest.MonkeyPatch) -> Network:
        """The same contracts, held to the rules of a public chain."""
        monkeypatch.setattr("pinaivu.chain.roles.LOCAL_CHAINS", frozenset[int]())
        monkeypatch.setattr("pinaivu.chain.role_check.LOCAL_CHAINS", frozenset[int]())
        return net

    def test_play_money_simulator_and_missing_delays_are_found(self, public: Network) -> None:
        """All of them at once."""
        found = deviations(public)
        assert "the settlement token is TestToken, which anybody can mint" in found
        assert any(what.startswith("the attestation verifier is SIMULATED") for what in found)
        short = [what for what in found if what.startswith("delays: ")]
        assert [what.split(" is ")[1].split(" with ")[0] for what in short] == [
            "admin",
            "administrator",
            "registrar",
        ]

    def test_a_delay_about_to_shrink_is_found(self, public: Network) -> None:
        """AccessManager lets it shrink by waiting out the difference."""
        admin, now_long = public.admin.address, 300
        manage(public, "grantRole", role("registrar").id, admin, now_long)
        assert not any("registrar" in what for what in deviations(public))
        manage(public, "grantRole", role("registrar").id, admin, 0)
        assert any(what.endswith("is registrar, soon with 0 s") for what in deviations(public))


class TestCode:
    """Byte for byte, immutables apart, and these by name."""

    @pytest.mark.parametrize("field", ["settlement", "receipt_log", "access_manager"])
    def test_one_other_byte_is_found(self, net: Network, field: str) -> None:
        """Wherever it stands."""
        address = getattr(net.deployment, field)
        code = bytearray(code_of(net, address))
        code[-1] ^= 1
        set_code(net, address, bytes(code))
        assert any(f"the code differs from {_abi(field)}'s from byte" in w for w in deviations(net))

    def test_another_immutable_is_found_by_name(self, net: Network) -> None:
        """For instance the measurement that stands for debug mode, which no view shows."""
        address = net.deployment.enclave_registry
        code = bytearray(code_of(net, address))
        for at in load("EnclaveRegistry").immutables["DEBUG_MEASUREMENT"]:
            code[at] ^= 1
        set_code(net, address, bytes(code))
        (found,) = deviations(net)
        assert found.startswith("wiring: EnclaveRegistry.DEBUG_MEASUREMENT is 0x")

    def test_an_immutable_with_two_values_is_found(self, net: Network) -> None:
        """A constructor writes the same everywhere."""
        abi = load("Settlement")
        code = bytearray(code_of(net, net.deployment.settlement))
        code[abi.immutables["TOKEN"][0]] ^= 1
        with pytest.raises(ForeignCode, match="TOKEN has several values"):
            read_immutables(abi, bytes(code))

    def test_registries_of_another_deployment_are_found(self, net: Network) -> None:
        """Everything our code, but not for each other."""
        swapped = msgspec.structs.replace(
            net.deployment,
            node_registry=net.admin.send(
                Call(
                    "create", b"", load("NodeRegistry").creation(STRANGER, 1, STRANGER, STRANGER, 1)
                )
            ).contract,
        )
        found = deviations(net, swapped)
        for member in ("domainSeparator", "TOKEN", "faults"):
            assert any(what.startswith(f"wiring: NodeRegistry.{member} is") for what in found)
        assert any(what.startswith("wiring: Settlement.NODE_REGISTRY is") for what in found)
        assert any(what.startswith("times: NodeRegistry.WITHDRAWAL_DELAY is 1 s") for what in found)

    @pytest.mark.parametrize(
        ("contract", "member", "value", "said"),
        [
            ("Settlement", "WITHDRAWAL_DELAY", 10, "times: not in the order"),
            ("Settlement", "PAUSE_MAX", 120, "times: not in the order"),
            ("Settlement", "WITHDRAWAL_DELAY", 2_592_001, "times: withdrawals wait 2592001 s"),
            ("Settlement", "PAUSE_INTERVAL", 180, "times: pauses can follow each other"),
            ("Settlement", "LIMITER_WINDOW", 89, "times: the debit limiter's window is 89 s"),
            ("EnclaveRegistry", "delay", 10, "times: EnclaveRegistry.delay is 10 s"),
            ("EnclaveRegistry", "epochLifetime", 0, "times: EnclaveRegistry.epochLifetime is 0 s"),
            ("NodeRegistry", "payoutDelay", 179, "times: NodeRegistry.payoutDelay is 179 s"),
            ("NodeRegistry", "payoutDelay", 0, "times: NodeRegistry.payoutDelay is 0 s"),
            ("ObjectiveFaults", "beneficiary", 0, "wiring: ObjectiveFaults has no beneficiary"),
        ],
    )
    def test_times_that_trap_payers_are_found(
        self, net: Network, contract: str, member: str, value: int, said: str
    ) -> None:
        """A constructor that is not ours could have written them."""
        field = next(f for f, name in _contracts().items() if name == contract)
        address = getattr(net.deployment, field)
        code = bytearray(code_of(net, address))
        for at in load(contract).immutables[member]:
            code[at : at + 32] = value.to_bytes(32)
        set_code(net, address, bytes(code))
        assert any(what.startswith(said) for what in deviations(net))

    def test_whom_faults_pay_is_told(self, net: Network) -> None:
        """Nobody wrote down who it was to be."""
        notes = check_roles(net.rpc, net.deployment).notes
        shown = checksum(net.admin.address)
        assert f"what faults cost goes to {shown}, rewards apart" in notes

    def test_a_verifier_of_unknown_code_is_found(self, net: Network) -> None:
        """Whatever it says about itself."""
        verifier, _ = net.client.verifier()
        set_code(net, verifier, code_of(net, verifier)[:-1] + b"\0")
        (found,) = deviations(net)
        assert found.endswith("is none of ours")


class TestDebitLimit:
    """What of a log's deposits may go at once."""

    def test_a_raise_that_waits_is_told(self, net: Network) -> None:
        """It was announced and made; the contract's own delay runs, in which payers leave."""
        net.admin.send(net.calls.set_debit_limit(900_000))
        report = check_roles(net.rpc, net.deployment)
        assert report.deviations == ()
        assert "debit limit: 50 % of a log's deposits" in report.notes
        assert any("a debit limit of 90 % waits, in force from second" in n for n in report.notes)

    def test_one_that_was_replaced_or_came_into_force_waits_no_more(self, net: Network) -> None:
        """Lowering replaces a raise at once; after the delay a raise is in force."""

        def notes() -> list[str]:
            return [n for n in check_roles(net.rpc, net.deployment).notes if "debit limit" in n]

        net.admin.send(net.calls.set_debit_limit(900_000))
        net.admin.send(net.calls.set_debit_limit(400_000))
        assert notes() == ["debit limit: 40 % of a log's deposits"]
        net.admin.send(net.calls.set_debit_limit(600_000))
        net.rpc.call("evm_increaseTime", 240)
        net.rpc.call("evm_mine")
        assert notes() == ["debit limit: 60 % of a log's deposits"]

    def test_no_limit_is_wrong_but_on_local_chains(
        self, net: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A stolen key would take everything in one batch."""
        net.admin.send(net.calls.set_debit_limit(1_000_000))
        net.rpc.call("evm_increaseTime", 240)
        net.rpc.call("evm_mine")
        said = "the debit limit is 100 %: a stolen epoch key takes all at once"
        report = check_roles(net.rpc, net.deployment)
        assert (said in report.notes, report.deviations) == (True, ())
        monkeypatch.setattr("pinaivu.chain.role_check.LOCAL_CHAINS", frozenset[int]())
        assert said in deviations(net)


class TestQuorum:
    """Who vouches instead of the simulator, when one was proposed."""

    @pytest.fixture
    def quorum(self, net: Network) -> bytes:
        """Three members of whom two must sign; waits to be the network's verifier."""
        made = net.admin.send(
            Call(
                "create",
                b"",
                load("QuorumAttestationVerifier").creation(
                    *(net.deployment.access_manager, net.deployment.settlement),
                    *([b"\x01" * 20, b"\x02" * 20, b"\x03" * 20], 2, 240),
                ),
            )
        ).contract
        assert made is not None
        net.admin.send(net.calls.propose_verifier(made))
        for entry in roles():
            for power in entry.functions:
                if power.contract == "attestation_verifier":
                    manage(net, "setTargetFunctionRole", made, [power.selector], entry.id)
        return made

    @staticmethod
    def tell(net: Network, quorum: bytes, function: str, *arguments: object) -> None:
        """The administrator's or guardian's call of the verifier."""
        data = load("QuorumAttestationVerifier").function(function).encode(*arguments)
        net.admin.send(Call(function, quorum, data))

    def test_a_waiting_set_is_told_with_its_members(self, net: Network, quorum: bytes) -> None:
        """Whoever trusts the present ones has until then."""
        members = [b"\x04" * 20, b"\x05" * 20]
        self.tell(net, quorum, "proposeSet", members, 2)
        report = check_roles(net.rpc, net.deployment)
        assert report.deviations == ()
        (note,) = (note for note in report.notes if "another set waits" in note)
        assert note.endswith(f"2 of 2, {checksum(members[0])}, {checksum(members[1])}")

    def test_a_threshold_above_the_members_left_is_found(self, net: Network, quorum: bytes) -> None:
        """Suspending lowers no threshold: nobody can activate an epoch any more."""
        self.tell(net, quorum, "suspend", b"\x01" * 20)
        assert deviations(net) == ()
        self.tell(net, quorum, "suspend", b"\x02" * 20)
        (found,) = deviations(net)
        assert found.startswith("quorum: ")
        assert found.endswith("2 of 1 must sign, so no epoch can be activated")

    def test_a_waiting_set_out_of_reach_is_found(self, net: Network, quorum: bytes) -> None:
        """Before it is in force."""
        self.tell(net, quorum, "proposeSet", [b"\x04" * 20, b"\x05" * 20], 2)
        self.tell(net, quorum, "suspend", b"\x04" * 20)
        (found,) = deviations(net)
        assert "waiting set: 2 of 1 must sign" in found


class TestTable:
    """The table and the packaged contracts belong together."""

    def test_every_listed_function_exists(self) -> None:
        """By name, in the contract's ABI."""
        for entry in roles():
            for power in entry.functions:
                assert len(power.selector) == 4
                assert power.built_in in Delay

    def test_every_restricted_function_is_listed(self) -> None:
        """As the sources say it."""
        listed = {(TARGETS[p.contract], p.name) for r in roles() for p in r.functions}
        assert _restricted(TREE / "contracts") == listed

    def test_every_immutable_is_known(self, net: Network) -> None:
        """Chosen by the deployment, or with a value that follows."""
        for name in {*_contracts().values(), "QuorumAttestationVerifier"}:
            known = FREE.get(name, frozenset()) | set(expected_immutables(name, net.deployment))
            assert known == set(load(name).immutables), name


def _restricted(folder: Path) -> set[tuple[str, str]]:
    """(contract, function) of every `restricted` function; a module's belong to Settlement."""
    found = set()
    for source in folder.rglob("*.sol"):
        if "interfaces" in source.parts or "mocks" in source.parts:
            continue
        contract = "Settlement" if source.parent.name == "settlement" else source.stem
        for piece in source.read_text().split("function ")[1:]:
            head = piece.split("{")[0]
            if " restricted" in head.replace("\n", " "):
                found.add((contract, head.split("(")[0]))
    return found


def _contracts() -> dict[str, str]:
    return CONTRACTS | {"access_manager": "AccessManager"}


def _abi(field: str) -> str:
    return _contracts()[field]


class TestCommand:
    """As a shell sees it."""

    def run(self, net: Network, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
        """The command, on the network's deployment."""
        net.deployment.save(folder / "deployment.json")
        place = ("--deployment", str(folder / "deployment.json"), "--rpc", net.rpc.endpoint)
        command = [sys.executable, "-m", "pinaivu", "roles", *place, *more]
        return subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=False)

    def test_all_as_meant_exits_0(self, net: Network, tmp_path: Path) -> None:
        """With the table on stdout."""
        done = self.run(net, tmp_path)
        assert done.returncode == 0, done.stderr
        assert "as meant: code, wiring, times, members, functions and delays" in done.stdout

    def test_a_deviation_exits_1_in_text_and_json(self, net: Network, tmp_path: Path) -> None:
        """Each in a line of its own."""
        manage(net, "grantRole", role("guardian").id, STRANGER, 0)
        done = self.run(net, tmp_path)
        assert (done.returncode, "NOT AS MEANT: roles: " in done.stdout) == (1, True)
        done = self.run(net, tmp_path, "--json")
        assert done.returncode == 1
        report: dict[str, Any] = json.loads(done.stdout)
        assert len(report["deviations"]) == 1
        assert report["unchecked"] == []
        assert {row["role"] for row in report["rows"]} == {r.name for r in roles()}

    def test_what_the_endpoint_could_not_show_exits_2(
        self, net: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing was found wrong, but not all was looked at; in this process, for the endpoint."""

        def no_history(*_: object) -> None:
            raise HistoryMissing("who was given what")

        monkeypatch.setattr("pinaivu.chain.role_check.require_all_events", no_history)
        net.deployment.save(tmp_path / "deployment.json")
        place = ["--deployment", str(tmp_path / "deployment.json"), "--rpc", net.rpc.endpoint]
        done = CliRunner().invoke(command, place)
        assert done.exit_code == 2
        assert "NOT CHECKED: who was given what" in done.stdout
        assert "as meant: " not in done.stdout

    def test_no_chain_exits_2(self, net: Network, tmp_path: Path) -> None:
        """Nothing was found, good or bad."""
        net.deployment.save(tmp_path / "deployment.json")
        place = ("--deployment", str(tmp_path / "deployment.json"))
        done = subprocess.run(
            [sys.executable, "-m", "pinaivu", "roles", *place, "--rpc", "http://127.0.0.1:1"],
            cwd=TREE,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2

    def test_an_unknown_network_says_which_there_are(self) -> None:
        """A wheel carries those it was built with."""
        done = subprocess.run(
            [sys.executable, "-m", "pinaivu", "roles", "--on", "nowhere", "--rpc", "http://x"],
            cwd=TREE,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, "no deployment named 'nowhere'" in done.stderr) == (2, True)
