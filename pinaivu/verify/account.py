"""`--account`: every receipt of one party, in order, with nothing between them.

One bundle shows that its receipt lies in a statement. All receipts of the party show that the
statements are full: counters without gap or repeat, exact running totals, and under each grant the
sums of all time and of each day. Signatures are checked against the epochs' keys given.

Not proven: that a receipt's amount follows from its evidence (each one's bundle shows that), nor
that the receipts given last are the newest (`require_statements` with the newest batch does).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from pinaivu.books import Books, OutOfSequence, Running
from pinaivu.commitments import account_of
from pinaivu.errors import PeerFault
from pinaivu.messages import Receipt
from pinaivu.settlement import Statement
from pinaivu.typed_data import Domain, Signed
from pinaivu.verify.findings import shown

Signers = Mapping[int, bytes]


class AccountContradiction(PeerFault):
    """A party's receipts do not follow one from the other; names the first that doesn't."""


class Account(Struct, frozen=True, kw_only=True):
    """A party's state after all its receipts; `spent` is per grant digest, for payers.

    `party` is an address, or a hosted key's sub-account.
    """

    party: bytes
    running: Running
    spent: dict[bytes, int]


def check_payer(
    domain: Domain, payer: bytes, receipts: Iterable[Signed[Receipt]], signers: Signers
) -> Account:
    """The payer's state after `receipts`: all of its own from counter 1, in order.

    Sub-accounts and grants are the payer's alone, so they are checked too. `signers` maps epochs to
    the addresses that signed in them. Raises `AccountContradiction`.
    """
    books = Books()

    def post(receipt: Receipt) -> None:
        if receipt.payer != payer:
            raise OutOfSequence(f"the receipt is of payer {shown(receipt.payer)}")
        for segment in receipt.segments:  # the nodes' own sequences have other payers in them
            earned = segment.amount - segment.fee
            before = Running(segment.node_counter - 1, segment.node_total - earned)
            books.nodes[segment.node] = before
        books.post(receipt)

    _each(domain, receipts, signers, post)
    return Account(party=payer, running=books.payer(payer), spent=dict(books.grant_spent))


def check_sub_account(
    domain: Domain,
    payer: bytes,
    secret: bytes,
    receipts: Iterable[Signed[Receipt]],
    signers: Signers,
    *,
    limit: int | None = None,
) -> Account:
    """A hosted key's state after `receipts`: all of its own from counter 1, in order.

    Each is in the sub-account that `payer` and `secret` give, and none takes its total above the
    limit on it, or the limit above `limit`, the one its holder was promised. Raises
    `AccountContradiction`. Not proven: anything about the wallet's other keys.
    """
    account, running = account_of(payer, secret), Running()

    def post(receipt: Receipt) -> None:
        nonlocal running
        if (receipt.payer, receipt.account) != (payer, account):
            raise OutOfSequence("the receipt is of another account")
        running = running.plus(receipt.total)
        said = Running(receipt.account_counter, receipt.account_total)
        if said != running:
            raise OutOfSequence(f"expected {running}, the receipt says {said}")
        most = receipt.account_limit if limit is None else min(limit, receipt.account_limit)
        if receipt.account_total > most or (limit is not None and receipt.account_limit > limit):
            raise OutOfSequence(f"{said.total} spent of {receipt.account_limit}, above the limit")

    _each(domain, receipts, signers, post)
    return Account(party=account, running=running, spent={})


def check_node(
    domain: Domain, node: bytes, receipts: Iterable[Signed[Receipt]], signers: Signers
) -> Account:
    """The node's state after `receipts`: all that hold a segment of its own, in order.

    Raises `AccountContradiction`.
    """
    running = Running()

    def post(receipt: Receipt) -> None:
        nonlocal running
        own = [s for s in receipt.segments if s.node == node and s.rank]
        if not own:
            raise OutOfSequence("the receipt has no segment of this node")
        for segment in own:
            running = running.plus(segment.amount - segment.fee)
            said = Running(segment.node_counter, segment.node_total)
            if said != running:
                raise OutOfSequence(f"expected {running}, the receipt says {said}")

    _each(domain, receipts, signers, post)
    return Account(party=node, running=running, spent={})


def require_statements(account: Account, statements: Sequence[Statement]) -> None:
    """Raise unless a party's statements of adjacent batches join, and end where its receipts do.

    Receipts newer than the last batch may follow; receipts missing below it may not.
    """
    for former, later in pairwise(statements):
        ended, begun = (
            (former.counter_to, former.total_to),
            (later.counter_from, later.total_from),
        )
        if ended != begun:
            raise AccountContradiction(f"a statement ends at {ended}, the next begins at {begun}")
    if not statements:
        return
    first, last = statements[0], statements[-1]
    if (first.counter_from, first.total_from) != (0, 0):
        raise AccountContradiction("the first statement does not begin with the first receipt")
    if last.counter_to > account.running.counter:
        raise AccountContradiction(
            f"the last statement goes to receipt {last.counter_to}, {account.running.counter} given"
        )
    same = last.counter_to == account.running.counter
    if same and last.total_to != account.running.total:
        raise AccountContradiction("the last statement's total is not that of the receipts")


def _each(
    domain: Domain,
    receipts: Iterable[Signed[Receipt]],
    signers: Signers,
    post: Callable[[Receipt], None],
) -> None:
    seen: set[tuple[bytes, bytes]] = set()
    for number, signed in enumerate(receipts, start=1):
        receipt = signed.message
        job = (receipt.gateway, receipt.job_id)
        try:
            if receipt.epoch not in signers:
                raise OutOfSequence(f"no key is known of epoch {receipt.epoch}")
            signed.require(domain, signers[receipt.epoch])
            if job in seen:
                raise OutOfSequence("the job has a receipt already")
            post(receipt)
        except PeerFault as error:
            raise AccountContradiction(f"receipt {number}: {error}") from error
        seen.add(job)
