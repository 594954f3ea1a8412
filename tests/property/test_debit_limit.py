"""The cut of a batch against the limiter's own arithmetic, over any receipts and balances."""

from hypothesis import given
from hypothesis import strategies as st

from coordinator.limit import charged, fitting
from coordinator.log import Leaf
from coordinator.ports import LogFunds
from pinaivu.messages import EpochStart, Receipt
from pinaivu.typed_data import Signed
from tests.integration.chain_network import filled

PAYERS = [bytes(19) + bytes((n,)) for n in range(1, 4)]
amounts = st.integers(0, 20)


def leaf(payer: bytes | None, total: int) -> Leaf:
    message = filled(Receipt, payer=payer, total=total) if payer else filled(EpochStart)
    return Leaf(Signed(message, bytes(65)), bytes(32), 0)


@given(
    leaves=st.lists(st.builds(leaf, st.sampled_from([None, *PAYERS]), amounts), max_size=8),
    balances=st.lists(amounts, min_size=3, max_size=3),
    debitable=amounts,
)
def test_the_longest_prefix_that_the_contract_takes(
    leaves: list[Leaf], balances: list[int], debitable: int
) -> None:
    """It takes of each payer the lesser of its netted row and its balance, and of all no more."""
    held = dict(zip(PAYERS, balances, strict=True))

    def taken(count: int) -> int:
        rows = dict.fromkeys(PAYERS, 0)
        for one in leaves[:count]:
            if one.receipt:
                rows[one.receipt.payer] += one.receipt.total
        return sum(min(rows[payer], held[payer]) for payer in PAYERS)

    count = fitting(leaves, LogFunds(debitable, held))
    assert taken(count) <= debitable
    assert count == len(leaves) or taken(count + 1) > debitable
    assert taken(len(leaves)) <= charged(leaves)
