"""The signed types: one frozen struct per EIP-712 type, fields in the order that is hashed.

Units: amounts `U96` base units of the settlement token (6 decimals), running totals `U128`, prices
base units per million tokens, times milliseconds since 1970 UTC. An unset limit is the type's
maximum, an absent digest, address or id is zero. Meanings stand in docs/types.md. Changing a name,
an order or a width here changes every digest; the golden vectors in tests/vectors hold them.
"""

from pinaivu.fields import U8, U32, U64, U96, U128, Address, Bytes, Bytes16, Bytes32
from pinaivu.typed_data import Message


class Grant(Message, frozen=True, kw_only=True):
    """A payer's standing permission to one gateway key, with caps; signed by the payer."""

    log_id: Bytes32
    payer: Address
    gateway: Address
    grant_epoch: U64
    max_total: U96
    max_per_job: U96
    max_per_day: U96
    max_price_in: U64
    max_price_out: U64
    not_before_ms: U64
    not_after_ms: U64
    salt: Bytes32
    models: tuple[str, ...]


class Job(Message, frozen=True, kw_only=True):
    """What a gateway wants served, without the prompt; signed by the gateway."""

    log_id: Bytes32
    job_id: Bytes16
    gateway: Address
    grant_digest: Bytes32
    account: Bytes32
    account_limit: U128
    kind: U8
    fingerprint: Bytes32
    features: U64
    prompt_tokens: U32
    max_output_tokens: U32
    max_price_in: U64
    max_price_out: U64
    max_cost: U96
    value_of_time: U64
    mode: U8
    session: Bytes32
    request_commitment: Bytes32
    created_ms: U64
    deadline_ms: U64
    model: str
    allow: tuple[Address, ...]
    deny: tuple[Address, ...]
    anchors: tuple[Bytes32, ...]


class Offer(Message, frozen=True, kw_only=True):
    """A node's firm standing bid for one model; signed by the node."""

    log_id: Bytes32
    node: Address
    fingerprint: Bytes32
    features: U64
    context_tokens: U32
    price_out: U64
    ttft_ms: U32
    tps_milli: U64
    slots: U32
    sequence: U64
    issued_ms: U64
    expires_ms: U64
    model: str


class Bid(Message, frozen=True, kw_only=True):
    """A node's answer in a live round, bound to one job by its nonce; signed by the node."""

    job_digest: Bytes32
    nonce: Bytes32
    offer_digest: Bytes32
    node: Address
    price_out: U64
    ttft_ms: U32
    tps_milli: U64


class Award(Message, frozen=True, kw_only=True):
    """Who serves which job at which price; signed by the coordinator's epoch key."""

    log_id: Bytes32
    epoch: U64
    job_id: Bytes16
    job_digest: Bytes32
    gateway: Address
    node: Address
    rank: U8
    prior: Bytes32
    bid_digest: Bytes32
    clearing: U8
    price_in: U64
    price_out: U64
    prompt_tokens: U32
    max_output_tokens: U32
    max_amount: U96
    start_byte: U64
    request_commitment: Bytes32
    anchor: Bytes32
    nonce: Bytes32
    bids_root: Bytes32
    lease: Bytes32
    awarded_ms: U64
    expires_ms: U64


class Completion(Message, frozen=True, kw_only=True):
    """What a node did under one award, one per award ever; signed by the node."""

    award_digest: Bytes32
    node: Address
    fingerprint: Bytes32
    segment_commitment: Bytes32
    response_commitment: Bytes32
    start_byte: U64
    end_byte: U64
    prompt_tokens: U32
    output_tokens: U32
    acks: U32
    last_preimage: Bytes32
    finish: U8
    started_ms: U64
    first_token_ms: U64
    finished_ms: U64
    audit_commitment: Bytes32


class Failure(Message, frozen=True, kw_only=True):
    """A gateway's report that an award failed; asks for the next rank; signed by the gateway."""

    award_digest: Bytes32
    gateway: Address
    reason: U8
    acks: U32
    output_tokens: U32
    end_byte: U64
    reported_ms: U64


class Part(Message, frozen=True, kw_only=True):
    """A delivery's view of one award."""

    award_digest: Bytes32
    completion_digest: Bytes32
    segment_commitment: Bytes32
    start_byte: U64
    end_byte: U64
    output_tokens: U32
    acks: U32
    result: U8
    first_token_ms: U64
    finished_ms: U64


class Delivery(Message, frozen=True, kw_only=True):
    """What the client got, award by award; signed by the gateway, one per job."""

    job_digest: Bytes32
    gateway: Address
    response_commitment: Bytes32
    outcome: U8
    delivered_ms: U64
    parts: tuple[Part, ...]


