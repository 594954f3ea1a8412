"""What a node asks: a standing price, and what it bids when it is called.

A `Pricing` decides the second from the first, the call and the load; the rule of the auction bounds
it. All prices are base units per million output tokens; the input price follows from the model's
ratio in the registry.
"""

from dataclasses import dataclass
from typing import Protocol

from pinaivu.auction.rule import lowest_bid


@dataclass(frozen=True, slots=True)
class Situation:
    """What a price may depend on: the standing price, the job's size, slots free and in all."""

    price_out: int
    prompt_tokens: int
    expected_output_tokens: int
    free_slots: int
    slots: int
    discount_ppm: int
    """The most a bid may go below the standing price, by the log's parameters."""


class Pricing(Protocol):
    """Decides bids. Pure: the same situation gives the same bid."""

    def bid(self, situation: Situation) -> int | None:
        """A price from `lowest_bid` up to the standing price, or None to let that one stand."""


@dataclass(frozen=True, slots=True)
class FixedPrice:
    """Always the standing price."""

    def bid(self, situation: Situation) -> int | None:  # noqa: ARG002 - the port's signature
        """None."""
        return None


@dataclass(frozen=True, slots=True)
class IdleDiscount:
    """Cheaper while there is room: `ppm` off when every slot is free, in proportion otherwise."""

    ppm: int

    def bid(self, situation: Situation) -> int | None:
        """The discounted price, or None where rounding leaves nothing of the discount."""
        if not situation.slots:
            return None
        off = min(self.ppm * situation.free_slots // situation.slots, situation.discount_ppm)
        price = lowest_bid(situation.price_out, off)
        return price if price < situation.price_out else None
