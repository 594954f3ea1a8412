"""Three verifiers, two of whom must sign: judged, signed, put together, activated on a real chain.

The verifier contract is the production one. The documents are not AWS's, since no document of
theirs can name our manifest: they are the simulator's, or forged under a root that the test pins in
AWS's place, and each test's name says which.
"""

import json
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from enclave.simulator.nsm import SimulatedNsm
from pinaivu.attestation import BindingMismatch, Live, QuorumMissed, UntrustedChain, judge, parse
from pinaivu.attestation import aws as aws_module
from pinaivu.attestation.policy import Binding, binding_of
from pinaivu.attestation.quorum import Quorum
from pinaivu.attestation.simulated import SIMULATED_MEASUREMENT, verify_simulated
from pinaivu.attestation.verdicts import verdict_on
from pinaivu.chain.abi import load
from pinaivu.chain.anvil import AnvilProcess, catch_up
from pinaivu.chain.calls import Call, Calls
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployer import LOCAL, Powers, deploy
from pinaivu.chain.errors import Reverted
from pinaivu.chain.quorum import NoQuorum, QuorumCalls, quorum_state, seen_block, trust_in
from pinaivu.chain.roles import role
from pinaivu.chain.rpc import HttpRpc
from pinaivu.chain.transactor import Transactor
from pinaivu.cli.main import cli
from pinaivu.errors import PinaivuError
from pinaivu.keys import SecretKey
from pinaivu.manifest import Block, Manifest, Parameters, local_development_parameters
from pinaivu.messages import Verdict
from pinaivu.typed_data import Signed
from tests.integration.chain_network import GENESIS_AGE_S, new_key
from tests.integration.chain_support import funded_transactor
from tests.unit.forged_attestations import GOOD_CHAIN, forged

pytestmark = pytest.mark.chain

FORGED_MEASUREMENT = parse(forged()[0]).measurement
THRESHOLD = 2


@dataclass
class Stage:
    """A deployment whose registry believes a quorum, its verifiers, and one operator's log."""

    rpc: HttpRpc
    client: ChainClient
    calls: Calls
    operator: Transactor
    operator_key: SecretKey
    verifiers: list[SecretKey]
    contract: bytes
    log_id: bytes
    parameters: Parameters

    def boot(self) -> tuple[SecretKey, Manifest]:
        """A fresh boot of the log, after the newest block."""
        key, deployment, block = new_key(), self.client.deployment, self.client.block()
        manifest = Manifest(
            chain_id=deployment.chain_id,
            settlement=deployment.settlement,
            receipt_log=deployment.receipt_log,
            enclave_registry=deployment.enclave_registry,
            node_registry=deployment.node_registry,
            model_registry=deployment.model_registry,
            log_id=self.log_id,
            code_version="test",
            signing_key=key.compressed,
            note_key=os.urandom(32),
            peer_key=new_key().compressed,
            parameters_digest=self.parameters.digest(),
            block=Block(number=block.number, hash=block.hash),
        )
        return key, manifest

    def simulated_verdict(self, manifest: Manifest, raw: bytes) -> Verdict:
        """What one verifier would find, were the simulator AWS."""
        binding, now = binding_of(manifest), now_ms()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            proven = verify_simulated(raw, time=Live(now_ms=now), binding=binding)
        code = frozenset({(SIMULATED_MEASUREMENT, self.parameters.digest())})
        return verdict_on(
            proven.document,
            manifest,
            self.parameters,
            trust=trust_in(self.client.deployment, code),
            block=seen_block(self.client, manifest.block.number),
            now_ms=now,
        )

    def vouched(self) -> tuple[SecretKey, Verdict]:
        """A SIMULATED boot and the verdict on it."""
        key, manifest = self.boot()
        return key, self.simulated_verdict(manifest, simulated_document(binding_of(manifest)))

    def signed(self, verdict: Verdict, *signers: SecretKey) -> list[Signed[Verdict]]:
        """The verdict by each of them."""
        return [Signed.by(key, self.client.deployment.domain, verdict) for key in signers]

    def refusal(self, verdict: Verdict, evidence: bytes) -> tuple[str, dict[str, object]]:
        """The contracts' error when the operator activates with this."""
        with pytest.raises(Reverted) as caught:
            self.operator.send(self.calls.activate(verdict, evidence))
        return str(caught.value.name), dict(caught.value.arguments)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def simulated_document(binding: Binding) -> bytes:
    nsm = SimulatedNsm(now_ms=now_ms, random=os.urandom)
    return nsm.attest(
        public_key=binding.public_key, user_data=binding.user_data, nonce=binding.nonce
    )


