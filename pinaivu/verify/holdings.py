"""All of a holder's bundles together: whether anything is missing between them, or was added.

    for book in reckon(domain, [contents, …]):
        print(book.to_text())

Bundles are put together by whose they are: a hosted key's sub-account where the bundle holds the
secret that opens it, else the wallet that paid, for each log. Each book is one of `account`'s
checks, and its batches' statements must join and end where its receipts do.

Each bundle has to be verified for itself: here it is believed that its epochs' keys are the log's.
Not proven: that no receipt came after the newest one given.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

from msgspec import Struct

from pinaivu.codes import Role
from pinaivu.commitments import account_of, party_of_account
from pinaivu.messages import Receipt
from pinaivu.settlement import Statement
from pinaivu.typed_data import Domain, Signed
from pinaivu.verify.account import (
    Account,
    AccountContradiction,
    check_payer,
    check_sub_account,
    require_statements,
)
from pinaivu.verify.contents import Contents
from pinaivu.verify.findings import shown


class Whose(Struct, frozen=True, order=True):
    """Whose receipts belong together; `secret` is empty for a wallet as a whole."""

    log_id: bytes
    payer: bytes
    secret: bytes

    @property
    def role(self) -> Role:
        """The party's role in statements."""
        return Role.ACCOUNT if self.secret else Role.PAYER

    @property
    def party(self) -> bytes:
        """The party as statements name it, 32 bytes."""
        if self.secret:
            return party_of_account(self.payer, account_of(self.payer, self.secret))
        return self.payer.rjust(32, b"\0")

    def counter(self, receipt: Receipt) -> int:
        """The party's counter on a receipt."""
        return receipt.account_counter if self.secret else receipt.payer_counter


class Book(Struct, frozen=True, kw_only=True):
    """One party's receipts of one log. `fault` says what does not follow; empty: all does."""

    whose: Whose
    receipts: int
    total: int = 0
    settled: int = 0
    fault: str = ""

    def to_text(self) -> str:
        """The book in a line or two."""
        party = account_of(self.whose.payer, self.whose.secret) if self.whose.secret else None
        name = f"sub-account {shown(party)}" if party else f"wallet {shown(self.whose.payer)}"
        head = f"{name} at log {shown(self.whose.log_id)}: {self.receipts} receipt(s)"
        if self.fault:
            return f"{head}\nFAILED {self.fault}"
        sums = f"{self.total} base units, counters 1 to {self.receipts} without gap or repeat"
        return f"{head}, {sums}; batches' statements cover {self.settled}"


def reckon(domain: Domain, bundles: Iterable[Contents], *, limit: int | None = None) -> list[Book]:
    """A book for each party in `bundles`; `limit` is what a sub-account's holder was promised."""
    owned = sorted(((_whose(c), c) for c in bundles), key=lambda pair: pair[0])
    return [
        _book(domain, whose, [contents for _, contents in group], limit)
        for whose, group in groupby(owned, key=lambda pair: pair[0])
    ]


def _whose(contents: Contents) -> Whose:
    receipt = contents.receipt.message
    secret = (contents.holder and contents.holder.account_secret) or b""
    if secret and receipt.account != account_of(receipt.payer, secret):
        secret = b""  # V4 of that bundle refutes it; here it counts for the wallet
    return Whose(receipt.log_id, receipt.payer, secret)


def _book(domain: Domain, whose: Whose, bundles: Sequence[Contents], limit: int | None) -> Book:
    ordered = sorted((c.receipt for c in bundles), key=lambda r: whose.counter(r.message))
    signers = {part.number: part.signer for contents in bundles for part in contents.epochs}
    statements = _statements(whose, bundles)
    try:
        account = _account(domain, whose, ordered, signers, limit)
        require_statements(account, statements)
    except AccountContradiction as error:
        return Book(whose=whose, receipts=len(ordered), fault=str(error))
    return Book(
        whose=whose,
        receipts=len(ordered),
        total=account.running.total,
        settled=statements[-1].counter_to if statements else 0,
    )


def _account(
    domain: Domain,
    whose: Whose,
    receipts: Sequence[Signed[Receipt]],
    signers: dict[int, bytes],
    limit: int | None,
) -> Account:
    if not whose.secret:
        return check_payer(domain, whose.payer, receipts, signers)
    return check_sub_account(domain, whose.payer, whose.secret, receipts, signers, limit=limit)


def _statements(whose: Whose, bundles: Sequence[Contents]) -> list[Statement]:
    """The party's statements of all batches in the bundles, each once, in order."""
    found = {
        part.entry.counter_from: part.entry
        for contents in bundles
        if contents.batch
        for part in contents.batch.statements
        if (part.entry.role, part.entry.party) == (whose.role, whose.party)
    }
    return [found[counter] for counter in sorted(found)]
