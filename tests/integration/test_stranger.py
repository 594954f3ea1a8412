"""Settling without the operator: a copy of a signed batch, a gas key, an RPC URL, nothing else.

The coordinator doesn't run here at all; `tests/e2e/test_stranger.py` kills a real one.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from msgspec import structs

from pinaivu.batch_copies import BatchCopy
from pinaivu.chain.anvil import AnvilProcess, fund
from pinaivu.chain.records import Anchor
from pinaivu.chain.rpc import HttpRpc
from pinaivu.cli.submit import command
from pinaivu.encoding import to_hex
from pinaivu.errors import PinaivuError
from pinaivu.merkle.tiles import hash_tile, tiles_at
from pinaivu.messages import Batch
from pinaivu.store.batches import BatchFolder
from pinaivu.typed_data import Signed
from tests.integration.chain_network import GENESIS_AGE_S, Network, new_key

pytestmark = pytest.mark.chain

WALLET = b"\x77" * 20


@dataclass
class Stranger:
    """A folder with what a stranger has, and its shell."""

    network: Network
    folder: Path

    def pinaivu(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ours in the folder."""
        shell = [sys.executable, "-m", "pinaivu", *arguments, *self._where()]
        return subprocess.run(
            shell, cwd=self.folder, capture_output=True, text=True, check=False, timeout=60
        )

    def refused(self, *arguments: str) -> str:
        """What a submission that fails on purpose says; in this process, for speed."""
        with chdir(self.folder), pytest.raises(PinaivuError) as raised:
            command.main([*arguments, *self._where()], standalone_mode=False)
        return str(raised.value)

    def _where(self) -> list[str]:
        rpc = self.network.rpc.endpoint
        return ["--rpc", rpc, "--deployment", "deployment.json", "--key", "gas.key"]

    def keep(self, name: str, content: bytes | dict[str, object]) -> None:
        """Put a copy into the folder."""
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (self.folder / name).write_bytes(raw)

    def mirror(self) -> None:
        """Copy the log's tiles, as of now."""
        tree = self.network.tree
        for level in range(2):
            for tile in tiles_at(level, len(tree)):
                path = self.folder / "mirror" / tile.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(hash_tile(tree, tile))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    state = tmp_path_factory.mktemp("stranger") / "state.json"
    genesis_s = int(time.time()) - GENESIS_AGE_S
    with AnvilProcess(state, genesis_s=genesis_s) as anvil, HttpRpc(anvil.url) as rpc:
        yield Network(rpc)


@pytest.fixture
def stranger(network: Network, tmp_path: Path) -> Iterator[Stranger]:
    """On a chain of its own: what a test does is undone."""
    point = network.rpc.call("evm_snapshot")
    network.forget()
    key = new_key()
    fund(network.rpc, key.address)
    network.deployment.save(tmp_path / "deployment.json")
    path = tmp_path / "gas.key"
    path.write_text(key.secret.hex())
    path.chmod(0o600)
    yield Stranger(network, tmp_path)
    assert network.rpc.call("evm_revert", point)


