"""Signatures of verifiers, put together as the contract wants them, and checked as it checks."""

import pytest

from pinaivu.attestation import Quorum, QuorumMissed
from pinaivu.errors import InvalidEncoding
from pinaivu.keys import BadSignature, SecretKey
from pinaivu.messages import Verdict
from pinaivu.typed_data import Domain, Signed

DOMAIN = Domain(31_337, b"\x05" * 20)
KEYS = sorted((SecretKey(bytes([n]) * 32) for n in range(1, 4)), key=lambda key: key.address)
STRANGER = SecretKey(b"\x09" * 32)
QUORUM = Quorum(members=frozenset(key.address for key in KEYS), threshold=2)


def verdict(**changes: int) -> Verdict:
    return Verdict(
        log_id=b"\x10" * 32,
        key=b"\x11" * 20,
        measurement=b"\x12" * 32,
        parameters_digest=b"\x13" * 32,
        manifest_digest=b"\x14" * 32,
        payload_digest=b"\x15" * 32,
        block_number=changes.get("block_number", 16),
        block_hash=b"\x17" * 32,
        document_ms=18,
        expires_ms=19,
    )


def signed(*keys: SecretKey, domain: Domain = DOMAIN) -> list[Signed[Verdict]]:
    return [Signed.by(key, domain, verdict()) for key in keys]


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (2, 0), (2, 1, 0)])
def test_evidence_is_the_first_of_the_members_by_address(order: tuple[int, ...]) -> None:
    of, evidence = QUORUM.evidence(DOMAIN, signed(*(KEYS[i] for i in order)))
    assert of == verdict()
    chosen = [KEYS[i] for i in sorted(order)[:2]]
    assert evidence == b"".join(one.signature for one in signed(*chosen))
    QUORUM.require(DOMAIN, of, evidence)


def test_strangers_and_second_signatures_are_left_out() -> None:
    collected = signed(STRANGER, KEYS[2], KEYS[2], KEYS[0])
    of, evidence = QUORUM.evidence(DOMAIN, collected)
    QUORUM.require(DOMAIN, of, evidence)
    with pytest.raises(QuorumMissed, match="1 members signed, 2 are needed"):
        QUORUM.evidence(DOMAIN, signed(STRANGER, KEYS[0], KEYS[0]))


def test_all_must_have_signed_the_same_verdict() -> None:
    other = Signed.by(KEYS[1], DOMAIN, verdict(block_number=17))
    with pytest.raises(QuorumMissed, match="2 different verdicts"):
        QUORUM.evidence(DOMAIN, [*signed(KEYS[0]), other])
    with pytest.raises(QuorumMissed, match="0 different verdicts"):
        QUORUM.evidence(DOMAIN, [])


def test_signatures_for_another_deployment_are_strangers() -> None:
    with pytest.raises(QuorumMissed, match="0 members signed"):
        QUORUM.evidence(DOMAIN, signed(*KEYS, domain=Domain(1, DOMAIN.settlement)))


def test_what_is_no_signature_is_said_so() -> None:
    with pytest.raises(BadSignature):
        QUORUM.evidence(DOMAIN, [Signed(verdict(), bytes(65))])


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ((0,), "130 bytes here, not 65"),
        ((0, 1, 2), "130 bytes here, not 195"),
        ((1, 0), "ascend"),
        ((1, 1), "ascend"),
    ],
)
def test_other_evidence_is_refused_as_the_contract_does(keys: tuple[int, ...], why: str) -> None:
    evidence = b"".join(one.signature for one in signed(*(KEYS[i] for i in keys)))
    with pytest.raises(QuorumMissed, match=why):
        QUORUM.require(DOMAIN, verdict(), evidence)


def test_strangers_and_damaged_signatures_are_no_evidence() -> None:
    pair = sorted((KEYS[0], STRANGER), key=lambda key: key.address)
    with pytest.raises(QuorumMissed, match="no members"):
        QUORUM.require(DOMAIN, verdict(), b"".join(s.signature for s in signed(*pair)))
    with pytest.raises(QuorumMissed, match="is none"):
        QUORUM.require(DOMAIN, verdict(), bytes(130))


def test_too_few_members_left_accept_nothing() -> None:
    suspended = Quorum(members=frozenset({KEYS[0].address}), threshold=2)
    with pytest.raises(QuorumMissed):
        suspended.evidence(DOMAIN, signed(*KEYS))


@pytest.mark.parametrize(
    ("members", "threshold"), [({bytes(20)}, 2), ({b"short"}, 2), ({KEYS[0].address}, 1)]
)
def test_what_no_contract_holds_is_no_quorum(members: set[bytes], threshold: int) -> None:
    with pytest.raises(InvalidEncoding):
        Quorum(members=frozenset(members), threshold=threshold)
