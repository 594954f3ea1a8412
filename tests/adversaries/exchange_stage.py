"""Where gateways and nodes cheat each other: one side real, the other scripted, the books real.

`dealing` has the real node (executor, journal, engine client) over real streams and a gateway that
does what a test says; what its evidence comes to is composed by the rule that the coordinator signs
by. For lying nodes there is `tests.integration.gateway_support.network`: the real gateway, scripted
nodes, the same rule.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio
from msgspec.structs import replace

from node.executor import ACK_TIMEOUT_S
from pinaivu.books import Books
from pinaivu.messages import Award, Completion, Delivery, Job, Part, Receipt, Segment
from pinaivu.p2p import wire
from pinaivu.receipts import compose
from pinaivu.typed_data import digest, signed_from_bytes
from tests.integration.node_peers import Conversation, Place, place, text_in
from tests.unit import ledger_support as books
from tests.unit import node_support as n

TEXT: Final = " ".join(f"ship {number}" for number in range(60))
"""Much more than a window; the scripted engine sends it word by word."""

MOST: Final = 1000
WINDOW: Final = 32
SOON: Final = 1.0
"""Seconds after which a node gives up, where it is never to get what it waits for."""

EVENT: Final = 5
"""Tokens that one word of `TEXT` has at most: by so much the last event may overshoot."""

_RESERVE: Final = 10**6


@dataclass
class Deal:
    """One award at the real node, and all that its gateway has got for it."""

    here: Place
    terms: Job
    award: Award
    talk: Conversation
    frames: list[wire.WorkUp]

    async def take(self) -> wire.WorkUp:
        """The next frame."""
        self.frames.append(await self.talk.next())
        return self.frames[-1]

    async def take_tokens(self, tokens: int) -> None:
        """Frames until there are so many tokens."""
        while self.got < tokens:
            assert isinstance(await self.take(), wire.Chunk)

    async def take_rest(self, acks: int = 0) -> None:
        """Frames up to the last, acknowledged as an honest gateway would from `acks` on."""
        while True:
            due = min(1 + self.got // WINDOW, self.talk.job.acks.length)
            if acks and due > acks:
                acks = due
                self.talk.ack(acks)
            if not isinstance(await self.take(), wire.Chunk):
                return

    @property
    def got(self) -> int:
        """Output tokens in the gateway's hands."""
        return n.tokenizer().count_text(text_in(self.frames))

    @property
    def signed(self) -> Completion | None:
        """The completion in the last frame."""
        last = self.frames[-1]
        assert isinstance(last, wire.End | wire.NodeRefused)
        raw = last.completion
        return signed_from_bytes(Completion, raw).message if raw else None

    async def handed_in(self) -> Completion:
        """The completion that the coordinator has got from the node itself."""
        return (await self.here.coordinator.completions.reach(1))[0].message

    def part(self, done: Completion | None, **lies: Any) -> Part:
        """What a gateway says of the award: the truth but for `lies`."""
        return books.part(self.award, done, **lies)

    def delivery(self, part: Part, done: Completion | None, **lies: Any) -> Delivery:
        """What it says of the job."""
        whole = done.response_commitment if done else books.ZERO
        said = {"gateway": self.award.gateway, "response_commitment": whole}
        return books.delivery(part, of=self.terms, **(said | lies))

    def receipt(self, done: Completion | None, delivered: Delivery | None = None) -> Receipt:
        """What the log signs when that is all the evidence."""
        part = delivered.parts[0] if delivered else None
        case = books.case(
            [books.attempt(self.award, done, said=part)],
            delivered,
            of=self.terms,
            grant=books.grant(gateway=self.award.gateway),
            reserve_units=_RESERVE,
        )
        return compose(case, books.ORIGIN, Books())


def amount(segment: Segment) -> int:
    """The amount that the counts billed on a segment come to."""
    price = segment.prompt_billed * segment.price_in + segment.output_billed * segment.price_out
    return -(-price // 10**6)


@asynccontextmanager
async def dealing(
    folder: Path, *, endless: bool = False, ack_timeout_s: float = ACK_TIMEOUT_S
) -> AsyncGenerator[Deal]:
    """A deal that has just been dispatched; `endless`: the engine goes silent after the text."""
    async with place(folder) as here:
        here.ack_timeout_s = ack_timeout_s
        here.engine.text = TEXT
        if endless:
            here.engine.script = [*n.answer_events(TEXT)[:-2], trio.Event()]
        async with here.node():
            draft = here.job(max_output_tokens=MOST)
            offered = await here.offered()
            plain = draft.award(offered)
            terms = books.job(
                job_id=draft.job_id,
                gateway=plain.gateway,
                prompt_tokens=plain.prompt_tokens,
                max_output_tokens=MOST,
                max_cost=_RESERVE,
                request_commitment=plain.request_commitment,
                anchors=(plain.anchor,),
                model=n.MODEL,
            )
            award = replace(plain, job_digest=digest(n.DOMAIN, terms))
            talk = await here.gateway.send(draft, award, draft.dispatch(award))
            yield Deal(here, terms, award, talk, [])
