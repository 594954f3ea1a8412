"""The operator's every process is killed; a stranger settles what was signed, from copies."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from pinaivu.chain.anvil import fund
from pinaivu.encoding import to_hex
from pinaivu.keyfiles import load_key
from pinaivu.merkle.tiles import tiles_at
from tests.e2e.stage import Stage, request_id_of, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chain,
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"),
]


def _copy_log(stage: Stage, folder: Path, size: int) -> None:
    """What anybody can download while the log is served: its tiles, its batches."""
    for level in range(2):
        for tile in tiles_at(level, size):
            path = folder / tile.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(httpx.get(f"{stage.network.log_url}/{tile.path}").content)
    (folder / "batches.json").write_bytes(httpx.get(f"{stage.network.log_url}/batches").content)


def test_a_stranger_settles_while_the_operator_is_dead(stage: Stage, tmp_path: Path) -> None:
    """Credits arrive and the node is paid without coordinator, log server or submitter."""
    network, client = stage.network, stage.network.chain.client
    stage.crash("submitter")
    request_id = request_id_of(stage.ask("Name a colour.", max_tokens=8))
    receipt = stage.await_receipt(request_id)

    def batched() -> int | None:
        """Leaves up to which the newest batch goes, once it holds our receipt."""
        found = stage.receipt(request_id)
        if found is None or found[1] != "batched":
            return None
        newest = httpx.get(f"{network.log_url}/batches").json()["batches"][-1]
        return int(newest["batch"]["message"]["newSize"])

    size = until("the receipt is in a signed batch", batched)
    _copy_log(stage, tmp_path, size)
    stage.crash("coordinator")
    (served,) = (segment for segment in receipt.segments if segment.amount)
    before = client.node_credits([served.node])[0].lifetime

    gas_key = tmp_path / "gas.key"
    fund(client.rpc, load_key(gas_key, lambda n: b"\x5a" * n).address)
    where = ["--key", str(gas_key), "--rpc", network.chain.process.url]
    where += ["--deployment", str(network.folder.deployment)]
    for arguments in (
        ("submit", "batches.json", "--tiles", "."),
        ("node", "payout", to_hex(served.node)),
    ):
        command = [sys.executable, "-m", "pinaivu", *arguments, *where]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    (credit,) = client.node_credits([served.node])
    record = client.node(served.node)
    assert record is not None
    assert credit.lifetime - before == served.amount - served.fee
    assert credit.credit == 0
    assert client.token_balance(record.payout) >= served.amount - served.fee

    network.start_coordinator()
    network.start_submitter()
    assert stage.await_final(request_id).total == receipt.total
    network.await_market()
