"""Anything that parties can do with money, in any order, against the contracts and the model.

Every step is a real transaction on anvil. What the model predicts has to happen: the same error
with the same arguments and nothing changed, or the same values in every view. In between, time
passes and blocks are reorganised away.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import copy, deepcopy
from dataclasses import dataclass, replace
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
from msgspec.structs import replace as replaced

from pinaivu.chain.anvil import AnvilProcess
from pinaivu.chain.calls import Call
from pinaivu.chain.deployer import LOCAL
from pinaivu.chain.errors import Reverted
from pinaivu.chain.records import NO_LOG, Anchor
from pinaivu.chain.rpc import HttpRpc
from pinaivu.chain.views import read, read_many, view
from pinaivu.keys import ZERO_ADDRESS, SecretKey
from pinaivu.merkle.hashing import EMPTY_ROOT, leaf_hash
from pinaivu.merkle.tree import Tree
from pinaivu.messages import Batch
from pinaivu.typed_data import Signed
from tests.integration.timed_chain import EVER, Market, TimedChain, key_of, packed
from tests.property.money_model import (
    BPS,
    INFINITE,
    Log,
    Money,
    Node,
    Payer,
    Refused,
    Rules,
)

pytestmark = pytest.mark.chain

SETTINGS: Final = replace(LOCAL, epoch_lifetime_ms=3 * 3600 * 1000)
PAYERS: Final = {name: key_of(name) for name in ("ann", "bob", "cid")}
NODES: Final = {name: key_of(name).address for name in ("north", "south", "unregistered")}
WALLETS: Final = {"north": key_of("wallet 1").address, "south": key_of("wallet 2").address}
SOMEBODY: Final = key_of("somebody").address
UNKNOWN_LOG: Final = b"\x99" * 32
POCKET: Final = 5_000

payers = st.sampled_from(sorted(PAYERS))
log_names = st.sampled_from(["log a", "log b"])
amounts = st.integers(1, 100) | st.integers(1, 2 * POCKET) | st.sampled_from([0, 2**96 - 1])
destinations = st.sampled_from([SOMEBODY, SOMEBODY, SOMEBODY, ZERO_ADDRESS])
callers = st.sampled_from(["operator", "operator", "operator", "somebody"])
officers = st.sampled_from(["administrator", "guardian", "administrator", "guardian", "somebody"])
debits = st.dictionaries(
    st.sampled_from(sorted(PAYERS)), st.integers(1, 60) | st.integers(1, 3000), min_size=1
)
shares = st.dictionaries(st.sampled_from(sorted(NODES)), st.integers(1, 9), min_size=1)
fee_rates = st.sampled_from([0, 0, 30, 999, 1000, 1000, 1001, 5000])


@dataclass
class Draft:
    """A batch before it is signed, and how it will be submitted."""

    batch: Batch
    key: SecretKey
    proof: list[bytes]
    last: Anchor
    leaves: list[bytes]
    history: Refused | None = None


Flaw = Callable[["MoneyMachine", Draft], None]
FLAWS: dict[str, Flaw] = {}


def flaw(function: Flaw) -> Flaw:
    """Something that a submitter or a signer could do to a batch."""
    FLAWS[function.__name__] = function
    return function


@flaw
def unbalanced(_: "MoneyMachine", draft: Draft) -> None:
    draft.batch = replaced(draft.batch, fees=draft.batch.fees + 1)


@flaw
def rows_descending(_: "MoneyMachine", draft: Draft) -> None:
    rows = draft.batch.debits
    turned = b"".join(rows[at : at + 32] for at in range(len(rows) - 32, -1, -32))
    draft.batch = replaced(draft.batch, debits=turned)


@flaw
def a_row_twice(_: "MoneyMachine", draft: Draft) -> None:
    draft.batch = replaced(draft.batch, credits=draft.batch.credits[:32] + draft.batch.credits)


@flaw
def a_zero_row(_: "MoneyMachine", draft: Draft) -> None:
    draft.batch = replaced(draft.batch, credits=b"\xff" * 20 + bytes(12) + draft.batch.credits)


@flaw
def half_a_row(_: "MoneyMachine", draft: Draft) -> None:
    draft.batch = replaced(draft.batch, debits=draft.batch.debits[:-7])


@flaw
def a_batch_too_early(_: "MoneyMachine", draft: Draft) -> None:
    draft.batch = replaced(draft.batch, sequence=draft.batch.sequence + 1)


@flaw
def a_batch_again(_: "MoneyMachine", draft: Draft) -> None:
    draft.batch = replaced(draft.batch, sequence=draft.batch.sequence - 1)


@flaw
def no_leaves(_: "MoneyMachine", draft: Draft) -> None:
    draft.batch = replaced(draft.batch, new_size=draft.batch.prev_size)


@flaw
def another_epoch(_: "MoneyMachine", draft: Draft) -> None:
    draft.batch = replaced(draft.batch, epoch=draft.batch.epoch + 1)


@flaw
def another_signer(_: "MoneyMachine", draft: Draft) -> None:
    draft.key = key_of("thief")


@flaw
def the_last_epochs_signer(machine: "MoneyMachine", draft: Draft) -> None:
    draft.key = machine.ended_keys.get(draft.batch.log_id, draft.key)


@flaw
def another_anchor(_: "MoneyMachine", draft: Draft) -> None:
    draft.last = replace(draft.last, prev_size=draft.last.prev_size + 1)


@flaw
def an_unknown_log(_: "MoneyMachine", draft: Draft) -> None:
    draft.batch = replaced(
        draft.batch, log_id=UNKNOWN_LOG, sequence=1, prev_size=0, prev_root=EMPTY_ROOT
    )
    draft.proof, draft.last = [], Anchor.none(UNKNOWN_LOG)


@flaw
def a_hash_too_many(_: "MoneyMachine", draft: Draft) -> None:
    draft.proof = [*draft.proof, bytes(32)]
    draft.history = Refused("WrongProofLength", len(draft.proof))


@flaw
def a_hash_too_few(_: "MoneyMachine", draft: Draft) -> None:
    if draft.proof:
        draft.proof = draft.proof[:-1]
        draft.history = Refused("WrongProofLength", len(draft.proof))


@flaw
def a_rewritten_leaf(_: "MoneyMachine", draft: Draft) -> None:
    """Another history under the same anchor, with the best proof that it has."""
    old = draft.batch.prev_size
    if not old:
        return
    other = Tree([leaf_hash(b"forged"), *draft.leaves[1:]])
    draft.batch = replaced(draft.batch, new_root=other.root())
    draft.proof = other.consistency_proof(old, len(other))
    if old & (old - 1):
        draft.history = Refused("RootMismatch", draft.batch.prev_root, other.root(old))
    else:  # the old root is not in the proof, so it is the new one that comes out differently
        draft.history = Refused("RootMismatch", other.root(), Tree(draft.leaves).root())


class MoneyMachine(RuleBasedStateMachine):
    """One chain for all examples: each starts from the same snapshot."""

    market: ClassVar[Market]
    base: ClassVar[Money]
    snapshot: ClassVar[object]

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
        FLAWS[name](self, draft)
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
        return Draft(batch, self.keys[log_id], proof, last, grown)

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

    # Administrator and guardian

    @rule(caller=officers, log=log_names)
    def revokes_the_epoch(self, caller: str, log: str) -> None:
        who, log_id = self.caller(caller, log), self.log_id(log)
        build = self.calls.revoke_epoch if caller == "guardian" else self.calls.revoke_own_epoch
        call = build(log_id, self.money.logs[log_id].epoch)
        self.act(who, call, lambda money, _: money.revoke_epoch(who, log_id))

    @rule(caller=officers, limit=st.sampled_from([0, 10_000, 300_000, 1_000_000, 1_000_001]))
    def limits_debits(self, caller: str, limit: int) -> None:
        who = self.caller(caller)
        call = self.calls.set_debit_limit(limit)
        self.act(who, call, lambda money, now: money.set_debit_limit(who, limit, now))

    @rule(caller=officers, seconds=st.sampled_from([0, 60, 120, 121]))
    def pauses(self, caller: str, seconds: int) -> None:
        who = self.caller(caller)
        self.act(
            who, self.calls.pause(seconds), lambda money, now: money.pause(who, seconds, now)
        )

    @rule(caller=officers)
    def unpauses(self, caller: str) -> None:
        who = self.caller(caller)
        self.act(who, self.calls.unpause(), lambda money, _: money.unpause(who))

    # The chain

    @rule(seconds=st.sampled_from([100, 170, 178, 180, 240, 600, 3600, 11_000]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.market.rpc.call("evm_setNextBlockTimestamp", self.now)
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
        expected = self.expected()
        asked = [self.market.settlement(name, *given) for name, *given in expected]
        found = [
            tuple(v) if len(v) != 1 else v[0] for v in read_many(self.market.rpc, asked)
        ]
        for (question, answer), value in zip(expected.items(), found, strict=True):
            assert shown(value) == shown(answer), f"{shown(question)}: chain, then model"
        self.compare_tokens()
        self.compare_epochs()

    def expected(self) -> Mapping[tuple[Any, ...], Any]:
        """Question to Settlement → answer by the model."""
        money, now = self.money, self.now
        answers: dict[tuple[Any, ...], Any] = {
            ("debitLimit",): money.debit_limit(now),
            ("pausedUntil",): money.paused_until,
            ("nextPauseFrom",): money.next_pause_from,
        }
        for log_id, log in money.logs.items():
            answers["logStateOf", log_id] = ledger(log)
            answers["reserveRequestOf", log_id] = (
                log.reserve_requested,
                log.reserve_available_at,
            )
            answers["debitableNow", log_id] = money.debitable(log, now)
            for anchor in log.anchors:
                answers["anchorOf", log_id, anchor.sequence] = anchor.word
            answers["anchorOf", log_id, log.sequence + 1] = bytes(32)
        for key in PAYERS.values():
            payer, choice = key.address, money.payers.get(key.address, Payer())
            answers["payerOf", payer] = (
                choice.log,
                choice.next_log,
                choice.movable_at,
                choice.grant_epoch,
            )
            for log_id in money.logs:
                account = money.account(log_id, payer)
                answers["accountOf", log_id, payer] = (
                    account.balance,
                    account.requested,
                    account.available_at,
                )
                answers["debtOf", log_id, payer] = money.debts.get((log_id, payer), 0)
        for node in NODES.values():
            entry = money.nodes.get(node, Node())
            answers["creditOf", node] = (entry.credit, entry.lifetime)
        return answers

    def compare_tokens(self) -> None:
        """Token balances; Settlement's is the sum of what it owes, as the contract shows it."""
        token = self.market.deployment.token
        owners = list(self.money.tokens)
        asked = [view("TestToken", token, "balanceOf", owner) for owner in owners]
        found = dict(zip(owners, (v for (v,) in read_many(self.market.rpc, asked)), strict=True))
        assert found == self.money.tokens
        assert found[self.market.deployment.settlement] == self.money.held()
        for key in PAYERS.values():
            tally = self.money.tally(key.address)
            left = sum(self.money.account(log, key.address).balance for log in self.money.logs)
            assert left == tally.deposited - tally.debited - tally.withdrawn

    def compare_epochs(self) -> None:
        """Who may sign for each log, or why nobody."""
        registry = self.market.deployment.enclave_registry
        for log_id in self.market_logs:
            try:
                predicted: object = self.money.active_epoch(log_id, self.now)
            except Refused as refused:
                predicted = (refused.name, *refused.arguments)
            try:
                asked = view("EnclaveRegistry", registry, "activeEpochOf", log_id)
                seen: object = read(self.market.rpc, asked)
            except Reverted as reverted:
                seen = (reverted.name, *reverted.arguments.values())
            assert shown(seen) == shown(predicted)

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

    @property
    def market_logs(self) -> list[bytes]:
        """The ids of the real logs."""
        return [log.log_id for log in self.market.logs.values()]

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


def ledger(log: Log) -> tuple[int, ...]:
    """A log's state as the contract shows it."""
    return (
        log.sequence,
        log.assigned,
        log.window_debited,
        log.window_start,
        log.reserve,
        log.fees,
    )


def split(amount: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Parts of an amount in proportion, the rest to the last; no zeros."""
    whole = sum(weights.values())
    parts = {name: amount * weight // whole for name, weight in weights.items()}
    last = max(weights)
    parts[last] += amount - sum(parts.values())
    return {name: part for name, part in parts.items() if part}


def shown(value: object) -> object:
    """Readable in a failure: bytes as hex, structs as tuples."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, (tuple, list)):
        return tuple(shown(part) for part in value)
    return value


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
    machine = type(
        "Machine", (MoneyMachine,), {"market": market, "base": base, "snapshot": snapshot}
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=settings.default.max_examples // 2,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )

