"""Random markets for the tests of book and round: near ties, exact ties, edges of every width."""

from random import Random
from typing import Final

from msgspec.structs import replace

from coordinator.field import Field, Slot
from coordinator.shelf import Shelf
from pinaivu.auction import rule
from pinaivu.auction.rule import Entrant, Market
from pinaivu.auction.transcript import Row
from pinaivu.codes import Feature
from pinaivu.fields import MAX_U32, MAX_U64
from pinaivu.messages import Bid, Offer
from pinaivu.typed_data import Signed

LOG: Final = b"L" * 32
OPEN_MS: Final = 1_000
CLOSE_MS: Final = 1_100
_KINDS: Final = ("ordinary", "crowded", "absurd")


def node(number: int) -> bytes:
    """A node's address."""
    return number.to_bytes(20)


class Draw:
    """Numbers of one market's kind: spread out, all nearly alike, or anything that has a width."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)  # noqa: S311 - a test's
        self.kind = self.rng.choice(_KINDS)

    def number(self, low: int, high: int, most: int) -> int:
        """Between `low` and `high` where numbers make sense, up to `most` where they don't."""
        if self.kind == "crowded":
            return low + self.rng.randrange(3) * (high - low) // 1000
        if self.kind == "absurd" and self.rng.random() < 0.3:
            return self.rng.choice([low, most, most - 1, self.rng.randint(low, most)])
        return self.rng.randint(low, high)

    def chance(self, share: float) -> bool:
        """True in that share of the draws."""
        return self.rng.random() < share

    def market(self, size: int) -> Market:
        """A job's market among `size` nodes as it opens."""
        some = frozenset(node(n) for n in range(1, size + 1) if self.chance(0.2))
        fair = not self.chance(0.3)
        return Market(
            log_id=LOG,
            nonce=self.rng.randbytes(32),
            model="m",
            fingerprint=b"F" * 32,
            ratio_ppm=self.number(0, 1_000_000, MAX_U32),
            features=Feature.KIND_CHAT,
            prompt_tokens=self.number(0, 10_000, 2**31),
            expected_tokens=self.number(0, 4_000, MAX_U32),
            max_output_tokens=self.number(0, 4_000, 2**31),
            value_of_time=self.number(0, 10_000, MAX_U64),
            limit_in=MAX_U64 if fair else self.number(0, 500_000, MAX_U64),
            limit_out=MAX_U64 if fair else self.number(0, 1_000_000, MAX_U64),
            reserve=(1 << 96) - 1 if fair else self.number(0, 8_000, MAX_U64),
            allow=some if self.chance(0.1) else frozenset(),
            deny=some if self.chance(0.3) else frozenset(),
            close_ms=OPEN_MS,
            discount_ppm=self.rng.choice([0, 200_000, 1_000_000]),
            uplift_ppm=self.rng.choice([0, 100_000, 1_000_000]),
            explore_ppm=self.rng.choice([0, 999_999]),
        )

    def entrant(self, number: int) -> Entrant:
        """One node's offer, and what is known of it."""
        offer = Offer(
            log_id=LOG,
            node=node(number),
            fingerprint=b"F" * 32 if self.chance(0.95) else b"G" * 32,
            features=(Feature.KIND_CHAT if self.chance(0.95) else 0)
            | (Feature.EXPLORATION if self.chance(0.5) else 0),
            context_tokens=self.number(14_000, 20_000, MAX_U32),
            price_out=self.number(0, 1_000_000, MAX_U64),
            ttft_ms=self.number(0, 1_000, MAX_U32),
            tps_milli=self.number(1, 100_000, MAX_U64),
            slots=self.number(1, 3, MAX_U32),
            sequence=1,
            issued_ms=self.rng.choice([0, 0, 0, OPEN_MS + 1, CLOSE_MS + 1]),
            expires_ms=self.rng.choice([15_000, 15_000, 15_000, OPEN_MS, CLOSE_MS]),
            model="m",
        )
        row = Row(
            offer_digest=number.to_bytes(32),
            node=node(number),
            payout=bytes([self.rng.randrange(3)]) * 20,
            bond_funder=bytes([self.rng.randrange(3)]) * 20,
            success_ppm=self.number(0, 1_000_000, MAX_U32),
            cal_t=self.number(0, 2_000, MAX_U32),
            cal_s=self.number(0, 2_000, MAX_U32),
            busy=self.rng.choice([0, 0, 0, 1]),
            newcomer=self.chance(0.3),
        )
        return Entrant(row, offer)

    def bid(self, market: Market, entrant: Entrant) -> Entrant:
        """The entrant with a bid somewhere between its offer and the lowest price."""
        price = entrant.offer.price_out
        lowest = rule.lowest_bid(price, market.discount_ppm)
        bid = Bid(
            job_digest=bytes(32),
            nonce=market.nonce,
            offer_digest=entrant.row.offer_digest,
            node=entrant.row.node,
            price_out=self.rng.choice([lowest, price, self.rng.randint(lowest, price)]),
            ttft_ms=entrant.offer.ttft_ms,
            tps_milli=entrant.offer.tps_milli,
        )
        return replace(entrant, bid=bid)

    def entrants(self, size: int) -> list[Entrant]:
        """A book's rows."""
        return [self.entrant(number) for number in range(1, size + 1)]


def shelf_of(entrants: list[Entrant]) -> Shelf:
    """A shelf where these stand; nobody asks for their signatures."""
    shelf = Shelf()
    for entrant in entrants:
        shelf.put(entrant.row.node, slot_of(entrant))
    return shelf


def slot_of(entrant: Entrant) -> Slot:
    """The entrant's slot, its offer unsigned."""
    return Slot(entrant, Signed(entrant.offer, bytes(65)))


def field_of(market: Market, entrants: list[Entrant]) -> Field:
    """What the book shows a job."""
    return shelf_of(entrants).field(market)
