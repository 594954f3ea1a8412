"""A receipt in a few figures, for whoever wants it in the answer itself.

It is what the gateway got and checked against its own evidence; the receipt itself, its proofs and
how far it is settled are under `/v1/receipts/{request id}`.
"""

from typing import Any

from pinaivu.codes import Status
from pinaivu.encoding import to_hex
from pinaivu.messages import Receipt, Segment
from pinaivu.store.gateway import ReceiptRow
from pinaivu.typed_data import Domain, signed_from_bytes


def summary(row: ReceiptRow, domain: Domain) -> dict[str, Any]:
    """What a request came to, in base units and tokens; by which nodes, for whose money."""
    signed = signed_from_bytes(Receipt, row.signed)
    receipt = signed.message
    found = {
        "log_id": to_hex(receipt.log_id),
        "index": row.position,
        "digest": to_hex(signed.digest(domain)),
        "status": Status(receipt.status).name.lower(),
        "payer": to_hex(receipt.payer),
        "total": receipt.total,
        "segments": [_segment(segment) for segment in receipt.segments],
        "settlement": {"state": "logged"},
    }
    return found | ({"problem": row.problem} if row.problem else {})


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "node": to_hex(segment.node),
        "prompt_tokens": segment.prompt_billed,
        "completion_tokens": segment.output_billed,
        "price_in": segment.price_in,
        "price_out": segment.price_out,
        "amount": segment.amount,
    }
