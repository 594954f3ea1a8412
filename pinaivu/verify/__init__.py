"""What an outsider checks about one request: `Verifier`, its policies, its report.

    from pinaivu.verify import Copies, Verifier, development

    report = Verifier(development(domain), chain=facts).verify(raw, Copies(request=body))
    print(report.to_text())

Steps V1 to V14 stand in modules by topic: `epochs` (V1, V2), `signed` (V3), `holder` (V4, V5),
`served` (V6), `auctioned` (V7, over `rerun`), `charged` (V8), `counted` (V9), `logged` (V10),
`settled` (V11, V12), `open_claims` (V13, V14). Each says in its docstring what it does not prove.
`account` and `audit` check many receipts together. Which field of a bundle is covered by what:
docs/bundle-coverage.md. Nothing here does input or output.
"""

from pinaivu.attestation.simulated import SimulatedDocumentWarning
from pinaivu.verify.case import Copies, TokenCounter
from pinaivu.verify.facts import ChainFacts
from pinaivu.verify.findings import Outcome
from pinaivu.verify.policy import STEPS, Policy, development, strict
from pinaivu.verify.report import INCOMPLETE, PROVEN, REFUTED, USAGE, Report, Step
from pinaivu.verify.verifier import Verifier

__all__ = [
    "INCOMPLETE",
    "PROVEN",
    "REFUTED",
    "STEPS",
    "USAGE",
    "ChainFacts",
    "Copies",
    "Outcome",
    "Policy",
    "Report",
    "SimulatedDocumentWarning",
    "Step",
    "TokenCounter",
    "Verifier",
    "development",
    "strict",
]
