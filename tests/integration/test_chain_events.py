"""Following events over a real chain, through reorganisations."""

from collections.abc import Iterator

import msgspec
import pytest
from eth_abi.abi import encode

from pinaivu.chain.abi import ContractAbi
from pinaivu.chain.anvil import AnvilProcess
from pinaivu.chain.calls import Call
from pinaivu.chain.events import Advance, Cursor, Event, Follower, LogReader, Rollback
from pinaivu.chain.rpc import HttpRpc
from tests.integration.chain_support import LOG_CALLDATA, deploy_code, funded_transactor

pytestmark = pytest.mark.chain

PINGS = ContractAbi(
    "Pings",
    msgspec.json.encode(
        {
            "abi": [
                {
                    "type": "event",
                    "name": "Ping",
                    "inputs": [
                        {"name": "number", "type": "uint256", "indexed": True},
                        {"name": "who", "type": "address"},
                        {"name": "text", "type": "string"},
                    ],
                }
            ],
            "bytecode": "0x",
        }
    ),
)
WHO = bytes(range(20))


class Pinger:
    """A contract that emits `Ping`s, and its sender."""

    def __init__(self, rpc: HttpRpc) -> None:
        self.rpc = rpc
        self.sender = funded_transactor(rpc)
        self.address = deploy_code(self.sender, LOG_CALLDATA)
        self.reader = LogReader(rpc, {self.address: PINGS})

    def ping(self, number: int, *, topic: bytes | None = None) -> None:
        """Emit one event, by default a `Ping`."""
        data = encode(["address", "string"], [WHO, f"ping {number}"])
        words = (topic or PINGS.event("Ping").topic) + number.to_bytes(32)
        self.sender.send(Call("ping", self.address, words + data))

    def follower(self, **options: object) -> Follower:
        """A follower of this contract alone."""
        return Follower(self.rpc, self.reader, 1, **options)  # type: ignore[arg-type]


class Replica:
    """What a reader knows who applies every step: the numbers pinged, by block."""

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.seen: list[Event] = []
        self.steps: list[Advance | Rollback] = []

    def catch_up(self) -> list[int]:
        """Apply steps until there is none; the numbers seen."""
        while (step := self.follower.poll()) is not None:
            self.steps.append(step)
            if isinstance(step, Rollback):
                last = step.cursor.number if step.cursor else -1
                self.seen = [event for event in self.seen if event.block_number <= last]
            else:
                self.seen += step.events
        return [event.arguments["number"] for event in self.seen]

    @property
    def rollbacks(self) -> int:
        """How often something was taken back."""
        return sum(isinstance(step, Rollback) for step in self.steps)


@pytest.fixture(scope="module")
def rpc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpRpc]:
    state = tmp_path_factory.mktemp("events") / "state.json"
    with AnvilProcess(state) as chain, HttpRpc(chain.url) as endpoint:
        yield endpoint


@pytest.fixture
def pinger(rpc: HttpRpc) -> Pinger:
    return Pinger(rpc)


def test_events_come_decoded_and_in_order(pinger: Pinger) -> None:
    for number in (1, 2, 3):
        pinger.ping(number)
    replica = Replica(pinger.follower())
    assert replica.catch_up() == [1, 2, 3]
    last = replica.seen[-1]
    assert (last.contract, last.name) == ("Pings", "Ping")
    assert last.arguments == {"number": 3, "who": WHO, "text": "ping 3"}
    header = pinger.rpc.call("eth_getBlockByNumber", hex(last.block_number), False)
    assert header["hash"] == f"0x{last.block_hash.hex()}"
    assert header["transactions"][last.log_index] == f"0x{last.tx_hash.hex()}"


def test_a_follower_goes_on_where_it_was(pinger: Pinger) -> None:
    """Nothing is missed or repeated between polls, and with nothing new there is no step."""
    replica = Replica(pinger.follower())
    for number in (1, 2, 3):
        pinger.ping(number)
        assert replica.catch_up() == list(range(1, number + 1))
    assert pinger.follower(resume=replica.follower.cursor).poll() is None


