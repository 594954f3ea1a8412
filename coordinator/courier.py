"""Hands every signed batch to the parties in it, so that it outlives this coordinator.

A batch is settled by whoever has it and its consistency proof. Both go to each node and gateway
that a receipt in it names, over the control stream it keeps open. What is owed is in the store
(`BatchCopyRow`, written with the batch): it is repeated until the party says that it is on its
disk, also to one that comes back later and by the next boot, and forgotten once the batch is final.
A party that is slow or refuses delays nobody else.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final, NamedTuple

import trio
from sqlmodel import Session, col, delete, select

from coordinator.log import Log
from pinaivu.errors import InvalidEncoding, PeerFault, TransportFailure
from pinaivu.messages import Batch, Receipt
from pinaivu.p2p import wire
from pinaivu.p2p.errors import NotConnected
from pinaivu.store.batches import MOST_COPIES
from pinaivu.store.coordinator import BatchCopyRow, BatchRow
from pinaivu.store.writer import Writer
from pinaivu.typed_data import signed_from_bytes

RETRY_S: Final = 15.0
NODE, GATEWAY = "node", "gateway"
_logger = logging.getLogger(__name__)


class Party(NamedTuple):
    """A node or gateway."""

    role: str
    address: bytes


Send = Callable[[Party, bytes], Awaitable[bytes]]
"""Call a party and return its answer; `NotConnected` where its stream is not up."""


class _Owed(NamedTuple):
    """A batch, in its wire form, that a party has not said it keeps."""

    sequence: int
    batch: bytes


def parties_in(receipts: Iterable[Receipt]) -> set[Party]:
    """Everybody whose work these receipts settle."""
    found = set()
    for receipt in receipts:
        found.add(Party(GATEWAY, receipt.gateway))
        found |= {Party(NODE, segment.node) for segment in receipt.segments}
    return found


class Courier:
    """One task per party that is owed something and connected, none for the others."""

    def __init__(
        self,
        log: Log,
        writer: Writer,
        send: Send,
        nursery: trio.Nursery,
        *,
        retry_s: float = RETRY_S,
    ) -> None:
        self._log = log
        self._writer = writer
        self._send = send
        self._nursery = nursery
        self._retry_s = retry_s
        self._news: dict[Party, trio.Event] = {}

    def owe(self, party: Party) -> None:
        """The party has come, or a batch for it is signed: see what it has not got yet."""
        if party in self._news:
            self._news[party].set()
        else:
            self._news[party] = trio.Event()
            self._nursery.start_soon(self._serve, party)

    async def _serve(self, party: Party) -> None:
        while True:
            news = self._news[party] = trio.Event()
            done = await self._hand_over(party)
            if done and not news.is_set():
                break
            with trio.move_on_after(self._retry_s):
                await news.wait()
        del self._news[party]

    async def _hand_over(self, party: Party) -> bool:
        """Offer what is owed, oldest first; whether nothing is left that could be done now."""
        try:
            taken = [
                await self._offer(party, owed)
                for owed in await self._writer.read(partial(_owed_to, party))
            ]
        except NotConnected:
            return True  # it is seen to when it comes
        except TransportFailure as error:
            _logger.info("%s %s waits for its batches: %s", party.role, _name(party), error)
            return False
        return all(taken)

    async def _offer(self, party: Party, owed: _Owed) -> bool:
        try:
            wire.read_batch_answer(await self._send(party, wire.encode(self._frame(owed.batch))))
        except (PeerFault, InvalidEncoding) as error:
            _logger.info(
                "%s %s does not keep batch %d: %s", party.role, _name(party), owed.sequence, error
            )
            return False
        await self._writer.write(partial(_mark_kept, party, owed))
        return True

    def _frame(self, batch: bytes) -> wire.PutBatch:
        said = signed_from_bytes(Batch, batch).message
        proof = self._log.tree.consistency_proof(said.prev_size, said.new_size)
        return wire.PutBatch(batch, proof)


def owe_copies(session: Session, sequence: int, parties: Iterable[Party]) -> list[Party]:
    """A batch has been signed, or signed anew: everybody in it is owed a copy.

    `parties` join those already noted for the sequence; all of them are the result.
    """
    for party in parties:
        session.merge(BatchCopyRow(role=party.role, party=party.address, sequence=sequence))
    of_batch = select(BatchCopyRow).where(BatchCopyRow.sequence == sequence)
    rows = session.exec(of_batch).all()
    for row in rows:
        row.kept = False
    return [Party(row.role, row.party) for row in rows]


def forget_copies(session: Session, first: int, last: int | None = None) -> None:
    """Nobody is owed the batches from `first` on, up to `last` where that is given."""
    forgotten = delete(BatchCopyRow).where(col(BatchCopyRow.sequence) >= first)
    if last is not None:
        forgotten = forgotten.where(col(BatchCopyRow.sequence) <= last)
    session.exec(forgotten)


def _owed_to(party: Party, session: Session) -> list[_Owed]:
    """The newest that it has not got, ascending: each is of use only after the one before it."""
    newest = (
        select(BatchRow.sequence, BatchRow.batch)
        .join(BatchCopyRow, col(BatchCopyRow.sequence) == col(BatchRow.sequence))
        .where(
            BatchCopyRow.role == party.role,
            BatchCopyRow.party == party.address,
            col(BatchCopyRow.kept).is_(False),
        )
        .order_by(col(BatchRow.sequence).desc())
        .limit(MOST_COPIES)
    )
    return [_Owed(*row) for row in reversed(session.exec(newest).all())]


def _mark_kept(party: Party, owed: _Owed, session: Session) -> None:
    """Unless the batch was signed anew or became final meanwhile."""
    row = session.get(BatchCopyRow, (party.role, party.address, owed.sequence))
    batch = session.get(BatchRow, owed.sequence)
    if row is not None and batch is not None and batch.batch == owed.batch:
        row.kept = True


def _name(party: Party) -> str:
    return f"0x{party.address.hex()}"
