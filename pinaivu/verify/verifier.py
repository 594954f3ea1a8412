"""The verifier: numbered steps over one bundle, each with its evidence.

    verifier = Verifier(development(domain), chain=facts)
    report = verifier.verify(raw, Copies(request=body, response=response, salt=salt))
    report.exit_code  # 0 proven, 1 refuted, 2 incomplete

Pure: no file, no network, no clock. What only a chain can say comes through `ChainFacts`. No step
is left out unsaid: whatever could not be judged is in the report as lacking.
"""

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from pinaivu.bundles import unpack
from pinaivu.errors import InvalidEncoding, PeerFault, PinaivuError
from pinaivu.verify.attestations import Attestations
from pinaivu.verify.auctioned import won
from pinaivu.verify.case import Case, Copies
from pinaivu.verify.charged import charged
from pinaivu.verify.contents import Contents, read_contents
from pinaivu.verify.counted import counted
from pinaivu.verify.epochs import attested, covered
from pinaivu.verify.facts import ChainFacts
from pinaivu.verify.findings import Finding, Outcome, require_equal, shown
from pinaivu.verify.holder import request_is_mine, response_is_mine
from pinaivu.verify.logged import logged
from pinaivu.verify.open_claims import checks_offline, model_is_advertised
from pinaivu.verify.policy import BUNDLE, Policy
from pinaivu.verify.report import Report, Step
from pinaivu.verify.served import served
from pinaivu.verify.settled import complete, credited
from pinaivu.verify.signed import signed

_BUNDLE_CLAIM: Final = "the file is a whole bundle of this chain"

_STEPS: Final[tuple[tuple[str, str, Callable[[Case], Finding]], ...]] = (
    ("V1", "attested code signed, and was allowed to", attested),
    ("V2", "the key's epoch covers this leaf", covered),
    ("V3", "the receipt and all it names are signed", signed),
    ("V4", "the request is mine", request_is_mine),
    ("V5", "the response is what I got", response_is_mine),
    ("V6", "the named nodes served it", served),
    ("V7", "the winner won by the rule", won),
    ("V8", "the charge follows the rule", charged),
    ("V9", "the token counts are right", counted),
    ("V10", "it is in the log, anchored on chain", logged),
    ("V11", "nothing left out, nothing extra", complete),
    ("V12", "the node was credited and paid", credited),
    ("V13", "the model is the advertised one", model_is_advertised),
    ("V14", "it checks offline, years later", checks_offline),
)


class Verifier:
    """Verifies bundles under one policy; keeps what it learns of attestation documents."""

    def __init__(self, policy: Policy, chain: ChainFacts | None = None) -> None:
        self.policy = policy
        self.chain = chain
        self._attestations = Attestations()

    def verify(self, raw: bytes, copies: Copies | None = None) -> Report:
        """Check one bundle. Never raises for what the bundle holds: that is in the report."""
        try:
            contents = self.read(raw)
        except (InvalidEncoding, PeerFault) as error:
            return self._report({}, [_step(BUNDLE, _BUNDLE_CLAIM, Outcome.FAILED, str(error))])
        return self.check(contents, copies)

    def read(self, raw: bytes) -> Contents:
        """A whole bundle of the policy's chain; else `InvalidEncoding` or a `PeerFault`."""
        contents = read_contents(unpack(raw))
        require_equal(contents.chain, self.policy.domain, "the bundle's chain")
        return contents

    def check(self, contents: Contents, copies: Copies | None = None) -> Report:
        """`verify`, for a bundle that `read` has read."""
        case = Case(
            policy=self.policy,
            contents=contents,
            chain=self.chain,
            copies=copies or Copies(),
            attestations=self._attestations,
        )
        whole = _step(BUNDLE, _BUNDLE_CLAIM, Outcome.PASSED, "canonical, hash and chain match")
        steps = [whole, *(_run(case, *numbered) for numbered in _STEPS)]
        return self._report(_subject(case), steps, contents)

    def _report(
        self, subject: dict[str, Any], steps: list[Step], contents: Contents | None = None
    ) -> Report:
        needs = self.policy.needs
        if contents and contents.has_proofs:
            needs |= {"V14"}
        return Report(
            policy=self.policy.name,
            needs=needs,
            accepts_simulated=self.policy.accepts_simulated,
            subject=subject,
            steps=tuple(steps),
        )


def _run(case: Case, step_id: str, claim: str, check: Callable[[Case], Finding]) -> Step:
    """One step. Who contradicts fails it; who can't be asked, or isn't there, leaves it lacking."""
    try:
        finding = check(case)
    except (PeerFault, InvalidEncoding) as error:
        return _step(step_id, claim, Outcome.FAILED, str(error))
    except PinaivuError as error:
        return _step(step_id, claim, Outcome.LACKING, str(error))
    return Step(
        id=step_id,
        claim=claim,
        outcome=finding.outcome,
        evidence=finding.evidence,
        facts=finding.facts,
    )


def _step(step_id: str, claim: str, outcome: Outcome, evidence: str) -> Step:
    return Step(id=step_id, claim=claim, outcome=outcome, evidence=evidence)


def _subject(case: Case) -> dict[str, Any]:
    receipt = case.receipt
    return {
        "request_id": str(UUID(bytes=receipt.job_id)),
        "gateway": shown(receipt.gateway),
        "payer": shown(receipt.payer),
        "model": receipt.model,
        "receipt_digest": shown(case.digest(case.contents.receipt)),
        "total": receipt.total,
    }
