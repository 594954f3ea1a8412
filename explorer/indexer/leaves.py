"""Leaves as the log serves them, and the rows they become.

A receipt bundle has one line per leaf: JCS of message, signature and type. Reading gives typed
values and their digests; nothing is checked but the form.
"""

from typing import Any, Final

from msgspec import Struct

from pinaivu.encoding import parse_json
from pinaivu.errors import InvalidEncoding
from pinaivu.merkle.hashing import leaf_hash
from pinaivu.messages import EpochStart, Lost, Receipt, Segment
from pinaivu.store.explorer import LeafRow, ReceiptRow, SegmentRow
from pinaivu.typed_data import Domain, Message, Signed, signed_from_json

KINDS: Final[dict[str, type[Message]]] = {
    "Receipt": Receipt,
    "EpochStart": EpochStart,
    "Lost": Lost,
}
_ZERO: Final = bytes(32)


class Leaf(Struct, frozen=True, kw_only=True):
    """One signed entry of the log."""

    kind: str
    signed: Signed[Any]
    digest: bytes

    @property
    def hash(self) -> bytes:
        """Its leaf hash in the tree."""
        return leaf_hash(self.digest)

    @property
    def receipt(self) -> Receipt | None:
        """The receipt, where the leaf is one."""
        message = self.signed.message
        return message if isinstance(message, Receipt) else None


def read_receipt_bundle(raw: bytes, width: int, domain: Domain) -> list[Leaf]:
    """The leaves of a bundle that is `width` wide; `InvalidEncoding` for anything else."""
    lines = raw.split(b"\n")
    if len(lines) != width + 1 or lines[-1]:
        raise InvalidEncoding(f"a receipt bundle of {len(lines) - 1} lines where {width} are due")
    return [_read_leaf(line, domain) for line in lines[:-1]]


def leaf_row(leaf: Leaf, position: int, trouble: str) -> LeafRow:
    """The leaf itself."""
    return LeafRow(
        position=position,
        kind=leaf.kind,
        digest=leaf.digest,
        signed=leaf.signed.to_bytes(),
        trouble=trouble,
    )


def receipt_row(receipt: Receipt, position: int, trouble: str) -> ReceiptRow:
    """What the receipt is found by."""
    return ReceiptRow(
        position=position,
        gateway=receipt.gateway,
        job_id=receipt.job_id,
        payer=receipt.payer,
        node=_server(receipt),
        model=receipt.model,
        status=receipt.status,
        reason=receipt.reason,
        prompt_tokens=sum(segment.prompt_billed for segment in receipt.segments),
        output_tokens=sum(segment.output_billed for segment in receipt.segments),
        total=str(receipt.total),
        payer_total=str(receipt.payer_total),
        closed_ms=receipt.closed_ms,
        trouble=trouble,
    )


def segment_rows(receipt: Receipt, position: int) -> list[SegmentRow]:
    """One row per line of the receipt, passed-over nodes included."""
    return [
        SegmentRow(
            position=position,
            number=number,
            node=segment.node,
            rank=segment.rank,
            result=segment.result,
            amount=str(segment.amount),
            fee=str(segment.fee),
            running_total=str(segment.node_total),
        )
        for number, segment in enumerate(receipt.segments)
    ]


def _read_leaf(line: bytes, domain: Domain) -> Leaf:
    parts = parse_json(line)
    if not isinstance(parts, dict) or parts.keys() != {"message", "signature", "type"}:
        raise InvalidEncoding("a leaf is exactly message, signature and type")
    kind = parts["type"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidEncoding(f"unknown kind of leaf {kind!r}")
    signed = signed_from_json(
        KINDS[kind], {"message": parts["message"], "signature": parts["signature"]}
    )
    return Leaf(kind=kind, signed=signed, digest=signed.digest(domain))


def _server(receipt: Receipt) -> bytes:
    """Who served last: the last node with a completion, else the last with an award."""
    awarded = [segment for segment in receipt.segments if segment.rank]
    served: list[Segment] = [s for s in awarded if s.completion_digest != _ZERO]
    return (served or awarded)[-1].node if awarded else b""
