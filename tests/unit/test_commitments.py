"""Commitments, acknowledgements and accounts, against the examples of the types page."""

import hashlib
import json
from typing import Any

import pytest

from pinaivu import commitments
from pinaivu.codes import JobKind
from pinaivu.commitments import AckChain, AckCounter, BadPreimage, Salts
from pinaivu.encoding import InvalidParameter, jcs, parse_json
from pinaivu.errors import InvalidEncoding
from pinaivu.openai import canonical_choices, text

ROOT = bytes(range(32))
JOB_ID = bytes.fromhex("0190a0b0c0d07000800000000000000a")
LAST = bytes(range(32))

REQUEST_EXAMPLES = [
    (
        (
            b'{"stream":true,"model":"m","temperature":1.0,"top_p":1e-7,"max_tokens":16,'
            b'"frequency_penalty":-0.0,"stream_options":{"include_usage":true},'
            b'"messages":[{"role":"user","content":"hi"}]}'
        ),
        (
            b'{"frequency_penalty":0,"max_tokens":16,"messages":[{"content":"hi","role":"user"}],'
            b'"model":"m","temperature":1,"top_p":1e-7}'
        ),
        "25dfcae37f4ada3dc14f9d8ae3d77bb3949ed8b5dbfa090c2f46271da5c695dd",
    ),
    (
        (
            rb'{"model":"m","messages":[{"role":"user","content":'
            rb'"caf\u00e9 cafe\u0301 \ud83d\ude00\u2028\u000a\/"}],'
            rb'"metadata":{"\ufb33":"1","\ud83d\ude00":"2","a":"3"}}'
        ),
        '{"messages":[{"content":"caf\u00e9 cafe\u0301 \U0001f600\u2028\\n/","role":"user"}],'
        '"metadata":{"a":"3","\U0001f600":"2","\ufb33":"1"},"model":"m"}'.encode(),
        "aed18dc17b044324219fd57e765806c53834983e3a139f6486e520c096fe7ea3",
    ),
    (
        (
            b'{"model":"m","messages":[{"role":"user","content":"x"}],'
            b'"pinaivu":{"max_cost_units":5000},"seed":9007199254740991,'
            b'"logit_bias":{"50256":-100,"9":1.50},"tools":[{"type":"function","function":{"name":"f",'
            b'"parameters":{"type":"object","properties":{"stream":{"type":"boolean"}}}}}]}'
        ),
        (
            b'{"logit_bias":{"50256":-100,"9":1.5},"messages":[{"content":"x","role":"user"}],'
            b'"model":"m","pinaivu":{"max_cost_units":5000},"seed":9007199254740991,'
            b'"tools":[{"function":{"name":"f","parameters":{"properties":{"stream":'
            b'{"type":"boolean"}},"type":"object"}},"type":"function"}]}'
        ),
        "e6383632b136f5ea81d7f27fc62e245d078e81f6d407cacdb7517a8cd8be95f4",
    ),
]
RESPONSE_EXAMPLE = (
    b'{"choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant",'
    b'"content":null,"refusal":null,"reasoning_content":"look","tool_calls":[{"index":0,"id":"c1",'
    b'"type":"function","function":{"name":"f","arguments":"{\\"a\\": 1.0}"}}],"annotations":[]}}]}'
)


def body_of(raw: bytes) -> dict[str, Any]:
    body = parse_json(raw)
    assert isinstance(body, dict)
    return body


@pytest.mark.parametrize(("raw", "canonical", "digest"), REQUEST_EXAMPLES)
def test_request_digests_of_the_types_page(raw: bytes, canonical: bytes, digest: str) -> None:
    assert hashlib.sha256(canonical).hexdigest() == digest
    assert commitments.request_digest(body_of(raw)).hex() == digest
    assert commitments.request_digest(body_of(canonical)).hex() == digest


def test_canonical_lengths_of_the_types_page() -> None:
    assert [len(canonical) for _, canonical, _ in REQUEST_EXAMPLES[1:]] == [120, 278]


def test_a_seed_beyond_exact_integers_is_refused() -> None:
    raw = REQUEST_EXAMPLES[2][0].replace(b"9007199254740991", b"9007199254740992")
    with pytest.raises(InvalidParameter, match="seed"):
        parse_json(raw)


def test_the_response_digest_of_the_types_page() -> None:
    choices = canonical_choices(JobKind.CHAT, body_of(RESPONSE_EXAMPLE))
    assert jcs({"choices": choices}) == (
        b'{"choices":[{"finish_reason":"tool_calls","index":0,"message":{"reasoning":"look",'
        b'"role":"assistant","tool_calls":[{"function":{"arguments":"{\\"a\\": 1.0}","name":"f"},'
        b'"id":"c1","type":"function"}]}}]}'
    )
    assert commitments.response_digest(choices).hex() == (
        "ec41fcface1133a71604e1ae082941253ade807f24811b0d4805f1bb09bf569e"
    )
    assert text(choices) == b'lookf{"a": 1.0}'


