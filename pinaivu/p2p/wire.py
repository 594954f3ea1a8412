"""What the parties say to each other: one msgspec struct per message, MessagePack, versioned.

Three conversations, each on streams of its own protocol id:

- `NODE_PROTOCOL`: a node's control stream to a coordinator (the node dials). The node calls with
  `Hello`, `PutOffer`, `PutCompletion`; the coordinator calls with `AuctionCall` and `PutBatch` and
  notifies `ReceiptNotice` and `AwardVoided`. Who doesn't know a notice passes it over.
- `GATEWAY_PROTOCOL`: a gateway's control stream to a coordinator (the gateway dials). The gateway
  calls with `Hello`, `SubmitJob`, `ReportFailure`, `Deliver`; the coordinator, since version 2,
  with `PutBatch`.
- `WORK_PROTOCOL`: ready streams a node opens to a gateway; one job each: `Dispatch` down, `Chunk`s
  and one of `End` or `NodeRefused` up, `Ack`s and at most one `Cancel` down. Since version 2 a
  dispatch says its kind, and a refusal what the engine answered.

Signed messages travel as `typed_data.Signed.to_bytes`; whoever reads one checks the signature.
Digests never depend on these frames.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec

from pinaivu.codes import JobKind
from pinaivu.errors import InvalidEncoding

NODE_PROTOCOL: Final = "/pinaivu/node/1"
GATEWAY_PROTOCOL: Final = "/pinaivu/gateway/2"
WORK_PROTOCOL: Final = "/pinaivu/work/2"

MAX_CONTROL_FRAME: Final = 1 << 20
MAX_WORK_FRAME: Final = 8 << 20
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""What a database's integer holds; no honest number here is larger or less than nothing."""


class _Frame(msgspec.Struct, frozen=True, tag_field="t", forbid_unknown_fields=True):
    """Base of all frames; the tag names the type."""


class Hello(_Frame, frozen=True, tag="hello"):
    """First call on a control stream: whose registered peer key this stream belongs to."""

    owner: bytes  # 20, node or gateway address
    log_id: bytes  # 32


class Done(_Frame, frozen=True, tag="done"):
    """The call was carried out; nothing to return."""


class Refused(_Frame, frozen=True, tag="refused"):
    """The call was refused; `reason` is a `codes.Reason` or 0, `code` a stable word."""

    code: str
    detail: str
    reason: Natural = 0
    retry_after_ms: Natural = 0


# node control


class PutOffer(_Frame, frozen=True, tag="offer"):
    """A new or renewed standing offer; `slots` 0 withdraws."""

    offer: bytes  # Signed[Offer]


class AuctionCall(_Frame, frozen=True, tag="call"):
    """The live round: improve on your offer for this job, or don't answer."""

    job_digest: bytes
    nonce: bytes
    offer_digest: bytes
    model: str
    prompt_tokens: Natural
    max_output_tokens: Natural
    expected_output_tokens: Natural
    features: Natural
    window_ms: Natural


class BidReply(_Frame, frozen=True, tag="bid"):
    """A bid, or none to take part at the standing price."""

    bid: bytes | None = None  # Signed[Bid]


class PutCompletion(_Frame, frozen=True, tag="completion"):
    """A completion, repeated until the coordinator answers `Done`."""

    completion: bytes  # Signed[Completion]


class ReceiptNotice(_Frame, frozen=True, tag="receipt"):
    """A receipt that names this party, for keeping."""

    receipt: bytes  # Signed[Receipt]
    index: Natural


class AwardVoided(_Frame, frozen=True, tag="voided"):
    """An award of this node's is over: its gateway reported it failed, in these words."""

    failure: bytes  # Signed[Failure]


# both control streams


class PutBatch(_Frame, frozen=True, tag="batch"):
    """A batch with receipts of this party, repeated until it answers `Done`: it is on its disk.

    With it anybody can settle without the coordinator; `pinaivu.batch_copies` checks it.
    """

    batch: bytes  # Signed[Batch]
    consistency: list[bytes]  # 32 each, from its old size to its new; none for the first batch


# gateway control


class SubmitJob(_Frame, frozen=True, tag="job"):
    """Auction this job; answered by `Awarded`, `Refused` or, if already receipted, `Receipted`."""

    job: bytes  # Signed[Job]
    grant: bytes  # Signed[Grant]


