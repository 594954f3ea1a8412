"""What is known of nodes from the log's receipts, for the book and the desk.

The rules are the core's, where strangers rerun them: `pinaivu.reputation`. The coordinator keeps
no copy of the state beside the log: at boot it learns every receipt again.
"""

from collections.abc import Iterable

from coordinator.log import Leaf
from pinaivu.reputation import Changed, Reputation, Standing

__all__ = ["Changed", "Reputation", "Standing", "learn_again"]


def learn_again(reputation: Reputation, leaves: Iterable[Leaf]) -> None:
    """Bring a new reputation to where the log is: at boot, from leaves that have been checked.

    A copy of the state in the store would save about a fifth of a boot, whose time goes into the
    leaves' signatures, and it would be the host's word against the log's.
    """
    for leaf in leaves:
        if leaf.receipt is not None:
            reputation.learn(leaf.receipt)
