"""V7: the winner won by the rule, at the right price, among all offers of the transcript."""

from msgspec.structs import replace

from pinaivu.auction import rule
from pinaivu.auction.replay import Replay
from pinaivu.auction.rule import Entrant, Market
from pinaivu.auction.transcript import Header
from pinaivu.codes import Mode, Reason, Status
from pinaivu.encoding import from_hex
from pinaivu.fields import MAX_U64
from pinaivu.keccak import keccak
from pinaivu.messages import Segment
from pinaivu.typed_data import digest
from pinaivu.verify.case import ZERO, Case, Work
from pinaivu.verify.facts import ChainFacts
from pinaivu.verify.findings import Finding, Refuted, require, require_equal, shown
from pinaivu.verify.rerun import rerun


def won(case: Case) -> Finding:
    """V7: rerun from the published transcript, each rank gives the node and price on the receipt.

    Not proven: that M (expected output) and the nodes' reputations are what all receipts give,
    that no offer is missing from the book (`pinaivu.auction.omitted`), that the round closed at a
    fair moment, that a called node which is said to be silent was, or,
    without the chain, that the rows hold the wallets and the price ratio registered then.
    """
    if case.receipt.bids_root == ZERO:
        return _no_auction(case)
    replay, market = _read(case)
    _require_header(case, replay.header)
    _require_called(case, replay, market)
    _require_line(case, replay, market)
    said = "; not compared with the chain: wallets, ratio, fingerprint"
    if case.chain is not None:
        _require_registered(case.chain, replay)
        said = ""
    return Finding(
        evidence=f"the rule gives the receipt's line from {replay.header.eligible} offers" + said,
        facts={
            "eligible": replay.header.eligible,
            "called": replay.header.called,
            "bids": sum(entrant.bid is not None for entrant in replay.entrants),
            "bids_root": shown(replay.root),
            "on_chain": case.chain is not None,
        },
    )


def _no_auction(case: Case) -> Finding:
    """A job that never came to an auction: nothing of one may stand on the receipt."""
    receipt = case.receipt
    said = (receipt.status, receipt.nonce, receipt.bids, len(receipt.segments))
    require_equal(said, (int(Status.UNSERVED), ZERO, 0, 0), "a receipt without an auction")
    require(case.contents.transcript is None, "a transcript of an auction that was not held")
    require_equal(receipt.reason, int(Reason.EPOCH_ENDED), "the reason why no auction was held")
    return Finding(evidence="no auction was held: the epoch had ended")


def _read(case: Case) -> tuple[Replay, Market]:
    if case.contents.transcript is not None:
        header = Header.from_bytes(from_hex(case.contents.transcript.get("header")))
        for award in case.contents.awards:
            said = award.message.epoch
            require_equal(said, header.epoch, "the epoch of an award, by the transcript")
    return rerun(case.contents, case.domain, case.copies.book)


def _require_header(case: Case, header: Header) -> None:
    """The header is about this job, under the rules of the epoch that awarded it."""
    job, receipt = case.job, case.receipt
    parameters = case.parameters(header.epoch)
    value_of_time = job.value_of_time
    if value_of_time == MAX_U64:
        value_of_time = parameters.value_of_time
    due = {
        "job_digest": case.digest(case.contents.job),
        "log_id": receipt.log_id,
        "nonce": receipt.nonce,
        "model_key": keccak(job.model.encode()),
        "fingerprint": receipt.fingerprint,
        "prompt_tokens": job.prompt_tokens,
        "max_output_tokens": job.max_output_tokens,
        "value_of_time": value_of_time,
        "mode": job.mode,
        "parameters_digest": case.epoch(header.epoch).parameters_digest,
        "reserve": case.reserve_units,
        "eligible": receipt.bids,
    }
    for name, expected in due.items():
        require_equal(getattr(header, name), expected, f"the transcript's {name}")
    require(header.epoch <= receipt.epoch, "the auction is of a later epoch than the receipt")
    require(header.open_ms <= header.close_ms, "the auction closed before it opened")
    require(header.expected_tokens <= job.max_output_tokens, "M is above the job's output limit")
    if job.fingerprint != ZERO:
        require_equal(header.fingerprint, job.fingerprint, "the fingerprint the job demands")
    for award in case.contents.awards:
        require_equal(award.message.nonce, header.nonce, "an award's nonce")


