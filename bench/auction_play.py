"""Plays simulated jobs through the real rule and adds up what everybody earns.

`Play` runs one episode: for each job the faces that stand in the book enter `rule.clear`, failures
and refusals go on to the next rank as the coordinator's desk does, and the winner's owner gets

    profit = paid · (1 − fee) − true cost of the tokens it served          (base units)

Failing and refusing cost nothing and earn nothing. All nodes answer a live round in time: who has a
`bid` bids. Nothing of the rule is repeated here.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.auction_faces import MODEL, Attempt, Face, Memory, wallet
from bench.auction_world import FEE_PPM, MILLION, RATIO_PPM, Episode, Task
from pinaivu.auction import rule
from pinaivu.auction.rule import Cleared, Entrant, Market
from pinaivu.auction.transcript import Row
from pinaivu.codes import Clearing, Feature
from pinaivu.manifest import Parameters
from pinaivu.messages import Bid, Offer

_ZERO: Final = bytes(32)
_FOREVER: Final = (1 << 64) - 1


@dataclass(slots=True)
class Result:
    """What an episode came to, base units."""

    profit: dict[bytes, float] = field(default_factory=lambda: defaultdict(float))
    revenue: dict[bytes, float] = field(default_factory=lambda: defaultdict(float))
    wins: dict[bytes, int] = field(default_factory=lambda: defaultdict(int))
    lone: set[bytes] = field(default_factory=set)
    """Owners who were paid without a runner-up."""
    paid: float = 0.0
    cost: float = 0.0
    served: int = 0
    clearings: dict[Clearing, int] = field(default_factory=lambda: defaultdict(int))


Clear = Callable[[Market, Iterable[Entrant], frozenset[bytes]], Cleared | None]
"""How an auction is cleared: `rule.clear`, or a changed copy to compare it with."""


def lone_at_bid(
    market: Market, entrants: Iterable[Entrant], excluded: frozenset[bytes]
) -> Cleared | None:
    """The rule, but who is alone is paid its live bid instead of its standing offer."""
    cleared = rule.clear(market, entrants, excluded)
    if cleared is None or cleared.clearing != Clearing.LONE:
        return cleared
    price = cleared.entrant.price_out
    return Cleared(cleared.entrant, market.price_in(price), price, cleared.clearing)


class Play:
    """One episode under way: who stands in the book, what is known, which slots are taken.

    Earnings are kept by machine owner: `owner_of` names it for a face.
    """

    def __init__(
        self,
        episode: Episode,
        faces: Sequence[Face],
        memory: Memory,
        parameters: Parameters,
        clear: Clear = rule.clear,
    ) -> None:
        self._episode = episode
        self._faces = faces
        self._memory = memory
        self._parameters = parameters
        self._clear = clear
        self._awards = [0] * len(faces)
        self._until: list[list[float]] = [[] for _ in faces]
        self._offers: dict[int, Offer] = {}
        self.result = Result()

    def run(self) -> Result:
        """All jobs in their order."""
        for task in self._episode.tasks:
            self._serve(task)
        return self.result

    def _serve(self, task: Task) -> None:
        market = _market(task, self._episode.scene.explore_ppm, self._parameters)
        book = [self._entrant(i, market, task) for i in range(len(self._faces))]
        places = {entrant.row.node: i for i, entrant in enumerate(book)}
        attempts: list[Attempt] = []
        while len(attempts) < self._parameters.max_ranks:
            cleared = self._clear(market, book, frozenset(tried.node for tried in attempts))
            if cleared is None:
                break
            attempts.append(self._attempt(task, places[cleared.entrant.row.node], cleared))
            if attempts[-1].completed:
                break
        if attempts:
            self._memory.learn(task, attempts)

    def _attempt(self, task: Task, place: int, cleared: Cleared) -> Attempt:
        face = self._faces[place]
        refused = face.refuses is not None and face.refuses(cleared)
        completed = not refused and task.completes(face.machine)
        self._awards[place] += 1
        if completed:
            self._until[place].append(task.at_ms + face.machine.takes_ms(task.output_tokens))
            self._pay(task, face, cleared)
        return Attempt(cleared.entrant.row.node, face, completed)

    def _pay(self, task: Task, face: Face, cleared: Cleared) -> None:
        due = task.prompt_tokens * cleared.price_in + task.output_tokens * cleared.price_out
        amount = -(-due // MILLION)
        cost = face.machine.cost(task.prompt_tokens, task.output_tokens)
        owner, result = face.payout, self.result
        result.profit[owner] += amount * (1 - FEE_PPM / MILLION) - cost
        result.revenue[owner] += amount
        result.wins[owner] += 1
        result.paid += amount
        result.cost += cost
        result.served += 1
        result.clearings[cleared.clearing] += 1
        if cleared.clearing == Clearing.LONE:
            result.lone.add(owner)

    def _entrant(self, place: int, market: Market, task: Task) -> Entrant:
        face = self._faces[place]
        generation = self._awards[place] // face.renew_after if face.renew_after else 0
        node = wallet(face.name if not generation else f"{face.name}, registration {generation}")
        self._until[place] = [end for end in self._until[place] if end > task.at_ms]
        offer = self._offers.get(place)
        if offer is None or offer.node != node:
            offer = self._offers[place] = offer_of(face, node)
        known = self._memory.standing(offer, face)
        row = Row(
            offer_digest=_ZERO,
            node=node,
            payout=face.payout,
            bond_funder=face.funder,
            success_ppm=known.success_ppm,
            cal_t=known.cal_t,
            cal_s=known.cal_s,
            busy=min(len(self._until[place]), face.slots),
            newcomer=known.newcomer,
        )
        return Entrant(row, offer, _bid(face, offer, market, task))


def _bid(face: Face, offer: Offer, market: Market, task: Task) -> Bid | None:
    if face.bid is None:
        return None
    lowest = rule.lowest_bid(offer.price_out, market.discount_ppm)
    price = max(lowest, min(offer.price_out, face.bid(task)))
    return Bid(
        job_digest=_ZERO,
        nonce=market.nonce,
        offer_digest=_ZERO,
        node=offer.node,
        price_out=price,
        ttft_ms=offer.ttft_ms,
        tps_milli=offer.tps_milli,
    )


def offer_of(face: Face, node: bytes) -> Offer:
    """The face's standing offer under a node address."""
    return Offer(
        log_id=_ZERO,
        node=node,
        fingerprint=_ZERO,
        features=Feature.KIND_CHAT | (Feature.EXPLORATION if face.explores else 0),
        context_tokens=1 << 20,
        price_out=face.price,
        ttft_ms=face.ttft_ms,
        tps_milli=face.tps_milli,
        slots=face.slots,
        sequence=1,
        issued_ms=0,
        expires_ms=_FOREVER,
        model=MODEL,
    )


def _market(task: Task, explore_ppm: int, parameters: Parameters) -> Market:
    return Market(
        log_id=_ZERO,
        nonce=task.nonce,
        model=MODEL,
        fingerprint=_ZERO,
        ratio_ppm=RATIO_PPM,
        features=Feature.KIND_CHAT,
        prompt_tokens=task.prompt_tokens,
        expected_tokens=task.expected_tokens,
        max_output_tokens=task.max_output_tokens,
        value_of_time=task.value_of_time,
        limit_in=task.limit_in,
        limit_out=task.limit_out,
        reserve=task.reserve,
        allow=frozenset(),
        deny=frozenset(),
        close_ms=0,
        discount_ppm=parameters.discount_ppm,
        uplift_ppm=parameters.max_uplift_ppm,
        explore_ppm=explore_ppm,
    )
