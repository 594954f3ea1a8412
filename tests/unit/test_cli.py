"""The command line's exit codes and usage errors, as a shell sees them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pinaivu.chain.deployment import Deployment
from pinaivu.cli.place import parse_tokens, tokens
from pinaivu.encoding import to_hex
from pinaivu.testing.scenarios import SCENARIOS
from tests.unit.test_verify_books import CROWD, crowd
from tests.unit.verify_support import network


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pinaivu", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_a_missing_network_is_said_with_what_to_run(tmp_path: Path) -> None:
    done = run("wallet", "balance", cwd=tmp_path)
    assert done.returncode == 2
    assert "run `pinaivu up` first" in done.stderr


@pytest.mark.parametrize("arguments", [("nonsense",), ("verify",), ("wallet", "deposit")])
def test_wrong_usage_exits_3(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 3
    assert "Usage: " in done.stderr


@pytest.mark.parametrize(
    ("units", "shown"), [(0, "0.000000"), (1, "0.000001"), (1_500_000, "1.500000")]
)
def test_amounts_come_back_whole(units: int, shown: str) -> None:
    assert tokens(units) == shown
    assert parse_tokens(shown) == units


@pytest.mark.parametrize("text", ["", "-1", "1.0000001", "1e3", ".5", "٣"])
def test_what_is_no_amount_is_a_usage_error(text: str) -> None:
    with pytest.raises(Exception, match="no amount of tokens"):
        parse_tokens(text)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a correct bundle and the deployment it is of."""
    folder, made_up = tmp_path_factory.mktemp("bundle"), network()
    (folder / "good.pnv").write_bytes(made_up.make(SCENARIOS["live"]).raw)
    addresses = {
        name: made_up.domain.settlement
        for name in Deployment.__struct_fields__
        if name not in {"chain_id", "block", "holders"}
    }
    deployment = Deployment(chain_id=made_up.domain.chain_id, block=0, **addresses)  # type: ignore[arg-type]
    deployment.save(folder / "deployment.json")
    return folder


VERIFY = ("verify", "--deployment", "deployment.json", "--offline")


def test_a_bundle_without_a_chain_is_incomplete(bundle: Path) -> None:
    done = run(*VERIFY, "good.pnv", cwd=bundle)
    assert done.returncode == 2, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == lines[-1] == "SIMULATED, not proven"


def test_a_damaged_bundle_is_refuted(bundle: Path) -> None:
    raw = bytearray((bundle / "good.pnv").read_bytes())
    raw[-1] ^= 1
    (bundle / "bad.pnv").write_bytes(raw)
    assert run(*VERIFY, "bad.pnv", cwd=bundle).returncode == 1


def test_what_is_neither_file_nor_id_is_wrong_usage(bundle: Path) -> None:
    done = run(*VERIFY, "no-such-thing", cwd=bundle)
    assert done.returncode == 3
    assert "neither a file nor a request id" in done.stderr


NODE = "0x" + "07" * 20


def test_a_node_is_told_how_it_did(bundle: Path) -> None:
    """Beside the report, whose exit code it doesn't change."""
    made_up = network()
    address = to_hex(made_up.parties.nodes[1].key.address)
    done = run(*VERIFY, "good.pnv", "--node", address, cwd=bundle)
    assert done.returncode == 2, done.stderr
    assert "place 2 of 3, not awarded" in done.stdout
    as_json = run(*VERIFY, "good.pnv", "--node", address, "--json", cwd=bundle)
    assert json.loads(as_json.stdout)["node"]["place"] == 2
    stranger = run(*VERIFY, "good.pnv", "--node", NODE, cwd=bundle)
    assert "not in the book of this auction" in stranger.stdout
    assert run(*VERIFY, "good.pnv", "--node", "0x12", cwd=bundle).returncode == 3


def test_a_large_book_is_given_as_a_file(bundle: Path) -> None:
    """Without it V7 says where it is, and nothing is known of the node."""
    made = crowd().made
    (bundle / "large.pnv").write_bytes(made.raw)
    (bundle / "book.json").write_text(json.dumps(made.copies.book))
    node = to_hex(crowd().factory.parties.nodes[-1].key.address)
    alone = run(*VERIFY, "large.pnv", "--node", node, cwd=bundle)
    assert alone.stdout.count("needs the book's rows (/books/0x") == 2
    whole = run(*VERIFY, "large.pnv", "--node", node, "--book", "book.json", cwd=bundle)
    assert f"place {CROWD} of {CROWD}" in whole.stdout
    assert "needs the book" not in whole.stdout
