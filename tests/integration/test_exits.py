"""Exits with everybody else hostile, at production times: what is lost is what the bound says.

The thieves hold a log's signing key (its operator and k attestation verifiers together can make one
valid), the administrators' and the guardian's keys, and money of their own. The payer sees events
and reacts within a stated time. Nothing is mocked: days pass on a real chain.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pinaivu.chain.abi import load
from pinaivu.chain.anvil import AnvilProcess
from pinaivu.chain.calls import Call
from pinaivu.chain.deployer import LOCAL
from pinaivu.chain.errors import Reverted
from pinaivu.chain.exposure import loss_bound
from pinaivu.chain.records import NO_LOG, Times
from pinaivu.chain.rpc import HttpRpc
from pinaivu.chain.words import from_hex
from tests.integration.timed_chain import EPOCH_PAIR, Market, TimedChain, key_of

pytestmark = pytest.mark.chain

HOUR, DAY = 3600, 86_400
TIMES = Times(
    unsettled_max_ms=1 * HOUR * 1000,
    pause_max_ms=12 * HOUR * 1000,
    withdrawal_delay_ms=3 * DAY * 1000,
    admin_delay_ms=7 * DAY * 1000,
    pause_interval_ms=7 * DAY * 1000,
    limiter_window_ms=1 * DAY * 1000,
)
SHARE_PPM = 200_000
PRODUCTION = replace(
    LOCAL,
    times=TIMES,
    payout_delay_ms=7 * DAY * 1000,
    unbonding_delay_ms=7 * DAY * 1000,
    epoch_lifetime_ms=90 * DAY * 1000,
    debit_limit_ppm=SHARE_PPM,
)
BALANCE = 1_000_000_000
THIEF = key_of("thief's node").address
HOME = key_of("home").address
BAD_CODE = (b"\xbd" * 32, b"\xbd" * 32)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A deployment at production times, its first pair allowed, its log in its first epoch."""
    state = Path(tmp_path_factory.mktemp("exits")) / "state.json"
    with AnvilProcess(state) as anvil, HttpRpc(anvil.url) as rpc:
        yield Market(TimedChain(rpc), PRODUCTION)


@pytest.fixture
def market(staged: Market) -> Iterator[Market]:
    """The same deployment for each test, untouched."""
    point = staged.chain.snapshot()
    log = staged.logs["log"]
    staged.logs["log"] = replace(log, tree=type(log.tree)())
    yield staged
    staged.chain.restore(point)
    staged.logs["log"] = replace(log, tree=type(log.tree)())


def bound(market: Market, balance: int, **conditions: int) -> int:
    """The bound, from what the chain says about its times and limit."""
    client = market.client
    (limit,) = _read(market, "debitLimit")
    return loss_bound(client.times(), limit, balance=balance, **conditions)


def _read(market: Market, function: str, *arguments: object) -> tuple[int, ...]:
    asked = market.settlement(function, *arguments)
    request = {"to": "0x" + asked.to.hex(), "data": "0x" + asked.data.hex()}
    return asked.item.decode_result(from_hex(market.rpc.call("eth_call", request, "latest")))


@dataclass
class Thieves:
    """They hold the log's key and settle rows that nobody worked for, as fast as they can."""

    market: Market
    victims: list[bytes]

    def grab(self) -> None:
        """All that the limiter lets through now, of the first victims first."""
        log = self.market.logs["log"]
        (left,) = _read(self.market, "debitableNow", log.log_id)
        rows: dict[bytes, int] = {}
        for victim in self.victims:
            part = min(self.market.client.payer(victim).balance, left - sum(rows.values()))
            if part:
                rows[victim] = part
        if rows:
            self.market.settle(log, rows, {THIEF: sum(rows.values())})

    def grab_until(self, end: int) -> None:
        """At each window that opens before `end`, as it opens, and once more at the end."""
        self.grab()
        while self._next_window() < end - 2:
            self.market.later(max(1, self._next_window() - self.market.now))
            self.grab()
        self.market.later(max(1, end - 2 - self.market.now))
        self.grab()

    def _next_window(self) -> int:
        state = self.market.client.log_state(self.market.logs["log"].log_id)
        opens = state.drained_at_ms // 1000
        robbed = not any(self.market.client.payer(victim).balance for victim in self.victims)
        return 2**40 if robbed else opens


@dataclass(frozen=True)
class Escape:
    """How a payer fared that left."""

    lost: int
    reaction_ms: int


def leave(market: Market, payer: bytes, thieves: Thieves, reaction: int) -> Escape:
    """The payer asks for all it has `reaction` seconds after now, and takes it once it can."""
    started, held = market.now, market.client.payer(payer).balance
    thieves.grab_until(started + reaction)
    market.do(payer, market.calls.request_withdrawal(2**96 - 1))
    asked, out = market.now, market.client.payer(payer).withdrawable_at_ms // 1000
    thieves.grab_until(out)
    before = market.client.token_balance(HOME)
    market.chain.send(payer, market.calls.withdraw(HOME), max(out, market.now + 1))
    saved = market.client.token_balance(HOME) - before
    return Escape(held - saved, (asked - started) * 1000)


