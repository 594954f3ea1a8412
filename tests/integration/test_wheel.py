"""The wheel works outside the tree: contract interfaces, migrations and pages are inside it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]

PROGRAM = """
import sys
from importlib.resources import files
from pathlib import Path

import pinaivu
from pinaivu.chain.abi import load
from pinaivu.chain.roles import roles
from pinaivu.store.database import SERVICES, open_database

assert Path(pinaivu.__file__).is_relative_to(sys.argv[1]), pinaivu.__file__
for name in ("Settlement", "ReceiptLog", "EnclaveRegistry", "NodeRegistry", "ModelRegistry"):
    assert load(name)
assert [role.name for role in roles()] == ["admin", "administrator", "guardian", "registrar"]
assert (files("pinaivu.chain") / "deployments").is_dir()
for service in SERVICES:
    open_database(f"sqlite:///{sys.argv[2]}/{service}.db", service).close()
print("ok")
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel's content, as an installer would lay it out."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=TREE, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    site = out / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run(unpacked: Path, cwd: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_packaged_data_is_found_outside_the_tree(unpacked: Path, tmp_path: Path) -> None:
    assert run(unpacked, tmp_path, "-c", PROGRAM, str(unpacked), str(tmp_path)) == "ok\n"


def test_the_command_explains_itself_outside_the_tree(unpacked: Path, tmp_path: Path) -> None:
    for words in ([], ["up"], ["verify"], ["keys"], ["wallet"], ["node"], ["roles"]):
        assert "Usage: " in run(unpacked, tmp_path, "-m", "pinaivu", *words, "--help")


def test_no_test_or_bench_is_shipped(unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir() if path.suffix != ".dist-info"} == {
        "coordinator",
        "enclave",
        "explorer",
        "gateway",
        "node",
        "pinaivu",
    }
