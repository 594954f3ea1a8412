"""V6: the named nodes served the job, one award after the other."""

from collections.abc import Sequence
from itertools import pairwise

from pinaivu.codes import Reason
from pinaivu.messages import Award
from pinaivu.verify.case import ZERO, Case, Work
from pinaivu.verify.epochs import CLOCK_SKEW_MS
from pinaivu.verify.facts import ChainFacts
from pinaivu.verify.findings import Finding, Refuted, require, require_equal, shown
from pinaivu.verify.recomposed import require_composed


def served(case: Case) -> Finding:
    """V6: each segment has its award; each that was paid a completion by the node's own key.

    Not proven: that a node computed the text itself, or on the weights it names (V13), nor that an
    award was never run twice.
    """
    work = case.work
    for number, entry in enumerate(work):
        _require_award(case, entry, number + 1)
        _require_completion(case, entry)
        following = work[number + 1].award.message if number + 1 < len(work) else None
        _require_failure(case, entry, following)
    for former, later in pairwise(work):
        _require_follows(case, former, later)
    if work:
        first = work[0].award.message
        require_equal((first.prior, first.start_byte), (ZERO, 0), "the first award's beginning")
    require_composed(case, "V6")
    nodes = [entry.award.message.node for entry in work]
    if case.chain is not None:
        for entry in work:
            _require_registered(case.chain, entry)
    said = "" if case.chain else "; not compared with the chain: when the nodes registered"
    return Finding(
        evidence=_evidence(work) + said,
        facts={"nodes": [shown(node) for node in nodes], "on_chain": case.chain is not None},
    )


def _evidence(work: Sequence[Work]) -> str:
    if not work:
        return "no award, no node"
    done = sum(entry.completion is not None for entry in work)
    return f"{len(work)} award(s) by active epochs, {done} completion(s) by the nodes' keys"


def _require_award(case: Case, entry: Work, rank: int) -> None:
    award, job, receipt = entry.award.message, case.job, case.receipt
    require_equal(award.rank, rank, "an award's rank")
    require(award.epoch <= receipt.epoch, f"award {rank} is of a later epoch than the receipt")
    case.require_signed(entry.award, case.signer(award.epoch), f"award {rank}")
    said = (award.log_id, award.job_id, award.gateway, award.job_digest, award.lease)
    job_digest = case.digest(case.contents.job)
    due = (receipt.log_id, job.job_id, job.gateway, job_digest, ZERO)
    names = ("log", "job id", "gateway", "job digest", "lease")
    for name, found, expected in zip(names, said, due, strict=True):
        require_equal(found, expected, f"award {rank}'s {name}")
    _require_times(case, award)


def _require_times(case: Case, award: Award) -> None:
    ttl_ms = case.parameters(award.epoch).award_ttl_ms
    lasts = award.awarded_ms < award.expires_ms <= award.awarded_ms + ttl_ms
    require(lasts, f"award {award.rank} lasts longer than {ttl_ms} ms, or no time at all")
    within = award.expires_ms <= case.job.deadline_ms
    require(within, f"award {award.rank} outlives the job's deadline")


def _require_completion(case: Case, entry: Work) -> None:
    segment, rank = entry.segment, entry.award.message.rank
    if entry.completion is None:
        unpaid = (segment.prompt_billed, segment.output_billed, segment.amount, segment.fee)
        require_equal(unpaid, (0, 0, 0, 0), f"the bill of segment {rank}, without a completion")
        return
    completion = entry.completion.message
    case.require_signed(entry.completion, entry.award.message.node, f"completion {rank}")
    require_equal(completion.node, segment.node, f"completion {rank}'s node")
    require_equal(
        completion.fingerprint, case.receipt.fingerprint, f"completion {rank}'s fingerprint"
    )
    start = entry.award.message.start_byte
    require_equal(completion.start_byte, start, f"completion {rank}'s start")


def _require_failure(case: Case, entry: Work, following: Award | None) -> None:
    """No digest binds a failure, so what is bound must agree with it: part, next award, clocks."""
    if entry.failure is None:
        return
    failure, part = entry.failure.message, entry.part
    require_equal(failure.gateway, case.receipt.gateway, "a failure's gateway")
    reason = failure.reason in range(Reason.REFUSED, Reason.PASSED_OVER)
    require(reason, f"{failure.reason} is no reason for a failure")
    if part is not None:
        said = (failure.reason, failure.acks, failure.output_tokens, failure.end_byte)
        repeated = (part.result, part.acks, part.output_tokens, part.end_byte)
        require_equal(said, repeated, "what a failure says beside the delivery")
    begun_ms = entry.award.message.awarded_ms
    ended_ms = following.awarded_ms if following else case.receipt.closed_ms
    timely = begun_ms - CLOCK_SKEW_MS <= failure.reported_ms <= ended_ms + CLOCK_SKEW_MS
    require(timely, f"a failure at {failure.reported_ms}, not from {begun_ms} to {ended_ms}")


def _require_follows(case: Case, former: Work, later: Work) -> None:
    award = later.award.message
    prior = case.digest(former.award)
    require_equal(award.prior, prior, f"what award {award.rank} voids")
    if former.failure is None:
        raise Refuted(f"award {award.rank} follows one that the gateway did not report as failed")
    failure = former.failure.message
    require_equal(award.start_byte, failure.end_byte, f"the start of award {award.rank}")


def _require_registered(chain: ChainFacts, entry: Work) -> None:
    award = entry.award.message
    fact = chain.node(award.node)
    if fact is None:
        raise Refuted(f"node {shown(award.node)} is not registered")
    timely = fact.registered_at_ms <= award.awarded_ms + CLOCK_SKEW_MS
    require(timely, f"node {shown(award.node)} registered after it was awarded the job")