@pytest.mark.parametrize("reaction", [60, 6 * HOUR, 2 * DAY + 60])
def test_a_false_key_takes_at_most_the_share_of_each_window(market: Market, reaction: int) -> None:
    """The thieves waste nothing: they get what the bound says, to a thousandth."""
    payer = market.payer("payer", BALANCE)
    thieves = Thieves(market, [payer])
    market.activate(market.logs["log"], key_of("false key"))  # the payer sees this event
    escape = leave(market, payer, thieves, reaction)
    limit = bound(market, BALANCE, reaction_ms=escape.reaction_ms)
    assert 0.999 * limit <= escape.lost <= limit < BALANCE


def test_a_small_payer_of_a_large_log_can_lose_everything(market: Market) -> None:
    """The limit is per log: it protects all payers together, not each."""
    payer = market.payer("small", 1000)
    other = market.payer("large", BALANCE)
    thieves = Thieves(market, [payer, other])
    market.activate(market.logs["log"], key_of("false key"))
    assert leave(market, payer, thieves, HOUR).lost == 1000
    assert bound(market, 1000, others=BALANCE, reaction_ms=HOUR * 1000) == 1000


def test_hostile_deposits_widen_the_limit_by_no_more_than_the_bound_says(market: Market) -> None:
    """Thieves who lock money up for the payers' delay get it back, and more out of the others."""
    capital = 2 * BALANCE
    payer, decoy = market.payer("payer", BALANCE), market.payer("decoy", capital)
    market.do(decoy, market.calls.request_withdrawal(capital))
    thieves = Thieves(market, [payer])
    market.activate(market.logs["log"], key_of("false key"))
    escape = leave(market, payer, thieves, HOUR)
    alone = bound(market, BALANCE, reaction_ms=escape.reaction_ms)
    limit = bound(market, BALANCE, capital=capital, reaction_ms=escape.reaction_ms)
    assert alone < escape.lost <= limit
    market.do(decoy, market.calls.withdraw(HOME))
    assert market.client.payer(decoy).balance == 0


def test_a_raised_limit_comes_after_the_payer_is_out(market: Market) -> None:
    """Administrators announce 100 % as the theft begins; a payer within four days never sees it."""
    payer = market.payer("payer", BALANCE)
    thieves = Thieves(market, [payer])
    market.do(market.administrator, market.calls.set_debit_limit(1_000_000))
    market.activate(market.logs["log"], key_of("false key"))
    escape = leave(market, payer, thieves, 4 * DAY - 60)
    limit = bound(market, BALANCE, reaction_ms=escape.reaction_ms)
    assert 0.999 * limit <= escape.lost <= limit < BALANCE
    assert _read(market, "debitLimit") == (SHARE_PPM,)


def test_a_payer_who_sleeps_past_the_admin_delay_can_lose_everything(market: Market) -> None:
    payer = market.payer("payer", BALANCE)
    thieves = Thieves(market, [payer])
    market.do(market.administrator, market.calls.set_debit_limit(1_000_000))
    market.activate(market.logs["log"], key_of("false key"))
    assert leave(market, payer, thieves, 5 * DAY).lost >= BALANCE - 1
    assert bound(market, BALANCE, reaction_ms=5 * DAY * 1000) == BALANCE


@pytest.mark.parametrize("what", ["code", "verifier"])
def test_what_administrators_change_takes_effect_after_the_payer_is_out(
    market: Market, what: str
) -> None:
    """Bad code, or a verifier that believes a thief: announced, used at once, refused; no loss."""
    payer, log = market.payer("payer", BALANCE), market.logs["log"]
    false_key, rogue = key_of("false key").address, key_of("rogue simulator")
    changes: dict[str, Any] = {}
    if what == "code":
        announcement = market.calls.propose_pair(*BAD_CODE)
        refusal, says = "PairNotAllowedYet", None
        changes = {"measurement": BAD_CODE[0], "parameters_digest": BAD_CODE[1]}
    else:
        announcement = market.calls.propose_verifier(_verifier_of(market, rogue.address))
        refusal, says = "WrongSimulator", rogue

    def attempt() -> Call:
        return market.activation(log.log_id, false_key, says, **changes)

    market.do(market.administrator, announcement)
    announced = market.now
    market.later(4 * DAY - 100)  # the longest reaction that loses nothing
    market.do(payer, market.calls.request_withdrawal(BALANCE))
    market.later(3 * DAY)
    with pytest.raises(Reverted, match=refusal):
        market.do(log.operator, attempt())
    market.do(payer, market.calls.withdraw(HOME))
    assert market.client.token_balance(HOME) == BALANCE
    reaction_ms = (4 * DAY - 90) * 1000
    assert bound(market, BALANCE, reaction_ms=reaction_ms, notice_ms=7 * DAY * 1000) == 0
    market.later(announced + 7 * DAY - market.now)
    market.do(log.operator, attempt())  # now it works, for nothing


