"""The matrix: official SDKs against client → gateway → coordinator → node → engine, all real.

Protocol cells run on a scripted engine, which checks the exact body it gets; the columns of
llama.cpp and vLLM on those engines with a small model. `WRITE_PAGES=1` accepts the results as the
page's. vLLM is tried where `PINAIVU_VLLM` is the Python of an environment that has it; elsewhere
its column stays as it is on the page.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from pinaivu.codes import JobKind
from pinaivu.local.folder import MODEL as REAL_MODEL
from pinaivu.messages import Job
from pinaivu.typed_data import signed_from_bytes
from tests.conformance import page, real
from tests.conformance.cases import Case, Seen, all_cases
from tests.conformance.drivers import DRIVERS, by_python
from tests.conformance.stage import VLLM_MODEL, Stage, stage
from tests.e2e.audit import audit

pytestmark = [pytest.mark.e2e, pytest.mark.chain, pytest.mark.engine, pytest.mark.timeout(600)]
CASES: Final = list(all_cases().values())
VLLM: Final = os.environ.get("PINAIVU_VLLM")
REAL: Final = {"llama.cpp": (REAL_MODEL, list(real.llamacpp_rows()))} | (
    {"vLLM": (VLLM_MODEL, list(real.vllm_rows()))} if VLLM else {}
)
_WITHIN_S: Final = 90.0


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One network for the whole matrix."""
    with stage(tmp_path_factory.mktemp("conformance"), VLLM) as made:
        yield made


@pytest.fixture(scope="module")
def seen(network: Stage) -> dict[str, dict[str, Seen]]:
    """What each client saw of every case, by column; and what the real engine gave."""
    calls = [(case.name, case.call, case.request) for case in CASES]
    found = {
        column: drive(network.gateway_url, network.key, calls) for column, drive in DRIVERS.items()
    }
    for column, (model, rows) in REAL.items():
        asked = [(name, call, {"model": model} | body) for name, _, call, body, _ in rows]
        found[column] = by_python(network.gateway_url, network.key, asked)
    return found


@pytest.mark.parametrize("column", DRIVERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_client_sees_what_the_engine_said(
    seen: dict[str, dict[str, Seen]], case: Case, column: str
) -> None:
    """And an error in OpenAI's form, as its SDK's own error, where there was one."""
    case.check(seen[column][case.name])


@pytest.mark.parametrize(
    ("column", "row"),
    [
        pytest.param(column, row, id=f"{column}-{row[0]}")
        for column, (_, rows) in REAL.items()
        for row in rows
    ],
)
def test_a_real_engine_does_what_any_must(
    seen: dict[str, dict[str, Seen]], column: str, row: real.Row
) -> None:
    """With a model of 135 million parameters; or it says by name what it can't do."""
    row[-1](seen[column][row[0]])


@pytest.mark.usefixtures("seen")
def test_the_engine_got_exactly_the_bodies_that_clients_sent(network: Stage) -> None:
    """But for what an engine has to be told differently: model, limit, streaming."""
    assert network.wrong_bodies() == []


def test_the_page_shows_these_results(seen: dict[str, dict[str, Seen]]) -> None:
    """Feature by feature; what did not pass has no cell."""
    tried: dict[str, list[page.Try]] = {
        column: [(c.feature, c.stream, _passes(c.check, seen[column][c.name])) for c in CASES]
        for column in DRIVERS
    }
    for column, (_, rows) in REAL.items():
        tried[column] = [
            (feature, bool(body.get("stream")), _passes(check, seen[column][name]))
            for name, feature, _, body, check in rows
        ]
    if not VLLM:
        tried["vLLM"] = page.tries("vLLM")
    table = page.matrix(tried)
    if os.environ.get("WRITE_PAGES"):
        page.write(table)
    assert page.on_page() == table, "run this test with WRITE_PAGES=1 and commit the page"


@pytest.mark.usefixtures("seen")
def test_every_answer_has_a_receipt_and_the_log_holds(network: Stage) -> None:
    """Of all kinds; none contradicts what the gateway saw, and the whole log is re-proven."""
    waiting = "SELECT count(*) FROM request WHERE state IN ('open', 'delivered', 'unserved')"
    _until("all receipts", lambda: network.gateway_rows(waiting) == [(0,)])
    assert network.gateway_rows("SELECT problem FROM receipt WHERE problem IS NOT NULL") == []
    jobs = network.gateway_rows(
        "SELECT job FROM request JOIN receipt ON request.job_id = receipt.job_id"
    )
    assert {signed_from_bytes(Job, job).message.kind for (job,) in jobs} == set(JobKind)
    audit(network)


@pytest.mark.parametrize("name", ["embedding-several", "completion-several-whole", "image-stream"])
def test_its_holder_proves_a_request_of_each_kind(
    network: Stage, seen: dict[str, dict[str, Seen]], name: str
) -> None:
    """`pinaivu verify` with the key: body, answer and counts included."""
    request_id = seen["Python SDK"][name]["headers"]["x-request-id"]
    _until(f"{name} is final", lambda: network.settlement(request_id) == "final")
    command = [sys.executable, "-m", "pinaivu", "verify", request_id, "--api-key", network.key]
    folders = ["--network", str(network.folder.root), "--tokenizer", str(network.scripted_files)]
    done = subprocess.run([*command, *folders], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def _until(what: str, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + _WITHIN_S
    while not holds():
        assert time.monotonic() < end, f"not within {_WITHIN_S:.0f} s: {what}"
        time.sleep(0.1)


def _passes(check: Any, found: Seen) -> bool:
    try:
        check(found)
    except (AssertionError, LookupError, TypeError, ValueError):
        return False
    return True
