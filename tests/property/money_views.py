"""Every view of Settlement beside what the model says, read in one round trip."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from pinaivu.chain.errors import Reverted
from pinaivu.chain.views import View, read, read_many, view
from tests.integration.timed_chain import Market
from tests.property.money_model import Money, Payer, Refused

Question: TypeAlias = tuple[Any, ...]
"""Deployment field and ABI of a contract, function, arguments."""

_SETTLEMENT = ("settlement", "Settlement")
_TOKEN = ("token", "TestToken")
_ENCLAVES = ("enclave_registry", "EnclaveRegistry")


class MoneyViews:
    """Compares one deployment with models of it."""

    def __init__(self, market: Market, payers: Sequence[bytes]) -> None:
        self._market = market
        self._payers = payers
        self._view = lru_cache(maxsize=None)(self._build)

    def compare(self, money: Money, now: int) -> None:
        """Fails with the first view whose answer is not the model's; sums must be right too."""
        answers = [*self._settlement(money, now), *self._tokens(money), *self._epochs(money, now)]
        found = read_many(self._market.rpc, [self._view(*question) for question, _ in answers])
        for (question, answer), values in zip(answers, found, strict=True):
            value = values if len(values) != 1 else values[0]
            assert shown(value) == shown(answer), f"{shown(question[2:])}: chain, then model"
        self._require_refusals(money, now)
        self._require_sums(money)

    def _settlement(self, money: Money, now: int) -> Iterator[tuple[Question, object]]:
        yield (*_SETTLEMENT, "debitLimit"), money.debit_limit(now)
        yield (*_SETTLEMENT, "owed"), money.held()
        yield (*_SETTLEMENT, "pausedUntil"), money.paused_until
        yield (*_SETTLEMENT, "nextPauseFrom"), money.next_pause_from
        yield from self._logs(money, now)
        yield from self._accounts(money)
        for name, node in money.nodes.items():
            yield (*_SETTLEMENT, "creditOf", name), (node.credit, node.lifetime)

    def _logs(self, money: Money, now: int) -> Iterator[tuple[Question, object]]:
        for log_id, log in money.logs.items():
            yield (
                (*_SETTLEMENT, "logStateOf", log_id),
                (
                    log.sequence,
                    log.assigned,
                    log.drained_at,
                    log.reserve,
                    log.fees,
                ),
            )
            reserve = (log.reserve_requested, log.reserve_available_at)
            yield (*_SETTLEMENT, "reserveRequestOf", log_id), reserve
            yield (*_SETTLEMENT, "debitableNow", log_id), money.debitable(log, now)
            for anchor in log.anchors:
                yield (*_SETTLEMENT, "anchorOf", log_id, anchor.sequence), anchor.word
            yield (*_SETTLEMENT, "anchorOf", log_id, log.sequence + 1), bytes(32)

    def _accounts(self, money: Money) -> Iterator[tuple[Question, object]]:
        for payer in self._payers:
            choice = money.payers.get(payer, Payer())
            chosen = (choice.log, choice.next_log, choice.movable_at, choice.grant_epoch)
            yield (*_SETTLEMENT, "payerOf", payer), chosen
            for log_id in money.logs:
                account = money.account(log_id, payer)
                stands = (account.balance, account.requested, account.available_at)
                yield (*_SETTLEMENT, "accountOf", log_id, payer), stands
                yield (*_SETTLEMENT, "debtOf", log_id, payer), money.debts.get((log_id, payer), 0)

    def _tokens(self, money: Money) -> Iterator[tuple[Question, object]]:
        for owner, amount in money.tokens.items():
            yield (*_TOKEN, "balanceOf", owner), amount

    def _epochs(self, money: Money, now: int) -> Iterator[tuple[Question, object]]:
        for log in self._market.logs.values():
            if _refusal(money, log.log_id, now) is None:
                answer = money.active_epoch(log.log_id, now)
                yield (*_ENCLAVES, "activeEpochOf", log.log_id), answer

    def _require_refusals(self, money: Money, now: int) -> None:
        """Logs that nobody may sign for say why."""
        for log in self._market.logs.values():
            predicted = _refusal(money, log.log_id, now)
            if predicted is None:
                continue
            try:
                seen = read(self._market.rpc, self._view(*_ENCLAVES, "activeEpochOf", log.log_id))
            except Reverted as reverted:
                seen = (reverted.name, *reverted.arguments.values())
            assert shown(seen) == shown((predicted.name, *predicted.arguments))

    def _require_sums(self, money: Money) -> None:
        """What Settlement holds is what it owes; nobody can withdraw more than was left to it."""
        assert money.tokens[money.settlement] == money.held()
        for payer in self._payers:
            tally = money.tally(payer)
            left = sum(money.account(log, payer).balance for log in money.logs)
            assert left == tally.deposited - tally.debited - tally.withdrawn

    def _build(self, field: str, abi: str, function: str, *arguments: object) -> View:
        return view(abi, getattr(self._market.deployment, field), function, *arguments)


def _refusal(money: Money, log_id: bytes, now: int) -> Refused | None:
    try:
        money.active_epoch(log_id, now)
    except Refused as refused:
        return refused
    return None


def shown(value: object) -> object:
    """Readable in a failure: bytes as hex, structs as tuples."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, (tuple, list)):
        return tuple(shown(part) for part in value)
    return value
