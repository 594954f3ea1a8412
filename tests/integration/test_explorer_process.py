"""The explorer as processes: ready by its health page, one end for both, errors in words."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from pinaivu.chain.deployment import Deployment
from pinaivu.loopback import free_port
from pinaivu.store.database import open_database
from pinaivu.store.explorer import ProgressRow

PATIENCE_S = 60.0


def until(what: str, look: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < end, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose log and chain nobody serves."""
    names = ("token", "access_manager", "settlement", "receipt_log", "enclave_registry")
    more = ("node_registry", "objective_faults", "gateway_registry", "model_registry")
    addresses = {name: bytes([number]) * 20 for number, name in enumerate(names + more, 1)}
    Deployment(chain_id=31_337, block=1, **addresses).save(  # type: ignore[arg-type]
        tmp_path / "deployment.json"
    )
    path = tmp_path / "explorer.json"
    document = {
        "log_url": f"http://127.0.0.1:{free_port()}",
        "rpc": f"http://127.0.0.1:{free_port()}",
        "deployment": str(tmp_path / "deployment.json"),
        "log_id": "0x" + "11" * 32,
        "database": f"sqlite:///{tmp_path}/explorer.db",
        "port": free_port(),
    }
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def explorer(config: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "explorer", "--config", str(config)]
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{json.loads(config.read_text())['port']}/_stcore/health"
    try:
        until("the explorer is up", lambda: _healthy(url))
        yield process
    finally:
        process.kill()
        process.wait()


def _healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).text == "ok"
    except httpx.HTTPError:
        return False


def _indexers(config: Path) -> list[int]:
    """The indexer processes of this configuration."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"explorer.indexer" in words and os.fsencode(config) in words:
            found.append(int(process.name))
    return found


def test_pages_are_up_while_log_and_chain_are_not(
    config: Path, explorer: "subprocess.Popen[bytes]"
) -> None:
    """The indexer says what it can't read; its faults are in the database."""
    assert explorer.poll() is None
    database = open_database(json.loads(config.read_text())["database"], "explorer")

    def faults() -> bool:
        with database.read() as session:
            rows = [session.get(ProgressRow, task) for task in ("log", "chain")]
        return all(row is not None and row.fault and not row.refuted for row in rows)

    until("both faults are written down", faults)
    database.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_indexer_ends_with_the_pages(
    config: Path, explorer: "subprocess.Popen[bytes]", number: signal.Signals
) -> None:
    until("the indexer runs", lambda: len(_indexers(config)) == 1)
    explorer.send_signal(number)
    code = explorer.wait(30)
    until("the indexer has ended", lambda: not _indexers(config))
    assert code == (0 if number != signal.SIGKILL else -signal.SIGKILL)


def test_an_indexer_that_dies_is_started_again(
    config: Path, explorer: "subprocess.Popen[bytes]"
) -> None:
    assert explorer.poll() is None
    until("the indexer runs", lambda: len(_indexers(config)) == 1)
    (first,) = _indexers(config)
    os.kill(first, signal.SIGKILL)
    until("another one runs", lambda: bool(set(_indexers(config)) - {first}))


@pytest.mark.parametrize("module", ["explorer", "explorer.indexer"])
def test_a_wrong_configuration_ends_at_once_with_the_reason(tmp_path: Path, module: str) -> None:
    path = tmp_path / "none.json"
    command = [sys.executable, "-m", module, "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"explorer: the configuration {path} can't be read")
