"""The gates behind `make slither` and `make coverage`: what they count, and when they fail."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOOLS = Path(__file__).parents[2] / "tools" / "analysis"


def load(name: str) -> ModuleType:
    """A script of tools/analysis, which is no package."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finding(detector: str, *path: str) -> dict[str, Any]:
    """A finding about `path`, outermost name first, as Slither reports it."""
    element: dict[str, Any] | None = None
    for depth, name in enumerate(path):
        kind = ("contract", "function", "variable")[depth]
        fields = {"parent": element} if element else {}
        element = {"type": kind, "name": name, "type_specific_fields": fields}
    return {"check": detector, "impact": "Low", "description": "...", "elements": [element]}


class TestSlither:
    """check_slither.py."""

    KNOWN = finding("timestamp", "Settlement", "pause")
    TRIAGE = """
[[finding]]
detector = "timestamp"
reason = "days, not seconds"
where = ["Settlement.pause"]
"""

    @pytest.fixture
    def gate(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        """The script, with a triage of one finding."""
        script = load("check_slither")
        triage = tmp_path / "triage.toml"
        triage.write_text(self.TRIAGE)
        monkeypatch.setattr(script, "TRIAGE", triage)
        return script

    def run(self, gate: ModuleType, folder: Path, *findings: dict[str, Any]) -> int:
        """Exit code for a report of `findings`."""
        report = folder / "report.json"
        results = {"detectors": list(findings)}
        report.write_text(json.dumps({"success": True, "results": results}))
        code: int = gate.main(report)
        return code

    def test_explained_findings_pass(self, gate: ModuleType, tmp_path: Path) -> None:
        """Also when the same detector reports the function twice."""
        assert self.run(gate, tmp_path, self.KNOWN, self.KNOWN) == 0

    def test_another_finding_fails(
        self, gate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It is named with all that it stands in."""
        new = finding("uninitialized-local", "Settlement", "pause", "until")
        assert self.run(gate, tmp_path, self.KNOWN, new) == 1
        assert "new finding: uninitialized-local: Settlement.pause.until" in capsys.readouterr().out

    def test_another_detector_in_an_explained_function_fails(
        self, gate: ModuleType, tmp_path: Path
    ) -> None:
        """An explanation holds for one detector."""
        other = finding("assembly", "Settlement", "pause")
        assert self.run(gate, tmp_path, self.KNOWN, other) == 1

    def test_a_stale_explanation_fails(self, gate: ModuleType, tmp_path: Path) -> None:
        """What is no longer found must leave the triage."""
        assert self.run(gate, tmp_path) == 1

    def test_a_failed_analysis_is_no_pass(self, gate: ModuleType, tmp_path: Path) -> None:
        """A report of a crash has no findings either."""
        report = tmp_path / "report.json"
        report.write_text(json.dumps({"success": False, "error": "no compiler", "results": {}}))
        with pytest.raises(SystemExit, match="no compiler"):
            gate.main(report)

    @pytest.mark.parametrize("reasons", [[""], [" \n"], ["a", "b"]])
    def test_one_reason_each(self, gate: ModuleType, reasons: list[str]) -> None:
        """Neither an empty reason nor two for one finding."""
        entries = [{"detector": "d", "where": ["C.f"], "reason": reason} for reason in reasons]
        with pytest.raises(SystemExit, match="one reason each"):
            gate.explanations({"finding": entries})


class TestCoverage:
    """check_coverage.py."""

    FILE = "contracts/Settlement.sol"

    def run(self, folder: Path, *, lines: int, missed: int, reached: int, branches: int) -> int:
        """Exit code for one file with so many lines and branches, so many of them (not) reached."""
        hits = [f"DA:{n},{0 if n < missed else 7}" for n in range(lines)]
        mocks = ["SF:contracts/mocks/Token.sol", "DA:1,0", "end_of_record"]
        report = "\n".join([f"SF:{self.FILE}", *hits, "end_of_record", *mocks])
        (folder / "lcov.info").write_text(report)
        outcomes = {
            str(n): {"file": self.FILE, "line": str(n), "text": "a < b", "outcome": "true"}
            for n in range(branches)
        }
        (folder / "branches.json").write_text(json.dumps(outcomes))
        data = folder / "data" / "one"
        data.mkdir(parents=True)
        (data / "tags.json").write_text(json.dumps([str(n) for n in range(reached)]))
        code: int = load("check_coverage").main(folder)
        return code

    def test_at_the_bounds(self, tmp_path: Path) -> None:
        """Exactly 98 % and 95 % do; mocks don't count."""
        assert self.run(tmp_path, lines=100, missed=2, reached=95, branches=100) == 0

    def test_a_line_short(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Every missed line is named."""
        assert self.run(tmp_path, lines=100, missed=3, reached=100, branches=100) == 1
        assert f"not reached: {self.FILE}:2\n" in capsys.readouterr().out

    def test_a_branch_short(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Every missed outcome is named."""
        assert self.run(tmp_path, lines=100, missed=0, reached=94, branches=100) == 1
        assert f"not reached: {self.FILE}:99: true: a < b" in capsys.readouterr().out

    def test_an_empty_report_is_no_pass(self, tmp_path: Path) -> None:
        """Nothing to reach is nothing reached."""
        assert self.run(tmp_path, lines=0, missed=0, reached=0, branches=0) == 1
