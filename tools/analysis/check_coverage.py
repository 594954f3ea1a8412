"""Fail unless the Solidity tests reach enough of the production contracts.

    check_coverage.py FOLDER

FOLDER is what `hardhat test solidity --coverage` wrote: `lcov.info` (lines), `branches.json` and
`data/` (branches, see contracts/scripts/branch_coverage). Mocks, examples and interfaces don't
count. Every line and branch that no test reached is printed, whether or not the bounds hold.

Reaching a line does not prove that a test would notice if it were wrong.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

LEAST_LINES = 98.0
LEAST_BRANCHES = 95.0
NOT_COUNTED = ("contracts/mocks/", "contracts/examples/", "contracts/interfaces/")


class Tally(NamedTuple):
    """How much there is, how much was reached, and what was not, as text."""

    found: int
    reached: int
    missed: list[str]

    @property
    def percent(self) -> float:
        """Share that was reached; nothing to reach counts as nothing reached."""
        return 100 * self.reached / self.found if self.found else 0.0


def main(folder: Path) -> int:
    """Print both figures and what is missing; 1 if a bound is not held."""
    tags = reached_tags(folder / "data")
    lines = count_lines((folder / "lcov.info").read_text())
    branches = count_branches(json.loads((folder / "branches.json").read_text()), tags)
    enough = True
    for name, tally, least in (
        ("lines", lines, LEAST_LINES),
        ("branches", branches, LEAST_BRANCHES),
    ):
        for missed in tally.missed:
            print(f"not reached: {missed}")
        figures = f"{tally.percent:.2f} % ({tally.reached} of {tally.found})"
        print(f"{name}: {figures}, at least {least} %")
        enough = enough and tally.percent >= least
    if not enough:
        print("coverage: add tests that reach what is listed above", file=sys.stderr)
    return 0 if enough else 1


def count_lines(lcov: str) -> Tally:
    """Lines of an lcov report, from its `SF` and `DA` records."""
    hits: dict[str, dict[int, int]] = defaultdict(dict)
    file = ""
    for record in lcov.splitlines():
        kind, _, rest = record.partition(":")
        if kind == "SF":
            file = rest
        elif kind == "DA" and counts(file):
            line, times = rest.split(",")[:2]
            hits[file][int(line)] = int(times)
    missed = [
        f"{file}:{line}"
        for file in sorted(hits)
        for line, times in sorted(hits[file].items())
        if not times
    ]
    found = sum(map(len, hits.values()))
    return Tally(found, found - len(missed), missed)


def count_branches(branches: dict[str, dict[str, str]], reached: set[str]) -> Tally:
    """Branches of the plugin's report."""
    counted = {tag: branch for tag, branch in branches.items() if counts(branch["file"])}
    missed = [
        f"{branch['file']}:{branch['line']}: {branch['outcome']}: {branch['text']}"
        for tag, branch in counted.items()
        if tag not in reached
    ]
    return Tally(len(counted), len(counted) - len(missed), sorted(missed))


def reached_tags(folder: Path) -> set[str]:
    """Tags that any test sent, of statements and branches."""
    return {tag for file in folder.rglob("*.json") for tag in json.loads(file.read_text())}


def counts(file: str) -> bool:
    """Whether `file` is a production contract."""
    return file.startswith("contracts/") and not file.startswith(NOT_COUNTED)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
