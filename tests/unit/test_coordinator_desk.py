"""From a submitted job to awards, rank by rank; repeating a call gives the same answer."""

from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace
from sqlmodel import Session, select
from trio.testing import MockClock

from coordinator.admission import Money
from coordinator.archive import read_book
from coordinator.batches import standing
from coordinator.directory import BOUND_S, FRESH_S
from coordinator.log import Log
from pinaivu.auction import rule
from pinaivu.codes import Clearing, Mode, Reason
from pinaivu.commitments import chain_length
from pinaivu.messages import Award, Receipt
from pinaivu.p2p import wire
from pinaivu.receipts import PassedOver
from pinaivu.store.coordinator import AwardRow, TranscriptRow
from pinaivu.typed_data import Signed, signed_from_bytes
from tests.unit.coordinator_world import (
    World,
    refusal_of,
    signed_grant,
    signed_job,
    three_offers,
)
from tests.unit.ledger_support import (
    DOMAIN,
    EPOCH,
    FINGERPRINT,
    GATEWAY,
    NODES,
    NOW,
    PAYER,
    RESERVE,
    chain,
    failure,
    grant,
    job,
    secret,
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World, None]:
    async with three_offers(tmp_path) as made:
        yield made


async def _next(world: World, award: Signed[Award], **more: Any) -> Signed[Award]:
    """Report an award as failed, and the next rank's."""
    said = Signed.by(GATEWAY, DOMAIN, failure(award.message, **more))
    job, failed = await world.evidence.failure(GATEWAY.address, said)
    answer = await world.desk.award_next(job, failed)
    assert isinstance(answer, wire.Awarded)
    return signed_from_bytes(Award, answer.award)


async def test_an_award_is_signed_and_durable(world: World) -> None:
    """Cheapest node, second score's price, terms of the job, signed by the epoch's key."""
    award = await world.awarded()
    terms = award.message
    award.require(DOMAIN, EPOCH.address)
    assert (terms.node, terms.rank, terms.prior) == (NODES[0].address, 1, bytes(32))
    assert terms.clearing == Clearing.SECOND_SCORE
    assert 1_000_000 <= terms.price_out <= 1_100_000
    assert terms.price_in == terms.price_out // 4
    assert (terms.max_amount, terms.max_output_tokens) == (RESERVE, 100)
    assert terms.anchor == chain(1, 1).anchor
    assert terms.expires_ms == NOW + world.rules.award_ttl_ms
    stored = await world.writer.read(
        lambda s: (s.get(AwardRow, award.digest(DOMAIN)), s.get(TranscriptRow, terms.bids_root))
    )
    assert stored[0]
    assert stored[0].award == award.to_bytes()
    assert stored[1]


async def test_an_award_never_outlives_the_jobs_deadline(world: World) -> None:
    made = signed_job(1, deadline_ms=NOW + 1_000)
    answer = await world.desk.submit(GATEWAY.address, made, signed_grant())
    assert isinstance(answer, wire.Awarded)
    assert signed_from_bytes(Award, answer.award).message.expires_ms == NOW + 1_000


async def test_the_same_bytes_get_the_same_answer(world: World) -> None:
    first = await world.submit()
    assert await world.submit() == first


async def test_other_bytes_under_an_id_are_refused(world: World) -> None:
    await world.submit()
    assert await refusal_of(world.submit(max_cost=RESERVE - 1)) == "job_id_used"


async def test_a_repeat_during_the_auction_is_told_to_wait(world: World) -> None:
    """No award is given out before it is durable; the first call's answer stands."""
    waiting = trio.Event()

    async def slow(_node: bytes, _call: wire.AuctionCall) -> wire.BidReply:
        await waiting.wait()
        return wire.BidReply()

    world.bidding = slow
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.submit)
        await trio.testing.wait_all_tasks_blocked()
        assert await refusal_of(world.submit()) == "in_progress"
        waiting.set()
    assert isinstance(await world.submit(), wire.Awarded)


