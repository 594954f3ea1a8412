"""The operator's every process is killed; a stranger settles what was signed, from copies.

The copies are what somebody downloaded before, or what a node or gateway was handed and kept.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from pinaivu.chain.anvil import fund
from pinaivu.encoding import to_hex
from pinaivu.keyfiles import load_key
from pinaivu.merkle.tiles import tiles_at
from pinaivu.messages import Receipt
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


def _batched(stage: Stage) -> tuple[Receipt, str, int]:
    """A receipt that stands in a signed batch which nobody submits, its request id, and the size.

    The size is how many leaves the newest batch goes up to.
    """
    stage.crash("submitter")
    request_id = request_id_of(stage.ask("Name a colour.", max_tokens=8))
    receipt = stage.await_receipt(request_id)

    def look() -> int | None:
        found = stage.receipt(request_id)
        if found is None or found[1] != "batched":
            return None
        newest = httpx.get(f"{stage.network.log_url}/batches").json()["batches"][-1]
        return int(newest["batch"]["message"]["newSize"])

    return receipt, request_id, until("the receipt is in a signed batch", look)


def _settle_and_pay(stage: Stage, folder: Path, receipt: Receipt, *submission: str) -> None:
    """A stranger with nothing but `folder` and a gas key submits, and pushes the node's credit."""
    network, client = stage.network, stage.network.chain.client
    (served,) = (segment for segment in receipt.segments if segment.amount)
    before = client.node_credits([served.node])[0].lifetime
    gas_key = folder / "gas.key"
    fund(client.rpc, load_key(gas_key, lambda n: b"\x5a" * n).address)
    where = ["--key", str(gas_key), "--rpc", network.chain.process.url]
    where += ["--deployment", str(network.folder.deployment)]
    for arguments in (submission, ("node", "payout", to_hex(served.node))):
        command = [sys.executable, "-m", "pinaivu", *arguments, *where]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    (credit,) = client.node_credits([served.node])
    record = client.node(served.node)
    assert record is not None
    assert credit.lifetime - before == served.amount - served.fee
    assert credit.credit == 0
    assert client.token_balance(record.payout) >= served.amount - served.fee


def _come_back(stage: Stage, request_id: str, total: int) -> None:
    """The operator is there again, and finds the request settled."""
    stage.network.start_coordinator()
    stage.network.start_submitter()
    assert stage.await_final(request_id).total == total
    stage.network.await_market()


def test_a_stranger_settles_while_the_operator_is_dead(stage: Stage, tmp_path: Path) -> None:
    """Credits arrive and the node is paid without coordinator, log server or submitter."""
    receipt, request_id, size = _batched(stage)
    _copy_log(stage, tmp_path, size)
    stage.crash("coordinator")
    _settle_and_pay(stage, tmp_path, receipt, "submit", "batches.json", "--tiles", ".")
    _come_back(stage, request_id, receipt.total)


@pytest.mark.parametrize("party", ["node", "gateway"])
def test_what_a_party_kept_is_enough_when_the_operator_vanished(
    stage: Stage, tmp_path: Path, party: str
) -> None:
    """Nobody downloaded anything: the stranger has the files of one node, or of the gateway.

    Coordinator, log server (one process) and submitter are dead; no tiles, no URL.
    """
    network = stage.network
    receipt, request_id, size = _batched(stage)
    (served,) = (segment for segment in receipt.segments if segment.amount)
    owner = stage.name_of(served.node) if party == "node" else party
    folder = network.folder.root / owner / "batches" / to_hex(network.log_id)

    def newest() -> bool:
        kept = [json.loads(path.read_bytes()) for path in folder.glob("*.json")]
        return any(int(copy["batch"]["message"]["newSize"]) == size for copy in kept)

    until(f"{owner} has kept the batch", newest)
    stage.crash("coordinator")
    shutil.copytree(folder, tmp_path / "batches")
    _settle_and_pay(stage, tmp_path, receipt, "submit", "batches")
    _come_back(stage, request_id, receipt.total)