class Awarded(_Frame, frozen=True, tag="awarded"):
    """The award, and where its node is to be found."""

    award: bytes  # Signed[Award]
    peer: bytes  # 64, the node's peer point
    tps_milli: Natural  # what the winner promised, for the gateway's deadlines
    ttft_ms: Natural


class ReportFailure(_Frame, frozen=True, tag="failure"):
    """An award failed; answered by `Awarded` for the next rank or `Refused`."""

    failure: bytes  # Signed[Failure]


class Deliver(_Frame, frozen=True, tag="deliver"):
    """What the client got, with all evidence; answered by `Receipted`."""

    delivery: bytes  # Signed[Delivery]
    job: bytes
    grant: bytes
    awards: list[bytes]
    completions: list[bytes]
    failures: list[bytes]


class Receipted(_Frame, frozen=True, tag="receipted"):
    """The job's one receipt, durable, and its index in the log."""

    receipt: bytes  # Signed[Receipt]
    index: Natural


# work streams


class Dispatch(_Frame, frozen=True, tag="dispatch"):
    """The award with what it needs: the client's own body, this node's salts, text so far.

    `kind` is the job's (`codes.JobKind`), which says how the body is to be read.
    """

    award: bytes  # Signed[Award]
    body: bytes
    salt_request: bytes
    salt_response: bytes
    salt_segment: bytes
    prefix: str = ""
    kind: Natural = JobKind.CHAT


class Chunk(_Frame, frozen=True, tag="chunk"):
    """Engine events in order, each the JSON payload of one server-sent event."""

    events: list[bytes]


class End(_Frame, frozen=True, tag="end"):
    """The explicit end of a whole answer; a stream without it has failed."""

    completion: bytes  # Signed[Completion]


class NodeRefused(_Frame, frozen=True, tag="no"):
    """The node does not (or no longer) serve this award; `reason` is 10–18.

    `engine_status` is the HTTP status from 400 to 499 with which its engine refused the request.
    """

    reason: Natural
    detail: str
    completion: bytes | None = None  # what it did until then, if anything was acknowledged
    engine_status: Natural = 0


class Ack(_Frame, frozen=True, tag="ack"):
    """Preimage `w_index` of the job's ack chain for this rank."""

    index: Natural
    preimage: bytes


class Cancel(_Frame, frozen=True, tag="cancel"):
    """Stop now; the node signs what it did and ends."""


NodeToCoordinator = Hello | PutOffer | PutCompletion
CoordinatorToNode = AuctionCall | ReceiptNotice | AwardVoided | PutBatch
GatewayToCoordinator = Hello | SubmitJob | ReportFailure | Deliver
GatewayAnswer = Done | Refused | Awarded | Receipted
NodeAnswer = Done | Refused
WorkDown = Dispatch | Ack | Cancel
WorkUp = Chunk | End | NodeRefused

_encoder: Final = msgspec.msgpack.Encoder()


def encode(frame: msgspec.Struct) -> bytes:
    """One frame's payload."""
    return _encoder.encode(frame)


def _reader(union: Any) -> Callable[[bytes], Any]:
    decoder = msgspec.msgpack.Decoder(union)

    def read(payload: bytes) -> Any:
        try:
            return decoder.decode(payload)
        except (msgspec.DecodeError, ValueError) as error:
            raise InvalidEncoding(f"unknown frame: {error}") from error

    return read


# Readers of each direction; a payload of another kind is an `InvalidEncoding` that says why.
read_node_to_coordinator: Callable[[bytes], NodeToCoordinator] = _reader(NodeToCoordinator)
read_coordinator_to_node: Callable[[bytes], CoordinatorToNode] = _reader(CoordinatorToNode)
read_gateway_to_coordinator: Callable[[bytes], GatewayToCoordinator] = _reader(GatewayToCoordinator)
read_coordinator_to_gateway: Callable[[bytes], PutBatch] = _reader(PutBatch)
read_gateway_answer: Callable[[bytes], GatewayAnswer] = _reader(GatewayAnswer)
read_node_answer: Callable[[bytes], NodeAnswer] = _reader(NodeAnswer)
read_bid_reply: Callable[[bytes], BidReply] = _reader(BidReply)
read_batch_answer: Callable[[bytes], Done] = _reader(Done)
read_work_down: Callable[[bytes], WorkDown] = _reader(WorkDown)
read_work_up: Callable[[bytes], WorkUp] = _reader(WorkUp)
