"""V11 and V12: nothing was left out or billed beside it, and the chain credited the nodes."""

from pinaivu.codes import Role
from pinaivu.commitments import party_of_account
from pinaivu.merkle.hashing import leaf_hash
from pinaivu.merkle.proofs import verify_inclusion
from pinaivu.messages import Batch
from pinaivu.settlement import Statement, unpack_rows
from pinaivu.verify.case import Case
from pinaivu.verify.contents import BatchPart
from pinaivu.verify.covers import covers
from pinaivu.verify.facts import ChainFacts, SettlementFact
from pinaivu.verify.findings import Finding, Lacks, Refuted, require, require_equal, shown
from pinaivu.verify.recomposed import require_composed

_Party = tuple[Role, bytes]


def complete(case: Case) -> Finding:
    """V11: each party's counters and totals lie in its statement, and the statement is its row.

    Not proven from one bundle: that the receipts between the statement's counters are what they
    should be; `--account` opens every one of them.
    """
    require_composed(case, "V11")
    part = case.contents.batch
    if part is None:
        raise Lacks("needs the batch that settles the receipt")
    batch = part.batch.message
    found = _statements(part)
    due = _places(case)
    missing = due.keys() - found.keys()
    if missing:
        raise Lacks(f"{len(missing)} of {len(due)} statements are missing")
    require_equal(len(part.statements), len(due), "the number of statements")
    rows = {Role.PAYER: unpack_rows(batch.debits), Role.NODE: unpack_rows(batch.credits)}
    for party, (counter, total, amount) in due.items():
        _require_inside(found[party], counter, total, amount)
        if party[0] in rows:
            row = rows[party[0]].get(party[1][12:], 0)
            moved = found[party].total_to - found[party].total_from
            require_equal(row, moved, f"the row of {shown(party[1][12:])}")
    _require_balanced(case, batch, rows[Role.PAYER], rows[Role.NODE])
    return Finding(
        evidence=f"{len(due)} statement(s) of batch {batch.sequence} hold the receipt's counters; "
        f"nothing beside it {covers(case)}",
        facts={"sequence": batch.sequence, "parties": len(due)},
    )


def credited(case: Case) -> Finding:
    """V12: the chain settled this very batch and credited its nodes; payouts went to their wallets.

    Not proven: which payout holds this receipt's units, as credit is one sum; nor what a wallet's
    owner did with them.
    """
    part = case.contents.batch
    if part is None:
        raise Lacks("needs the batch that settles the receipt")
    if case.chain is None:
        raise Lacks("needs the chain")
    batch = part.batch.message
    fact = case.chain.settlement(batch.log_id, batch.sequence)
    if fact is None:
        raise Lacks(f"batch {batch.sequence} is not settled on chain yet")
    require_settled(batch, case.digest(part.batch), fact)
    rows = unpack_rows(batch.credits)
    paid = {
        work.segment.node: _require_earned(case.chain, work.segment.node, rows, fact)
        for work in case.work
    }
    scaled = "" if fact.backed == fact.due else f", scaled down to {fact.backed} of {fact.due}"
    return Finding(
        evidence=f"settled in block {fact.block}{scaled}; credit of {len(paid)} node(s) matches",
        facts={
            "block": fact.block,
            "due": fact.due,
            "backed": fact.backed,
            "shorts": {shown(payer): list(gap) for payer, gap in fact.shorts.items()},
            "paid_out": {shown(node): amount for node, amount in paid.items()},
        },
    )


def _statements(part: BatchPart) -> dict[_Party, Statement]:
    batch, found = part.batch.message, dict[_Party, Statement]()
    order = [statement.index for statement in part.statements]
    require(order == sorted(set(order)), "the statements are not in their order, each once")
    for statement in part.statements:
        entry = statement.entry
        verify_inclusion(
            leaf_hash(entry.to_bytes()),
            statement.index,
            batch.parties,
            statement.inclusion,
            batch.statement_root,
        )
        require((entry.role, entry.party) not in found, "a party has two statements")
        found[entry.role, entry.party] = entry
    return found


def _places(case: Case) -> dict[_Party, tuple[int, int, int]]:
    """Every party of the receipt, with its counter, running total and what this receipt moved."""
    receipt = case.receipt
    payer = (receipt.payer_counter, receipt.payer_total, receipt.total)
    due = {(Role.PAYER, receipt.payer.rjust(32, b"\0")): payer}
    if any(receipt.account):
        party = party_of_account(receipt.payer, receipt.account)
        account = (receipt.account_counter, receipt.account_total, receipt.total)
        due[Role.ACCOUNT, party] = account
    for s in receipt.segments:
        if s.rank:
            place = (s.node_counter, s.node_total, s.amount - s.fee)
            due[Role.NODE, s.node.rjust(32, b"\0")] = place
    return due


def _require_inside(statement: Statement, counter: int, total: int, amount: int) -> None:
    """The receipt lies within; as the first or last of the range it meets that end exactly."""
    inside = statement.counter_from < counter <= statement.counter_to
    require(inside, f"counter {counter} is outside the statement")
    before = total - amount
    inside = statement.total_from <= before and total <= statement.total_to
    require(inside, f"running total {total} is outside the statement")
    if counter == statement.counter_from + 1:
        require_equal(before, statement.total_from, "the total before the first receipt")
    if counter == statement.counter_to:
        require_equal(total, statement.total_to, "the total after the last receipt")


def _require_balanced(
    case: Case, batch: Batch, debits: dict[bytes, int], credits_: dict[bytes, int]
) -> None:
    moved = sum(credits_.values()) + batch.fees
    require_equal(sum(debits.values()), moved, "the sum of the batch's debits")
    fees = sum(segment.fee for segment in case.receipt.segments)
    require(fees <= batch.fees, "the receipt's fees are above the batch's")


def require_settled(batch: Batch, batch_digest: bytes, fact: SettlementFact) -> None:
    """Raise `Refuted` unless the chain's events are of this batch and its sums."""
    found = (fact.batch_digest, fact.prev_size, fact.new_size, fact.new_root)
    due = (batch_digest, batch.prev_size, batch.new_size, batch.new_root)
    require_equal(found, due, "what the chain settled under this sequence")
    debits = sum(unpack_rows(batch.debits).values())
    require_equal(fact.due, debits, "what was due on chain")
    fees = batch.fees if fact.backed == fact.due else batch.fees * fact.backed // fact.due
    require_equal(fact.fees, fees, "the fees on chain")
    gap = sum(covered + uncovered for covered, uncovered in fact.shorts.values())
    require_equal(fact.debited + gap, debits, "what was debited and what was short")


def _require_earned(
    chain: ChainFacts, node: bytes, rows: dict[bytes, int], fact: SettlementFact
) -> int:
    """Base units paid out to the node's wallet so far, once they add up with its credit."""
    row = rows.get(node, 0)
    share = row if fact.backed == fact.due else row * fact.backed // fact.due
    earned = chain.earnings(node)
    require(earned.lifetime >= share, f"{shown(node)} was credited less than {share}")
    paid = sum(payout.amount for payout in earned.payouts)
    require_equal(paid + earned.credit, earned.lifetime, f"payouts and credit of {shown(node)}")
    for payout in earned.payouts:
        if payout.wallet != payout.registered:
            raise Refuted(f"a payout of {shown(node)} went to {shown(payout.wallet)}")
    return paid
