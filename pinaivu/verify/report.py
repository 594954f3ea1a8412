"""The result of a verification: one step after the other, and what they add up to.

Exit codes: 0 proven under the chosen policy, 1 refuted, 2 incomplete; 3 (usage) is the command
line's own. Where a simulated attestation was accepted, the first and the last line say so.
"""

from typing import Any, Final

from msgspec import Struct

from pinaivu.verify.findings import Outcome

PROVEN: Final = 0
REFUTED: Final = 1
INCOMPLETE: Final = 2
USAGE: Final = 3
SIMULATED_LINE: Final = "SIMULATED, not proven"

_MARKS: Final = {
    Outcome.PASSED: "ok",
    Outcome.FAILED: "FAILED",
    Outcome.LACKING: "lacks",
    Outcome.SIMULATED: "SIMULATED",
    Outcome.NOT_AUDITED: "not audited",
}
_VERDICTS: Final = {PROVEN: "proven", REFUTED: "refuted", INCOMPLETE: "incomplete"}


class Step(Struct, frozen=True, kw_only=True):
    """One claim and how it ended. `evidence` is a sentence, `facts` are JSON values behind it."""

    id: str
    claim: str
    outcome: Outcome
    evidence: str
    facts: dict[str, Any] = {}


class Report(Struct, frozen=True, kw_only=True):
    """All steps of one bundle under one policy. `subject` says which receipt, where it is known."""

    policy: str
    needs: frozenset[str]
    accepts_simulated: bool
    subject: dict[str, Any]
    steps: tuple[Step, ...]

    def step(self, step_id: str) -> Step:
        """The step of that id; `KeyError` where it was not run."""
        for step in self.steps:
            if step.id == step_id:
                return step
        raise KeyError(step_id)

    @property
    def failed(self) -> list[Step]:
        """Steps that contradict the bundle."""
        return [step for step in self.steps if step.outcome == Outcome.FAILED]

    @property
    def unmet(self) -> list[Step]:
        """Steps that the policy needs and that could not be judged."""
        return [s for s in self.steps if s.id in self.needs and not self._met(s)]

    @property
    def simulated(self) -> bool:
        """Whether anything rests on a simulated attestation."""
        return any(step.outcome == Outcome.SIMULATED for step in self.steps)

    @property
    def exit_code(self) -> int:
        """0 proven, 1 refuted, 2 incomplete."""
        if self.failed:
            return REFUTED
        ran = {step.id for step in self.steps}
        return INCOMPLETE if self.unmet or self.needs - ran else PROVEN

    @property
    def verdict(self) -> str:
        """`exit_code` in words, with the policy's name."""
        word = _VERDICTS[self.exit_code]
        if self.failed:
            return f"{word}: {', '.join(step.id for step in self.failed)}"
        if self.unmet:
            return f"{word} under {self.policy}: {', '.join(s.id for s in self.unmet)} lacking"
        return f"{word} under {self.policy}"

    def to_text(self) -> str:
        """The report as people read it, LF at each line's end."""
        edge = [SIMULATED_LINE] if self.simulated else []
        subject = [f"{name}: {value}" for name, value in self.subject.items()]
        steps = [f"{s.id:<6} {_MARKS[s.outcome]:<11} {s.claim}: {s.evidence}" for s in self.steps]
        return "\n".join([*edge, *subject, *steps, self.verdict, *edge]) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON value; `simulated` stands first and `exit_code` last."""
        return {
            "simulated": self.simulated,
            "policy": self.policy,
            "verdict": self.verdict,
            "subject": self.subject,
            "steps": [
                {
                    "id": step.id,
                    "claim": step.claim,
                    "outcome": step.outcome.value,
                    "needed": step.id in self.needs,
                    "evidence": step.evidence,
                    "facts": step.facts,
                }
                for step in self.steps
            ],
            "exit_code": self.exit_code,
        }

    def _met(self, step: Step) -> bool:
        simulated = self.accepts_simulated and step.outcome == Outcome.SIMULATED
        return step.outcome == Outcome.PASSED or simulated
