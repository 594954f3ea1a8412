"""The share of jobs that goes to newcomers, with the parameters of a local network."""

import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest

from pinaivu.bundles import unpack
from pinaivu.chain.facts import ContractFacts
from pinaivu.cli.fetched import leaf_lines
from pinaivu.codes import Clearing
from pinaivu.messages import Award
from pinaivu.typed_data import signed_from_bytes
from pinaivu.verify import Verifier, development
from pinaivu.verify.contents import read_contents
from tests.e2e.stage import Stage, request_id_of

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chain,
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"),
]

_SHARE_PPM = 20_000
_MOST = 600
"""Requests until an exploration job is sure, but for six chances in a million."""


def _ask_until_explored(stage: Stage) -> tuple[str, Award]:
    for _ in range(_MOST):
        request_id = request_id_of(stage.ask("Yes or no?", max_tokens=1))
        query = "SELECT award FROM attempt WHERE job_id = ? AND rank = 1"
        ((raw,),) = stage.gateway_rows(query, UUID(request_id).bytes)
        award = signed_from_bytes(Award, raw).message
        drawn = int.from_bytes(sha256(b"explore" + award.nonce).digest()[:8])
        explores = drawn * 10**6 < _SHARE_PPM << 64
        assert explores == (award.clearing == Clearing.EXPLORATION)
        if explores:
            return request_id, award
    pytest.fail(f"no exploration job among {_MOST}")


def test_a_newcomer_gets_a_job_by_the_hash_and_it_is_proven(stage: Stage) -> None:
    """Award and receipt say exploration, and V7 reruns it from the transcript."""
    request_id, award = _ask_until_explored(stage)
    receipt = stage.await_final(request_id)
    segment = receipt.segments[0]
    assert (segment.node, segment.clearing) == (award.node, Clearing.EXPLORATION)
    raw = stage.get(f"/v1/receipts/{request_id}/bundle").content
    client = stage.network.chain.client
    policy = development(client.deployment.domain).without_copies()
    report = Verifier(policy, ContractFacts(client)).verify(raw)
    assert report.exit_code == 0, report.to_text()


def test_a_stranger_recomputes_every_standing(stage: Stage, tmp_path: Path) -> None:
    """From the public log: every row of the newest auction; receipts in another order don't do."""
    stage.await_receipt(request_id_of(stage.ask("Yes or no?", max_tokens=8)))
    answer = stage.ask("Yes or no?", max_tokens=8)
    receipt = stage.await_final(request_id_of(answer))
    done = _standings(stage, request_id_of(answer))
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.splitlines()[-1] == f"{receipt.bids} rows, 0 of them differ"
    assert _standings(stage).returncode == 0  # the newest one

    bundle = stage.get(f"/v1/receipts/{request_id_of(answer)}/bundle").content
    (tmp_path / "bundle.pnv").write_bytes(bundle)
    size = read_contents(unpack(bundle)).log.checkpoint.message.size
    lines = list(leaf_lines(stage.network.log_url, size))
    for name, order in (("log", lines), ("other", [lines[0], *reversed(lines[1:])])):
        (tmp_path / name).write_bytes(b"\n".join(order))
        options = ("--receipts", str(tmp_path / name))
        done = _standings(stage, str(tmp_path / "bundle.pnv"), *options, "--json")
        assert done.returncode == (0 if name == "log" else 1)


def _standings(stage: Stage, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pinaivu", "standings", *arguments]
    command += ["--network", str(stage.network.folder.root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
