"""Real, AWS-signed documents: what `verify` makes of them, and of every bent form of them."""

import random
from dataclasses import replace
from datetime import UTC, datetime

import cbor2
import pytest

from pinaivu.attestation import (
    ROOT_G1_SHA256,
    Archival,
    AttestationRefused,
    BadDocumentSignature,
    BindingMismatch,
    DebugEnclave,
    Live,
    MalformedDocument,
    StaleDocument,
    UntrustedChain,
    parse,
    verify,
)
from pinaivu.attestation.chain import require_chain, require_signature
from pinaivu.encoding import h
from tests.unit.forged_attestations import (
    DEBUG,
    P384_ORDER,
    REAL,
    anchored,
    binding_within,
    path_builder_accepts,
    vector,
)

AN_AWS_ROOT_DAY_MS = 1_780_000_000_000  # inside the root's validity, outside every leaf's


def check(raw: bytes) -> bytes:
    """The payload digest of a document that verifies against its own time and content."""
    document = parse(raw)
    return verify(raw, time=anchored(document), binding=binding_within(document)).payload_digest


@pytest.mark.parametrize("name", REAL)
def test_real_documents_verify_at_their_own_time(name: str) -> None:
    raw = vector(name)
    document = parse(raw)
    attestation = verify(raw, time=anchored(document), binding=binding_within(document))
    assert attestation.document == document
    assert attestation.measurement == document.measurement
    assert attestation.anchored_ms == document.timestamp_ms + 60_000


@pytest.mark.parametrize("name", REAL)
def test_without_an_anchor_the_result_says_so(name: str) -> None:
    raw = vector(name)
    binding = binding_within(parse(raw))
    assert verify(raw, time=Archival(anchored_ms=None), binding=binding).anchored_ms is None


@pytest.mark.parametrize("name", DEBUG)
def test_debug_enclaves_are_refused_though_aws_signed_them(name: str) -> None:
    raw = vector(name)
    document = parse(raw)
    require_signature(document, require_chain(document, ROOT_G1_SHA256, document.timestamp_ms))
    with pytest.raises(DebugEnclave):
        check(raw)


@pytest.mark.parametrize("name", [*REAL, *DEBUG])
def test_two_independent_chain_checks_agree(name: str) -> None:
    document = parse(vector(name))
    made_ms, root = document.timestamp_ms, document.cabundle[0]
    assert h(root) == ROOT_G1_SHA256
    require_chain(document, ROOT_G1_SHA256, made_ms)
    assert path_builder_accepts(document, root, datetime.fromtimestamp(made_ms / 1000, UTC))

    later = datetime.fromtimestamp(AN_AWS_ROOT_DAY_MS / 1000, UTC)
    with pytest.raises(UntrustedChain):
        require_chain(document, ROOT_G1_SHA256, AN_AWS_ROOT_DAY_MS)
    assert not path_builder_accepts(document, root, later)


def test_a_broken_signature_is_refused() -> None:
    document = parse(vector("eternis-invalid.b64"))
    key = require_chain(document, ROOT_G1_SHA256, document.timestamp_ms)
    with pytest.raises(BadDocumentSignature):
        require_signature(document, key)


def test_a_damaged_document_is_refused() -> None:
    with pytest.raises(MalformedDocument):
        parse(vector("base-nitro-validator.b64"))


@pytest.mark.parametrize("name", REAL)
def test_live_refuses_old_documents_and_expired_leaves(name: str) -> None:
    raw = vector(name)
    document = parse(raw)
    binding = replace(binding_within(document), nonce=document.nonce or b"challenge")
    with pytest.raises(StaleDocument):
        verify(raw, time=Live(now_ms=AN_AWS_ROOT_DAY_MS), binding=binding)


def test_live_accepts_a_real_document_in_its_minute() -> None:
    raw = vector("evervault-beta-valid.bin")
    document = parse(raw)
    now = Live(now_ms=document.timestamp_ms + 1_000)
    assert verify(raw, time=now, binding=binding_within(document)).anchored_ms is None


@pytest.mark.parametrize("name", REAL)
def test_tag_and_signature_twin_change_the_bytes_but_not_the_name(name: str) -> None:
    """Why documents are named by their payload."""
    raw = vector(name)
    assert raw[:1] == b"\x84"
    s = int.from_bytes(raw[-48:])
    twin = raw[:-48] + (P384_ORDER - s).to_bytes(48)
    assert twin != raw
    assert check(raw) == check(b"\xd2" + raw) == check(twin) == h(cbor2.loads(raw)[2])


@pytest.mark.parametrize("name", REAL)
def test_none_of_a_hundred_random_bit_flips_is_accepted(name: str) -> None:
    raw = vector(name)
    expected = parse(raw)
    chance = random.Random(name)  # noqa: S311 - repeatable, not secret
    for bit in chance.sample(range(len(raw) * 8), 100):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AttestationRefused):
            verify(bytes(flipped), time=anchored(expected), binding=binding_within(expected))


def test_another_field_than_expected_is_refused_though_aws_signed_it() -> None:
    raw = vector("fastcrypto-2.hex")
    document = parse(raw)
    assert document.user_data == b""
    for binding in (
        replace(binding_within(document), user_data=None),
        replace(binding_within(document), public_key=bytes(33)),
        replace(binding_within(document), nonce=b""),
    ):
        with pytest.raises(BindingMismatch):
            verify(raw, time=anchored(document), binding=binding)
