"""Boot as a process of its own, with the SIMULATED module: handover, supervision, and deaths."""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from enclave.device import NSM_DEVICE
from pinaivu.attestation import Live, UntrustedChain, binding_of, verify
from pinaivu.attestation.simulated import SIMULATED_MEASUREMENT, verify_simulated
from pinaivu.encoding import from_hex, h
from pinaivu.keys import address_of_point, point_of_compressed, recover
from pinaivu.manifest import Manifest, Parameters, local_development_parameters

REPOSITORY = Path(__file__).parents[2]
CHILD = REPOSITORY / "tests" / "integration" / "enclave_child.py"
CHAIN_ID = 31337
BLOCK_HASH = "0x" + "ab" * 32
CONTRACTS = {
    name: f"0x{number:040x}"
    for number, name in enumerate(
        ("settlement", "receipt_log", "enclave_registry", "node_registry", "model_registry"), 1
    )
}
WAIT_SECONDS = 30

pytestmark = pytest.mark.filterwarnings(
    "ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"
)


class FakeChainServer(BaseHTTPRequestHandler):
    """Answers the three calls boot makes, about a chain of one block."""

    ANSWERS = {  # noqa: RUF012 - read only
        "eth_chainId": hex(CHAIN_ID),
        "eth_blockNumber": "0x1",
        "eth_getBlockByNumber": {"hash": BLOCK_HASH},
    }

    def do_POST(self) -> None:
        """Answer one call."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps({"result": self.ANSWERS[asked["method"]]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def chain_url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), FakeChainServer)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Boot:
    """One boot process."""

    process: "subprocess.Popen[str]"

    def child(self) -> dict[str, Any]:
        """What the coordinator said."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return dict(json.loads(line))

    def end(self) -> tuple[int, str]:
        """Exit code and messages, once boot has ended."""
        _, errors = self.process.communicate(timeout=WAIT_SECONDS)
        return self.process.returncode, errors


Start = Callable[..., Boot]


@pytest.fixture
def start(tmp_path: Path, chain_url: str) -> Iterator[Start]:
    """Start boots in an empty directory; whatever is left is killed at the end."""
    parameters = tmp_path / "parameters.json"
    parameters.write_bytes(local_development_parameters(chain_url).to_jcs())
    started = list[subprocess.Popen[str]]()

    def begin(
        *child: str,
        module: str = "enclave.simulator",
        extra: tuple[str, ...] = (),
        command: tuple[str, ...] = (sys.executable, str(CHILD)),
        env: dict[str, str] | None = None,
        chain_id: int = CHAIN_ID,
    ) -> Boot:
        options = [
            *("--parameters", str(parameters)),
            *("--chain-id", str(chain_id)),
            *("--contracts", json.dumps(CONTRACTS)),
            *("--log-id", "0x" + "cd" * 32),
            *extra,
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", module, *options, "--", *command, *child],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})},
        )
        started.append(process)
        return Boot(process)

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@contextmanager
def watched(pid: int) -> Iterator[int]:
    """A descriptor that becomes readable when that process has ended; at the end it has to."""
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        with suppress(ProcessLookupError):  # or a survivor would hold the pipes of its boot open
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        os.close(fd)


def has_ended(fd: int) -> bool:
    return bool(select.select([fd], [], [], WAIT_SECONDS)[0])


def signer(manifest_key: bytes) -> bytes:
    return address_of_point(point_of_compressed(manifest_key))


