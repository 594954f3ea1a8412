"""The supervised development chain: real anvil processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pinaivu.chain.anvil import AnvilProcess, find_anvil
from pinaivu.chain.errors import AnvilDied, AnvilUnusable, ChainUnavailable
from pinaivu.chain.rpc import HttpRpc
from pinaivu.chain.words import quantity

pytestmark = pytest.mark.chain


@pytest.fixture
def chain(tmp_path: Path) -> AnvilProcess:
    return AnvilProcess(tmp_path / "state.json")


def _height(chain: AnvilProcess) -> int:
    with HttpRpc(chain.url) as rpc:
        return quantity(rpc.call("eth_blockNumber"))


def _hash(chain: AnvilProcess, number: int) -> str:
    with HttpRpc(chain.url) as rpc:
        return str(rpc.call("eth_getBlockByNumber", hex(number), False)["hash"])


def _mine(chain: AnvilProcess, blocks: int) -> None:
    with HttpRpc(chain.url) as rpc:
        rpc.call("anvil_mine", hex(blocks))


def _until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "condition not reached"
        time.sleep(0.02)


def test_blocks_and_hashes_survive_a_stop_and_a_start(chain: AnvilProcess) -> None:
    """The same chain goes on, on the same port."""
    with chain:
        _mine(chain, 5)
        before, port = _hash(chain, 5), chain.port
    assert chain.pid is None
    with chain:
        assert (chain.port, _height(chain), _hash(chain, 5)) == (port, 5, before)


def test_state_survives_sigkill_once_it_was_written(chain: AnvilProcess) -> None:
    """A crash loses nothing that reached the state file."""
    with chain:
        _mine(chain, 4)
        before = _hash(chain, 4)
        seen = chain.state.stat().st_mtime_ns if chain.state.exists() else 0
        _until(lambda: chain.state.exists() and chain.state.stat().st_mtime_ns > seen)
        _until(lambda: b'"number":"0x4"' in chain.state.read_bytes())
        assert chain.pid is not None
        os.kill(chain.pid, signal.SIGKILL)
        _until(lambda: chain.pid is None)
        chain.start()
        assert (_height(chain), _hash(chain, 4)) == (4, before)


def test_a_half_written_state_file_is_replaced_by_the_last_whole_one(chain: AnvilProcess) -> None:
    """Anvil writes in place; what a crash cuts in half is taken from the kept copy."""
    copy = chain.state.with_suffix(".good.json")
    with chain:
        _mine(chain, 3)
        _until(lambda: copy.exists() and b'"number":"0x3"' in copy.read_bytes())
        chain.kill()
    whole = chain.state.read_bytes()
    chain.state.write_bytes(whole[: len(whole) // 2])
    with chain:
        assert _height(chain) == 3


def test_a_damaged_state_without_a_copy_is_named_and_left_alone(chain: AnvilProcess) -> None:
    """Nothing is thrown away silently."""
    chain.state.write_bytes(b'{"block":')
    with pytest.raises(AnvilUnusable, match="damaged"):
        chain.start()
    assert chain.state.read_bytes() == b'{"block":'


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """The error says which port and what to do, and nothing is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        chain = AnvilProcess(tmp_path / "state.json", port=port)
        with pytest.raises(AnvilUnusable, match=f"port {port} .* is in use"):
            chain.start()
        assert chain.pid is None


def test_a_missing_binary_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the tree nor on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AnvilUnusable, match="make setup"):
        find_anvil(tree=tmp_path)
    with pytest.raises(AnvilUnusable, match="no executable"):
        find_anvil(tmp_path / "anvil")


def test_a_program_that_ends_at_once_shows_its_output(tmp_path: Path) -> None:
    """The reason anvil gave reaches the user."""
    fake = tmp_path / "anvil"
    fake.write_text("#!/bin/sh\necho cannot do that; exit 3\n")
    fake.chmod(0o755)
    with pytest.raises(AnvilDied, match="cannot do that"):
        AnvilProcess(tmp_path / "state.json", binary=fake).start()


def test_the_chain_ends_with_its_parent_even_by_sigkill(tmp_path: Path) -> None:
    """No orphan keeps the port, though the starting thread ended long before its process."""
    program = (
        "import sys, threading, time\n"
        "from pathlib import Path\n"
        "from pinaivu.chain.anvil import AnvilProcess\n"
        "chain = AnvilProcess(Path(sys.argv[1]))\n"
        "starter = threading.Thread(target=chain.start)\n"
        "starter.start(); starter.join()\n"
        "print(chain.pid, chain.port, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "state.json")], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid, port = (int(word) for word in parent.stdout.readline().split())
        with HttpRpc(f"http://127.0.0.1:{port}") as rpc:
            assert rpc.call("eth_chainId") == "0x7a69"  # it outlived the thread that started it
            parent.kill()
            parent.wait()
            _until(lambda: not _runs(pid))
            with pytest.raises(ChainUnavailable):
                rpc.call("eth_chainId")


def test_a_transaction_above_the_gas_cap_is_refused(chain: AnvilProcess) -> None:
    """As on a public chain (EIP-7825)."""
    with chain, HttpRpc(chain.url) as rpc:
        sender = rpc.call("eth_accounts")[0]
        with pytest.raises(ChainUnavailable, match="gas_limit"):
            rpc.call("eth_sendTransaction", {"from": sender, "to": sender, "gas": hex(20_000_000)})


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