def work(network: Network, receipts: int = 3, amount: int = 1_000_000) -> tuple[bytes, bytes]:
    """A payer and a node, some jobs between them; their addresses."""
    payer, node = network.payer(10_000_000).address, network.node(WALLET).address
    for _ in range(receipts):
        network.serve(payer, node, amount, 3 * amount // 100)
    return payer, node


def entry(network: Network, signed: Signed[Batch]) -> dict[str, object]:
    """A batch as `/batches` shows it."""
    said = signed.message
    proof = network.tree.consistency_proof(said.prev_size, said.new_size)
    hashes = [to_hex(value) for value in proof]
    return {"batch": signed.to_json(), "consistency": hashes, "state": "batched"}


def next_batch(network: Network) -> Signed[Batch]:
    """Everything not settled, signed."""
    return network.batch(network.client.anchor(network.log_id))


def test_a_stranger_settles_and_the_node_is_paid(stranger: Stranger) -> None:
    """The command says what was settled and what it cost; credit and money arrive."""
    network = stranger.network
    payer, node = work(network)
    stranger.keep("batches.json", {"batches": [entry(network, next_batch(network))]})
    done = stranger.pinaivu("submit", "batches.json")
    assert done.returncode == 0, done.stderr
    for line in (
        "settled     batch 1 of log 0x",
        "leaves      0 to 2",
        "debits      3.000000 from 1 payers",
        "credits     2.910000 to 1 nodes",
        "fees        0.090000",
        "cost        ",
    ):
        assert line in done.stdout
    assert network.client.node_credits([node])[0].credit == 2_910_000
    assert network.client.payer(payer).balance == 7_000_000
    before = network.client.token_balance(WALLET)
    assert stranger.pinaivu("node", "payout", to_hex(node)).returncode == 0
    assert network.client.token_balance(WALLET) - before == 2_910_000


def test_the_wire_form_and_a_mirror_of_the_tiles_are_enough(stranger: Stranger) -> None:
    """The proof is made from copied tiles, some of them fuller than the batch's tree."""
    network = stranger.network
    payer, node = work(network, 300, 1000)
    network.settle(network.admin)
    for _ in range(7):
        network.serve(payer, node, 1000, 0)
    stranger.keep("batch.bin", next_batch(network).to_bytes())
    for _ in range(250):
        network.serve(payer, node, 1000, 0)
    stranger.mirror()
    assert "name the log's --tiles" in stranger.refused("batch.bin")
    checked = stranger.pinaivu("submit", "batch.bin", "--tiles", "mirror", "--check")
    assert "batch 2 can be settled now" in checked.stdout
    assert network.client.anchor(network.log_id).sequence == 1
    done = stranger.pinaivu("submit", "batch.bin", "--tiles", "mirror")
    assert done.returncode == 0, done.stderr
    assert network.client.anchor(network.log_id).new_size == 307


def test_several_batches_are_settled_in_order_and_settled_ones_passed_over(
    stranger: Stranger,
) -> None:
    network = stranger.network
    payer, node = work(network)
    first = entry(network, next_batch(network))
    network.settle(network.admin)
    network.serve(payer, node, 1000, 0)
    second = entry(network, next_batch(network))
    stranger.keep("batches.json", {"batches": [second, first]})
    done = stranger.pinaivu("submit", "batches.json")
    assert done.returncode == 0, done.stderr
    assert "batch 2" in done.stdout
    assert "batch 1" not in done.stdout
    said = stranger.refused("batches.json")
    assert "batch 2 is settled: this batch is on chain" in said


def _anchored(network: Network, signed: Signed[Batch]) -> Anchor:
    """What the chain will hold of a batch."""
    said = signed.message
    return Anchor(
        log_id=said.log_id,
        sequence=said.sequence,
        prev_size=said.prev_size,
        new_size=said.new_size,
        new_root=said.new_root,
        batch_digest=signed.digest(network.deployment.domain),
    )


def test_a_folder_of_batches_that_a_party_kept_is_enough(stranger: Stranger) -> None:
    """Files as node and gateway write them, proofs inside; no tiles, no server; in order."""
    network = stranger.network
    kept = BatchFolder(stranger.folder / "batches", network.log_id)
    payer, node = work(network, 4)
    anchors = [network.client.anchor(network.log_id)]
    for sequence in range(1, 12):
        network.serve(payer, node, 1000, 0)
        last = anchors[-1]
        signed = network.batch(last)
        kept.keep(BatchCopy(signed, tuple(network.proof(last))))
        anchors.append(_anchored(network, signed))
        if sequence < 9:
            network.admin.send(network.calls.settle(signed, network.proof(last), last))
    (kept.path / "part").write_bytes(b"cut off in the middle")
    assert network.client.anchor(network.log_id) == anchors[8]
    done = stranger.pinaivu("submit", f"batches/0x{network.log_id.hex()}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("settled     batch") == 3
    assert network.client.anchor(network.log_id).sequence == 11
    assert "there is no batch in it" in stranger.refused("batches")


def _settled_otherwise(stranger: Stranger) -> None:
    network = stranger.network
    work(network)
    stranger.keep("batch.json", entry(network, next_batch(network)))
    network.serve(*work(network, 0), 5, 0)
    network.settle(network.admin)


def _too_early(stranger: Stranger) -> None:
    network = stranger.network
    work(network)
    last = network.client.anchor(network.log_id)
    stranger.keep("batch.json", entry(network, network.batch(last, sequence=3)))


def _another_history(stranger: Stranger) -> None:
    network = stranger.network
    work(network)
    last = network.client.anchor(network.log_id)
    stranger.keep(
        "batch.json", entry(network, network.batch(last, prev_size=1, prev_root=b"\x01" * 32))
    )


def _ended_epoch(stranger: Stranger) -> None:
    network = stranger.network
    work(network)
    stranger.keep("batch.json", entry(network, next_batch(network)))
    network.activate(new_key())


def _revoked_epoch(stranger: Stranger) -> None:
    network = stranger.network
    work(network)
    stranger.keep("batch.json", entry(network, next_batch(network)))
    network.admin.send(network.calls.revoke_own_epoch(network.log_id, 1))


def _altered(stranger: Stranger) -> None:
    network = stranger.network
    work(network)
    signed = Signed.by(new_key(), network.deployment.domain, next_batch(network).message)
    stranger.keep("batch.json", entry(network, signed))


def _wrong_proof(stranger: Stranger) -> None:
    network = stranger.network
    payer, node = work(network)
    network.settle(network.admin)
    network.serve(payer, node, 1000, 0)
    published = entry(network, next_batch(network))
    stranger.keep("batch.json", published | {"consistency": ["0x" + "00" * 32]})


def _paused(stranger: Stranger) -> None:
    network = stranger.network
    work(network)
    stranger.keep("batch.json", entry(network, next_batch(network)))
    network.admin.send(network.calls.pause(60))


def _over_the_limit(stranger: Stranger) -> None:
    network = stranger.network
    work(network, 9)
    stranger.keep("batch.json", entry(network, next_batch(network)))


def _damaged(stranger: Stranger) -> None:
    stranger.keep("batch.json", b'{"batch": {"message": 7}}')


def _of_two_logs(stranger: Stranger) -> None:
    network = stranger.network
    work(network)
    first = next_batch(network)
    foreign = structs.replace(first.message, log_id=b"\x0f" * 32, sequence=2)
    other = Signed.by(new_key(), network.deployment.domain, foreign)
    stranger.keep("batch.json", {"batches": [entry(network, other), entry(network, first)]})


def _proof_of_another_shape(stranger: Stranger) -> None:
    stranger.keep("batch.json", {"batch": {}, "consistency": 5})


def _empty(stranger: Stranger) -> None:
    stranger.keep("batch.json", {"batches": []})


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (_settled_otherwise, "another batch of this number is on chain"),
        (_too_early, "get and submit 1 to 2 before it"),
        (_another_history, "the chain will never take it"),
        (_ended_epoch, "the active one is 2; its key must sign these leaves anew"),
        (_revoked_epoch, "has no valid epoch now"),
        (_altered, "get an unaltered copy"),
        (_wrong_proof, "the consistency proof does not fit batch 2"),
        (_paused, "Settlement.settle reverted: SettlementPaused(until="),
        (_over_the_limit, "Settlement.settle reverted: DebitLimitExceeded(logId="),
        (_damaged, "a signed Batch is exactly message and signature"),
        (_of_two_logs, "it has batches of 2 logs; submit those of one at a time"),
        (_proof_of_another_shape, "a consistency proof is a list of hashes"),
        (_empty, "there is no batch in it"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_what_cannot_be_settled_is_said_before_gas_is_spent(
    stranger: Stranger, case: Callable[[Stranger], None], says: str
) -> None:
    case(stranger)
    blocks = stranger.network.client.head()
    assert says in stranger.refused("batch.json")
    assert stranger.network.client.head() == blocks


def test_no_answer_from_the_log_server_points_to_copies(stranger: Stranger) -> None:
    said = stranger.refused("http://127.0.0.1:1")
    assert "a file with the batch and --tiles of any copy of the log will do" in said


@dataclass
class LogServer:
    """A log's public server: `pages` in turn, the last one for ever; notes what it was asked."""

    url: str
    pages: list[bytes]
    asked: list[str]


@pytest.fixture
def server() -> Iterator[LogServer]:
    said = LogServer("", [], [])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = said.pages[min(len(said.asked), len(said.pages) - 1)]
            said.asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            with suppress(ConnectionError):  # whoever has enough hangs up
                self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        said.url = f"http://127.0.0.1:{http.server_port}"
        yield said
        http.shutdown()
        thread.join()


def page(*entries: dict[str, object]) -> bytes:
    return json.dumps({"batches": entries}).encode()


def test_a_server_is_asked_for_what_follows_until_it_has_no_more(
    stranger: Stranger, server: LogServer
) -> None:
    """What the chain has is not fetched again after the first page."""
    network = stranger.network
    payer, node = work(network)
    first = entry(network, next_batch(network))
    network.settle(network.admin)
    network.serve(payer, node, 1000, 0)
    network.settle(network.admin)
    network.serve(payer, node, 1000, 0)
    third = entry(network, next_batch(network))
    server.pages = [page(first), page(third), page()]
    done = stranger.pinaivu("submit", server.url)
    assert done.returncode == 0, done.stderr
    assert "settled     batch 3 of log" in done.stdout
    assert server.asked == [f"/batches?after={after}" for after in (0, 2, 3)]


def test_a_server_that_ignores_what_it_is_asked_for_is_left(
    stranger: Stranger, server: LogServer
) -> None:
    """It would give its first page for ever."""
    work(stranger.network)
    server.pages = [page(entry(stranger.network, next_batch(stranger.network)))]
    said = stranger.refused(server.url)
    assert said == f"{server.url} gave batch 1 where one after 1 was due"
    assert len(server.asked) == 2


def test_a_server_that_always_has_more_is_left(
    stranger: Stranger, server: LogServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages and bytes have an end."""
    network = stranger.network
    work(network)
    last = network.client.anchor(network.log_id)
    server.pages = [page(entry(network, network.batch(last, sequence=n))) for n in range(1, 9)]
    monkeypatch.setattr("pinaivu.cli.submit._MOST_PAGES", 5)
    assert stranger.refused(server.url).endswith("has more than 5 pages of batches to settle")
    assert len(server.asked) == 5
    server.asked.clear()
    room = len(server.pages[0]) + 100
    monkeypatch.setattr("pinaivu.cli.submit._MOST_BYTES", room)
    assert "/batches?after=1 sends more than the 100 bytes it may" in stranger.refused(server.url)


def test_what_is_no_url_is_refused(stranger: Stranger) -> None:
    assert "a file with the batch" in stranger.refused("http://[")