def test_the_coordinator_holds_the_keys_that_the_document_attests(start: Start) -> None:
    boot = start("prove")
    child = boot.child()
    assert boot.end()[0] == 0

    manifest = Manifest.from_json(child["manifest"])
    challenge = h(b"challenge")
    assert recover(challenge, from_hex(child["signature"])) == signer(manifest.signing_key)
    assert recover(challenge, from_hex(child["peer_signature"])) == signer(manifest.peer_key)
    assert manifest.block.hash == from_hex(BLOCK_HASH)
    assert manifest.log_id == b"\xcd" * 32
    assert manifest.settlement == from_hex(CONTRACTS["settlement"])
    assert manifest.parameters_digest == Parameters.from_json(child["parameters"]).digest()

    document = from_hex(child["document"])
    now = Live(now_ms=time.time_ns() // 1_000_000)
    attestation = verify_simulated(document, time=now, binding=binding_of(manifest))
    assert attestation.measurement == SIMULATED_MEASUREMENT
    with pytest.raises(UntrustedChain, match="SIMULATED"):
        verify(document, time=now, binding=binding_of(manifest))


def test_secrets_are_new_in_every_boot_and_stand_nowhere_else(start: Start, tmp_path: Path) -> None:
    """Not in arguments or environment of either process, not in a file, not in a message."""
    before = set(tmp_path.iterdir())
    seen = set[str]()
    for _ in range(2):
        boot = start("prove", "wait")
        child = boot.child()
        places = [
            Path(f"/proc/{pid}/{name}").read_text("utf-8", "replace")
            for pid in (child["pid"], child["boot_pid"])
            for name in ("cmdline", "environ")
        ]
        boot.process.terminate()
        places.append(boot.end()[1])
        assert "measurement" in places[-1]
        assert not [s for s in child["secrets"] if any(s[2:] in place for place in places)]
        seen |= set(child["secrets"])
    assert len(seen) == 6
    assert set(tmp_path.iterdir()) == before


def test_the_coordinator_inherits_one_pipe_no_blocked_signal_and_no_core_dumps(
    start: Start,
) -> None:
    """Even where whoever starts boot allows core dumps."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    if before[1] == 0:
        pytest.skip("core dumps can't be allowed here, so forbidding them shows nothing")
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        boot = start("prove")
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    child = boot.child()
    assert len(child["descriptors"]) == 1  # the directory being listed; the pipe is read and closed
    assert child["blocked_signals"] == []
    assert child["core_limit"] == 0


@pytest.mark.parametrize("code", [0, 7])
def test_boot_ends_with_the_coordinators_code(start: Start, code: int) -> None:
    assert start("exit", str(code)).end()[0] == code


def test_a_coordinator_that_never_reads_its_pipe_does_not_hold_boot_up(start: Start) -> None:
    assert start("ignore").end()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_coordinator(start: Start, number: signal.Signals) -> None:
    boot = start("wait")
    boot.child()
    boot.process.send_signal(number)
    assert boot.end()[0] == 128 + number


def test_the_coordinator_may_end_in_its_own_way_on_sigterm(start: Start) -> None:
    boot = start("obey", "3")
    boot.child()
    boot.process.terminate()
    assert boot.end()[0] == 3


def test_the_coordinator_dies_when_boot_is_killed(start: Start) -> None:
    boot = start("wait")
    with watched(boot.child()["pid"]) as coordinator:
        assert not select.select([coordinator], [], [], 0)[0]
        boot.process.kill()
        assert has_ended(coordinator)


def test_boot_ends_when_the_coordinator_is_killed(start: Start) -> None:
    boot = start("wait")
    os.kill(boot.child()["pid"], signal.SIGKILL)
    assert boot.end()[0] == 128 + signal.SIGKILL


def test_every_message_of_the_simulators_boot_says_so(start: Start) -> None:
    _, errors = start("exit", "0").end()
    assert errors
    assert all("SIMULATED" in line for line in errors.splitlines())


def test_another_chain_than_expected_is_a_misconfiguration(start: Start) -> None:
    code, errors = start("prove", chain_id=1).end()
    assert code == 78
    assert "--chain-id" in errors


def test_no_chain_is_worth_another_try(start: Start) -> None:
    code, errors = start("prove", extra=("--rpc", "http://127.0.0.1:9")).end()
    assert code == 75
    assert "http://127.0.0.1:9" in errors


def test_a_command_that_is_none_is_a_misconfiguration(start: Start) -> None:
    code, errors = start(command=("no-such-coordinator",)).end()
    assert code == 78
    assert "no-such-coordinator" in errors


@pytest.mark.skipif(NSM_DEVICE.exists(), reason="this machine has a real NSM")
@pytest.mark.parametrize(
    "env",
    [{}, {"PINAIVU_SIMULATOR": "1", "NSM": "simulated", "ENCLAVE_SIMULATED": "true"}],
    ids=["plain", "wishful environment"],
)
def test_production_boot_opens_the_device_or_ends(start: Start, env: dict[str, str]) -> None:
    code, errors = start("prove", module="enclave.boot", env=env).end()
    assert code == 78
    assert "/dev/nsm" in errors