def create_quorum(sender: Transactor, client: ChainClient, members: list[bytes]) -> bytes:
    """The production contract, with its functions opened to the roles."""
    deployment, delay_s = client.deployment, LOCAL.times.admin_delay_ms // 1000
    parts = (deployment.access_manager, deployment.settlement, members, THRESHOLD, delay_s)
    creation = load("QuorumAttestationVerifier").creation(*parts)
    contract = sender.send(Call("creating the quorum", b"", creation)).contract
    assert contract is not None
    opened = {role("administrator").id: "proposeSet", role("guardian").id: "suspend"}
    for role_id, name in opened.items():
        selector = load("QuorumAttestationVerifier").function(name).selector
        item = load("AccessManager").function("setTargetFunctionRole")
        data = item.encode(contract, [selector], role_id)
        sender.send(Call("opening a function", deployment.access_manager, data))
    return contract


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """All delays passed before the chain's clock caught up with ours."""
    state = tmp_path_factory.mktemp("quorum") / "state.json"
    began = int(time.time()) - GENESIS_AGE_S
    with AnvilProcess(state, genesis_s=began) as chain, HttpRpc(chain.url) as rpc:
        operator_key = new_key()
        operator = funded_transactor(rpc, operator_key)
        me = operator.address
        deployment = deploy(rpc, operator, Powers(me, me, me, new_key().address))
        client, calls = ChainClient(rpc, deployment), Calls(deployment)
        parameters = local_development_parameters(chain.url)
        verifiers = sorted((new_key() for _ in range(3)), key=lambda key: key.address)
        contract = create_quorum(operator, client, [key.address for key in verifiers])
        with pytest.raises(NoQuorum, match="SIMULATED"):
            quorum_state(client)
        operator.send(calls.propose_verifier(contract))
        for measurement in (SIMULATED_MEASUREMENT, FORGED_MEASUREMENT):
            operator.send(calls.propose_pair(measurement, parameters.digest()))
        log_id = client.next_log_id(me)
        operator.send(calls.open_log(["https://log.example"]))
        catch_up(rpc, now_ms())
        yield Stage(
            rpc, client, calls, operator, operator_key, verifiers, contract, log_id, parameters
        )  # the chain goes on at our pace from here


