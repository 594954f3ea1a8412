"""`pinaivu omitted` over files, as a shell sees it; the log and its auctions are made up."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pinaivu.auction.omitted import left_out
from pinaivu.auction.replay import MOST_ROWS_INSIDE
from pinaivu.bundles import pack
from pinaivu.chain.deployment import Deployment
from pinaivu.encoding import jcs
from pinaivu.keys import SecretKey, checksum
from pinaivu.testing.bundles import BundleFactory, Made
from pinaivu.testing.lies import TRUTH, Lies
from pinaivu.testing.scenarios import Scenario
from pinaivu.typed_data import Signed
from pinaivu.verify.contents import read_contents
from pinaivu.verify.rerun import rerun
from tests.unit.verify_support import attest, network

LIE = Lies(book=lambda book: book[1:])
"""A coordinator that forgets the first node's offer."""


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    options = ("--deployment", "deployment.json")
    command = [sys.executable, "-m", "pinaivu", "omitted", *options, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def fill(folder: Path, factory: BundleFactory, nodes: int) -> dict[str, Made]:
    """Three auctions in a row, the last one's book a lie; and one of the next epoch."""
    scenario = Scenario(nodes=nodes)
    made = {
        name: factory.bundle(factory.serve(scenario, lies))
        for name, lies in (("first", TRUTH), ("second", TRUTH), ("lie", LIE))
    }
    factory.start_epoch()
    made["next"] = factory.bundle(factory.serve(scenario))
    for name, bundle in made.items():
        (folder / f"{name}.pnv").write_bytes(bundle.raw)
        (folder / f"{name}.book").write_bytes(jcs(bundle.copies.book or {}))
    addresses: dict[str, Any] = {
        name: factory.domain.settlement
        for name in Deployment.__struct_fields__
        if name not in {"chain_id", "block", "holders"}
    }
    deployment = Deployment(chain_id=factory.domain.chain_id, block=0, **addresses)
    deployment.save(folder / "deployment.json")
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles, and what the forgotten node and a stranger have signed since."""
    folder, factory = tmp_path_factory.mktemp("omitted"), network()
    made = fill(folder, factory, nodes=3)
    first, lie = (
        rerun(read_contents(made[name].document), factory.domain)[0] for name in ("first", "lie")
    )
    (offer,) = left_out(first, lie)
    gone = replace(offer, slots=0, sequence=offer.sequence + 1)
    key = factory.parties.nodes[0].key
    for name, by in (("withdrawal", key), ("forged", SecretKey(b"\x07" * 32))):
        (folder / f"{name}.json").write_bytes(jcs(Signed.by(by, factory.domain, gone).to_json()))
    receipt = made["second"].served.receipt.message
    forged = Signed.by(SecretKey(b"\x07" * 32), factory.domain, receipt).to_json()
    (folder / "forged.pnv").write_bytes(pack(made["second"].document | {"receipt": forged}))
    (folder / "node").write_text(checksum(offer.node))
    return folder


def test_two_honest_books(folder: Path) -> None:
    done = run(folder, "first.pnv", "second.pnv")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("0 of the earlier offers")


def test_an_offer_that_was_left_out_is_named_and_exit_1(folder: Path) -> None:
    """Another's word excuses nothing."""
    for more in ((), ("--withdrawal", "forged.json")):
        done = run(folder, "first.pnv", "lie.pnv", *more)
        assert done.returncode == 1, done.stderr
        node = (folder / "node").read_text()
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(node))
        assert line.endswith("LEFT OUT")


def test_what_its_node_withdrew_is_not_missing(folder: Path) -> None:
    excuse = ("--withdrawal", "forged.json", "--withdrawal", "withdrawal.json")
    done = run(folder, "first.pnv", "lie.pnv", *excuse, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["whole"]
    assert [entry["withdrawn"] for entry in said["missing"]] == [True]


@pytest.mark.parametrize("pair", [("second.pnv", "first.pnv"), ("first.pnv", "next.pnv")])
def test_auctions_that_say_nothing_about_each_other_are_incomplete(
    folder: Path, pair: tuple[str, str]
) -> None:
    """The later one first, or of another epoch: no success, whatever the books hold."""
    done = run(folder, *pair)
    assert done.returncode == 2
    assert "not of one log, epoch and model" in done.stderr


def test_large_books_are_handed_in_beside(tmp_path: Path) -> None:
    """In any order; without them it is incomplete."""
    fill(tmp_path, BundleFactory(attest=attest, nodes=MOST_ROWS_INSIDE + 4), MOST_ROWS_INSIDE + 4)
    books = ("--book", "lie.book", "--book", "first.book")
    done = run(tmp_path, "first.pnv", "lie.pnv", *books)
    assert done.returncode == 1, done.stderr
    assert "1 of the earlier offers" in done.stdout
    assert run(tmp_path, "first.pnv", "lie.pnv", *books[:2]).returncode == 2


def test_a_receipt_that_its_epoch_did_not_sign_is_refuted(folder: Path) -> None:
    """Anybody could make up an auction that lacks an offer."""
    done = run(folder, "first.pnv", "forged.pnv")
    assert done.returncode == 1
    assert "is signed by" in done.stderr


def test_a_bundle_of_another_chain_is_refuted(folder: Path) -> None:
    deployment = json.loads((folder / "deployment.json").read_text())
    other = folder / "other.json"
    other.write_text(json.dumps(deployment | {"chain_id": 1}))
    done = run(folder, "--deployment", "other.json", "first.pnv", "second.pnv")
    assert done.returncode == 1
    assert "refuted" in done.stderr


def test_what_is_no_target_is_a_usage_error(folder: Path) -> None:
    done = run(folder, "first.pnv", "nonsense", "--log-url", "http://127.0.0.1:1")
    assert done.returncode == 3