async def test_a_receipted_job_is_answered_by_its_receipt(world: World) -> None:
    job = await world.served()
    await job.receipted.wait()
    answer = await world.submit()
    assert isinstance(answer, wire.Receipted)
    assert signed_from_bytes(Receipt, answer.receipt).message.job_id == job.key[1]
    assert await refusal_of(world.submit(max_cost=RESERVE - 1)) == "job_id_used"


async def test_a_receipted_job_that_comes_again_leaves_nothing(world: World) -> None:
    """Nobody asked, no money reserved, nobody busy, the next book filed as if it had not come.

    Were it in the docket again meanwhile, what comes in for it would be receipted a second time.
    """

    async def not_again(_node: bytes, _call: wire.AuctionCall) -> wire.BidReply:
        raise AssertionError

    job = await world.served()
    await job.receipted.wait()
    bidding, world.bidding = world.bidding, not_again
    assert isinstance(await world.submit(), wire.Receipted)
    world.bidding = bidding
    assert (world.docket.jobs, world.docket.all_reserved()) == ({}, 0)
    assert [world.docket.busy(node.address) for node in NODES] == [0] * len(NODES)
    await world.awarded(2)

    def books(session: Session) -> list[bool]:
        roots = session.exec(select(TranscriptRow.book_root)).all()
        return [root is not None and read_book(session, root) is not None for root in roots]

    assert await world.writer.read(books) == [True, True]


async def test_a_receipted_job_is_known_as_long_as_it_could_be_admitted_again(world: World) -> None:
    """Also by a coordinator that has started since; jobs that are new don't wait for the store."""
    job = await world.served()
    await job.receipted.wait()
    assert job.key in world.log.recent
    restarted = Log(DOMAIN, world.log.log_id, recent_ms=2 * world.rules.job_skew_ms)
    restarted.replay(world.log.leaves(0, world.log.size), world.signers)
    assert job.key in restarted.recent

    async def asked(_gateway: bytes, _job_id: bytes) -> wire.Receipted | None:
        raise AssertionError

    world.desk._find_receipt = asked
    await world.awarded(2)
    world.now += world.rules.job_skew_ms + 1  # too late to be admitted: there may be a receipt
    with pytest.raises(AssertionError):
        await world.desk.submit(GATEWAY.address, signed_job(3), signed_grant())


async def test_a_job_in_another_gateways_name_is_refused(world: World) -> None:
    """Though whoever submits it has signed it: the grant is the other one's."""
    stranger = NODES[1]
    foreign = Signed.by(stranger, DOMAIN, job(1))
    refusal = world.desk.submit(stranger.address, foreign, signed_grant())
    assert await refusal_of(refusal) == "foreign_job"


async def test_a_caller_that_goes_away_during_the_auction_leaves_nothing(world: World) -> None:
    """Nothing reserved, nobody busy, nothing stored; coming back begins anew."""
    asked = trio.Event()

    async def never(_node: bytes, _call: wire.AuctionCall) -> wire.BidReply:
        asked.set()
        await trio.sleep_forever()
        raise AssertionError

    world.bidding = never
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.submit)
        await asked.wait()
        assert world.docket.reserved(PAYER.address) == RESERVE
        nursery.cancel_scope.cancel()
    assert world.docket.reserved(PAYER.address) == 0
    assert not world.docket.jobs
    world.bidding = None
    assert isinstance(await world.submit(), wire.Awarded)


async def test_a_caller_that_goes_away_after_the_award_finds_it(world: World) -> None:
    """Whoever waits for the write doesn't take it along: the award is durable and is found."""
    with trio.CancelScope() as scope:
        world.on_award = scope.cancel  # the last thing looked at before the award
        await world.submit()
    assert scope.cancelled_caught
    (job,) = world.docket.jobs.values()
    await world.writer.settled()
    world.on_award = lambda: None
    stored = await world.writer.read(lambda session: session.get(AwardRow, job.awards[0].digest))
    assert stored
    answer = await world.submit()
    assert isinstance(answer, wire.Awarded)
    assert answer.award == stored.award


