"""docs/auction.md computes its example as the rule does, and names the parameters that hold."""

from typing import Final

from msgspec.structs import replace

from pinaivu.auction import rule
from pinaivu.auction.rule import Entrant, Market
from pinaivu.auction.transcript import Row
from pinaivu.codes import Clearing, Feature
from pinaivu.manifest import local_development_parameters
from pinaivu.messages import Offer
from tests.docs.pages import ROOT
from tests.property import rule_from_the_text as text

PAGE: Final = (ROOT / "docs" / "auction.md").read_text(encoding="utf-8")
PARAMETERS: Final = local_development_parameters("http://127.0.0.1")
UNLIMITED: Final = (1 << 64) - 1
MARKET: Final = Market(
    log_id=bytes(32),
    nonce=bytes(32),
    model="m",
    fingerprint=bytes(32),
    ratio_ppm=250_000,
    features=Feature.KIND_CHAT,
    prompt_tokens=400,
    expected_tokens=300,
    max_output_tokens=1_000,
    value_of_time=20,
    limit_in=UNLIMITED,
    limit_out=UNLIMITED,
    reserve=UNLIMITED,
    allow=frozenset(),
    deny=frozenset(),
    close_ms=0,
    discount_ppm=PARAMETERS.discount_ppm,
    uplift_ppm=PARAMETERS.max_uplift_ppm,
    explore_ppm=PARAMETERS.explore_ppm,
)


def entrant(name: str, price: int, ttft_ms: int, tps_milli: int, success_ppm: int) -> Entrant:
    node = name.encode() * 20
    offer = Offer(
        log_id=bytes(32),
        node=node,
        fingerprint=bytes(32),
        features=Feature.KIND_CHAT,
        context_tokens=8_192,
        price_out=price,
        ttft_ms=ttft_ms,
        tps_milli=tps_milli,
        slots=1,
        sequence=1,
        issued_ms=0,
        expires_ms=15_000,
        model="m",
    )
    row = Row(
        offer_digest=bytes(32),
        node=node,
        payout=node,
        bond_funder=bytes(20),
        success_ppm=success_ppm,
        cal_t=1000,
        cal_s=1000,
        busy=0,
    )
    return Entrant(row, offer)


ENTRANTS: Final = {
    "A": entrant("A", 2_000_000, 400, 60_000, 980_000),
    "B": entrant("B", 2_300_000, 300, 100_000, 990_000),
    "C": entrant("C", 1_900_000, 900, 30_000, 900_000),
}


def test_every_line_of_the_examples_table_is_what_the_rule_gives() -> None:
    """Price, promises and success as stated; cost, delay and score as computed, twice."""
    for name, e in ENTRANTS.items():
        cost, delay, score = (
            MARKET.cost(e.price_out),
            rule.delay(MARKET, e),
            rule.score(MARKET, e),
        )
        assert (cost, delay, score) == (
            text.cost(MARKET, e.price_out),
            text.delay(MARKET, e),
            text.score(MARKET, e),
        )
        cells = [e.price_out, e.offer.ttft_ms, e.offer.tps_milli, e.row.success_ppm]
        row = " | ".join(f"{cell:,}" for cell in (*cells, cost, delay, score))
        assert f"| {name} | {row} |" in PAGE


def test_the_examples_outcome_is_what_the_rule_gives() -> None:
    """The winner, C and both prices; then the next rank, and a lone bidder."""
    entrants = list(ENTRANTS.values())
    first, second, third = rule.rank(MARKET, entrants)
    cleared = rule.clear(MARKET, entrants)
    assert cleared is not None
    assert cleared.entrant is first.entrant is ENTRANTS["A"]
    worth = second.score * first.entrant.row.success_ppm // 10**6
    room = worth - rule.delay(MARKET, first.entrant)
    assert f"C = {second.score:,} · 0.98 − {rule.delay(MARKET, first.entrant):,} = {room:,}" in PAGE
    assert f"p' = 2,000,000 · {room:,} / 800,000,000 = {cleared.price_out:,}" in PAGE
    assert f"input {cleared.price_in:,}" in PAGE
    excluded = frozenset({first.entrant.row.node})
    again = rule.clear(MARKET, entrants, excluded)
    assert again is not None
    assert again.entrant is second.entrant is ENTRANTS["B"]
    assert f"B at {again.price_out:,}" in PAGE
    assert third.entrant is ENTRANTS["C"]
    lone = rule.clear(MARKET, [ENTRANTS["A"]])
    assert lone is not None
    assert lone.clearing == Clearing.LONE


def test_the_winners_own_price_moves_nothing_in_the_example() -> None:
    """As the page says: asking less or more, up to what it is paid."""
    prices = []
    for price in (1_800_000, 2_000_000, 2_100_000):
        a = ENTRANTS["A"]
        asked = [Entrant(a.row, replace(a.offer, price_out=price)), *list(ENTRANTS.values())[1:]]
        cleared = rule.clear(MARKET, asked)
        assert cleared is not None
        assert cleared.entrant.row.node == a.row.node
        prices.append(cleared.price_out)
    assert max(prices) - min(prices) <= 1


def test_the_parameters_are_the_local_ones() -> None:
    """Per cent as the page writes them."""
    assert f"`discount_ppm` | {PARAMETERS.discount_ppm:,} " in PAGE
    assert f"`max_uplift_ppm` | {PARAMETERS.max_uplift_ppm:,} " in PAGE
    assert f"`explore_ppm` | {PARAMETERS.explore_ppm:,} " in PAGE
    assert f"`value_of_time` | {PARAMETERS.value_of_time:,} " in PAGE
