"""What every test run shares: in CI a missing program is a failure, not a skipped test.

With `PINAIVU_REQUIRE_ALL=1` a test that needs a chain, an engine, a database server, a browser, a
proxy or network namespaces fails where it would be skipped, and so does a module that skips itself.
`PINAIVU_WITHOUT` names markers whose programs a machine can't have, space-separated.

No test speaks TLS with the outside, but most HTTP clients load the machine's trust roots as they
are made, which takes more time than a request. Here, and in the processes that tests start, these
are one certificate.
"""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Final

import hypothesis
import pytest

from tests.databases import postgres, postgres_url, url_of

__all__ = ["postgres", "postgres_url", "url_of"]
REQUIRE_ALL: Final = "PINAIVU_REQUIRE_ALL"
WITHOUT: Final = "PINAIVU_WITHOUT"
hypothesis.settings.register_profile("default", deadline=None)  # no test is about time
hypothesis.settings.register_profile("deep", max_examples=2000, deadline=None)
hypothesis.settings.load_profile("default")
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("trust_root.pem"))
_NEEDED: Final = ("chain", "database", "browser", "netns", "proxy", "engine", "e2e")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a test that has to run into a failure with the skip's reason."""
    report = yield
    without = os.environ.get(WITHOUT, "").split()
    needed = {name for name in _NEEDED if item.get_closest_marker(name)}
    marked = needed and needed.isdisjoint(without)
    if marked and report.skipped and not hasattr(report, "wasxfail") and _all_required():
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} may not be skipped ({REQUIRE_ALL}=1): {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Nobody knows what a module that skips itself would have needed."""
    report = yield
    if report.skipped and _all_required():
        report.outcome = "failed"
        report.longrepr = f"may not be skipped ({REQUIRE_ALL}=1): {report.longrepr}"
    return report


def _all_required() -> bool:
    return os.environ.get(REQUIRE_ALL) == "1"
