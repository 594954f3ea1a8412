"""Lying sellers: an offer stands only while its node would have to mean it."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from coordinator import book as books
from coordinator.book import OrderBook
from coordinator.docket import Docket
from coordinator.errors import JobRefused
from pinaivu.auction import rule
from pinaivu.auction.rule import Entrant, Market
from pinaivu.fields import MAX_U64
from pinaivu.messages import Offer
from pinaivu.p2p import wire
from pinaivu.reputation.standing import MOST_TPS_MILLI
from pinaivu.typed_data import Signed
from tests.adversaries.stage import ATTACKER, HONEST, award_in, both_ways, world_at
from tests.unit.coordinator_world import MODEL_RECORD, World, node_record
from tests.unit.ledger_support import DOMAIN, MODEL, NODES, NOW, PAYER, offer

DAY_MS = 86_400_000
CHEAP, DEAR = 1_000_000, 1_200_000


def put(world: World, made: Offer, *, signer: Any = ATTACKER) -> str | None:
    """Hand an offer in on the attacker's stream; the code of the refusal, or None."""
    signed = Signed.by(signer, DOMAIN, made)
    model = MODEL_RECORD if made.model == MODEL else None
    try:
        world.book.put(signed, node_record(ATTACKER), model, world.now)
    except JobRefused as refusal:
        return refusal.code
    return None


def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the guard: the book takes whatever it is handed."""
    monkeypatch.setattr(OrderBook, "_check", lambda *_args: None)


async def _nodes(world: World, jobs: int = 1) -> list[bytes]:
    """Who wins some jobs, one after the other."""
    return [award_in(await world.submit(number + 1)).node for number in range(jobs)]


@both_ways
async def test_an_offer_valid_for_a_year(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """A node that has gone long since would still set others' prices."""
    async with world_at(tmp_path) as world:
        if not guarded:
            unchecked(monkeypatch)
        refused = put(world, offer(ATTACKER, CHEAP, expires_ms=NOW + 365 * DAY_MS))
        world.now += DAY_MS
        world.put_offers(DEAR)
        assert refused == ("bad_validity" if guarded else None)
        assert world.book.models(world.now) == {MODEL: 1 if guarded else 2}


@both_ways
async def test_a_skewed_clock_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """Dated forward, fifteen seconds of validity would end tomorrow."""
    if not guarded:
        monkeypatch.setattr(books, "_CLOCK_SKEW_MS", 2 * DAY_MS)
    async with world_at(tmp_path) as world:
        ahead = NOW + DAY_MS
        refused = put(world, offer(ATTACKER, CHEAP, issued_ms=ahead, expires_ms=ahead + 15_000))
        world.now = ahead - 1
        assert refused == ("from_the_future" if guarded else None)
        assert world.book.models(world.now) == ({} if guarded else {MODEL: 1})


def valid_from_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the guard: an offer's validity begins when it comes in, whatever its dates say."""
    put_as_dated = OrderBook.put

    def put(book: OrderBook, signed: Signed[Offer], record: Any, model: Any, now_ms: int) -> None:
        made = signed.message
        until_ms = now_ms + made.expires_ms - made.issued_ms
        fresh = replace(made, issued_ms=now_ms, expires_ms=until_ms)
        put_as_dated(book, Signed(fresh, signed.signature), record, model, now_ms)

    unchecked(monkeypatch)
    monkeypatch.setattr(OrderBook, "put", put)


@both_ways
async def test_a_skewed_clock_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """A node that lives a day ago would win today by yesterday's price. It is told at once."""
    if not guarded:
        valid_from_arrival(monkeypatch)
    async with world_at(tmp_path) as world:
        world.put_offers(DEAR)
        behind = NOW - DAY_MS
        made = offer(ATTACKER, CHEAP, issued_ms=behind, expires_ms=behind + 15_000)
        assert put(world, made) == ("expired" if guarded else None)
        assert await _nodes(world) == [(HONEST if guarded else ATTACKER).address]


