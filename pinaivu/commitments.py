"""Salted commitments, the acknowledgement chain and blinded accounts (types.md, sections 1, 2, 5).

All salts of a job come from one root that only the gateway holds, so each commitment can be opened
alone. The acknowledgement chain is a PayWord hash chain: the gateway releases preimages upwards
from the anchor, and who holds preimage k can prove k acknowledgements to anybody.

A commitment proves what its author had fixed, not that it is true or that anyone computed it.
Randomness comes from the caller: 32 bytes for a root, for the end of a chain, for an account.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from pinaivu.encoding import Tag, h, jcs, tagged_hash
from pinaivu.errors import InvalidEncoding, PeerFault

HASH_BYTES: Final = 32
TOKENS_PER_ACK: Final = 32
NOT_COMMITTED: Final = frozenset({"stream", "stream_options"})
"""Members of a request body that say how to deliver, not what is asked."""

_ADDRESS_BYTES: Final = 20
_JOB_ID_BYTES: Final = 16
_MAX_RANK: Final = 254  # the segment salt of rank r is number r + 1, one byte


class BadPreimage(PeerFault):
    """An acknowledgement does not lead to the anchor of its job and rank."""


class Salts:
    """The salts of one job, derived from a root of 32 random bytes that stays with the gateway."""

    def __init__(self, root: bytes) -> None:
        self.root = _exactly(root, HASH_BYTES, "a salt root")
        self.request = self._derive(0)
        self.response = self._derive(1)

    def segment(self, rank: int) -> bytes:
        """The salt of the segment that the award of `rank` (from 1) produced."""
        if not 1 <= rank <= _MAX_RANK:
            raise InvalidEncoding(f"rank {rank} is not in 1–{_MAX_RANK}")
        return self._derive(1 + rank)

    def _derive(self, number: int) -> bytes:
        return tagged_hash(Tag.SALT, self.root, bytes((number,)))


def request_digest(body: Mapping[str, object]) -> bytes:
    """SHA-256 over the JCS of a request body without the members in `NOT_COMMITTED`.

    Raises `InvalidEncoding` for a body without canonical form.
    """
    return h(jcs({name: value for name, value in body.items() if name not in NOT_COMMITTED}))


def response_digest(choices: Sequence[Mapping[str, object]]) -> bytes:
    """SHA-256 over the JCS of ``{"choices": …}``.

    `choices` are canonical, as `pinaivu.openai.canonical_choices` or `Aggregator.choices` give
    them; what an SDK returned has to go through the former.
    """
    return h(jcs({"choices": list(choices)}))


def request_commitment(salt: bytes, digest: bytes) -> bytes:
    """Commitment to a request, from `Salts.request` and `request_digest`."""
    return _commit(Tag.REQUEST, salt, digest)


def response_commitment(salt: bytes, digest: bytes) -> bytes:
    """Commitment to a whole response, from `Salts.response` and `response_digest`."""
    return _commit(Tag.RESPONSE, salt, digest)


def segment_commitment(salt: bytes, text: bytes) -> bytes:
    """Commitment to one award's part of the response text, from `Salts.segment` and the bytes."""
    return _commit(Tag.SEGMENT, salt, h(text))


def account_of(payer: bytes, secret: bytes) -> bytes:
    """The blinded sub-account of a hosted payer: its address and 32 secret bytes, hashed."""
    _exactly(payer, _ADDRESS_BYTES, "a payer")
    return tagged_hash(Tag.ACCOUNT, payer, _exactly(secret, HASH_BYTES, "an account secret"))


def party_of_account(payer: bytes, account: bytes) -> bytes:
    """The 32 bytes that name a sub-account in a batch's statements."""
    _exactly(payer, _ADDRESS_BYTES, "a payer")
    return tagged_hash(Tag.PARTY, payer, _exactly(account, HASH_BYTES, "an account"))


