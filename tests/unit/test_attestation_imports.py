"""Who may reach the simulated check, the rootless core and the simulator: read from the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("pinaivu", "coordinator", "gateway", "node", "explorer", "enclave")
ALLOWED = {
    "pinaivu.attestation._core": ("pinaivu.attestation.aws", "pinaivu.attestation.simulated"),
    "pinaivu.attestation.simulated": (
        "enclave.simulator",
        "pinaivu.cli",
        "pinaivu.local",
        "pinaivu.verify",
    ),
    "pinaivu.local": ("pinaivu.local", "pinaivu.cli"),  # or it were a way around the line above
    "enclave.simulator": ("enclave.simulator",),
}
"""What may be imported by these modules and those below them, and by no other."""


def source_files() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts).removesuffix(".__init__"), path


def imported(module: str, path: Path) -> set[str]:
    """Full names of everything a file imports, wherever in it the import stands."""
    names = set[str]()
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for item in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(item, ast.Import):
            names |= {alias.name for alias in item.names}
        elif isinstance(item, ast.ImportFrom):
            above = package[: len(package) - item.level + 1] if item.level else []
            base = ".".join([*above, *(item.module or "").split(".")]).strip(".")
            names |= {base} | {f"{base}.{alias.name}" for alias in item.names}
    return names


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


@pytest.mark.parametrize("guarded", ALLOWED)
def test_guarded_modules_are_imported_by_the_allowed_ones_only(guarded: str) -> None:
    importers = {
        module
        for module, path in source_files()
        if any(within(name, guarded) for name in imported(module, path))
    }
    allowed = ALLOWED[guarded]
    assert importers, f"nobody imports {guarded}: was it renamed?"
    assert not {m for m in importers if not any(within(m, a) for a in allowed)}


@pytest.mark.parametrize("entry", ["enclave.boot", "pinaivu.attestation"])
def test_production_entries_load_no_simulator(entry: str) -> None:
    probe = f"import {entry}, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", probe], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout.split()
    assert entry in loaded
    assert not [name for name in loaded if "simulat" in name]


def test_nothing_in_boot_reads_the_environment() -> None:
    for module, path in source_files():
        if within(module, "enclave"):
            tree = ast.parse(path.read_bytes())
            names = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
            assert not names & {"environ", "environb", "getenv", "getenvb"}, module


def test_verify_takes_no_root() -> None:
    tree = ast.parse((ROOT / "pinaivu/attestation/aws.py").read_bytes())
    (verify,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "verify")
    arguments = [*verify.args.posonlyargs, *verify.args.args, *verify.args.kwonlyargs]
    assert [argument.arg for argument in arguments] == ["document", "time", "binding"]
    assert verify.args.vararg is verify.args.kwarg is None
