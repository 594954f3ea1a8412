"""`ContractFacts`: the chain facts that verification asks for, read from the contracts.

All answers are about one final block, fixed when the object is made; make a new one to see newer
state. What was true at an earlier block (wallets, models, grant epochs) comes from events, since
few endpoints keep old state. Answers are kept, so that many bundles cost few calls.

    facts = ContractFacts(ChainClient(rpc, deployment))
    Verifier(policy, facts).verify(raw)

Nothing is proven by an endpoint's answer. Where it gives none, `ChainUnavailable` is raised.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, ParamSpec, TypeVar

from pinaivu.chain.abi import load
from pinaivu.chain.client import ChainClient
from pinaivu.chain.errors import ChainUnavailable, Reverted
from pinaivu.chain.events import Event, LogReader
from pinaivu.keys import ZERO_ADDRESS
from pinaivu.verify.facts import (
    Earnings,
    EpochFact,
    ModelFact,
    NodeFact,
    Payout,
    SettlementFact,
)

GRANT_EPOCH_SKEW_MS: Final = 120_000
"""Block times and a coordinator's clock may differ by so much."""

BOOK_SKEW_MS: Final = 120_000
"""How old a book's knowledge of payout wallets and bonds may be: an offer's life and a cache's."""

_REMEMBERED: Final = 4096
P = ParamSpec("P")
T = TypeVar("T")
_Position = tuple[int, int]


class ContractFacts:
    """`pinaivu.verify.ChainFacts` over JSON-RPC, as of the newest final block."""

    def __init__(self, client: ChainClient) -> None:
        self._client = client
        self.block = client.final_block()
        """The final block that all answers are about."""
        self._reader = LogReader.of(client.rpc, client.deployment)
        self.epoch = _kept(self._epoch)
        self.anchor_word = _kept(self._anchor_word)
        self.settlement = _kept(self._settlement)
        self.node = _kept(self._node)
        self.model = _kept(self._model)
        self.grant_epoch = _kept(self._grant_epoch)
        self.earnings = _kept(self._earnings)
        self._time_ms = _kept(self._block_time_ms)
        self._wallet_events = _kept(self._read_wallet_events)
        self._bond_events = _kept(self._read_bond_events)

    def _epoch(self, log_id: bytes, number: int) -> EpochFact | None:
        record = self._client.epoch(log_id, number, self.block)
        if record is None:
            return None
        pair = self._client.pair_at(record.pair, self.block)
        return EpochFact(
            key=record.key,
            manifest_digest=record.manifest_digest,
            payload_digest=record.payload_digest,
            activated_at_ms=record.activated_at_ms,
            expires_at_ms=record.expires_at_ms,
            revoked_at_ms=record.revoked_at_ms,
            measurement=pair.measurement,
            parameters_digest=pair.parameters_digest,
            pair_allowed_from_ms=pair.allowed_from_ms,
            pair_revoked_at_ms=pair.revoked_at_ms,
        )

    def _anchor_word(self, log_id: bytes, sequence: int) -> bytes | None:
        if not 1 <= sequence <= self._client.log_state(log_id, self.block).sequence:
            return None
        return self._client.anchor(log_id, sequence, self.block).word

    def _settlement(self, log_id: bytes, sequence: int) -> SettlementFact | None:
        batch = self._batch_events("BatchSettled", log_id, sequence)
        if not batch:
            return None
        settled = batch[-1]
        shorts = {
            event.arguments["payer"]: (event.arguments["covered"], event.arguments["uncovered"])
            for event in self._batch_events("PayerShort", log_id, sequence)
        }
        said = settled.arguments
        due = said["debited"] + sum(sum(gap) for gap in shorts.values())
        scaled = self._batch_events("BatchScaledDown", log_id, sequence)
        return SettlementFact(
            block=settled.block_number,
            prev_size=said["prevSize"],
            new_size=said["newSize"],
            new_root=said["newRoot"],
            batch_digest=said["batchDigest"],
            debited=said["debited"],
            fees=said["fees"],
            due=scaled[-1].arguments["due"] if scaled else due,
            backed=scaled[-1].arguments["backed"] if scaled else due,
            shorts=shorts,
        )

    def _node(self, node: bytes, block: int | None = None) -> NodeFact | None:
        at = self.block if block is None else block
        if at > self.block:
            raise ChainUnavailable(
                f"block {at} is not final yet; the last final one is {self.block}"
            )
        events = [event for event in self._wallet_events(node) if event.block_number <= at]
        if not events:
            return None
        at_ms = self._time_ms(at)
        payout, funder = self._wallets(node, at, at_ms)
        return NodeFact(
            registered_at_ms=self._time_ms(events[0].block_number),
            payout=payout,
            bond_funder=funder,
            lately=self._lately(node, at, at_ms) - {(payout, funder)},
        )

    def _wallets(self, node: bytes, block: int, at_ms: int) -> tuple[bytes, bytes]:
        """Payout wallet and bond funder after the events up to `block`, at a time not before it."""
        wallets = [event for event in self._wallet_events(node) if event.block_number <= block]
        bonds = (event for event in self._bond_events(node) if event.block_number <= block)
        return _wallet(wallets, at_ms, self._time_ms), _funder(bonds)

    def _lately(self, node: bytes, at: int, at_ms: int) -> frozenset[tuple[bytes, bytes]]:
        """What `_wallets` was since `BOOK_SKEW_MS` before, as far as the node was registered."""
        since_ms = at_ms - BOOK_SKEW_MS
        events = (*self._wallet_events(node), *self._bond_events(node))
        changes = {e.block_number: self._time_ms(e.block_number) for e in events}
        before = [block for block, ms in changes.items() if ms <= since_ms]
        moments = {(max(before), since_ms)} if before else set()
        for block, ms in changes.items():
            if since_ms < ms and block <= at:
                moments.add((block - 1, ms - 1))
        pairs = (self._wallets(node, block, ms) for block, ms in moments)
        return frozenset(pair for pair in pairs if pair[0])

    def _model(self, model_key: bytes, block: int) -> ModelFact | None:
        registry = load("ModelRegistry")
        found = [
            event
            for name in ("ModelSet", "ModelRemoved")
            for event in self._read(registry.event(name).topic, model_key, last=block)
        ]
        newest = max(found, key=_position, default=None)
        if newest is None or newest.name == "ModelRemoved":
            return None
        said = newest.arguments
        return ModelFact(
            fingerprint=said["fingerprint"],
            ratio_ppm=said["ratioPpm"],
            tokenizer_digest=said["tokenizerDigest"],
        )

    def _grant_epoch(self, payer: bytes, at_ms: int) -> frozenset[int]:
        topic = load("Settlement").event("GrantEpochBumped").topic
        in_force = 0
        found = set()
        for event in self._read(topic, payer.rjust(32, b"\0")):
            bumped_ms = self._time_ms(event.block_number)
            if bumped_ms > at_ms + GRANT_EPOCH_SKEW_MS:
                break
            if bumped_ms > at_ms - GRANT_EPOCH_SKEW_MS:
                found.add(in_force)
            in_force = event.arguments["grantEpoch"]
        return frozenset(found | {in_force})

    def _earnings(self, node: bytes) -> Earnings:
        (credit,) = self._client.node_credits([node], self.block)
        topic = load("Settlement").event("CreditPaid").topic
        payouts = tuple(
            Payout(
                block=event.block_number,
                wallet=event.arguments["payout"],
                registered=self._wallet_before(node, event),
                amount=event.arguments["amount"],
            )
            for event in self._read(topic, node.rjust(32, b"\0"))
        )
        return Earnings(lifetime=credit.lifetime, credit=credit.credit, payouts=payouts)

    def _wallet_before(self, node: bytes, paid: Event) -> bytes:
        events = [e for e in self._wallet_events(node) if _position(e) < _position(paid)]
        return _wallet(events, self._time_ms(paid.block_number), self._time_ms)

    def _read_wallet_events(self, node: bytes) -> tuple[Event, ...]:
        topic = load("NodeRegistry").event("PayoutSet").topic
        return self._read(topic, node.rjust(32, b"\0"))

    def _read_bond_events(self, node: bytes) -> tuple[Event, ...]:
        registry = load("NodeRegistry")
        found = [
            event
            for name in ("Bonded", "BondWithdrawn", "BondSlashed")
            for event in self._read(registry.event(name).topic, node.rjust(32, b"\0"))
        ]
        return tuple(sorted(found, key=_position))

    def _batch_events(self, name: str, log_id: bytes, sequence: int) -> tuple[Event, ...]:
        return self._read(load("Settlement").event(name).topic, log_id, sequence.to_bytes(32))

    def _read(self, *topics: bytes, last: int | None = None) -> tuple[Event, ...]:
        """Events with these topics from the deployment up to `last`, in chain order."""
        first, end = self._client.deployment.block, self.block if last is None else last
        if end > self.block:
            raise ChainUnavailable(f"block {end} is not final yet; the last one is {self.block}")
        return self._reader.read(first, end, topics=topics) if first <= end else ()

    def _block_time_ms(self, number: int) -> int:
        return self._client.block(number).time_ms


