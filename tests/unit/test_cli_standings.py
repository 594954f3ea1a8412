"""`pinaivu standings` over files, as a shell sees it; the log and its auctions are made up."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pinaivu.bundles import unpack
from pinaivu.chain.deployment import Deployment
from pinaivu.encoding import jcs
from pinaivu.keys import checksum
from pinaivu.testing.scenarios import SCENARIOS
from pinaivu.verify.contents import read_contents
from pinaivu.verify.rerun import rerun
from tests.unit.verify_support import network


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    options = ("--deployment", "deployment.json")
    command = [sys.executable, "-m", "pinaivu", "standings", *options, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, the log's receipts in two files, and the deployment they are of."""
    folder, made_up = tmp_path_factory.mktemp("standings"), network()
    served = made_up.make(SCENARIOS["live"])
    (folder / "good.pnv").write_bytes(served.raw)
    lines = [
        jcs(leaf.to_json() | {"type": type(leaf.message).__name__}) + b"\n"
        for leaf in made_up.ledger.leaves
    ]
    (folder / "0.jsonl").write_bytes(b"".join(lines[:1]))
    (folder / "1.jsonl").write_bytes(b"".join(lines[1:]))
    addresses: dict[str, Any] = {
        name: made_up.domain.settlement
        for name in Deployment.__struct_fields__
        if name not in {"chain_id", "block", "holders"}
    }
    Deployment(chain_id=made_up.domain.chain_id, block=0, **addresses).save(
        folder / "deployment.json"
    )
    return folder


FILES = ("--receipts", "0.jsonl", "--receipts", "1.jsonl")


def test_rows_that_no_receipts_give_are_named_and_exit_1(folder: Path) -> None:
    """The made-up book says that nobody is a newcomer, before anybody has served anything."""
    contents = read_contents(unpack((folder / "good.pnv").read_bytes()))
    replay, _ = rerun(contents, contents.chain)
    done = run(folder, "good.pnv", *FILES)
    assert done.returncode == 1, done.stderr
    for entrant in replay.entrants:
        name = checksum(entrant.row.node)
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(name))
        assert line.endswith("DIFFERS")
    rows = len(replay.entrants)
    assert done.stdout.splitlines()[-1] == f"{rows} rows, {rows} of them differ"


def test_json_holds_both_sides(folder: Path) -> None:
    said = json.loads(run(folder, "good.pnv", *FILES, "--json").stdout)
    assert not said["agrees"]
    for node in said["nodes"]:
        assert not node["same"]
        assert (node["said"]["newcomer"], node["due"]["newcomer"]) == (False, True)


def test_without_all_leaves_it_is_incomplete(folder: Path) -> None:
    done = run(folder, "good.pnv", "--receipts", "0.jsonl")
    assert done.returncode == 2
    assert "leaves of the log, got 1" in done.stderr


def test_other_receipts_than_the_logs_are_refuted(folder: Path) -> None:
    """One sum changed on one receipt: the root is another one."""
    lines = (folder / "1.jsonl").read_bytes().splitlines()
    number = next(n for n, line in enumerate(lines) if b'"type":"Receipt"' in line)
    leaf = json.loads(lines[number])
    leaf["message"]["closedMs"] = str(int(leaf["message"]["closedMs"]) + 1)
    lines[number] = jcs(leaf)
    (folder / "2.jsonl").write_bytes(b"\n".join(lines))
    done = run(folder, "good.pnv", "--receipts", "0.jsonl", "--receipts", "2.jsonl")
    assert done.returncode == 1
    assert "the receipts are not the log's" in done.stderr


def test_what_is_no_target_is_a_usage_error(folder: Path) -> None:
    assert run(folder, "nonsense", "--log-url", "http://127.0.0.1:1").returncode == 3
