"""What the adversaries meet: the real desk, book, auctioneer and sessions; and their bids.

Each test is run twice: guarded, where the attack must fail, and with its one guard taken away,
where it must succeed. So a test that could not fail shows, and so does a guard that does nothing.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pinaivu.keys import SecretKey
from pinaivu.messages import Award, Bid
from pinaivu.p2p import wire
from pinaivu.store.database import open_database
from pinaivu.typed_data import Signed, signed_from_bytes
from tests.unit.coordinator_world import RULES, World, open_world
from tests.unit.ledger_support import DOMAIN, NODES

both_ways = pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])
"""Once as it is, once without the guard."""

HONEST, ATTACKER = NODES[0], NODES[1]
Answer = Callable[[wire.AuctionCall], Awaitable[wire.BidReply]]


@asynccontextmanager
async def world_at(folder: Path, **more: Any) -> AsyncGenerator[World, None]:
    """A coordinator without network over a database of its own."""
    database = open_database(f"sqlite:///{folder}/c.db", "coordinator")
    async with open_world(database, **({"rules": RULES} | more)) as made:
        yield made
    database.close()


def bid_of(by: SecretKey, call: wire.AuctionCall, price: int, **lies: object) -> Bid:
    """The bid that answers a call, but for `lies`."""
    true = {
        "job_digest": call.job_digest,
        "nonce": call.nonce,
        "offer_digest": call.offer_digest,
        "node": by.address,
        "price_out": price,
        "ttft_ms": 100,
        "tps_milli": 50_000,
    }
    return Bid(**(true | lies))  # type: ignore[arg-type]


def reply(bid: Bid, signer: SecretKey) -> wire.BidReply:
    """What goes over the wire."""
    return wire.BidReply(Signed.by(signer, DOMAIN, bid).to_bytes())


def answering(answers: dict[SecretKey, Answer]) -> Callable[[bytes, wire.AuctionCall], Any]:
    """Nodes that answer calls; who isn't named bids nothing."""
    by_address = {key.address: answer for key, answer in answers.items()}

    async def ask(node: bytes, call: wire.AuctionCall) -> wire.BidReply:
        answer = by_address.get(node)
        return await answer(call) if answer else wire.BidReply()

    return ask


def award_in(answer: object) -> Award:
    """The award that a job was answered with."""
    assert isinstance(answer, wire.Awarded), answer
    return signed_from_bytes(Award, answer.award).message
