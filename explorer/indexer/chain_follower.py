"""Keeps the contracts' events, and takes them back when the chain is reorganised.

An event is as true as the endpoint that gave it. Amounts are checked where they are shown, against
what the receipts say.
"""

import json
from collections.abc import Callable
from typing import Any, Final, Protocol

from sqlalchemy import delete
from sqlmodel import Session, col

from pinaivu.chain.events import Advance, Cursor, Event, Rollback
from pinaivu.encoding import to_hex
from pinaivu.store.database import Database
from pinaivu.store.explorer import EventRow, ProgressRow, SettlementRow

TASK: Final = "chain"
_PARTIES: Final = ("node", "payer", "gateway")


class ChainSteps(Protocol):
    """Steps of one chain in order; `pinaivu.chain.events.Follower` gives them."""

    def poll(self) -> Advance | Rollback | None:
        """The next step, or None; `TransportFailure` leaves everything as it was."""
        ...


class ChainFollower:
    """Applies the chain's steps to the database, each as one transaction with its cursor."""

    def __init__(
        self,
        steps: ChainSteps,
        block_ms: Callable[[int], int],
        database: Database,
        log_id: bytes,
    ) -> None:
        self._steps = steps
        self._block_ms = block_ms
        self._database = database
        self._log_id = log_id

    def step(self) -> bool:
        """Apply the next step, if there is one.

        After an error the follower and `steps` are to be thrown away: the cursor in the database is
        what counts.
        """
        step = self._steps.poll()
        if step is None:
            return False
        if isinstance(step, Rollback):
            self._roll_back(step.cursor)
        else:
            self._advance(step)
        return True

    def _advance(self, step: Advance) -> None:
        times = {number: self._block_ms(number) for number in {e.block_number for e in step.events}}
        with self._database.begin() as session:
            for event in step.events:
                block_ms = times[event.block_number]
                session.merge(_event_row(event, block_ms))
                if event.name == "BatchSettled" and event.arguments["logId"] == self._log_id:
                    session.merge(_settlement_row(event, block_ms))
            _set_cursor(session, step.cursor)

    def _roll_back(self, cursor: Cursor | None) -> None:
        last = cursor.number if cursor else -1
        with self._database.begin() as session:
            for table in (EventRow, SettlementRow):
                session.execute(delete(table).where(col(table.block_number) > last))
            _set_cursor(session, cursor)


def load_cursor(database: Database) -> Cursor | None:
    """The block up to which the database has all events; None before the first."""
    with database.read() as session:
        row = session.get(ProgressRow, TASK)
    return Cursor(row.position, row.hash) if row and row.hash else None


def _set_cursor(session: Session, cursor: Cursor | None) -> None:
    row = session.get(ProgressRow, TASK) or ProgressRow(task=TASK)
    row.position, row.hash = (cursor.number, cursor.hash) if cursor else (0, b"")
    session.add(row)


def _event_row(event: Event, block_ms: int) -> EventRow:
    party = next((event.arguments[name] for name in _PARTIES if name in event.arguments), b"")
    return EventRow(
        block_number=event.block_number,
        log_index=event.log_index,
        block_ms=block_ms,
        transaction=event.tx_hash,
        contract=event.contract,
        name=event.name,
        party=party,
        arguments=json.dumps({name: _plain(value) for name, value in event.arguments.items()}),
    )


def _settlement_row(event: Event, block_ms: int) -> SettlementRow:
    said = event.arguments
    return SettlementRow(
        sequence=said["sequence"],
        prev_size=said["prevSize"],
        new_size=said["newSize"],
        new_root=said["newRoot"],
        batch_digest=said["batchDigest"],
        debited=str(said["debited"]),
        fees=str(said["fees"]),
        block_number=event.block_number,
        block_ms=block_ms,
        transaction=event.tx_hash,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return to_hex(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
