"""Whose money a receipt's caps and sums are about, as V8 and V11 have to say.

A wallet's counters show nothing of one key when several keys spend from it. A key of a gateway's
own wallet has a sub-account with counter, total and limit of its own; that it is *this* key's shows
only whoever holds the account's secret.
"""

from pinaivu.commitments import account_of
from pinaivu.verify.case import Case
from pinaivu.verify.findings import Refuted, require, shown

_WALLET_ONLY = "for the gateway's wallet only"


def covers(case: Case) -> str:
    """What caps and sums on this receipt cover, for a step's evidence."""
    receipt, wallet = case.receipt, shown(case.receipt.payer)
    if opens_account(case):
        return f"for your sub-account, {receipt.account_total} of {receipt.account_limit} spent"
    if any(receipt.account):
        return f"{_WALLET_ONLY} ({wallet}): needs the sub-account's secret to say more"
    if case.policy.payer == receipt.payer:
        return f"for your wallet {wallet}"
    return f"for the wallet {wallet}; if others' keys spend from it, {_WALLET_ONLY}"


def opens_account(case: Case) -> bool:
    """Whether the holder's secret is at hand and gives the receipt's sub-account."""
    secret, receipt = case.account_secret, case.receipt
    return secret is not None and receipt.account == account_of(receipt.payer, secret)


def require_account_limit(case: Case) -> None:
    """The sub-account is within its limit, and that within what its holder was promised."""
    receipt, promised = case.receipt, case.copies.account_limit
    if any(receipt.account):
        within = receipt.account_total <= receipt.account_limit
        require(within, f"the sub-account's total is above its limit {receipt.account_limit}")
    if promised is None:
        return
    if not any(receipt.account):
        raise Refuted("the receipt names no sub-account, and a limit was promised")
    kept = receipt.account_limit <= promised
    require(kept, f"the sub-account's limit is {receipt.account_limit}, {promised} was promised")