def test_a_stored_cursor_resumes(pinger: Pinger) -> None:
    first = Replica(pinger.follower())
    pinger.ping(1)
    first.catch_up()
    pinger.ping(2)
    assert Replica(pinger.follower(resume=first.follower.cursor)).catch_up() == [2]


def test_a_reorganisation_takes_back_what_it_removed(pinger: Pinger) -> None:
    """The other branch is as long, so only its hashes tell."""
    replica = Replica(pinger.follower())
    pinger.ping(1)
    replica.catch_up()
    fork = pinger.rpc.call("evm_snapshot")
    pinger.ping(2)
    pinger.ping(3)
    assert replica.catch_up() == [1, 2, 3]
    pinger.rpc.call("evm_revert", fork)
    pinger.ping(20)
    pinger.ping(30)
    assert replica.catch_up() == [1, 20, 30]
    assert replica.rollbacks == 1


def test_a_chain_that_became_shorter_is_a_rollback_too(pinger: Pinger) -> None:
    """As after a crash that lost the last blocks."""
    replica = Replica(pinger.follower())
    pinger.ping(1)
    replica.catch_up()
    fork = pinger.rpc.call("evm_snapshot")
    pinger.ping(2)
    assert replica.catch_up() == [1, 2]
    pinger.rpc.call("evm_revert", fork)
    assert replica.catch_up() == [1]


def test_a_cursor_of_another_chain_forgets_everything(pinger: Pinger) -> None:
    """Whoever resumes on a chain that was reset begins anew, and is told so."""
    pinger.ping(1)
    replica = Replica(pinger.follower(resume=Cursor(1, b"\x01" * 32)))
    assert replica.catch_up() == [1]
    assert replica.steps[0] == Rollback(None)


def test_finality_stays_behind_the_head(pinger: Pinger) -> None:
    replica = Replica(pinger.follower(finality_blocks=2))
    pinger.ping(1)
    assert replica.catch_up() == []
    pinger.rpc.call("anvil_mine", "0x2")
    assert replica.catch_up() == [1]


def test_unknown_events_of_known_contracts_are_left_out(pinger: Pinger) -> None:
    """A newer contract may emit what an older reader can't name."""
    pinger.ping(1, topic=b"\x05" * 32)
    pinger.ping(2)
    assert Replica(pinger.follower()).catch_up() == [2]


def test_a_reorganisation_while_logs_are_read_is_noticed(pinger: Pinger) -> None:
    """Logs of one branch never come under a cursor of another."""
    fork = pinger.rpc.call("evm_snapshot")
    pinger.ping(1)

    class ReorganisesMeanwhile(LogReader):
        done = False

        def read(
            self, first: int, last: int, *, topics: tuple[bytes | None, ...] = ()
        ) -> tuple[Event, ...]:
            """Read, then change the chain."""
            events = super().read(first, last, topics=topics)
            if not self.done:
                self.done = True
                pinger.rpc.call("evm_revert", fork)
                pinger.ping(10)
            return events

    reader = ReorganisesMeanwhile(pinger.rpc, {pinger.address: PINGS})
    follower = Follower(pinger.rpc, reader, 1)
    assert follower.poll() is None
    assert Replica(follower).catch_up() == [10]


def test_follow_waits_when_there_is_nothing_new(pinger: Pinger) -> None:
    """The generator calls `wait` and goes on afterwards."""
    waits: list[int] = []

    def wait() -> None:
        waits.append(len(waits))
        pinger.ping(len(waits))

    steps = pinger.follower().follow(wait)
    next(steps)
    step = next(steps)
    assert isinstance(step, Advance)
    assert [event.arguments["number"] for event in step.events] == [1]
    assert waits == [0]
