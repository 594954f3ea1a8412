"""The matrix: official SDKs against client → gateway → coordinator → node → engine, all real.

Protocol cells run on a scripted engine, which checks the exact body it gets; the column of
llama.cpp on that engine with a small model. `WRITE_PAGES=1` accepts the results as the page's.
"""

import os
import time
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest

from pinaivu.local.folder import MODEL as REAL_MODEL
from tests.conformance import page, real
from tests.conformance.cases import Case, Seen, all_cases
from tests.conformance.drivers import DRIVERS, by_python
from tests.conformance.stage import Stage, stage
from tests.e2e.audit import audit

pytestmark = [pytest.mark.e2e, pytest.mark.chain, pytest.mark.engine, pytest.mark.timeout(600)]
CASES: Final = list(all_cases().values())
REAL: Final = list(real.rows())
_RECEIPTS_WITHIN_S: Final = 60.0


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One network for the whole matrix."""
    with stage(tmp_path_factory.mktemp("conformance")) as made:
        yield made


@pytest.fixture(scope="module")
def seen(network: Stage) -> dict[str, dict[str, Seen]]:
    """What each client saw of every case, by column; and what the real engine gave."""
    calls = [(case.name, case.call, case.request) for case in CASES]
    found = {
        column: drive(network.gateway_url, network.key, calls) for column, drive in DRIVERS.items()
    }
    asked = [(name, call, {"model": REAL_MODEL} | body) for name, _, call, body, _ in REAL]
    found["llama.cpp"] = by_python(network.gateway_url, network.key, asked)
    return found


@pytest.mark.parametrize("column", DRIVERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_client_sees_what_the_engine_said(
    seen: dict[str, dict[str, Seen]], case: Case, column: str
) -> None:
    """And an error in OpenAI's form, as its SDK's own error, where there was one."""
    case.check(seen[column][case.name])


@pytest.mark.parametrize("row", REAL, ids=lambda row: row[0])
def test_a_real_engine_does_what_any_must(
    seen: dict[str, dict[str, Seen]], row: tuple[str, Any, Any, Any, Any]
) -> None:
    """llama.cpp with a model of 135 million parameters; or it says by name what it can't do."""
    row[-1](seen["llama.cpp"][row[0]])


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
    tried["llama.cpp"] = [
        (feature, bool(body.get("stream")), _passes(check, seen["llama.cpp"][name]))
        for name, feature, _, body, check in REAL
    ]
    table = page.matrix(tried)
    if os.environ.get("WRITE_PAGES"):
        page.write(table)
    assert page.on_page() == table, "run this test with WRITE_PAGES=1 and commit the page"


def test_every_answer_has_a_receipt_and_the_log_holds(
    network: Stage, seen: dict[str, dict[str, Seen]]
) -> None:
    """Completions and embeddings included: receipts come, without a problem, and are re-proven."""
    headers = {"authorization": f"Bearer {network.key}"}
    ids = {
        one["headers"]["x-request-id"] for results in seen.values() for one in results.values()
        if "headers" in one
    }  # fmt: skip
    with httpx.Client(base_url=network.gateway_url, headers=headers, timeout=30) as http:
        for request_id in ids:
            assert "problem" not in _receipt(http, request_id), request_id
    audit(network)


def _receipt(http: httpx.Client, request_id: str) -> dict[str, Any]:
    end = time.monotonic() + _RECEIPTS_WITHIN_S
    while time.monotonic() < end:
        answer = http.get(f"/v1/receipts/{request_id}")
        if answer.status_code == httpx.codes.OK:
            found: dict[str, Any] = answer.json()
            return found
        time.sleep(0.05)
    raise AssertionError(f"no receipt of {request_id}: {answer.text}")


def _passes(check: Any, found: Seen) -> bool:
    try:
        check(found)
    except (AssertionError, LookupError, TypeError, ValueError):
        return False
    return True