async def test_nobody_there(world: World) -> None:
    """A zero receipt with the reason; asking again before it is there says the same."""
    world.now += 20_000  # all offers have run out
    answer = await world.submit()
    assert isinstance(answer, wire.Refused)
    assert (answer.code, answer.reason) == ("no_nodes_available", Reason.NO_NODES_AVAILABLE)
    assert await world.submit() == answer


async def test_nobody_within_the_limits(world: World) -> None:
    """The cheapest offer is named."""
    answer = await world.submit(max_price_out=999_999)
    assert isinstance(answer, wire.Refused)
    assert answer.reason == Reason.NO_NODES_WITHIN_LIMITS
    assert "1000000" in answer.detail


async def test_everybody_gone_since_the_offer(world: World) -> None:
    """Passed over, each on the line; the reason is that none is left."""
    world.reachable.clear()
    answer = await world.submit()
    assert isinstance(answer, wire.Refused)
    assert answer.reason == Reason.NO_NODE_LEFT
    (job,) = world.docket.jobs.values()
    assert [type(entry) for entry in job.line] == [PassedOver] * 3


async def test_nodes_that_are_all_gone_are_ranked_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop stands still meanwhile: each is scored for the round, and for the line."""
    keys = [secret(1_000 + number) for number in range(60)]
    for number, key in enumerate(keys):
        world.put_offer(key, 2_000_000 + number)
    scored = Counter[bytes]()
    score = rule.score

    def counted(market: rule.Market, entrant: rule.Entrant) -> int:
        scored[entrant.row.node] += 1
        return score(market, entrant)

    monkeypatch.setattr(rule, "score", counted)
    world.reachable.clear()
    answer = await world.submit(mode=Mode.STANDING)
    assert isinstance(answer, wire.Refused)
    assert answer.reason == Reason.NO_NODE_LEFT
    (job,) = world.docket.jobs.values()
    assert job.line == [PassedOver(key.address) for key in (*NODES[:3], *keys)]
    assert len(scored) == 63
    assert max(scored.values()) <= 2


async def test_a_deadline_that_passes_during_the_auction(world: World) -> None:
    async def slow(_node: bytes, _call: wire.AuctionCall) -> wire.BidReply:
        world.now = NOW + 1_000
        await trio.lowlevel.checkpoint()
        return wire.BidReply()

    world.bidding = slow
    made = signed_job(1, deadline_ms=NOW + 1_000)
    answer = await world.desk.submit(GATEWAY.address, made, signed_grant())
    assert isinstance(answer, wire.Refused)
    assert answer.reason == Reason.DEADLINE_PASSED


async def test_the_next_rank_after_a_failure(world: World) -> None:
    """Its prior voids the first; what was acknowledged is off its tokens and its money."""
    first = await world.awarded()
    second = (await _next(world, first, acks=2, output_tokens=40, end_byte=200)).message
    assert (second.rank, second.node) == (2, NODES[1].address)
    assert second.prior == first.digest(DOMAIN)
    assert (second.max_output_tokens, second.start_byte) == (68, 200)
    acknowledged = -(-32 * first.message.price_out // 10**6)
    assert second.max_amount == RESERVE - acknowledged
    assert second.anchor == chain(1, 2).anchor
    assert (second.nonce, second.bids_root) == (first.message.nonce, first.message.bids_root)


async def test_a_repeated_failure_gets_the_same_next_rank(world: World) -> None:
    """Its answer may have been lost; a third rank would be signed for nothing."""
    first = await world.awarded()
    second = await _next(world, first)
    assert await _next(world, first) == second
    assert len(world.docket.find_award(second.digest(DOMAIN))[0].awards) == 2  # type: ignore[index]


async def test_a_node_that_is_gone_is_passed_over(world: World) -> None:
    first = await world.awarded()
    world.reachable.discard(NODES[1].address)
    second = await _next(world, first)
    assert (second.message.rank, second.message.node) == (2, NODES[2].address)


async def test_no_further_node(world: World) -> None:
    award = await world.awarded()
    for _ in range(2):
        award = await _next(world, award)
    assert await refusal_of(_next(world, award)) == "no_node_left"


async def test_nothing_left_to_award(world: World) -> None:
    """A node could only refuse an award of no tokens, and would be judged by it."""
    first = await world.awarded()
    most = first.message.max_output_tokens
    everything = {"acks": chain_length(most), "output_tokens": most}
    assert await refusal_of(_next(world, first, **everything)) == "nothing_left"
    assert await refusal_of(_next(world, first, **everything)) == "nothing_left"
    (job,) = world.docket.jobs.values()
    assert len(job.awards) == 1
    assert world.docket.busy(NODES[0].address) == 0


async def test_no_further_anchor(world: World) -> None:
    made = signed_job(1, anchors=(chain(1, 1).anchor,))
    answer = await world.desk.submit(GATEWAY.address, made, signed_grant())
    assert isinstance(answer, wire.Awarded)
    first = signed_from_bytes(Award, answer.award)
    assert await refusal_of(_next(world, first)) == "no_node_left"


async def test_a_full_node_is_not_awarded_twice(world: World) -> None:
    """One slot each: the second job goes to the next node, the fourth to nobody."""
    winners = [(await world.awarded(number)).message.node for number in (1, 2, 3)]
    assert winners == [node.address for node in NODES[:3]]
    answer = await world.submit(4)
    assert isinstance(answer, wire.Refused)


async def test_a_node_is_free_again_when_its_award_is_over(world: World) -> None:
    """By a completion, a failure, or because it expired and nobody ever said anything."""
    first = await world.awarded(1)
    await world.evidence.completion(world.completion_of(first.message))
    assert world.docket.busy(NODES[0].address) == 0
    second = await world.awarded(2)
    assert second.message.node == NODES[0].address
    world.docket.release_expired(second.message.expires_ms)
    world.docket.release_expired(second.message.expires_ms)
    assert world.docket.busy(NODES[0].address) == 0
    await world.evidence.completion(world.completion_of(second.message, 2))
    assert world.docket.busy(NODES[0].address) == 0


async def test_receipts_that_wait_too_long_for_the_chain_stop_awards(world: World) -> None:
    """And settling them lets it go on."""
    job = await world.served()
    await job.receipted.wait()
    world.now += world.rules.unsettled_max_ms + 1
    world.put_offers(1_000_000, 1_100_000)
    assert await refusal_of(world.submit(2)) == "settlement_behind"


async def test_a_chain_that_is_down_is_not_noticed(world: World) -> None:
    """What was read within the hour serves; a payer never seen can't be judged."""
    await world.awarded(1)
    world.chain.down = True
    world.directory.renew()
    assert isinstance(await world.submit(2), wire.Awarded)


