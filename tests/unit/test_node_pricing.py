"""Bids and slots: never below the allowed discount, never one slot for two logs."""

from contextlib import ExitStack

import pytest

from node.errors import JobRefused
from node.pricing import FixedPrice, IdleDiscount, Situation
from node.slots import Slots, divide
from pinaivu.auction.rule import lowest_bid
from pinaivu.codes import Reason


def _situation(**changes: int) -> Situation:
    values = {
        "price_out": 400_000,
        "prompt_tokens": 50,
        "expected_output_tokens": 100,
        "free_slots": 2,
        "slots": 2,
        "discount_ppm": 200_000,
    }
    return Situation(**(values | changes))


def test_a_fixed_price_never_bids() -> None:
    """The standing offer takes part as it is."""
    assert FixedPrice().bid(_situation()) is None


@pytest.mark.parametrize(
    ("free", "price"), [(2, 360_000), (1, 380_000), (0, None)], ids=["idle", "half", "busy"]
)
def test_an_idle_node_is_cheaper(free: int, price: int | None) -> None:
    """The discount shrinks with each slot that is taken; without free slots there is none."""
    assert IdleDiscount(100_000).bid(_situation(free_slots=free)) == price


@pytest.mark.parametrize("price", [1, 3, 7, 999, 400_000])
def test_a_bid_never_goes_below_what_the_auction_allows(price: int) -> None:
    """A policy that wants more than the log's largest discount gets exactly that one."""
    bid = IdleDiscount(900_000).bid(_situation(price_out=price))
    assert (bid or price) == lowest_bid(price, 200_000)


def test_a_log_without_slots_gets_no_bid() -> None:
    """There is nothing to bid with."""
    assert IdleDiscount(100_000).bid(_situation(slots=0, free_slots=0)) is None


A, B, C = (bytes((number,)) * 32 for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("slots", "shares"),
    [(6, [2, 2, 2]), (4, [2, 1, 1]), (2, [1, 1, 0]), (0, [0, 0, 0])],
)
def test_slots_are_divided_and_none_is_given_twice(slots: int, shares: list[int]) -> None:
    """The sum of all shares is what there is."""
    assert list(divide(slots, [A, B, C]).values()) == shares
    assert sum(shares) == slots


def test_a_log_can_hold_its_share_and_no_more() -> None:
    """The other log's free slot is not its own."""
    slots = Slots(3, [A, B])
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(slots.hold(A))
        with pytest.raises(JobRefused) as caught, slots.hold(A):
            pass
        assert caught.value.reason == Reason.REFUSED_CAPACITY
        assert (slots.free(A), slots.free(B)) == (0, 1)
    assert slots.free(A) == 2


def test_a_slot_is_given_back_when_the_work_fails() -> None:
    """However it ends."""
    slots = Slots(1, [A])
    with pytest.raises(ZeroDivisionError), slots.hold(A):
        raise ZeroDivisionError
    assert slots.free(A) == 1


def test_a_strange_log_has_no_slots() -> None:
    """Nothing was reserved for it."""
    with pytest.raises(JobRefused), Slots(1, [A]).hold(C):
        pass