def _kept(read: Callable[P, T]) -> Callable[P, T]:
    """`read`, remembering its answers; a contract's refusal is an answer nobody can use."""

    def reading(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except Reverted as reverted:
            raise ChainUnavailable(f"the contracts refused to say: {reverted}") from reverted

    return lru_cache(maxsize=_REMEMBERED)(reading)  # type: ignore[return-value]


def _position(event: Event) -> _Position:
    return (event.block_number, event.log_index)


def _funder(events: Iterable[Event]) -> bytes:
    """Whose bond it is after these events; zero without a bond, which ends as a whole."""
    funder = ZERO_ADDRESS
    for event in events:
        funder = event.arguments["funder"] if event.name == "Bonded" else ZERO_ADDRESS
    return funder


def _wallet(events: list[Event], at_ms: int, time_ms: Callable[[int], int]) -> bytes:
    """The wallet in force, as NodeRegistry has it: a change waits, and a later one replaces it."""
    wallet, waiting, changes_ms = b"", b"", 0
    for event in events:
        now_ms = time_ms(event.block_number)
        if waiting and changes_ms <= now_ms:
            wallet, waiting = waiting, b""
        payout, effective_ms = event.arguments["payout"], event.arguments["effectiveAt"] * 1000
        if effective_ms <= now_ms:
            wallet, waiting = payout, b""
        else:
            waiting, changes_ms = payout, effective_ms
    return waiting if waiting and changes_ms <= at_ms else wallet