def _verifier_of(market: Market, simulator: bytes) -> bytes:
    """A verifier contract that believes somebody else."""
    abi = load("SimulatedAttestationVerifier")
    creation = abi.creation(market.deployment.settlement, simulator)
    receipt = market.do(market.administrator, Call("another verifier", b"", creation))
    return from_hex(receipt["contractAddress"])


def test_pauses_stop_no_withdrawal_and_no_more_than_half_a_day_a_week(market: Market) -> None:
    """The guardian pauses as the payer is due, again and again; only batches wait."""
    payer = market.payer("payer", BALANCE)
    market.do(payer, market.calls.request_withdrawal(BALANCE))
    market.later(3 * DAY - 60)
    market.do(market.guardian, market.calls.pause(12 * HOUR))
    with pytest.raises(Reverted, match="SettlementPaused"):
        market.settle(market.logs["log"], {payer: 1}, {THIEF: 1})
    market.later(60)
    market.do(payer, market.calls.withdraw(HOME))
    assert market.client.token_balance(HOME) == BALANCE
    market.do(market.guardian, market.calls.unpause())
    with pytest.raises(Reverted, match="PausedTooRecently"):
        market.do(market.guardian, market.calls.pause(1))
    with pytest.raises(Reverted, match="PauseTooLong"):
        market.do(market.guardian, market.calls.pause(12 * HOUR + 1))


def test_administrators_of_the_access_manager_shorten_no_delay(market: Market) -> None:
    """They take every role and open every function at once: the contracts' own delays stay."""
    admin = market.administrator
    market.do(admin, market.access("grantRole", 1, admin, 0))
    market.do(admin, market.access("grantRole", 2, admin, 0))
    opened = [market.selector("settlement", "setDebitLimit")]
    public = 2**64 - 1
    settlement = market.deployment.settlement
    market.do(admin, market.access("setTargetFunctionRole", settlement, opened, public))
    market.do(THIEF, market.calls.set_debit_limit(1_000_000))
    market.do(admin, market.calls.propose_pair(*BAD_CODE))
    market.do(admin, market.calls.pause(12 * HOUR))
    market.later(7 * DAY - 10)
    assert _read(market, "debitLimit") == (SHARE_PPM,)
    names: dict[str, Any] = {"measurement": BAD_CODE[0], "parameters_digest": BAD_CODE[1]}
    log = market.logs["log"]
    with pytest.raises(Reverted, match="PairNotAllowedYet"):
        market.do(log.operator, market.activation(log.log_id, THIEF, **names))
    market.later(10)
    assert _read(market, "debitLimit") == (1_000_000,)


def test_a_guardian_in_time_ends_the_theft(market: Market) -> None:
    """Revoking the false key leaves the thieves with the windows they have used."""
    payer, log = market.payer("payer", BALANCE), market.logs["log"]
    thieves = Thieves(market, [payer])
    market.activate(log, key_of("false key"))
    thieves.grab()
    market.do(market.guardian, market.calls.revoke_epoch(log.log_id, 2))
    market.later(DAY)
    with pytest.raises(Reverted, match="NoActiveEpoch"):
        thieves.grab()
    left = market.client.payer(payer).balance
    assert BALANCE - left == BALANCE * SHARE_PPM // 1_000_000


def test_debts_that_thieves_invent_cost_nothing_but_later_deposits_to_the_same_log(
    market: Market,
) -> None:
    """A debt to their own reserve eats what is paid into that log, not what moves away."""
    payer, log = market.payer("payer", 1000), market.logs["log"]
    market.do(payer, market.calls.request_withdrawal(1000))
    market.give(log.operator, 5000)
    market.do(log.operator, market.calls.fund_reserve(log.log_id, 5000))
    market.settle(log, {payer: 200}, {THIEF: 200})
    market.later(DAY)
    other = market.payer("other", 10**6)  # widens the limit to more than the payer has left
    market.settle(log, {payer: 800 + 5000}, {THIEF: 5800})
    assert market.client.payer(payer).debt == 5000
    market.later(3 * DAY)
    market.do(payer, market.calls.withdraw(HOME))
    assert market.client.token_balance(payer) == 0
    market.give(payer, 100)
    market.do(payer, market.calls.request_move(NO_LOG))
    market.later(3 * DAY)
    market.do(payer, market.calls.complete_move())
    market.do(payer, market.calls.deposit(100))
    assert market.client.payer(payer).balance == 100  # no log, no debt
    assert market.client.payer(other).balance == 10**6


