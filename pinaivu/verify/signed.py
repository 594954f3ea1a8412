"""V3: the receipt is signed, and all it names is here, by digest and by the party named."""

from collections.abc import Iterable

from pinaivu.verify.case import ZERO, Case
from pinaivu.verify.findings import Finding, require, require_equal, shown
from pinaivu.verify.recomposed import require_composed


def signed(case: Case) -> Finding:
    """V3: the epoch's key signed the receipt; each piece of evidence is the one it names.

    Not proven: that the keys belong to anybody in particular (V1, V2 and V6 say whose they are),
    nor that what was signed is true.
    """
    contents, receipt = case.contents, case.receipt
    case.require_signed(contents.receipt, case.signer(receipt.epoch), "the receipt")
    case.require_signed(contents.grant, receipt.payer, "the grant")
    case.require_signed(contents.job, receipt.gateway, "the job")
    require_equal(case.digest(contents.grant), receipt.grant_digest, "the grant's digest")
    require_equal(case.digest(contents.job), receipt.job_digest, "the job's digest")
    _require_delivery(case)
    _require_awards(case)
    _require_completions(case)
    _require_failures(case)
    _require_parties(case)
    require_composed(case, "V3")
    return Finding(
        evidence="signed by its epoch's key, as is all evidence by the party it names",
        facts={
            "receipt_digest": shown(case.digest(contents.receipt)),
            "signer": shown(case.signer(receipt.epoch)),
            "awards": len(contents.awards),
            "completions": len(contents.completions),
        },
    )


def _require_delivery(case: Case) -> None:
    receipt, delivery = case.receipt, case.contents.delivery
    if delivery is None:
        require_equal(receipt.delivery_digest, ZERO, "the delivery's digest, without one here")
        return
    case.require_signed(delivery, receipt.gateway, "the delivery")
    require_equal(case.digest(delivery), receipt.delivery_digest, "the delivery's digest")
    said = (delivery.message.gateway, delivery.message.job_digest)
    require_equal(said, (receipt.gateway, receipt.job_digest), "the delivery's gateway and job")
    awards = [case.digest(award) for award in case.contents.awards]
    found = [part.award_digest for part in delivery.message.parts]
    require(found == awards, "the delivery's parts are not the job's awards in rank order")


def _require_awards(case: Case) -> None:
    for work in case.work:
        award = work.award
        digest = work.segment.award_digest
        require_equal(case.digest(award), digest, "an award's digest")
        case.require_signed(award, case.signer(award.message.epoch), "an award")
    _require_once((case.digest(award) for award in case.contents.awards), "award")


def _require_completions(case: Case) -> None:
    for work in case.work:
        completion, named = work.completion, work.segment.completion_digest
        found = case.digest(completion) if completion else ZERO
        require_equal(found, named, "a completion's digest")
        if completion:
            case.require_signed(completion, work.award.message.node, "a completion")
            _require_part_names(work.part.completion_digest if work.part else ZERO, named)
    about = [completion.message.award_digest for completion in case.contents.completions]
    _require_about_awards(case, about, "completion")


def _require_part_names(said: bytes, named: bytes) -> None:
    """A gateway may not have seen the completion; one it names is the one that counts."""
    require(said in (ZERO, named), "the delivery names another completion than the receipt")


def _require_failures(case: Case) -> None:
    for failure in case.contents.failures:
        case.require_signed(failure, case.receipt.gateway, "a failure")
    about = [failure.message.award_digest for failure in case.contents.failures]
    _require_about_awards(case, about, "failure")


def _require_about_awards(case: Case, about: list[bytes], what: str) -> None:
    """In rank order, each about one of the job's awards, none twice."""
    awards = [case.digest(award) for award in case.contents.awards]
    order = [awards.index(digest) if digest in awards else -1 for digest in about]
    require(-1 not in order, f"a {what} is about no award of this job")
    require(order == sorted(set(order)), f"the {what}s are not in rank order, each once")


def _require_once(digests: Iterable[bytes], what: str) -> None:
    listed = list(digests)
    require(len(set(listed)) == len(listed), f"an {what} stands twice in the bundle")


def _require_parties(case: Case) -> None:
    job, grant, receipt, policy = case.job, case.grant, case.receipt, case.policy
    require_equal(job.gateway, receipt.gateway, "the job's gateway")
    require_equal(grant.payer, receipt.payer, "the grant's payer")
    require_equal(job.grant_digest, receipt.grant_digest, "the job's grant")
    require_equal(job.log_id, receipt.log_id, "the job's log")
    if policy.gateway is not None:
        require_equal(receipt.gateway, policy.gateway, "the gateway")
    if policy.payer is not None:
        require_equal(receipt.payer, policy.payer, "the payer")
