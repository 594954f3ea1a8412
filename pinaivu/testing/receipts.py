"""Receipts with little on them: what reputation reads, and zeros. Not signed, never in a log."""

from typing import Any, Final

from pinaivu.codes import Reason, Status
from pinaivu.messages import Receipt, Segment

_AWARDED_MS: Final = 1_800_000_000_000
_FAULTS: Final = range(Reason.REFUSED, Reason.PASSED_OVER)
_ZERO: Final = bytes(32)


def attempted(
    node: bytes, result: int = Reason.NONE, *, output: int = 100, rank: int = 1
) -> Segment:
    """One attempt; node and gateway count the same, and nothing where it failed or never began."""
    if result in _FAULTS or not rank:
        output = 0
    zeros: dict[str, Any] = dict.fromkeys(Segment.__struct_fields__, 0)
    zeros |= dict.fromkeys(("award_digest", "completion_digest", "segment_commitment"), _ZERO)
    counts = dict.fromkeys(("output_billed", "output_node", "output_gateway"), output)
    return Segment(**zeros | counts | {"node": node, "rank": rank, "result": result})


def receipt_of(
    *segments: Segment,
    gateway: bytes,
    payer: bytes,
    model: str = "made-up/model",
    first_ms: int = 100,
    streamed_ms: int = 1_000,
    skew_ms: int = 0,
    **more: Any,
) -> Receipt:
    """A receipt whose attempt took so long; `skew_ms`: the gateway's clock less the coordinator's.

    The status follows from the last segment unless `more` says otherwise.
    """
    zeros: dict[str, Any] = dict.fromkeys(Receipt.__struct_fields__, 0)
    zeros |= {name: _ZERO for name in zeros if name.endswith(("_digest", "_commitment"))}
    zeros |= dict.fromkeys(("log_id", "account", "fingerprint", "nonce", "bids_root"), _ZERO)
    zeros |= {"job_id": bytes(16), "measurement": _ZERO, "supersedes": _ZERO}
    status = Status.FAILED if segments and segments[-1].result in _FAULTS else Status.COMPLETED
    told = _AWARDED_MS + first_ms + skew_ms
    times = {
        "awarded_ms": _AWARDED_MS,
        "first_token_ms": told,
        "finished_ms": told + streamed_ms,
        "closed_ms": _AWARDED_MS + first_ms + streamed_ms,
    }
    said = {"gateway": gateway, "payer": payer, "model": model, "segments": segments}
    return Receipt(**zeros | {"status": int(status)} | times | said | more)
