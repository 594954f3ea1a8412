"""`PINAIVU_REQUIRE_ALL=1`: what has to run in CI fails where it would be skipped."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tests.conftest
from tests.conftest import REQUIRE_ALL, WITHOUT

NEEDED = """
import pytest

@pytest.fixture
def server():
    pytest.skip("no server here")

@pytest.mark.chain
def test_in_a_fixture(server): ...

@pytest.mark.database
def test_in_its_body():
    pytest.skip("no server here")

@pytest.mark.chain
@pytest.mark.xfail(reason="known", strict=True)
def test_that_is_known_to_fail():
    assert False

@pytest.mark.slow
def test_that_nobody_needs(server): ...
"""
MODULE = 'import pytest\npytest.skip("not here", allow_module_level=True)\n'
SETTINGS = "[pytest]\nmarkers =\n    chain: x\n    database: x\n    slow: x\n"


def _run(folder: Path, required: str | None, without: str = "") -> str:
    shutil.copy(str(tests.conftest.__file__), folder / "conftest.py")
    (folder / "pytest.ini").write_text(SETTINGS)
    (folder / "test_needed.py").write_text(NEEDED)
    (folder / "test_module.py").write_text(MODULE)
    known = {name: value for name, value in os.environ.items() if name != REQUIRE_ALL}
    known["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # quicker, and only this conftest is tested
    options = ("-q", "-rsfE", "-p", "no:cacheprovider", "--continue-on-collection-errors")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(folder)],
        cwd=folder,
        env=known | ({REQUIRE_ALL: required} if required else {}) | {WITHOUT: without},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout


def test_what_is_needed_fails_and_says_why(tmp_path: Path) -> None:
    """Two needed tests and a whole module; what nobody needs is still skipped."""
    said = _run(tmp_path, "1")
    assert "1 failed, 1 skipped, 1 xfailed, 2 errors" in said
    assert said.count("may not be skipped (PINAIVU_REQUIRE_ALL=1)") >= 3
    assert "no server here" in said


def test_what_a_machine_cannot_have_is_skipped(tmp_path: Path) -> None:
    said = _run(tmp_path, "1", without="netns database")
    assert "2 skipped, 1 xfailed, 2 errors" in said


@pytest.mark.parametrize("required", [None, "0"])
def test_elsewhere_a_skip_is_a_skip(tmp_path: Path, required: str | None) -> None:
    assert "4 skipped, 1 xfailed" in _run(tmp_path, required)