def chain_length(max_output_tokens: int) -> int:
    """How many acknowledgements a job can have: one for the prompt, one per 32 output tokens."""
    return 1 - (-max_output_tokens // TOKENS_PER_ACK)


def tokens_acknowledged(acks: int, max_output_tokens: int) -> int:
    """Output tokens that `acks` acknowledgements accept: ``tokens(k)``."""
    return min(TOKENS_PER_ACK * max(acks - 1, 0), max_output_tokens)


def acks_due(output_tokens: int, max_output_tokens: int) -> int:
    """Acknowledgements to be released once `output_tokens` have been counted after the prompt."""
    if output_tokens >= max_output_tokens:
        return chain_length(max_output_tokens)
    return 1 + output_tokens // TOKENS_PER_ACK


class AckChain:
    """The gateway's side of one attempt: all preimages of the chain, `w_0` being the anchor."""

    def __init__(self, job_id: bytes, rank: int, max_output_tokens: int, last: bytes) -> None:
        self.length = chain_length(max_output_tokens)
        links = [_exactly(last, HASH_BYTES, "the chain's last preimage")]
        for number in range(self.length, 0, -1):
            links.append(_previous(job_id, rank, number, links[-1]))
        self._links = links[::-1]

    @property
    def anchor(self) -> bytes:
        """What the job commits to."""
        return self._links[0]

    def preimage(self, acks: int) -> bytes:
        """The value whose release makes `acks` acknowledgements, from 1 to `length`."""
        if not 1 <= acks <= self.length:
            raise InvalidEncoding(f"acknowledgement {acks} of a chain of {self.length}")
        return self._links[acks]


class AckCounter:
    """The node's side of one attempt: how many acknowledgements it holds, and the last preimage.

    Memory is one hash; a jump over several preimages is accepted and costs one hash each.
    """

    def __init__(self, job_id: bytes, rank: int, max_output_tokens: int, anchor: bytes) -> None:
        self._job_id = job_id
        self._rank = rank
        self._max_output_tokens = max_output_tokens
        self._head = _exactly(anchor, HASH_BYTES, "an anchor")
        self.acks = 0

    @property
    def last_preimage(self) -> bytes:
        """``w_k`` for the completion; zeros while nothing is acknowledged."""
        return self._head if self.acks else bytes(HASH_BYTES)

    @property
    def tokens(self) -> int:
        """Output tokens acknowledged so far."""
        return tokens_acknowledged(self.acks, self._max_output_tokens)

    def accept(self, acks: int, preimage: bytes) -> None:
        """Take preimage number `acks`, which must be above those held; else `BadPreimage`."""
        length = chain_length(self._max_output_tokens)
        if len(preimage) != HASH_BYTES:
            raise BadPreimage(f"a preimage has {HASH_BYTES} bytes, not {len(preimage)}")
        if not self.acks < acks <= length:
            raise BadPreimage(f"acknowledgement {acks} after {self.acks} in a chain of {length}")
        value = preimage
        for number in range(acks, self.acks, -1):
            value = _previous(self._job_id, self._rank, number, value)
        if value != self._head:
            raise BadPreimage(f"acknowledgement {acks} does not lead to the one before")
        self.acks, self._head = acks, preimage


def verify_acks(
    anchor: bytes, job_id: bytes, rank: int, max_output_tokens: int, acks: int, preimage: bytes
) -> None:
    """Raise `BadPreimage` unless `preimage` proves `acks` acknowledgements of one attempt.

    `max_output_tokens` is the job's, also for later ranks. No acknowledgement is zeros. The cost is
    one hash per acknowledgement, bounded by the job's `max_output_tokens` only.
    """
    if acks == 0:
        if preimage != bytes(HASH_BYTES):
            raise BadPreimage("a preimage without an acknowledgement")
        return
    AckCounter(job_id, rank, max_output_tokens, anchor).accept(acks, preimage)


def _previous(job_id: bytes, rank: int, number: int, preimage: bytes) -> bytes:
    """``w_{i-1}`` from ``w_i``."""
    _exactly(job_id, _JOB_ID_BYTES, "a job id")
    _exactly(preimage, HASH_BYTES, "a preimage")
    return tagged_hash(Tag.ACK, job_id, bytes((rank,)), number.to_bytes(4), preimage)


def _commit(tag: Tag, salt: bytes, digest: bytes) -> bytes:
    _exactly(salt, HASH_BYTES, "a salt")
    return tagged_hash(tag, salt, _exactly(digest, HASH_BYTES, "a digest"))


def _exactly(value: bytes, length: int, what: str) -> bytes:
    """Joined parts are unambiguous only while each has its length."""
    if len(value) != length:
        raise InvalidEncoding(f"{what} has {length} bytes, not {len(value)}")
    return value