async def test_a_jobs_own_weights(world: World) -> None:
    """A demanded fingerprint is the registered one, or the job is refused."""
    assert isinstance(await world.submit(1, fingerprint=FINGERPRINT), wire.Awarded)
    assert await refusal_of(world.submit(2, fingerprint=b"\x01" * 32)) == "other_fingerprint"


async def test_money_of_final_batches_is_counted_once(world: World) -> None:
    """A balance read before a batch was final isn't used after it."""
    job = await world.served()
    await job.receipted.wait()
    (total,) = [leaf.receipt.total for leaf in world.log.pending() if leaf.receipt]
    world.chain.balance = total + RESERVE
    world.directory.renew()
    assert isinstance(await world.submit(2), wire.Awarded)
    assert await refusal_of(world.submit(3)) == "insufficient_balance"


async def test_a_slow_chain_does_not_slow_a_payer_in_use(
    world: World, mock_clock: MockClock
) -> None:
    """Its numbers are known; the chain is asked beside the job, and doesn't even answer."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.directory.run)
        await world.awarded(1)
        world.chain.answering.clear()
        mock_clock.jump(FRESH_S)
        began = trio.current_time()
        with trio.fail_after(1):
            assert isinstance(await world.submit(2), wire.Awarded)
        assert trio.current_time() == began
        world.chain.answering.set()
        nursery.cancel_scope.cancel()


async def test_a_payer_beyond_the_bound_is_looked_up_first(
    world: World, mock_clock: MockClock
) -> None:
    """It may have asked to leave: nothing is lent before the chain has answered."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.directory.run)
        await world.awarded(1)
        mock_clock.jump(BOUND_S)
        world.chain.leaving = world.chain.balance
        assert await refusal_of(world.submit(2)) == "insufficient_balance"
        nursery.cancel_scope.cancel()