def _require_called(case: Case, replay: Replay, market: Market) -> None:
    """Called are those whom the rule calls from the book as the round opened, in its order."""
    require_equal(replay.root, case.receipt.bids_root, "the transcript's root")
    for award in case.contents.awards:
        require_equal(award.message.bids_root, replay.root, "an award's bids root")
    parameters, due = case.parameters(replay.header.epoch), list[bytes]()
    if case.job.mode == Mode.LIVE:
        asked = rule.to_call(
            replace(market, close_ms=replay.header.open_ms),
            replay.entrants,
            live_all=parameters.live_all,
            live_best=parameters.live_best,
        )
        due = [entrant.row.node for entrant in asked]
    called = [call.node for call in replay.calls]
    require(called == due, "the nodes called are not those the rule calls, in its order")


def _require_line(case: Case, replay: Replay, market: Market) -> None:
    """Each entry of the line is the winner once those before it are out."""
    excluded: frozenset[bytes] = frozenset()
    work = iter(case.work)
    for segment in case.receipt.segments:
        cleared = replay.clear(market, excluded)
        if cleared is None:
            raise Refuted(f"nobody was left, and {shown(segment.node)} stands on the line")
        require_equal(segment.node, cleared.entrant.row.node, "the next of the order")
        if segment.rank:
            found = (segment.price_in, segment.price_out, segment.clearing)
            due = (cleared.price_in, cleared.price_out, int(cleared.clearing))
            require_equal(found, due, f"prices and clearing of rank {segment.rank}")
            _require_bid(case, next(work), cleared.entrant, segment)
        excluded |= {segment.node}
    if case.receipt.status == Status.UNSERVED:
        _require_unserved(case, replay, market, excluded)


def _require_bid(case: Case, entry: Work, entrant: Entrant, segment: Segment) -> None:
    bid, award = entrant.bid, entry.award.message
    due = digest(case.domain, bid) if bid else entrant.row.offer_digest
    require_equal(award.bid_digest, due, f"the bid that award {segment.rank} names")


def _require_unserved(
    case: Case, replay: Replay, market: Market, passed_over: frozenset[bytes]
) -> None:
    """Nobody could serve, and for the reason given."""
    reason = case.receipt.reason
    if reason == Reason.DEADLINE_PASSED:
        late = case.receipt.closed_ms >= case.job.deadline_ms
        require(late, "the deadline had not passed")
        return
    if reason == Reason.EPOCH_ENDED:
        require(replay.header.epoch < case.receipt.epoch, "the epoch had not ended")
        return
    left = replay.clear(market, passed_over)
    require(left is None, "a node was left that could serve within the limits")
    fitting = any(rule.fits(market, entrant) for entrant in replay.entrants)
    due = Reason.NO_NODES_WITHIN_LIMITS if fitting else Reason.NO_NODES_AVAILABLE
    due = Reason.NO_NODE_LEFT if passed_over else due
    require_equal(reason, int(due), "the reason why nobody served")


def _require_registered(chain: ChainFacts, replay: Replay) -> None:
    header = replay.header
    model = chain.model(header.model_key, header.chain_block)
    if model is None:
        raise Refuted(f"the model was not registered at block {header.chain_block}")
    found = (header.ratio_ppm, header.fingerprint)
    require_equal(found, (model.ratio_ppm, model.fingerprint), "the model's ratio and fingerprint")
    for entrant in replay.entrants:
        row = entrant.row
        fact = chain.node(row.node, header.chain_block)
        if fact is None:
            raise Refuted(f"{shown(row.node)} was not registered at block {header.chain_block}")
        said = (row.payout, row.bond_funder)
        if said in fact.lately:
            continue
        require_equal(said, (fact.payout, fact.bond_funder), f"the wallets of {shown(row.node)}")
