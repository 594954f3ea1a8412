"""What a range of leaves settles to: netted rows, fees and the statement of every party.

Rows are 32 bytes, ``address ‖ u96``, strictly ascending, no zeros; Σ debits = Σ credits + fees.
A statement entry is 81 bytes and says from which counter and total to which a party went, so that
one receipt and one entry show that nothing was left out.
"""

import struct
from collections.abc import Iterable
from typing import Final, Self

from msgspec import Struct

from pinaivu.codes import Role
from pinaivu.commitments import party_of_account
from pinaivu.errors import InvalidEncoding
from pinaivu.merkle.hashing import root_of
from pinaivu.messages import Receipt

ROW_BYTES: Final = 32
_ENTRY = struct.Struct(">B32sQQ16s16s")


class Statement(Struct, frozen=True, kw_only=True):
    """One party's way through a batch: counters and totals before and after it."""

    role: Role
    party: bytes  # 32: address left-filled with zeros, or a sub-account's hash
    counter_from: int
    counter_to: int
    total_from: int
    total_to: int

    def to_bytes(self) -> bytes:
        """The 81-byte entry."""
        return _ENTRY.pack(
            self.role,
            self.party,
            self.counter_from,
            self.counter_to,
            self.total_from.to_bytes(16),
            self.total_to.to_bytes(16),
        )

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read an entry back; other lengths or roles are an `InvalidEncoding`."""
        if len(raw) != _ENTRY.size:
            raise InvalidEncoding(f"a statement entry is {_ENTRY.size} bytes, not {len(raw)}")
        role, party, counter_from, counter_to, total_from, total_to = _ENTRY.unpack(raw)
        if role not in (Role.PAYER, Role.NODE, Role.ACCOUNT):
            raise InvalidEncoding(f"no statement role {role}")
        return cls(
            role=Role(role),
            party=party,
            counter_from=counter_from,
            counter_to=counter_to,
            total_from=int.from_bytes(total_from),
            total_to=int.from_bytes(total_to),
        )


class Netting(Struct, frozen=True, kw_only=True):
    """A batch's money: packed rows, fees, statements in their order."""

    debits: bytes
    credits: bytes
    fees: int
    statements: tuple[Statement, ...]

    @property
    def statement_root(self) -> bytes:
        """Root over the statement entries."""
        return root_of([statement.to_bytes() for statement in self.statements])


def net(receipts: Iterable[Receipt]) -> Netting:
    """Net receipts, given in log order, to rows and statements."""
    found: dict[tuple[int, bytes], Statement] = {}
    fees = 0

    def advance(role: Role, party: bytes, counter: int, total: int, amount: int) -> None:
        before = found.get((role, party))
        found[role, party] = Statement(
            role=role,
            party=party,
            counter_from=before.counter_from if before else counter - 1,
            counter_to=counter,
            total_from=before.total_from if before else total - amount,
            total_to=total,
        )

    for r in receipts:
        advance(Role.PAYER, _address(r.payer), r.payer_counter, r.payer_total, r.total)
        if any(r.account):
            party = party_of_account(r.payer, r.account)
            advance(Role.ACCOUNT, party, r.account_counter, r.account_total, r.total)
        for s in r.segments:
            if s.rank:
                fees += s.fee
                earned = s.amount - s.fee
                advance(Role.NODE, _address(s.node), s.node_counter, s.node_total, earned)
    statements = tuple(found[key] for key in sorted(found))
    return Netting(
        debits=_rows(statements, Role.PAYER),
        credits=_rows(statements, Role.NODE),
        fees=fees,
        statements=statements,
    )


def unpack_rows(packed: bytes) -> dict[bytes, int]:
    """Rows by address; `InvalidEncoding` unless strictly ascending, whole and without zeros."""
    if len(packed) % ROW_BYTES:
        raise InvalidEncoding("packed rows are a multiple of 32 bytes")
    rows: dict[bytes, int] = {}
    last = b""
    for start in range(0, len(packed), ROW_BYTES):
        address, amount = packed[start : start + 20], packed[start + 20 : start + ROW_BYTES]
        if address <= last or not any(amount):
            raise InvalidEncoding("rows are strictly ascending by address and never zero")
        rows[address] = int.from_bytes(amount)
        last = address
    return rows


def _rows(statements: Iterable[Statement], role: Role) -> bytes:
    return b"".join(
        s.party[12:] + (s.total_to - s.total_from).to_bytes(12)
        for s in statements
        if s.role == role and s.total_to > s.total_from
    )


def _address(address: bytes) -> bytes:
    return address.rjust(32, b"\0")
