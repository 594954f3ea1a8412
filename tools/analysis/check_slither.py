"""Fail on every finding of Slither that triage.toml does not explain, and on stale explanations.

    check_slither.py REPORT.json

A finding's name is `detector: Contract.function`, with `.variable` where it is about one; it stays
when lines move. A second finding of one detector in one function goes by the same name,
so an explanation must hold for the function as a whole.
"""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

TRIAGE = Path(__file__).with_name("triage.toml")
NAMED = {"contract", "function", "variable", "event", "struct", "enum"}


def main(report: Path) -> int:
    """Print what is new and what is stale; 1 if there is anything."""
    results = json.loads(report.read_text())
    if not results["success"]:
        sys.exit(f"slither failed: {results['error']}")
    explained = explanations(tomllib.loads(TRIAGE.read_text()))
    found = {name_of(finding): finding for finding in results["results"].get("detectors", [])}
    new = sorted(found.keys() - explained.keys())
    stale = sorted(explained.keys() - found.keys())
    for name in new:
        print(f"new finding: {name} ({found[name]['impact']})\n{found[name]['description']}")
    for name in stale:
        print(f"explained, but no longer found: {name}")
    print(f"slither: {len(found)} findings, {len(new)} new, {len(stale)} stale")
    if new or stale:
        print(f"slither: fix the code, or say in {TRIAGE} why not", file=sys.stderr)
        return 1
    return 0


def explanations(triage: dict[str, Any]) -> dict[str, str]:
    """Name of every explained finding → its reason."""
    explained: dict[str, str] = {}
    for entry in triage["finding"]:
        for where in entry["where"]:
            name = f"{entry['detector']}: {where}"
            if name in explained or not entry["reason"].strip():
                sys.exit(f"triage.toml: {name}: one reason each")
            explained[name] = entry["reason"]
    return explained


def name_of(finding: dict[str, Any]) -> str:
    """`detector: Contract.function.variable` of the finding's first element."""
    element: dict[str, Any] | None = finding["elements"][0]
    parts = []
    while element and element["type"] in NAMED:
        parts.append(element["name"])
        element = element.get("type_specific_fields", {}).get("parent")
    return f"{finding['check']}: {'.'.join(reversed(parts))}"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