class TestSimulatedDocuments:
    """The quorum contract believes its members, here about SIMULATED documents."""

    @pytest.mark.parametrize("who", [(0, 1), (2, 0), (2, 1), (0, 1, 2)])
    def test_two_of_three_activate_a_simulated_boot(
        self, stage: Stage, who: tuple[int, ...]
    ) -> None:
        """Each verifier judges alone; the operator puts what it gets together."""
        key, manifest = stage.boot()
        document = simulated_document(binding_of(manifest))
        signed = [
            one
            for i in who
            for one in stage.signed(stage.simulated_verdict(manifest, document), stage.verifiers[i])
        ]
        quorum = quorum_state(stage.client).in_force
        verdict, evidence = quorum.evidence(stage.client.deployment.domain, signed)
        quorum.require(stage.client.deployment.domain, verdict, evidence)
        stage.operator.send(stage.calls.activate(verdict, evidence))

        epoch = stage.client.active_epoch(stage.log_id)
        assert epoch is not None
        assert epoch.key == key.address
        assert epoch.manifest_digest == manifest.digest()
        assert epoch.payload_digest == parse(document).payload_digest
        assert epoch.document_ms == parse(document).timestamp_ms

    def test_contract_and_python_refuse_the_same_evidence(self, stage: Stage) -> None:
        """What `Quorum.require` refuses, the contract refuses, whoever assembled it."""
        _, verdict = stage.vouched()
        domain = stage.client.deployment.domain
        quorum = quorum_state(stage.client).in_force
        low, high = stage.verifiers[:2]
        mixed = sorted((low, new_key()), key=lambda key: key.address)
        cases = {
            "WrongEvidenceLength": (low,),
            "NotAscending": (high, low),
            "NotMember": tuple(mixed),
        }
        for name, signers in cases.items():
            evidence = b"".join(one.signature for one in stage.signed(verdict, *signers))
            with pytest.raises(QuorumMissed):
                quorum.require(domain, verdict, evidence)
            assert stage.refusal(verdict, evidence)[0] == name

    def test_a_quorum_can_not_stretch_a_documents_time(self, stage: Stage) -> None:
        """The registry holds the document's own time against the block, whatever members sign."""
        _, verdict = stage.vouched()
        values = {name: getattr(verdict, name) for name in verdict.__struct_fields__}
        hour = 3_600_000
        bent = {
            "VerdictExpired": {"expires_ms": verdict.document_ms - hour},
            "DocumentOutOfTime": {
                "document_ms": verdict.document_ms - 4 * hour,
                "expires_ms": (1 << 64) - 1,
            },
        }
        for name, changes in bent.items():
            changed = Verdict(**{**values, **changes})
            signed = stage.signed(changed, *stage.verifiers[:2])
            evidence = b"".join(one.signature for one in signed)
            assert stage.refusal(changed, evidence)[0] == name

    def test_production_judging_refuses_a_simulated_boot(self, stage: Stage) -> None:
        """No member that runs `judge` signs for the simulator."""
        _, manifest = stage.boot()
        code = frozenset({(SIMULATED_MEASUREMENT, stage.parameters.digest())})
        with pytest.raises(UntrustedChain, match="SIMULATED"):
            judge(
                simulated_document(binding_of(manifest)),
                manifest,
                stage.parameters,
                trust=trust_in(stage.client.deployment, code),
                block=seen_block(stage.client, manifest.block.number),
                now_ms=now_ms(),
            )

    def test_a_suspended_verifier_counts_no_more_and_a_new_set_takes_the_delay(
        self, stage: Stage
    ) -> None:
        """Suspension at once, replacement after the delay; the last test, since it moves time."""
        before = stage.rpc.call("evm_snapshot")
        suspended, kept, other = stage.verifiers
        change = QuorumCalls(stage.contract)
        stage.operator.send(change.suspend(suspended.address))
        _, verdict = stage.vouched()
        domain = stage.client.deployment.domain
        evidence = b"".join(one.signature for one in stage.signed(verdict, suspended, kept))
        assert stage.refusal(verdict, evidence) == ("NotMember", {"account": suspended.address})
        with pytest.raises(QuorumMissed):
            quorum_state(stage.client).in_force.require(domain, verdict, evidence)

        coming = Quorum(members=frozenset({kept.address, new_key().address}), threshold=2)
        stage.operator.send(change.propose_set(coming))
        state = quorum_state(stage.client)
        assert state.in_force.members == {kept.address, other.address}
        assert state.pending == coming
        assert state.pending_from_ms == stage.client.block().time_ms + LOCAL.times.admin_delay_ms
        stage.rpc.call("evm_increaseTime", LOCAL.times.admin_delay_ms // 1000)
        stage.rpc.call("evm_mine")
        state = quorum_state(stage.client)
        assert (state.in_force, state.pending, state.pending_from_ms) == (coming, None, 0)
        stage.rpc.call("evm_revert", before)


class TestCommand:
    """`pinaivu verdict`, by verifiers and operator, on documents FORGED under a test's root."""

    def test_judge_sign_assemble_activate_a_boot_under_a_forged_root(
        self, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The whole way through files, as people apart from each other would go it."""
        key, manifest = stage.boot()
        document, root_sha256 = forged_document(binding_of(manifest))
        monkeypatch.setattr(aws_module, "ROOT_G1_SHA256", root_sha256)
        boot, given = self._files(stage, tmp_path, manifest, document)
        papers = []
        for number, verifier in enumerate(stage.verifiers[:2]):
            paper = tmp_path / f"signed{number}.json"
            said = run("judge", boot, *given, "--key", key_file(tmp_path, verifier), "--out", paper)
            assert said.exit_code == 0, said.output
            assert "allowed from" in said.output
            assert f"0x{parse(document).payload_digest.hex()}" in said.output
            papers.append(paper)
        assert papers[0].read_text() != papers[1].read_text()
        where = given[:4]
        shown = run("evidence", *papers, *where)
        assert len(json.loads(shown.output)["evidence"]) == 2 + 2 * 65 * THRESHOLD

        alone = run("activate", papers[0], *where, "--key", key_file(tmp_path, stage.operator_key))
        assert isinstance(alone.exception, QuorumMissed)
        done = run("activate", *papers, *where, "--key", key_file(tmp_path, stage.operator_key))
        assert done.exit_code == 0, done.output
        epoch = stage.client.active_epoch(stage.log_id)
        assert epoch is not None
        assert epoch.key == key.address

    def test_nothing_is_signed_for_other_code_or_a_simulated_boot(
        self, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The command has no switch for either."""
        _, manifest = stage.boot()
        boot, given = self._files(
            stage, tmp_path, manifest, simulated_document(binding_of(manifest))
        )
        refused = run("judge", boot, *given, "--key", key_file(tmp_path, stage.verifiers[0]))
        assert isinstance(refused.exception, UntrustedChain)

        document, root_sha256 = forged_document(binding_of(manifest))
        monkeypatch.setattr(aws_module, "ROOT_G1_SHA256", root_sha256)
        boot, given = self._files(stage, tmp_path, manifest, document)
        unknown = [*given[:4], "--measurement", "0x" + "00" * 32, *given[-2:]]
        refused = run("judge", boot, *unknown)
        assert isinstance(refused.exception, PinaivuError)
        assert "none that you trust" in str(refused.exception)
        assert "not signed" in run("judge", boot, *given).output

        stranger = replace_key(manifest)
        boot, given = self._files(stage, tmp_path, stranger, document)
        assert isinstance(run("judge", boot, *given).exception, BindingMismatch)

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ('{"pending":null}', "holds no pending boot"),
            ("[]", "holds no pending boot"),
            ('{"pending":{"document":"zz"}}', "no readable boot"),
            ('{"pending":{"document":"00","manifest":{}}}', "no readable boot"),
        ],
    )
    def test_a_file_without_a_boot_is_said_so(
        self, stage: Stage, tmp_path: Path, content: str, why: str
    ) -> None:
        """An active log's answer has nothing to judge."""
        boot, given = self._files(stage, tmp_path, stage.boot()[1], b"")
        boot.write_text(content)
        refused = run("judge", boot, *given)
        assert isinstance(refused.exception, PinaivuError)
        assert why in str(refused.exception)

    def test_the_members_are_shown(self, stage: Stage, tmp_path: Path) -> None:
        """Who may sign, and how many must."""
        _, given = self._files(stage, tmp_path, stage.boot()[1], b"")
        shown = run("members", *given[:4]).output
        assert "2 of 3 in force" in shown

    @staticmethod
    def _files(
        stage: Stage, folder: Path, manifest: Manifest, document: bytes
    ) -> tuple[Path, list[str | Path]]:
        """What a verifier has on disk: the log's answer, the options that name everything else."""
        boot, deployment = folder / "boot.json", folder / "deployment.json"
        parameters = folder / "parameters.json"
        pending = {
            "manifest": manifest.to_json(),
            "parameters": stage.parameters.to_json(),
            "document": document.hex(),
        }
        boot.write_text(json.dumps({"pending": pending}))
        parameters.write_bytes(stage.parameters.to_jcs())
        stage.client.deployment.save(deployment)
        given: list[str | Path] = ["--rpc", stage.rpc.endpoint, "--deployment", deployment]
        trust: list[str | Path] = ["--measurement", f"0x{FORGED_MEASUREMENT.hex()}"]
        return boot, [*given, *trust, "--parameters", parameters]


def replace_key(manifest: Manifest) -> Manifest:
    """The same manifest for another signing key, which its document does not name."""
    fields = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
    return Manifest(**{**fields, "signing_key": new_key().compressed})


def forged_document(binding: Binding) -> tuple[bytes, bytes]:
    """A document of Nitro's shape made now, and the digest of the root it was forged under."""
    now = datetime.now(UTC)
    begin, end = now - timedelta(hours=1), now + timedelta(hours=2)
    chain = tuple(replace(spec, begin=begin, end=end) for spec in GOOD_CHAIN)
    return forged(
        chain,
        timestamp=now_ms(),
        public_key=binding.public_key,
        user_data=binding.user_data,
        nonce=binding.nonce,
    )


def key_file(folder: Path, key: SecretKey) -> Path:
    path = folder / f"{key.address.hex()}.key"
    path.write_text(key.secret.hex())
    path.chmod(0o600)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["verdict", *map(str, arguments)])
