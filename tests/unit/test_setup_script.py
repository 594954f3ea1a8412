"""What `make setup` says on a machine that lacks something; nothing is installed by then."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "setup.sh"


def setup(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(SCRIPT)],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def program(folder: Path, name: str, text: str) -> Path:
    """A stand-in program in a folder of its own."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_missing_python_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    done = setup(tmp_path, PYTHON="no-such-python")
    assert done.returncode == 1
    assert "no-such-python is missing: sudo apt-get install python3" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("machine", ["Linux aarch64", "Darwin x86_64"])
def test_another_kind_of_machine_is_refused(tmp_path: Path, machine: str) -> None:
    kernel, processor = machine.split()
    answer = f'[ "$1" = -s ] && echo {kernel} || echo {processor}'
    program(tmp_path, "uname", answer)
    done = setup(tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert f"this machine is {machine}" in done.stderr


def test_an_unsupported_python_stops_at_once_with_the_reason(tmp_path: Path) -> None:
    """The script runs the version check on whatever it is pointed at: here one that is too old."""
    check = "exec python3 -c 'import sys; sys.version_info = (3, 10, 9); exec(sys.stdin.read())'"
    old = program(tmp_path, "python3.10", check)
    done = setup(tmp_path, PYTHON=str(old))
    assert done.returncode == 1
    assert "Python 3.11, 3.12 or 3.13 is needed, this is 3.10.9" in done.stderr


def test_missing_headers_and_compiler_are_all_named_in_one_command(tmp_path: Path) -> None:
    """A Python without headers beside it, and a PATH without gcc."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("uname", "date", "cat", "cmp", "grep"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    bare = program(
        tools,
        "python3",
        'case "$2" in *ensurepip*) exit 1;; *sysconfig*) echo /nowhere;; *) cat >/dev/null;; esac',
    )
    done = setup(tmp_path, PATH=str(tools), PYTHON=str(bare))
    assert done.returncode == 1
    for package in ("build-essential", "python3-venv", "python3-dev"):
        assert package in done.stderr.split("sudo apt-get install")[1]
