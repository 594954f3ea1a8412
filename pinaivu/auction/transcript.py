"""Byte layouts of an auction's transcript: book rows, header and call entries.

A *book* is the table of a model's standing offers with reputation and load; its root changes only
when they do. A *transcript* adds one header and one entry per called node, so an auction hashes
only what is new. Layouts are fixed: 109, 305 and 93 bytes, integers big-endian.
"""

import struct
from typing import Any, Final, Self

from msgspec import Struct

from pinaivu.codes import CallOutcome
from pinaivu.errors import InvalidEncoding
from pinaivu.merkle.hashing import root_of

TRANSCRIPT_VERSION: Final = 1
KIND_JOB: Final = 1
_NEWCOMER: Final = 1
_ROW = struct.Struct(">32s20s20s20sIIIIB")
_HEADER = struct.Struct(">BB32s32sQ32s32s32sIIIIQB32sQQ32sIQ12sIH")
_CALL = struct.Struct(">20s32sB32sQ")


class Row(Struct, frozen=True, kw_only=True):
    """One node's line in the book: its offer by digest, who gets its money, what is known of it.

    `success_ppm` parts per million; `cal_t`, `cal_s` measured ÷ promised in parts per thousand for
    time to first token and time per token; `busy` awards of this log still open.
    """

    offer_digest: bytes
    node: bytes
    payout: bytes
    bond_funder: bytes
    success_ppm: int
    cal_t: int
    cal_s: int
    busy: int
    newcomer: bool = False

    def to_bytes(self) -> bytes:
        """The 109-byte layout."""
        return _ROW.pack(
            self.offer_digest,
            self.node,
            self.payout,
            self.bond_funder,
            self.success_ppm,
            self.cal_t,
            self.cal_s,
            self.busy,
            _NEWCOMER if self.newcomer else 0,
        )

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read the layout back; other lengths or flags are an `InvalidEncoding`."""
        *fields, flags = _unpack(_ROW, raw, "book row")
        if flags not in (0, _NEWCOMER):
            raise InvalidEncoding(f"unknown book row flags {flags}")
        names = cls.__struct_fields__[:-1]
        return cls(**dict(zip(names, fields, strict=True)), newcomer=bool(flags))


class Header(Struct, frozen=True, kw_only=True):
    """What an auction was about and under which rules; names and units as in `Job` and `Award`."""

    job_digest: bytes
    log_id: bytes
    epoch: int
    nonce: bytes
    model_key: bytes
    fingerprint: bytes
    ratio_ppm: int
    prompt_tokens: int
    expected_tokens: int
    max_output_tokens: int
    value_of_time: int
    mode: int
    parameters_digest: bytes
    open_ms: int
    close_ms: int
    book_root: bytes
    book_size: int
    chain_block: int
    reserve: int
    eligible: int
    called: int

    def to_bytes(self) -> bytes:
        """The 305-byte layout."""
        values = [getattr(self, name) for name in self.__struct_fields__]
        values[-3] = self.reserve.to_bytes(12)
        return _HEADER.pack(TRANSCRIPT_VERSION, KIND_JOB, *values)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read the layout back; another version or kind is an `InvalidEncoding`."""
        version, kind, *values = _unpack(_HEADER, raw, "transcript header")
        if (version, kind) != (TRANSCRIPT_VERSION, KIND_JOB):
            raise InvalidEncoding(f"unknown transcript version {version} or kind {kind}")
        values[-3] = int.from_bytes(values[-3])
        return cls(**dict(zip(cls.__struct_fields__, values, strict=True)))


class CallEntry(Struct, frozen=True, kw_only=True):
    """One called node and what came of it; `bid_digest` zero unless it bid."""

    node: bytes
    offer_digest: bytes
    outcome: CallOutcome
    bid_digest: bytes
    at_ms: int

    def to_bytes(self) -> bytes:
        """The 93-byte layout."""
        return _CALL.pack(self.node, self.offer_digest, self.outcome, self.bid_digest, self.at_ms)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read the layout back; an unknown outcome is an `InvalidEncoding`."""
        node, offer_digest, outcome, bid_digest, at_ms = _unpack(_CALL, raw, "call entry")
        try:
            known = CallOutcome(outcome)
        except ValueError as error:
            raise InvalidEncoding(f"unknown call outcome {outcome}") from error
        return cls(
            node=node,
            offer_digest=offer_digest,
            outcome=known,
            bid_digest=bid_digest,
            at_ms=at_ms,
        )


def bids_root(header: Header, calls: list[CallEntry]) -> bytes:
    """Root over header, then call entries: what award and receipt commit to."""
    return root_of([header.to_bytes(), *(call.to_bytes() for call in calls)])


def book_root(slots: list[Row | None]) -> bytes:
    """Root over the book's slots, filled with empty entries up to a power of two."""
    entries = [row.to_bytes() if row else b"" for row in slots]
    width = 1 << max(0, len(entries) - 1).bit_length()
    return root_of(entries + [b""] * (width - len(entries)))


def _unpack(layout: struct.Struct, raw: bytes, what: str) -> list[Any]:
    if len(raw) != layout.size:
        raise InvalidEncoding(f"a {what} is {layout.size} bytes, not {len(raw)}")
    return list(layout.unpack(raw))
