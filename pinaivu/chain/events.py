"""Contract events in order, and what a reorganisation takes back.

`Follower` walks the chain forward from a cursor. Each step is either an `Advance` (all events of a
range of blocks) or a `Rollback` (forget everything after a block). Applying the steps in order to
an empty state always gives the state of the chain as the endpoint last showed it. A rollback may
reach further back than the fork; the events it takes back are then given again.

Steps are yielded at the head, not at finality: give `finality_blocks` to stay behind it. Logs are
read raw, which is what makes this fast enough for an indexer.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from pinaivu.chain.abi import ContractAbi, load
from pinaivu.chain.deployment import CONTRACTS, Deployment
from pinaivu.chain.errors import ChainUnavailable, RpcRefused
from pinaivu.chain.rpc import JsonRpc
from pinaivu.chain.words import from_hex, quantity, to_hex

RANGE_BLOCKS: Final = 2_000
REMEMBERED_STEPS: Final = 256


@dataclass(frozen=True, slots=True)
class Event:
    """One event of one of our contracts; `arguments` by Solidity name."""

    contract: str
    name: str
    arguments: Mapping[str, Any]
    block_number: int
    block_hash: bytes
    tx_hash: bytes
    log_index: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """A block: all up to and including it is known."""

    number: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Advance:
    """All events after the last step's block up to `cursor`, in chain order."""

    cursor: Cursor
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Rollback:
    """The chain changed: forget every block after `cursor`; None: forget everything."""

    cursor: Cursor | None


class LogReader:
    """Decodes the logs of a set of contracts, by address."""

    def __init__(self, rpc: JsonRpc, contracts: Mapping[bytes, ContractAbi]) -> None:
        self._rpc = rpc
        self._contracts = dict(contracts)

    @classmethod
    def of(cls, rpc: JsonRpc, deployment: Deployment) -> Self:
        """Reads every contract of a deployment, the token apart: others use it too."""
        named = {getattr(deployment, field): load(abi) for field, abi in CONTRACTS.items()}
        return cls(rpc, named)

    def read(
        self, first: int, last: int, *, topics: tuple[bytes | None, ...] = ()
    ) -> tuple[Event, ...]:
        """Events of blocks `first` to `last`, both included; None matches any topic.

        Ranges that the endpoint finds too large are halved. Unknown events are left out: contracts
        may grow some.
        """
        query = {
            "address": [to_hex(address) for address in self._contracts],
            "fromBlock": hex(first),
            "toBlock": hex(last),
            "topics": [None if topic is None else to_hex(topic) for topic in topics],
        }
        try:
            logs = self._rpc.call("eth_getLogs", query)
        except RpcRefused:
            if first >= last:
                raise
            middle = (first + last) // 2
            return self.read(first, middle, topics=topics) + self.read(
                middle + 1, last, topics=topics
            )
        return self.decode(logs)

    def decode(self, logs: object) -> tuple[Event, ...]:
        """The events among raw logs, for instance a receipt's."""
        if not isinstance(logs, list | tuple):
            raise ChainUnavailable("the chain endpoint gave no list of logs")
        try:
            decoded = [self._event(log) for log in logs if not log.get("removed")]
        except (KeyError, TypeError, AttributeError) as error:
            raise ChainUnavailable(f"the chain endpoint gave a malformed log: {error!r}") from error
        return tuple(event for event in decoded if event is not None)

    def _event(self, log: Mapping[str, Any]) -> Event | None:
        contract = self._contracts.get(from_hex(log["address"]))
        topics = [from_hex(topic) for topic in log["topics"]]
        item = contract.event_of(topics[0]) if contract and topics else None
        if item is None:
            return None
        return Event(
            contract=item.contract,
            name=item.name,
            arguments=item.decode_log(topics, from_hex(log["data"])),
            block_number=quantity(log["blockNumber"]),
            block_hash=from_hex(log["blockHash"]),
            tx_hash=from_hex(log["transactionHash"]),
            log_index=quantity(log["logIndex"]),
        )


class Follower:
    """Follows events from `first_block`, or from after a `resume` cursor stored earlier."""

    def __init__(
        self,
        rpc: JsonRpc,
        reader: LogReader,
        first_block: int,
        *,
        resume: Cursor | None = None,
        finality_blocks: int = 0,
    ) -> None:
        self._rpc = rpc
        self._reader = reader
        self._first_block = first_block
        self._finality_blocks = finality_blocks
        # The last steps' blocks, oldest first: where a rollback can stop.
        self._path: deque[Cursor] = deque([resume] if resume else [], REMEMBERED_STEPS)

    @property
    def cursor(self) -> Cursor | None:
        """The last known block; None before the first step."""
        return self._path[-1] if self._path else None

    def poll(self) -> Advance | Rollback | None:
        """The next step, or None when there is nothing new. Doesn't wait.

        `ChainUnavailable` leaves the follower as it was.
        """
        if not self._on_chain(self.cursor):
            return self._roll_back()
        first = self.cursor.number + 1 if self.cursor else self._first_block
        last = quantity(self._rpc.call("eth_blockNumber")) - self._finality_blocks
        if last < first:
            return None
        return self._advance(first, min(last, first + RANGE_BLOCKS - 1))

    def follow(self, wait: Callable[[], None]) -> Iterator[Advance | Rollback]:
        """Every step, for ever; calls `wait` whenever there is nothing new."""
        while True:
            step = self.poll()
            if step is None:
                wait()
            else:
                yield step

    def _advance(self, first: int, last: int) -> Advance | None:
        """Read a range, and take it only if both its ends stood still meanwhile.

        The hash of the last block fixes its ancestors; that our cursor is one of them is checked
        after the logs were read, so no log of another fork can be among them.
        """
        end = self._header(last)
        if end is None:
            return None
        events = self._reader.read(first, last)
        if not (self._on_chain(end) and self._on_chain(self.cursor)):
            return None  # the next poll sees what happened
        self._path.append(end)
        return Advance(end, events)

    def _roll_back(self) -> Rollback:
        while self._path and not self._on_chain(self._path[-1]):
            self._path.pop()
        return Rollback(self.cursor)

    def _on_chain(self, cursor: Cursor | None) -> bool:
        return cursor is None or self._header(cursor.number) == cursor

    def _header(self, number: int) -> Cursor | None:
        block = self._rpc.call("eth_getBlockByNumber", hex(number), False)
        return Cursor(number, from_hex(block["hash"])) if block else None