async def test_no_job_is_refused_on_an_old_balance(world: World, mock_clock: MockClock) -> None:
    """A deposit counts for the next job, not for the one after it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.directory.run)
        world.chain.balance = RESERVE
        await world.awarded(1)
        assert await refusal_of(world.submit(2)) == "insufficient_balance"
        mock_clock.jump(FRESH_S)
        world.chain.balance = 2 * RESERVE
        assert isinstance(await world.submit(2), wire.Awarded)
        nursery.cancel_scope.cancel()


async def test_a_final_batch_frees_no_money_before_the_balance_is_read_again(
    world: World,
) -> None:
    """The old balance still holds what the batch has debited: it is not lent a second time."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.directory.run)
        job = await world.served()
        await job.receipted.wait()
        total, before = world.log.all_unsettled(), world.chain.balance
        limit = world.chain.limit
        available = (await money(world)).available
        assert (available, total > 0) == (before - total, True)

        world.chain.answering.clear()
        world.now += world.rules.batch_age_ms
        await world.settler._look()
        (row,) = await world.writer.read(standing)
        world.chain.settle(row[0].message)
        world.chain.final = world.chain.newest
        world.chain.balance, world.chain.limit = before - total, limit - total
        await world.settler._look()
        assert world.log.all_unsettled() == 0
        old = await money(world)
        assert (old.payer.balance, old.available) == (before, available)
        assert (old.debitable, old.debitable - old.promised) == (limit, limit - total)

        world.chain.answering.set()
        while (await money(world)).payer.balance == before:
            await trio.lowlevel.checkpoint()
        new = await money(world, fresh=True)
        assert (new.available, new.unsettled) == (available, 0)
        assert new.debitable - new.promised == limit - total
        nursery.cancel_scope.cancel()


async def money(world: World, *, fresh: bool = False) -> Money:
    return await world.desk._money(job(), grant(), fresh=fresh)


async def test_the_logs_limit_counts_what_waits_for_its_batches(world: World) -> None:
    """Open jobs, then their receipts, until a batch over them is final."""
    world.chain.limit = 2 * RESERVE - 1
    job = await world.served()
    assert await refusal_of(world.submit(2)) == "debit_limit"
    await job.receipted.wait()
    total = world.log.all_unsettled()
    assert 0 < total < RESERVE
    world.chain.limit = total + RESERVE - 1
    world.directory.renew()
    assert await refusal_of(world.submit(2)) == "debit_limit"

    world.now += world.rules.batch_age_ms
    await world.settler._look()
    (row,) = await world.writer.read(standing)
    world.chain.settle(row[0].message)
    world.chain.final = world.chain.newest
    world.chain.limit = RESERVE
    await world.settler._look()
    world.put_offers(1_000_000, 1_100_000)
    assert isinstance(await world.submit(2), wire.Awarded)


async def test_money_that_leaves_is_not_lent(world: World) -> None:
    """A payer on its way to another log has nothing to spend here."""
    world.chain.leaving = world.chain.balance
    assert await refusal_of(world.submit()) == "insufficient_balance"


async def test_unassigned_payer(world: World) -> None:
    world.chain.assigned = bytes(32)
    assert await refusal_of(world.submit()) == "not_assigned"


async def test_a_grant_with_other_terms_is_another_grant(world: World) -> None:
    other = replace(grant(), max_total=5)
    assert await refusal_of(world.submit(terms=other)) == "wrong_grant"