class Segment(Message, frozen=True, kw_only=True):
    """One award's line on a receipt: counts, prices, amount, and the node's running totals."""

    node: Address
    rank: U8
    award_digest: Bytes32
    completion_digest: Bytes32
    segment_commitment: Bytes32
    start_byte: U64
    end_byte: U64
    prompt_billed: U32
    output_billed: U32
    output_node: U32
    output_gateway: U32
    acks: U32
    price_in: U64
    price_out: U64
    clearing: U8
    result: U8
    amount: U96
    fee: U96
    node_counter: U64
    node_total: U128


class Receipt(Message, frozen=True, kw_only=True):
    """Everything that matters about one job; signed by the coordinator's epoch key."""

    log_id: Bytes32
    epoch: U64
    job_id: Bytes16
    gateway: Address
    payer: Address
    account: Bytes32
    job_digest: Bytes32
    grant_digest: Bytes32
    delivery_digest: Bytes32
    fingerprint: Bytes32
    request_commitment: Bytes32
    response_commitment: Bytes32
    status: U8
    reason: U8
    total: U96
    payer_counter: U64
    payer_total: U128
    account_counter: U64
    account_total: U128
    account_limit: U128
    grant_spent: U96
    grant_spent_day: U96
    nonce: Bytes32
    bids_root: Bytes32
    bids: U32
    received_ms: U64
    awarded_ms: U64
    first_token_ms: U64
    finished_ms: U64
    closed_ms: U64
    measurement: Bytes32
    parameters_digest: Bytes32
    supersedes: Bytes32
    model: str
    segments: tuple[Segment, ...]


class Checkpoint(Message, frozen=True, kw_only=True):
    """Size and root of a log at a time; signed by the coordinator's epoch key."""

    log_id: Bytes32
    epoch: U64
    size: U64
    root: Bytes32
    time_ms: U64


class Batch(Message, frozen=True, kw_only=True):
    """Leaves [prev_size, new_size) settled as netted rows; signed by the active epoch's key."""

    log_id: Bytes32
    epoch: U64
    sequence: U64
    prev_size: U64
    new_size: U64
    prev_root: Bytes32
    new_root: Bytes32
    parties: U32
    statement_root: Bytes32
    fees: U96
    time_ms: U64
    debits: Bytes
    credits: Bytes


class EpochStart(Message, frozen=True, kw_only=True):
    """First leaf of an epoch; signed by the epoch's key."""

    log_id: Bytes32
    epoch: U64
    size: U64
    root: Bytes32
    manifest_digest: Bytes32
    time_ms: U64


class Lost(Message, frozen=True, kw_only=True):
    """Leaf that reports an earlier checkpoint which could not be reproduced."""

    log_id: Bytes32
    epoch: U64
    lost_epoch: U64
    size: U64
    root: Bytes32
    checkpoint_digest: Bytes32
    time_ms: U64


class Refusal(Message, frozen=True, kw_only=True):
    """Answer to a claimed old receipt that was not re-issued."""

    log_id: Bytes32
    epoch: U64
    receipt_digest: Bytes32
    reason: U8
    standing: Bytes32
    time_ms: U64


class NodeRegistration(Message, frozen=True, kw_only=True):
    """A node key's entry in the registry; signed by the node key."""

    node: Address
    payout: Address
    peer_x: Bytes32
    peer_y: Bytes32
    nonce: U64
    deadline_ms: U64


class GatewayRegistration(Message, frozen=True, kw_only=True):
    """A gateway key's entry in the registry; signed by the gateway key."""

    gateway: Address
    peer_x: Bytes32
    peer_y: Bytes32
    nonce: U64
    deadline_ms: U64
    endpoints: tuple[str, ...]


class PeerBinding(Message, frozen=True, kw_only=True):
    """Ties a libp2p peer key to its owner; signed by the peer key."""

    owner: Address
    role: U8
    peer_x: Bytes32
    peer_y: Bytes32


class Verdict(Message, frozen=True, kw_only=True):
    """An attestation verifier's finding about one enclave key."""

    log_id: Bytes32
    key: Address
    measurement: Bytes32
    parameters_digest: Bytes32
    manifest_digest: Bytes32
    payload_digest: Bytes32
    block_number: U64
    block_hash: Bytes32
    document_ms: U64
    expires_ms: U64


class Log(Message, frozen=True, kw_only=True):
    """Names a log: its operator and the operator's running number. Its digest is the log id."""

    operator: Address
    number: U64


class Lease(Message, frozen=True, kw_only=True):
    """Reserved: a standing match of a gateway with a node. Refused in version 1."""

    log_id: Bytes32
    epoch: U64
    gateway: Address
    node: Address
    grant_digest: Bytes32
    bid_digest: Bytes32
    nonce: Bytes32
    bids_root: Bytes32
    price_in: U64
    price_out: U64
    slots: U32
    max_jobs: U32
    max_amount: U96
    issued_ms: U64
    expires_ms: U64
    model: str
