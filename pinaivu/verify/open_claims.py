"""V13 and V14: claims that this version has no answer to, and says so."""

from pinaivu.verify.case import Case
from pinaivu.verify.findings import Finding, Lacks, Outcome


def model_is_advertised(case: Case) -> Finding:  # noqa: ARG001 - every step takes the case
    """V13: always `not audited`: a node may run cheaper weights than the fingerprint names.

    Audits will fill `auditCommitment`; until they exist no policy asks for this step.
    """
    return Finding(
        evidence="a fingerprint on a completion is the node's word", outcome=Outcome.NOT_AUDITED
    )


def checks_offline(case: Case) -> Finding:
    """V14: that all of it still checks without any endpoint, from proofs inside the bundle.

    No bundle holds such proofs yet. Where one does, this version can't read them, so the step is
    asked for under every policy: proofs unread may not pass for proofs.
    """
    if case.contents.has_proofs:
        raise Lacks("the bundle holds chain proofs, which this version does not read")
    raise Lacks("the bundle holds no proofs of the chain's state")