def test_the_request_commitment_of_the_types_page() -> None:
    digest = commitments.request_digest(body_of(REQUEST_EXAMPLES[0][0]))
    assert commitments.request_commitment(Salts(ROOT).request, digest).hex() == (
        "b54edd9e1bfb57894b07c5416fb596217a9e95ffb86cb603373db68c6b5aff13"
    )


@pytest.mark.parametrize("member", ["stream", "stream_options"])
def test_delivery_options_change_no_digest(member: str) -> None:
    body = {"model": "m", "prompt": "x"}
    assert commitments.request_digest({**body, member: True}) == commitments.request_digest(body)
    nested = {**body, "tools": [{member: True}]}
    assert commitments.request_digest(nested) != commitments.request_digest(body)


def test_a_digest_does_not_change_its_argument() -> None:
    body = {"model": "m", "stream": True}
    commitments.request_digest(body)
    assert body == {"model": "m", "stream": True}


def _tag(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


def test_salts_are_numbered() -> None:
    salts = Salts(ROOT)
    numbered = [salts.request, salts.response, salts.segment(1), salts.segment(254)]
    for number, salt in zip((0, 1, 2, 255), numbered, strict=True):
        assert salt == hashlib.sha256(_tag("pnv1:salt") + ROOT + bytes((number,))).digest()


@pytest.mark.parametrize("rank", [-1, 0, 255])
def test_a_rank_without_a_salt_is_refused(rank: int) -> None:
    with pytest.raises(InvalidEncoding, match="rank"):
        Salts(ROOT).segment(rank)


def test_commitments_are_tag_salt_and_digest() -> None:
    salt, digest = b"s" * 32, hashlib.sha256(b"text").digest()
    for function, tag in (
        (commitments.request_commitment, "pnv1:request"),
        (commitments.response_commitment, "pnv1:response"),
    ):
        assert function(salt, digest) == hashlib.sha256(_tag(tag) + salt + digest).digest()
    assert commitments.segment_commitment(salt, b"text") == (
        hashlib.sha256(_tag("pnv1:segment") + salt + digest).digest()
    )


def test_accounts_and_parties_are_blinded() -> None:
    payer, secret = b"p" * 20, b"s" * 32
    account = hashlib.sha256(_tag("pnv1:account") + payer + secret).digest()
    assert commitments.account_of(payer, secret) == account
    assert commitments.party_of_account(payer, account) == (
        hashlib.sha256(_tag("pnv1:party") + payer + account).digest()
    )


@pytest.mark.parametrize("length", [0, 31, 33])
def test_values_of_another_length_are_refused(length: int) -> None:
    wrong, right, payer = bytes(length), bytes(32), bytes(20)
    attempts = (
        lambda: Salts(wrong),
        lambda: commitments.request_commitment(wrong, right),
        lambda: commitments.response_commitment(right, wrong),
        lambda: commitments.segment_commitment(wrong, b""),
        lambda: commitments.account_of(wrong, right),
        lambda: commitments.account_of(payer, wrong),
        lambda: commitments.party_of_account(wrong, right),
        lambda: commitments.party_of_account(payer, wrong),
        lambda: AckChain(JOB_ID, 1, 64, wrong),
        lambda: AckChain(wrong, 1, 64, LAST),
        lambda: AckCounter(JOB_ID, 1, 64, wrong),
    )
    for attempt in attempts:
        with pytest.raises(InvalidEncoding, match="bytes, not"):
            attempt()


def test_the_ack_chain_of_the_types_page() -> None:
    chain = AckChain(JOB_ID, 1, 64, LAST)
    assert chain.length == 3
    assert chain.preimage(3) == LAST
    assert chain.anchor.hex() == "5aa8de4c52d91e945f95e2ad63d7c2f00df383350ffdc2e688801d401da2511a"


LENGTHS = [(0, 1), (1, 2), (32, 2), (33, 3), (64, 3), (65, 4)]


@pytest.mark.parametrize(("max_output_tokens", "length"), LENGTHS)
def test_a_chain_has_one_link_for_the_prompt_and_one_per_window(
    max_output_tokens: int, length: int
) -> None:
    assert commitments.chain_length(max_output_tokens) == length
    assert AckChain(JOB_ID, 1, max_output_tokens, LAST).length == length


def test_tokens_acknowledged() -> None:
    assert [commitments.tokens_acknowledged(k, 70) for k in range(6)] == [0, 0, 32, 64, 70, 70]
    assert [commitments.tokens_acknowledged(k, 0) for k in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("max_output_tokens", [0, 1, 31, 32, 33, 70, 96])
def test_acks_are_due_when_the_count_reaches_what_they_accept(max_output_tokens: int) -> None:
    """The largest k whose tokens have been counted: neither early nor late."""
    length = commitments.chain_length(max_output_tokens)
    for counted in range(max_output_tokens + 40):
        due = [
            k
            for k in range(1, length + 1)
            if commitments.tokens_acknowledged(k, max_output_tokens) <= counted
        ]
        assert commitments.acks_due(counted, max_output_tokens) == max(due)


def test_a_counter_follows_its_chain() -> None:
    chain = AckChain(JOB_ID, 2, 70, LAST)
    counter = AckCounter(JOB_ID, 2, 70, chain.anchor)
    assert (counter.acks, counter.tokens, counter.last_preimage) == (0, 0, bytes(32))
    for acks, tokens in ((1, 0), (2, 32), (4, 70)):
        counter.accept(acks, chain.preimage(acks))
        assert (counter.acks, counter.tokens) == (acks, tokens)
        assert counter.last_preimage == chain.preimage(acks)


CHAIN = AckChain(JOB_ID, 1, 70, LAST)
BAD_PREIMAGES = [
    ("again", 2, CHAIN.preimage(2)),
    ("an older one", 1, CHAIN.preimage(1)),
    ("under another number", 4, CHAIN.preimage(3)),
    ("beyond the chain", 5, CHAIN.preimage(4)),
    ("none", 0, bytes(32)),
    ("a flipped bit", 3, bytes([CHAIN.preimage(3)[0] ^ 1]) + CHAIN.preimage(3)[1:]),
    ("of another rank", 3, AckChain(JOB_ID, 2, 70, LAST).preimage(3)),
    ("of another job", 3, AckChain(bytes(16), 1, 70, LAST).preimage(3)),
    ("too short", 3, CHAIN.preimage(3)[:31]),
    ("empty", 3, b""),
]


@pytest.mark.parametrize(
    ("acks", "preimage"), [row[1:] for row in BAD_PREIMAGES], ids=[row[0] for row in BAD_PREIMAGES]
)
def test_a_counter_refuses_and_keeps_what_it_has(acks: int, preimage: bytes) -> None:
    counter = AckCounter(JOB_ID, 1, 70, CHAIN.anchor)
    counter.accept(2, CHAIN.preimage(2))
    with pytest.raises(BadPreimage):
        counter.accept(acks, preimage)
    assert (counter.acks, counter.last_preimage) == (2, CHAIN.preimage(2))


def test_each_number_of_acks_is_proven_alone() -> None:
    commitments.verify_acks(CHAIN.anchor, JOB_ID, 1, 70, 0, bytes(32))
    for acks in range(1, 5):
        commitments.verify_acks(CHAIN.anchor, JOB_ID, 1, 70, acks, CHAIN.preimage(acks))
        with pytest.raises(BadPreimage):
            commitments.verify_acks(CHAIN.anchor, JOB_ID, 1, 70, acks % 4 + 1, CHAIN.preimage(acks))


@pytest.mark.parametrize(("acks", "preimage"), [(0, LAST), (0, b""), (5, LAST), (-1, bytes(32))])
def test_acks_without_proof_are_refused(acks: int, preimage: bytes) -> None:
    with pytest.raises(BadPreimage):
        commitments.verify_acks(CHAIN.anchor, JOB_ID, 1, 70, acks, preimage)


def test_a_longer_chain_proves_no_more_than_the_job_allows() -> None:
    """A gateway that anchors a chain too long can't acknowledge beyond `max_output_tokens`."""
    longer = AckChain(JOB_ID, 1, 1000, LAST)
    commitments.verify_acks(longer.anchor, JOB_ID, 1, 70, 4, longer.preimage(4))
    with pytest.raises(BadPreimage, match="in a chain of 4"):
        commitments.verify_acks(longer.anchor, JOB_ID, 1, 70, 5, longer.preimage(5))


@pytest.mark.parametrize("acks", [-1, 0, 5])
def test_a_chain_has_no_preimage_outside_it(acks: int) -> None:
    with pytest.raises(InvalidEncoding, match="of a chain of 4"):
        CHAIN.preimage(acks)


def test_the_examples_are_ordinary_json() -> None:
    """The standard library reads the examples' canonical forms to the same values."""
    for raw, canonical, _ in REQUEST_EXAMPLES:
        body = json.loads(raw)
        body.pop("stream", None)
        body.pop("stream_options", None)
        assert json.loads(canonical) == body
