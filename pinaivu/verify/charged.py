"""V8: the charge is the metering rule times the clearing price, within job and grant."""

from pinaivu.commitments import tokens_acknowledged, verify_acks
from pinaivu.messages import Award
from pinaivu.verify.case import Case
from pinaivu.verify.covers import covers, require_account_limit
from pinaivu.verify.epochs import CLOCK_SKEW_MS
from pinaivu.verify.findings import Finding, Refuted, require, require_equal
from pinaivu.verify.recomposed import require_composed

_MILLION = 10**6


def charged(case: Case) -> Finding:
    """V8: amounts, status and times follow from the evidence; limits of job and grant are kept.

    Not proven: that the counts are right (V9), that a gateway which reported nothing delivered
    nothing, or that the running sums under the grant leave nothing out (`--account`).
    """
    _require_acks(case)
    _require_award_limits(case)
    require_composed(case, "V8")
    _require_within_job_and_grant(case)
    _require_times(case)
    said = "; not compared with the chain: the grant's epoch"
    if case.chain is not None:
        _require_grant_in_force(case)
        said = ""
    receipt = case.receipt
    return Finding(
        evidence=f"{receipt.total} base units, as the rule gives from counts and prices; caps"
        f" hold {covers(case)}{said}",
        facts={
            "total": receipt.total,
            "fees": sum(segment.fee for segment in receipt.segments),
            "prompt_tokens": sum(segment.prompt_billed for segment in receipt.segments),
            "output_tokens": sum(segment.output_billed for segment in receipt.segments),
            "on_chain": case.chain is not None,
        },
    )


def _require_acks(case: Case) -> None:
    """What a node claims was acknowledged, its last preimage proves."""
    for entry in case.work:
        award, anchors = entry.award.message, case.job.anchors
        require(award.rank <= len(anchors), f"the job has no anchor for rank {award.rank}")
        anchor = anchors[award.rank - 1]
        require_equal(award.anchor, anchor, f"the anchor of award {award.rank}")
        if entry.completion:
            done = entry.completion.message
            verify_acks(
                anchor,
                case.job.job_id,
                award.rank,
                case.job.max_output_tokens,
                done.acks,
                done.last_preimage,
            )


def _require_award_limits(case: Case) -> None:
    """Each award leaves what earlier failures left of tokens and money."""
    tokens, money = case.job.max_output_tokens, case.reserve_units
    for entry in case.work:
        award = entry.award.message
        found = (award.prompt_tokens, award.max_output_tokens, award.max_amount)
        due = (case.job.prompt_tokens, max(0, tokens), max(0, money))
        require_equal(found, due, f"prompt, output and amount limits of award {award.rank}")
        _require_price_limits(case, award)
        if entry.failure:
            acks = entry.failure.message.acks
            spent = tokens_acknowledged(acks, case.job.max_output_tokens)
            tokens -= spent
            money -= -(-spent * award.price_out // _MILLION)


def _require_price_limits(case: Case, award: Award) -> None:
    job, grant = case.job, case.grant
    limits = (
        ("price_in", award.price_in, min(job.max_price_in, grant.max_price_in)),
        ("price_out", award.price_out, min(job.max_price_out, grant.max_price_out)),
    )
    for name, found, most in limits:
        require(found <= most, f"award {award.rank}'s {name} is {found}, above the limit {most}")


def _require_within_job_and_grant(case: Case) -> None:
    receipt, job, grant = case.receipt, case.job, case.grant
    require_equal(grant.gateway, job.gateway, "the grant's gateway")
    require_equal(grant.log_id, receipt.log_id, "the grant's log")
    named = not grant.models or job.model in grant.models
    require(named, f"the grant does not name model {job.model}")
    limits = (
        ("the job's max_price_in", job.max_price_in, grant.max_price_in),
        ("the job's max_price_out", job.max_price_out, grant.max_price_out),
        ("the total", receipt.total, min(job.max_cost, grant.max_per_job)),
        ("the day's total", receipt.grant_spent_day, grant.max_per_day),
        ("the grant's total", receipt.grant_spent, grant.max_total),
        ("the day's total within the grant's", receipt.grant_spent_day, receipt.grant_spent),
    )
    for what, found, most in limits:
        require(found <= most, f"{what} is {found}, above {most}")
    require_account_limit(case)


def _require_times(case: Case) -> None:
    receipt, job, grant = case.receipt, case.job, case.grant
    received_ms = receipt.received_ms
    valid = grant.not_before_ms <= received_ms < grant.not_after_ms
    require(valid, f"the grant was not valid at {received_ms}")
    skew_ms = case.parameters(case.auction_epoch).job_skew_ms
    near = abs(job.created_ms - received_ms) <= skew_ms
    require(near, f"the job was created at {job.created_ms}, received at {received_ms}")
    closed = received_ms - CLOCK_SKEW_MS <= receipt.closed_ms
    require(closed, "the job was closed before it was received")


def _require_grant_in_force(case: Case) -> None:
    assert case.chain is not None
    grant = case.grant
    epochs = case.chain.grant_epoch(grant.payer, case.receipt.received_ms)
    if grant.grant_epoch not in epochs:
        raise Refuted(
            f"the grant is of grant epoch {grant.grant_epoch}, the payer's was {sorted(epochs)}"
        )
