# ruff: noqa: D102 - a rule's name says what happens
"""Anything that parties can do with money, in any order, against the contracts and the model.

Every step is a real transaction on anvil. What the model predicts has to happen: the same error
with the same arguments and nothing changed, or the same values in every view. In between, time
passes and blocks are reorganised away.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pinaivu.chain.anvil import AnvilProcess
from pinaivu.chain.calls import Call
from pinaivu.chain.deployer import LOCAL
from pinaivu.chain.errors import Reverted
from pinaivu.chain.records import NO_LOG, Anchor
from pinaivu.chain.rpc import HttpRpc
from pinaivu.keys import ZERO_ADDRESS, SecretKey
from pinaivu.merkle.hashing import leaf_hash
from pinaivu.merkle.tree import Tree
from pinaivu.messages import Batch
from pinaivu.typed_data import Signed
from tests.integration.timed_chain import EVER, Market, TimedChain, key_of, packed
from tests.property.batch_flaws import FLAWS, UNKNOWN_LOG, Draft
from tests.property.money_model import (
    BPS,
    INFINITE,
    Log,
    Money,
    Node,
    Refused,
    Rules,
)
from tests.property.money_views import MoneyViews, shown

pytestmark = [pytest.mark.chain, pytest.mark.timeout(3600)]  # shrinking a failure takes a while

SETTINGS: Final = replace(LOCAL, epoch_lifetime_ms=3 * 3600 * 1000, debit_limit_ppm=900_000)
PAYERS: Final = {name: key_of(name) for name in ("ann", "bob", "cid")}
NODES: Final = {name: key_of(name).address for name in ("north", "south", "unregistered")}
WALLETS: Final = {"north": key_of("wallet 1").address, "south": key_of("wallet 2").address}
SOMEBODY: Final = key_of("somebody").address
POCKET: Final = 5_000

payers = st.sampled_from(sorted(PAYERS))
log_names = st.sampled_from(["log a", "log b"])
amounts = st.integers(1, 100) | st.integers(1, 2 * POCKET) | st.sampled_from([0, 2**96 - 1])
destinations = st.sampled_from([SOMEBODY, SOMEBODY, SOMEBODY, ZERO_ADDRESS])
callers = st.sampled_from(["operator", "operator", "operator", "somebody"])
officers = st.sampled_from(["administrator", "guardian", "somebody"])
debits = st.dictionaries(
    st.sampled_from(sorted(PAYERS)), st.integers(1, 60) | st.integers(1, 3000), min_size=1
)
shares = st.dictionaries(st.sampled_from(sorted(NODES)), st.integers(1, 9), min_size=1)
fee_rates = st.sampled_from([0, 0, 30, 999, 1000, 1000, 1001, 5000])


class MoneyMachine(RuleBasedStateMachine):
    """One chain for all examples: each starts from the same snapshot."""

    market: ClassVar[Market]
    base: ClassVar[Money]
    snapshot: ClassVar[object]
    views: ClassVar[MoneyViews]

    @initialize()
    def begin(self) -> None:
        """A new chain, as far as anybody can tell."""
        chain = self.market.chain
        chain.restore(type(self).snapshot)
        type(self).snapshot = chain.snapshot()
        self.now = chain.now
        self.money = deepcopy(self.base)
        self.leaves: dict[bytes, list[bytes]] = {}
        self.keys = {log.log_id: log.key for log in self.market.logs.values()}
        self.ended_keys: dict[bytes, SecretKey] = {}
        self.drawn = 0
        self.kept: list[tuple[object, dict[str, Any]]] = []
        self.compare()

    # Payers

    @rule(sender=payers, payer=payers, amount=amounts)
    def deposits(self, sender: str, payer: str, amount: int) -> None:
        who, whom = PAYERS[sender].address, PAYERS[payer].address
        own = who == whom
        call = self.calls.deposit(amount) if own else self.calls.deposit_for(whom, amount)
        self.act(who, call, lambda money, _: money.deposit(who, whom, amount))

    @rule(sender=payers, payer=payers, amount=amounts, valid=st.booleans())
    def deposits_with_permit(self, sender: str, payer: str, amount: int, *, valid: bool) -> None:
        who, whom = PAYERS[sender].address, PAYERS[payer].address
        deadline = self.now + (60 if valid else -60)
        permit = self.market.client.permit_digest(who, amount, deadline)
        signature = PAYERS[sender].sign(permit)

        def effect(money: Money, _: int) -> None:
            if valid:
                money.approve(who, amount)
            money.deposit(who, whom, amount)

        self.act(who, self.calls.deposit_with_permit(whom, amount, deadline, signature), effect)

    @rule(payer=payers, amount=amounts | st.just(EVER))
    def approves(self, payer: str, amount: int) -> None:
        who = PAYERS[payer].address
        self.act(who, self.calls.approve(amount), lambda money, _: money.approve(who, amount))

    @rule(payer=payers, log=log_names)
    def assigns(self, payer: str, log: str) -> None:
        who, log_id = PAYERS[payer].address, self.log_id(log)
        self.act(who, self.calls.assign(log_id), lambda money, _: money.assign(who, log_id))

    @rule(payer=payers, log=log_names | st.sampled_from(["none", "unknown"]))
    def asks_to_move(self, payer: str, log: str) -> None:
        who, log_id = PAYERS[payer].address, self.log_id(log)
        call = self.calls.request_move(log_id)
        self.act(who, call, lambda money, now: money.request_move(who, log_id, now))

    @rule(payer=payers)
    def moves(self, payer: str) -> None:
        who = PAYERS[payer].address
        call = self.calls.complete_move()
        self.act(who, call, lambda money, now: money.complete_move(who, now))

    @rule(payer=payers, early=st.integers(-1, 1))
    def waits_and_leaves(self, payer: str, early: int) -> None:
        """Withdrawal and move at the second they are allowed, or one before or after it."""
        who = PAYERS[payer].address
        choice = self.money.payer(who)
        due = {
            self.money.account(choice.log, who).available_at: self.withdraws,
            choice.movable_at: self.moves,
        }
        for at, leave in sorted(due.items(), key=lambda item: item[0]):
            if at:
                self.wait_until(at - 1 - early)
                leave(payer) if leave == self.moves else leave(payer, SOMEBODY)

    @rule(payer=payers)
    def revokes_grants(self, payer: str) -> None:
        who = PAYERS[payer].address
        call = self.calls.bump_grant_epoch()
        self.act(who, call, lambda money, _: money.bump_grant_epoch(who))

    @rule(payer=payers, amount=amounts)
    def asks_for_money(self, payer: str, amount: int) -> None:
        who = PAYERS[payer].address
        call = self.calls.request_withdrawal(amount)
        self.act(who, call, lambda money, now: money.request_withdrawal(who, amount, now))

    @rule(payer=payers, to=destinations)
    def withdraws(self, payer: str, to: bytes) -> None:
        who = PAYERS[payer].address
        call = self.calls.withdraw(to)
        self.act(who, call, lambda money, now: money.withdraw(who, to, now))

    # Batches

    @rule(log=log_names, taken=debits, shares=shares, rate=fee_rates, leaves=st.integers(1, 4))
    def settles(
        self, log: str, taken: dict[str, int], shares: dict[str, int], rate: int, leaves: int
    ) -> None:
        self.submit(self.draft(log, taken, shares, rate, leaves))

    @rule(log=log_names, payer=payers, amount=st.integers(1, 60), shares=shares)
    def settles_a_little(self, log: str, payer: str, amount: int, shares: dict[str, int]) -> None:
        self.submit(self.draft(log, {payer: amount}, shares, 1000, 1))

    @rule(payer=payers, share=st.integers(1, 120), shares=shares)
    def settles_what_there_is(self, payer: str, share: int, shares: dict[str, int]) -> None:
        """Up to and beyond a payer's balance, by its own log."""
        who = PAYERS[payer].address
        log_id = self.money.payer(who).log
        amount = self.money.account(log_id, who).balance * share // 100
        for name, log in self.market.logs.items():
            if log.log_id == log_id and amount:
                self.submit(self.draft(name, {payer: amount}, shares, 500, 1))

    @rule(
        log=log_names,
        taken=debits,
        shares=shares,
        leaves=st.integers(1, 4),
        name=st.sampled_from(sorted(FLAWS)),
    )
    def settles_badly(
        self, log: str, taken: dict[str, int], shares: dict[str, int], leaves: int, name: str
    ) -> None:
        draft = self.draft(log, taken, shares, 100, leaves)
        FLAWS[name](draft)
        self.submit(draft)

    def draft(
        self, log: str, taken: dict[str, int], shares: dict[str, int], rate: int, leaves: int
    ) -> Draft:
        """The honest next batch of a log."""
        log_id = self.log_id(log)
        state = self.money.logs[log_id]
        last = state.anchors[-1] if state.anchors else Anchor.none(log_id)
        self.drawn += leaves
        fresh = [leaf_hash(b"%d" % (self.drawn - i)) for i in range(leaves)]
        tree = Tree(self.leaves.get(log_id, []) + fresh)
        due = sum(taken.values())
        paid = split(due - due * rate // BPS, shares)
        batch = Batch(
            log_id=log_id,
            epoch=state.epoch,
            sequence=last.sequence + 1,
            prev_size=last.new_size,
            new_size=len(tree),
            prev_root=last.new_root,
            new_root=tree.root(),
            parties=len(taken) + len(paid),
            statement_root=bytes(32),
            fees=due - sum(paid.values()),
            time_ms=self.now * 1000,
            debits=packed({PAYERS[name].address: amount for name, amount in taken.items()}),
            credits=packed({NODES[name]: amount for name, amount in paid.items()}),
        )
        proof = tree.consistency_proof(last.new_size, len(tree))
        grown = [tree.leaf(i) for i in range(len(tree))]
        ended = self.ended_keys.get(log_id)
        return Draft(batch, self.keys[log_id], proof, last, grown, ended)

    def submit(self, draft: Draft) -> None:
        """By a stranger."""
        signed = Signed.by(draft.key, self.market.domain, draft.batch)
        digest = signed.digest(self.market.domain)

        def effect(money: Money, now: int) -> None:
            signer = draft.key.address
            money.settle(draft.batch, digest, signer, draft.last, draft.history, now)
            self.leaves[draft.batch.log_id] = draft.leaves

        self.act(SOMEBODY, self.calls.settle(signed, draft.proof, draft.last), effect)

    # Nodes

    @rule(nodes=st.lists(st.sampled_from(sorted(NODES)), max_size=3))
    def pays_out(self, nodes: list[str]) -> None:
        addresses = [NODES[name] for name in nodes]
        call = self.calls.payout(addresses)
        self.act(SOMEBODY, call, lambda money, _: money.payout(addresses))

    @rule(node=st.sampled_from(sorted(NODES)))
    def withdraws_credit(self, node: str) -> None:
        who = NODES[node]
        call = self.calls.withdraw_credit()
        self.act(who, call, lambda money, _: money.withdraw_credit(who))

    # Operators

    @rule(log=log_names | st.just("unknown"), payer=payers, amount=amounts)
    def funds_reserve(self, log: str, payer: str, amount: int) -> None:
        who, log_id = PAYERS[payer].address, self.log_id(log)
        call = self.calls.fund_reserve(log_id, amount)
        self.act(who, call, lambda money, _: money.fund_reserve(who, log_id, amount))

    @rule(log=log_names, caller=callers, amount=amounts)
    def asks_for_reserve(self, log: str, caller: str, amount: int) -> None:
        who, log_id = self.caller(caller, log), self.log_id(log)
        call = self.calls.request_reserve_withdrawal(log_id, amount)
        self.act(
            who,
            call,
            lambda money, now: money.request_reserve_withdrawal(who, log_id, amount, now),
        )

    @rule(log=log_names, caller=callers, to=destinations)
    def withdraws_reserve(self, log: str, caller: str, to: bytes) -> None:
        who, log_id = self.caller(caller, log), self.log_id(log)
        call = self.calls.withdraw_reserve(log_id, to)
        self.act(who, call, lambda money, now: money.withdraw_reserve(who, log_id, to, now))

    @rule(log=log_names, caller=callers, to=destinations)
    def withdraws_fees(self, log: str, caller: str, to: bytes) -> None:
        who, log_id = self.caller(caller, log), self.log_id(log)
        call = self.calls.withdraw_fees(log_id, to)
        self.act(who, call, lambda money, _: money.withdraw_fees(who, log_id, to))

    @rule(log=log_names, caller=callers)
    def activates(self, log: str, caller: str) -> None:
        who, log_id = self.caller(caller, log), self.log_id(log)
        self.drawn += 1
        key = key_of(f"epoch {self.drawn}")

        def effect(money: Money, now: int) -> None:
            money.activate(who, log_id, key.address, now)
            self.ended_keys[log_id], self.keys[log_id] = self.keys[log_id], key

        self.act(who, self.market.activation(log_id, key.address), effect)

    @rule(log=log_names, early=st.integers(-1, 1))
    def waits_for_the_reserve(self, log: str, early: int) -> None:
        at = self.money.logs[self.log_id(log)].reserve_available_at
        if at:
            self.wait_until(at - 1 - early)
            self.withdraws_reserve(log, "operator", SOMEBODY)

    # Administrator and guardian

    @rule(caller=officers, log=log_names)
    def revokes_the_epoch(self, caller: str, log: str) -> None:
        caller = "operator" if caller == "administrator" else caller
        who, log_id = self.caller(caller, log), self.log_id(log)
        build = self.calls.revoke_epoch if caller == "guardian" else self.calls.revoke_own_epoch
        call = build(log_id, self.money.logs[log_id].epoch)
        self.act(who, call, lambda money, _: money.revoke_epoch(who, log_id))

    @rule(
        caller=st.sampled_from(["administrator", "administrator", "guardian"]),
        limit=st.sampled_from([0, 10_000, 300_000, 900_000, 1_000_000, 1_000_001]),
    )
    def limits_debits(self, caller: str, limit: int) -> None:
        who = self.caller(caller)
        call = self.calls.set_debit_limit(limit)
        self.act(who, call, lambda money, now: money.set_debit_limit(who, limit, now))

    @rule(
        caller=st.sampled_from(["guardian", "guardian", "administrator"]),
        seconds=st.sampled_from([0, 60, 90, 91, None]),
    )
    def pauses(self, caller: str, seconds: int | None) -> None:
        who = self.caller(caller)
        if seconds is None:
            self.act(who, self.calls.unpause(), lambda money, _: money.unpause(who))
            return
        call = self.calls.pause(seconds)
        self.act(who, call, lambda money, now: money.pause(who, seconds, now))

    # The chain

    @rule(seconds=st.sampled_from([100, 170, 178, 180, 240, 600, 3600, 11_000]))
    def time_passes(self, seconds: int) -> None:
        self.wait_until(self.now + seconds)

    def wait_until(self, second: int) -> None:
        """An empty block then, unless that is past."""
        if second > self.now:
            self.now = second
            self.market.rpc.call("evm_setNextBlockTimestamp", second)
            self.market.rpc.call("evm_mine")
            self.compare()

    @precondition(lambda self: len(self.kept) < 3)
    @rule()
    def a_block_to_fall_back_to(self) -> None:
        state = {name: _copy(getattr(self, name)) for name in self.REMEMBERED}
        self.kept.append((self.market.chain.snapshot(), state))

    REMEMBERED: ClassVar = ("now", "money", "leaves", "keys", "ended_keys")

    @precondition(lambda self: self.kept)
    @rule()
    def the_chain_is_reorganised(self) -> None:
        point, state = self.kept.pop()
        self.market.chain.restore(point)
        for name, value in state.items():
            setattr(self, name, value)
        self.compare()

    # What holds after every step

    def act(self, sender: bytes, call: Call, effect: Callable[[Money, int], None]) -> None:
        """A transaction, and the same in the model: both go through, or fail alike."""
        before, self.now = self.money, self.now + 1
        trial = deepcopy(self.money)
        predicted: tuple[object, ...] = ("done",)
        try:
            effect(trial, self.now)
            self.money = trial
        except Refused as refused:
            predicted = (refused.name, *refused.arguments)
        seen: tuple[object, ...] = ("done",)
        try:
            self.market.chain.send(sender, call, self.now)
        except Reverted as reverted:
            seen = (reverted.name, *reverted.arguments.values())
        note(f"{call.what} at {self.now}: {shown(seen)}")
        assert shown(seen) == shown(predicted), f"{call.what}: chain, then model"
        self.compare()
        self.require_growth(before)

    def compare(self) -> None:
        """Every view, and the sum of all money."""
        self.views.compare(self.money, self.now)

    def require_growth(self, before: Money) -> None:
        """Batches, anchored trees and what nodes ever earned only grow."""
        for log_id, log in before.logs.items():
            after = self.money.logs[log_id]
            assert after.anchors[: len(log.anchors)] == log.anchors
            sizes = [anchor.new_size for anchor in after.anchors]
            assert sizes == sorted(set(sizes))
        for name, node in before.nodes.items():
            assert self.money.nodes[name].lifetime >= node.lifetime

    # Names

    @property
    def calls(self) -> Any:
        """Builds calls."""
        return self.market.calls

    def log_id(self, name: str) -> bytes:
        """A log's id."""
        named = {"none": NO_LOG, "unknown": UNKNOWN_LOG}
        return named[name] if name in named else self.market.logs[name].log_id

    def caller(self, name: str, log: str = "log a") -> bytes:
        """Who calls."""
        if name == "operator":
            return self.market.logs[log].operator
        return key_of(name).address


def _copy(value: Any) -> Any:
    """A copy that shares keys, which don't change and can't be copied."""
    return deepcopy(value) if isinstance(value, Money) else copy(value)


def split(amount: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Parts of an amount in proportion, the rest to the last; no zeros."""
    whole = sum(weights.values())
    parts = {name: amount * weight // whole for name, weight in weights.items()}
    last = max(weights)
    parts[last] += amount - sum(parts.values())
    return {name: part for name, part in parts.items() if part}


def stage(market: Market) -> Money:
    """Parties with money, and the model of where they stand."""
    times = {
        name: getattr(SETTINGS.times, f"{name}_ms") // 1000
        for name in Rules.__annotations__
        if name != "epoch_lifetime"
    }
    rules = Rules(**times, epoch_lifetime=SETTINGS.epoch_lifetime_ms // 1000)
    money = Money(
        rules=rules,
        settlement=market.deployment.settlement,
        administrator=market.administrator,
        guardian=market.guardian,
        limit_ppm=SETTINGS.debit_limit_ppm,
    )
    for log in market.logs.values():
        epoch = market.client.epoch(log.log_id, 1)
        assert epoch is not None
        expires_at = epoch.expires_at_ms // 1000
        money.logs[log.log_id] = Log(
            operator=log.operator, epoch=1, key=log.key.address, expires_at=expires_at
        )
    for name, wallet in WALLETS.items():
        money.nodes[market.node(name, wallet)] = Node(wallet=wallet)
    money.nodes[NODES["unregistered"]] = Node()
    owners = (money.settlement, SOMEBODY, *WALLETS.values())
    money.tokens = dict.fromkeys(owners, 0)
    for name, key in PAYERS.items():
        payer = key.address
        market.do(payer, market.calls.mint(payer, POCKET))
        money.tokens[payer] = POCKET
        if name != "cid":  # who has to approve or permit every time
            market.do(payer, market.calls.approve(EVER))
            money.approve(payer, INFINITE)
            market.do(payer, market.calls.deposit(1000))
            money.deposit(payer, payer, 1000)
            log_id = market.logs["log a"].log_id
            market.do(payer, market.calls.assign(log_id))
            money.assign(payer, log_id)
    return money


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """Two logs and a quiet chain."""
    state = tmp_path_factory.mktemp("money") / "state.json"
    with AnvilProcess(Path(state)) as anvil, HttpRpc(anvil.url) as rpc:
        yield Market(TimedChain(rpc), SETTINGS, ["log a", "log b"])


def test_contracts_and_model_agree_after_every_step(market: Market) -> None:
    """`--hypothesis-profile=deep` for a longer search."""
    base = stage(market)
    snapshot = market.chain.snapshot()
    views = MoneyViews(market, [key.address for key in PAYERS.values()])
    machine = type(
        "Machine",
        (MoneyMachine,),
        {"market": market, "base": base, "snapshot": snapshot, "views": views},
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=settings().max_examples // 2,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
