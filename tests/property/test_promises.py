"""What a node promises doesn't move its score: the duration that counts is what was measured."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pinaivu.messages import Offer, Receipt
from pinaivu.reputation import Reputation
from pinaivu.testing.receipts import attempted, receipt_of
from tests.property.test_reputation import RULES, plain
from tests.unit.ledger_support import NODES, offer

NODE, STRANGER = NODES[0].address, NODES[1].address
ttft = st.integers(1, 600_000)
tps = st.integers(1, 10**7)


def promised(node: bytes, ttft_ms: int, tps_milli: int) -> Offer:
    return replace(offer(NODES[0]), node=node, ttft_ms=ttft_ms, tps_milli=tps_milli)


def expected(reputation: Reputation, terms: Offer, output: int) -> tuple[int, int]:
    """Milliseconds to the first token and for the others, as the score counts them."""
    known = reputation.standing(terms)
    first = -(-terms.ttft_ms * known.cal_t // 1000)
    rest = -(-output * 1000 * known.cal_s // terms.tps_milli)
    return first, rest


@given(
    st.lists(plain(), max_size=30),
    st.sampled_from([NODE, STRANGER]),
    ttft,
    tps,
    ttft,
    tps,
    st.integers(1, 4096),
)
def test_a_promise_moves_the_expected_duration_by_rounding_only(
    many: list[Receipt],
    node: bytes,
    one_t: int,
    one_s: int,
    other_t: int,
    other_s: int,
    output: int,
) -> None:
    """Of the promise and upwards: whoever promises more than it keeps gains no more than that."""
    reputation = Reputation(RULES)
    reputation.learn(receipt_of(attempted(NODE), gateway=b"\xee" * 20, payer=b"\xee" * 20))
    for receipt in many:
        reputation.learn(receipt)
    one, other = promised(node, one_t, one_s), promised(node, other_t, other_s)
    first, rest = expected(reputation, one, output)
    first_too, rest_too = expected(reputation, other, output)
    assert abs(first - first_too) <= max(one_t, other_t) // 1000 + 2
    slowest = min(one_s, other_s)
    assert abs(rest - rest_too) <= output * 1000 // slowest + 2
