"""A made-up market for `bench.reputation`: simulated parties, real rule, real state machine.

Who wins and at which price is `pinaivu.auction.rule`; what is known of nodes is
`pinaivu.reputation`, fed with a receipt for each job. Simulated: how nodes serve (times vary by a
fifth), their prices (each job anew, by a quarter, as load would), and who asks. Standing auctions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from msgspec.structs import replace

from pinaivu.auction import rule
from pinaivu.auction.rule import Entrant, Market
from pinaivu.auction.transcript import Row
from pinaivu.codes import Feature, Reason
from pinaivu.manifest import Parameters, local_development_parameters
from pinaivu.messages import Offer, Receipt, Segment
from pinaivu.reputation import Reputation, Standing
from pinaivu.testing.receipts import attempted, receipt_of

MODEL: Final = "made-up/model"
LOG: Final = b"L" * 32
RULES: Final = replace(
    local_development_parameters("http://127.0.0.1:8545"),
    party_share_ppm=100_000,
    explore_ppm=20_000,
)
PRICE: Final = 500_000  # base units per million output tokens
FIRST_MS: Final = 300
TPS_MILLI: Final = 50_000
MOST_OUTPUT: Final = 512
MOST_RANKS: Final = 3


@dataclass
class SimulatedNode:
    """How one node serves, and what it promises: `boast` times as fast as it is."""

    number: int
    fails: float = 0.01
    boast: float = 1.0
    since: int = 0  # the job before which it joins
    calibrated: bool = True  # False: its promise is believed for ever, for comparison

    @property
    def address(self) -> bytes:
        """Its key's address."""
        return b"\x01" + self.number.to_bytes(19)

    def offer(self, price_out: int) -> Offer:
        """Its offer at a price."""
        return Offer(
            log_id=LOG,
            node=self.address,
            fingerprint=b"F" * 32,
            features=Feature.KIND_CHAT | Feature.EXPLORATION,
            context_tokens=8192,
            price_out=price_out,
            ttft_ms=int(FIRST_MS / self.boast),
            tps_milli=int(TPS_MILLI * self.boast),
            slots=8,
            sequence=1,
            issued_ms=0,
            expires_ms=15_000,
            model=MODEL,
        )


@dataclass(frozen=True)
class Asked:
    """Who asks for a job, and what its gateway does to the truth."""

    gateway: bytes
    payer: bytes
    only: bytes | None = None  # the one node it allows
    lies_about: bytes | None = None
    lie: str = ""  # failed, slow


@dataclass
class MarketSimulation:
    """One random market, job by job."""

    random: Random
    nodes: list[SimulatedNode]
    asks: Callable[[Random], Asked]
    rules: Parameters = RULES
    wins: list[tuple[Asked, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reputation = Reputation(self.rules)

    def run(self, jobs: int) -> None:
        """So many jobs more."""
        for _ in range(jobs):
            asked = self.asks(self.random)
            self._serve(asked)

    def share(self, address: bytes, start: int, stop: int, *, honest: bool = False) -> float:
        """A node's share of first ranks among the jobs of a span, or its honestly asked ones."""
        found = [w for a, w in self.wins[start:stop] if not (honest and a.lies_about)]
        return found.count(address) / max(1, len(found))

    def _serve(self, asked: Asked) -> None:
        market, entrants = self._market(asked), self._entrants()
        segments, excluded, times = list[Segment](), frozenset[bytes](), dict[str, int]()
        for rank in range(1, MOST_RANKS + 1):
            cleared = rule.clear(market, entrants, excluded)
            if cleared is None:
                break
            node = self._node(cleared.entrant.row.node)
            if rank == 1:
                self.wins.append((asked, node.address))
            lied = node.address == asked.lies_about
            fails = self.random.random() < node.fails or (lied and asked.lie == "failed")
            result = Reason.STREAM_BROKEN if fails else Reason.NONE
            segments.append(attempted(node.address, result, output=self._output(), rank=rank))
            excluded |= {node.address}
            if not fails:
                times = self._times(segments[-1].output_node, slow=lied and asked.lie == "slow")
                break
        if segments:
            self.reputation.learn(self._receipt(asked, segments, times))

    def _receipt(self, asked: Asked, segments: list[Segment], times: dict[str, int]) -> Receipt:
        more: dict[str, Any] = {"model": MODEL} | times
        return receipt_of(*segments, gateway=asked.gateway, payer=asked.payer, **more)

    def _times(self, output: int, *, slow: bool) -> dict[str, int]:
        factor = self.random.uniform(0.8, 1.2) * (10 if slow else 1)
        streamed = (output - 1) * 10**6 / TPS_MILLI
        return {"first_ms": int(FIRST_MS * factor), "streamed_ms": int(streamed * factor)}

    def _output(self) -> int:
        return min(MOST_OUTPUT, 2 + int(self.random.expovariate(1 / 150)))

    def _node(self, address: bytes) -> SimulatedNode:
        return next(node for node in self.nodes if node.address == address)

    def _entrants(self) -> list[Entrant]:
        return [self._entrant(node) for node in self.nodes if node.since <= len(self.wins)]

    def _entrant(self, node: SimulatedNode) -> Entrant:
        offer = node.offer(int(PRICE * self.random.uniform(0.75, 1.25)))
        known = self.reputation.standing(offer)
        if not node.calibrated:
            known = Standing(known.success_ppm, 1000, 1000, known.newcomer)
        row = Row(
            offer_digest=bytes(32),
            node=node.address,
            payout=node.address,
            bond_funder=bytes(20),
            success_ppm=known.success_ppm,
            cal_t=known.cal_t,
            cal_s=known.cal_s,
            busy=0,
            newcomer=known.newcomer,
        )
        return Entrant(row, offer)

    def _market(self, asked: Asked) -> Market:
        return Market(
            log_id=LOG,
            nonce=self.random.randbytes(32),
            model=MODEL,
            fingerprint=b"F" * 32,
            ratio_ppm=250_000,
            features=Feature.KIND_CHAT,
            prompt_tokens=self.random.randrange(10, 1000),
            expected_tokens=self.reputation.expected_output(MODEL, MOST_OUTPUT),
            max_output_tokens=MOST_OUTPUT,
            value_of_time=self.rules.value_of_time,
            limit_in=10**9,
            limit_out=10**9,
            reserve=10**9,
            allow=frozenset([asked.only] if asked.only else []),
            deny=frozenset(),
            close_ms=1,
            discount_ppm=self.rules.discount_ppm,
            uplift_ppm=self.rules.max_uplift_ppm,
            explore_ppm=self.rules.explore_ppm,
        )


def party(kind: int, number: int) -> bytes:
    """An address of a made-up gateway (2) or payer (3)."""
    return bytes((kind,)) + number.to_bytes(19)


def honest(gateways: int = 12, payers: int = 30) -> Callable[[Random], Asked]:
    """Jobs of so many gateways and payers, each as likely as the next."""
    return lambda random: Asked(
        party(2, random.randrange(gateways)), party(3, random.randrange(payers))
    )