def test_a_stolen_node_key_gets_nothing_that_was_earned_before_the_delay(market: Market) -> None:
    """The thief names its own wallet; anyone pays out to the old one until the day comes."""
    payer, wallet = market.payer("payer", BALANCE), key_of("owner's wallet").address
    node = market.node("node", wallet)
    market.settle(market.logs["log"], {payer: 1000}, {node: 1000})
    market.set_payout("node", THIEF)
    market.do(node, market.calls.withdraw_credit())  # by the thief: still to the old wallet
    market.later(7 * DAY - 20)
    market.settle(market.logs["log"], {payer: 500}, {node: 500})
    market.do(HOME, market.calls.payout([node]))
    assert market.client.token_balance(wallet) == 1500
    market.later(20)
    market.settle(market.logs["log"], {payer: 7}, {node: 7})
    market.do(HOME, market.calls.payout([node]))
    assert market.client.token_balance(THIEF) == 7


def test_an_owner_can_cancel_a_stolen_keys_change_of_wallet(market: Market) -> None:
    wallet = key_of("owner's wallet").address
    node = market.node("node", wallet)
    market.set_payout("node", THIEF)
    market.later(7 * DAY - 20)
    market.set_payout("node", wallet)
    market.later(DAY)
    record = market.client.node(node)
    assert record is not None
    assert (record.payout, record.payout_changes_at_ms) == (wallet, 0)


def test_credit_is_out_of_everybodys_reach(market: Market) -> None:
    """Paused, revoked, expired, code revoked: a node is paid what the contract once credited."""
    payer, wallet = market.payer("payer", BALANCE), key_of("owner's wallet").address
    node, log = market.node("node", wallet), market.logs["log"]
    market.settle(log, {payer: 1000}, {node: 1000})
    market.do(market.guardian, market.calls.pause(12 * HOUR))
    market.do(market.guardian, market.calls.revoke_epoch(log.log_id, 1))
    index = market.client.pair(*EPOCH_PAIR)
    assert index is not None
    market.do(market.guardian, market.calls.revoke_pair(index.index))
    market.do(HOME, market.calls.payout([node]))
    assert market.client.token_balance(wallet) == 1000


def test_a_revoked_code_leaves_nodes_without_what_was_not_settled(market: Market) -> None:
    """New code takes longer than payers need to leave: at most an hour's work, by the enclave."""
    payer, log = market.payer("payer", 1000), market.logs["log"]
    index = market.client.pair(*EPOCH_PAIR)
    assert index is not None
    market.do(market.guardian, market.calls.revoke_pair(index.index))
    market.do(market.administrator, market.calls.propose_pair(b"\x01" * 32, EPOCH_PAIR[1]))
    market.do(payer, market.calls.request_withdrawal(1000))
    with pytest.raises(Reverted, match="PairIsRevoked"):
        market.settle(log, {payer: 10}, {THIEF: 10})
    market.later(3 * DAY)
    market.do(payer, market.calls.withdraw(HOME))
    assert market.client.token_balance(HOME) == 1000
    assert market.client.times().unsettled_max_ms == HOUR * 1000


def test_a_reserve_stays_for_the_delay_and_covers_meanwhile(market: Market) -> None:
    """An operator on its way out still pays for its payers' gaps; only its own log's key can."""
    payer, log = market.payer("payer", 100), market.logs["log"]
    market.payer("other", 10**6)
    market.give(log.operator, 5000)
    market.do(log.operator, market.calls.fund_reserve(log.log_id, 5000))
    market.do(log.operator, market.calls.request_reserve_withdrawal(log.log_id, 5000))
    market.later(3 * DAY - 60)
    with pytest.raises(Reverted, match="TooEarly"):
        market.do(log.operator, market.calls.withdraw_reserve(log.log_id, HOME))
    market.settle(log, {payer: 600}, {THIEF: 600})
    market.later(60)
    market.do(log.operator, market.calls.withdraw_reserve(log.log_id, HOME))
    assert market.client.token_balance(HOME) == 4500


def test_payers_of_other_logs_are_out_of_a_thiefs_reach(market: Market) -> None:
    """A false key of one log debits what is not in its ledger from nowhere: nothing is credited."""
    log = market.logs["log"]
    mallory = key_of("other operator").address
    other_id = market.client.next_log_id(mallory)
    market.do(mallory, market.calls.open_log([]))
    payer = market.payer("elsewhere", BALANCE, log=None)
    market.do(payer, market.calls.assign(other_id))
    market.settle(log, {payer: 1000}, {THIEF: 1000})
    assert market.client.payer(payer).balance == BALANCE
    assert market.client.node_credits([THIEF])[0].credit == 0
