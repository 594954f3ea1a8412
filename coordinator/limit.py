"""What the contract's debit limiter lets one batch settle.

The limiter counts what a batch takes from deposits: of each payer's row no more than the payer's
balance, as the rest is the reserve's to pay. Whether the chain stays as it was read is not known
here; what did not fit then is found when the batch is not taken.
"""

from collections.abc import Sequence

from coordinator.log import Leaf
from coordinator.ports import LogFunds


def charged(leaves: Sequence[Leaf]) -> int:
    """All that the receipts among the leaves charge, base units: the most that is taken."""
    return sum(leaf.receipt.total for leaf in leaves if leaf.receipt)


def fitting(leaves: Sequence[Leaf], funds: LogFunds) -> int:
    """How many leaves, from the first on, a batch can settle; `funds` knows all their payers."""
    room, balances = funds.debitable, dict(funds.balances)
    for count, leaf in enumerate(leaves):
        if leaf.receipt is None:
            continue
        taken = min(leaf.receipt.total, balances[leaf.receipt.payer])
        if taken > room:
            return count
        room -= taken
        balances[leaf.receipt.payer] -= taken
    return len(leaves)