@both_ways
async def test_an_older_offer_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """Whoever holds a node's cheaper offer of before could sell it below its price."""
    async with world_at(tmp_path) as world:
        cheap = offer(ATTACKER, CHEAP // 2, sequence=1)
        assert put(world, cheap) is None
        assert put(world, offer(ATTACKER, DEAR, sequence=2)) is None
        world.put_offers(CHEAP)
        if not guarded:
            unchecked(monkeypatch)
        assert put(world, cheap) == ("stale_sequence" if guarded else None)
        assert await _nodes(world) == [(HONEST if guarded else ATTACKER).address]


LIES: dict[str, tuple[str, dict[str, Any]]] = {
    "for a model it does not serve": ("wrong_fingerprint", {"fingerprint": b"\x0b" * 32}),
    "for a model nobody registered": ("unknown_model", {"model": "made-up/other"}),
    "in another node's name": ("foreign_node", {"node": HONEST.address}),
    "of another log": ("foreign_log", {"log_id": b"\x0c" * 32}),
    "with no speed at all": ("no_speed", {"tps_milli": 0}),
}


@both_ways
@pytest.mark.parametrize(("code", "lie"), LIES.values(), ids=LIES.keys())
async def test_an_offer_that_lies(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    lie: dict[str, Any],
    *,
    guarded: bool,
) -> None:
    """It stands in the book if nobody looks, and is counted by its reason otherwise."""
    async with world_at(tmp_path) as world:
        if not guarded:
            unchecked(monkeypatch)
        assert put(world, offer(ATTACKER, CHEAP, **lie)) == (code if guarded else None)
        assert world.book.refused == ({code: 1} if guarded else {})
        assert sum(world.book.models(world.now).values()) == (0 if guarded else 1)


@both_ways
async def test_an_offer_with_anothers_wallet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """On a node's stream, but not signed by the node."""
    async with world_at(tmp_path) as world:
        if not guarded:
            unchecked(monkeypatch)
        refused = put(world, offer(ATTACKER, CHEAP), signer=PAYER)
        assert refused == ("bad_signature" if guarded else None)


HUGE: dict[str, dict[str, Any]] = {
    "price": {"price_out": MAX_U64},
    "first token": {"ttft_ms": (1 << 32) - 1},
    "speed": {"tps_milli": MOST_TPS_MILLI},
    "slots": {"slots": (1 << 16) - 1},
    "nothing asked": {"price_out": 0},
}


async def test_a_speed_that_no_measurement_could_correct_is_refused(tmp_path: Path) -> None:
    async with world_at(tmp_path) as world:
        assert put(world, offer(ATTACKER, tps_milli=MAX_U64)) == "beyond_measure"


@pytest.mark.parametrize("extreme", HUGE.values(), ids=HUGE.keys())
async def test_the_widest_numbers_overflow_nothing(tmp_path: Path, extreme: dict[str, Any]) -> None:
    """Scores are exact integers: an honest offer beside such a one is priced within its limits."""
    async with world_at(tmp_path) as world:
        world.put_offers(CHEAP)
        assert put(world, offer(ATTACKER, **({"price_out": DEAR} | extreme))) is None
        award = award_in(await world.submit())
        assert 0 <= award.price_out <= 10**8
        if award.node == HONEST.address:
            assert CHEAP <= award.price_out <= CHEAP * 3
        else:
            assert extreme.get("price_out", DEAR) == 0 or "ttft_ms" not in extreme


WORD = 1 << 64


def _score_in_64_bits(market: Market, entrant: Entrant) -> int:
    """The rule's score in machine words, which wrap around."""
    total = market.cost(entrant.price_out) + rule.delay(market, entrant)
    return total * rule.MILLION % WORD // entrant.row.success_ppm


@both_ways
async def test_a_promise_so_slow_that_its_score_wraps_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """A first token in ten days scores just above 2⁶⁴: the best of all, were it kept in 64 bits."""
    markets = list[Market]()
    arithmetic = rule.score if guarded else _score_in_64_bits

    def score(market: Market, entrant: Entrant) -> int:
        markets.append(market)
        return arithmetic(market, entrant)

    monkeypatch.setattr(rule, "score", score)
    async with world_at(tmp_path) as world:
        world.put_offers(CHEAP, slots=2)
        assert award_in(await world.submit(1, value_of_time=20)).node == HONEST.address
        a_millisecond = markets[-1].value_of_time * 1000 * rule.MILLION
        world.put_offers(CHEAP, slots=2)
        assert put(world, offer(ATTACKER, CHEAP, ttft_ms=WORD // a_millisecond + 1)) is None
        award = award_in(await world.submit(2, value_of_time=20))
        assert award.node == (HONEST if guarded else ATTACKER).address


@both_ways
async def test_a_node_that_claims_to_be_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """Its newest offer says one free slot, whatever it was awarded: the coordinator counts."""
    if not guarded:
        monkeypatch.setattr(Docket, "busy", lambda _self, _node: 0)
    async with world_at(tmp_path) as world:
        world.put_offers(DEAR)
        assert put(world, offer(ATTACKER, CHEAP, sequence=1)) is None
        first = await _nodes(world)
        assert put(world, offer(ATTACKER, CHEAP, sequence=2)) is None
        second = award_in(await world.submit(2)).node
        assert first == [ATTACKER.address]
        assert second == (HONEST if guarded else ATTACKER).address


@both_ways
async def test_a_gateway_that_never_dispatches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """It has every node awarded and says no more: their slots are free when its awards expire."""
    if not guarded:
        monkeypatch.setattr(Docket, "release_expired", lambda _self, _now_ms: None)
    async with world_at(tmp_path) as world:
        world.put_offers(CHEAP, DEAR)
        awards = [award_in(await world.submit(number)) for number in (1, 2)]
        assert {award.node for award in awards} == {key.address for key in NODES[:2]}
        refused = await world.submit(3)
        assert isinstance(refused, wire.Refused)
        assert refused.code == "no_nodes_available"
        world.now = max(award.expires_ms for award in awards)
        assert world.now - NOW <= world.rules.award_ttl_ms
        world.put_offers(CHEAP, DEAR)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.sequencer.close_due)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        answer = await world.submit(4)
        assert isinstance(answer, wire.Awarded if guarded else wire.Refused)
