"""The walk from leaf to root, on chains with one defect each, against a second implementation."""

from datetime import timedelta
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from pinaivu.attestation import BadDocumentSignature, UntrustedChain, parse
from pinaivu.attestation.chain import require_chain, require_signature
from tests.unit.forged_attestations import (
    GOOD_CHAIN,
    NOW,
    NOW_MS,
    Spec,
    forged,
    path_builder_accepts,
    with_spec,
)

ROOT, REGION, ZONE, INSTANCE, LEAF = range(5)
LATER = NOW + timedelta(days=1)


def test_a_chain_of_the_right_shape_gives_the_key_that_signed() -> None:
    raw, root_sha256 = forged()
    document = parse(raw)
    require_signature(document, require_chain(document, root_sha256, NOW_MS))
    assert path_builder_accepts(document, document.cabundle[0], NOW)


def test_a_shorter_chain_is_accepted() -> None:
    raw, root_sha256 = forged((GOOD_CHAIN[ROOT], GOOD_CHAIN[LEAF]))
    document = parse(raw)
    require_signature(document, require_chain(document, root_sha256, NOW_MS))


BROKEN = {
    "root expired": with_spec(ROOT, begin=NOW - timedelta(days=2), end=NOW - timedelta(days=1)),
    "region expired": with_spec(REGION, end=NOW - timedelta(seconds=1)),
    "leaf not yet valid": with_spec(LEAF, begin=NOW + timedelta(seconds=1)),
    "zone is no authority": with_spec(ZONE, ca=False, path_length=None),
    "region allows too short a path": with_spec(REGION, path_length=1),
    "zone signed by a stranger": with_spec(ZONE, signed_by_stranger=True),
    "leaf signed by a stranger": with_spec(LEAF, signed_by_stranger=True),
    "instance names another issuer": with_spec(INSTANCE, issuer_name="elsewhere"),
    "zone has no basic constraints": with_spec(ZONE, constrained=False),
    "region has an unknown critical extension": with_spec(REGION, critical_extra=True),
}

STRICTER = {
    "instance may not sign certificates": with_spec(INSTANCE, signs_certificates=False),
    "leaf is an authority": with_spec(LEAF, ca=True, path_length=None),
    "leaf may sign certificates": with_spec(LEAF, signs_certificates=True),
    "leaf may not sign": with_spec(LEAF, signs_documents=False),
    "leaf has no basic constraints": with_spec(LEAF, constrained=False),
    "leaf of another module": with_spec(LEAF, name="i-00000000000000000-enc00.test"),
    "leaf of a longer module id": with_spec(LEAF, name=GOOD_CHAIN[LEAF].name.replace(".", "0.")),
    "leaf on P-256": with_spec(LEAF, curve=ec.SECP256R1()),
    "zone on P-256": with_spec(ZONE, curve=ec.SECP256R1()),
    "region signed with SHA-256": with_spec(REGION, digest=hashes.SHA256()),
}


@pytest.mark.parametrize("chain", BROKEN.values(), ids=BROKEN.keys())
def test_broken_chains_are_refused_by_both_checks(chain: tuple[Spec, ...]) -> None:
    raw, root_sha256 = forged(chain)
    document = parse(raw)
    with pytest.raises(UntrustedChain):
        require_chain(document, root_sha256, NOW_MS)
    assert not path_builder_accepts(document, document.cabundle[0], NOW)


@pytest.mark.parametrize("chain", STRICTER.values(), ids=STRICTER.keys())
def test_chains_that_are_not_nitros_are_refused(chain: tuple[Spec, ...]) -> None:
    """The path builder, at its most lenient, lets most of these pass."""
    raw, root_sha256 = forged(chain)
    with pytest.raises(UntrustedChain):
        require_chain(parse(raw), root_sha256, NOW_MS)


def test_another_root_is_refused_though_the_chain_holds() -> None:
    raw, _ = forged()
    _, strange_root = forged()
    with pytest.raises(UntrustedChain, match="the trusted root is"):
        require_chain(parse(raw), strange_root, NOW_MS)


def test_a_trusted_root_in_front_of_a_strange_chain_is_refused() -> None:
    trusted, trusted_sha256 = forged()
    root_der = parse(trusted).cabundle[0]
    strange = parse(forged()[0])
    spliced = parse(forged(cabundle=[root_der, *strange.cabundle[1:]])[0])
    with pytest.raises(UntrustedChain, match="is not issued by"):
        require_chain(spliced, trusted_sha256, NOW_MS)


def test_authorities_in_another_order_are_refused() -> None:
    good = parse(forged()[0])
    root, region, zone, instance = good.cabundle
    shuffled = parse(forged(cabundle=[root, zone, region, instance])[0])
    with pytest.raises(UntrustedChain):
        require_chain(shuffled, sha256(root).digest(), NOW_MS)


@pytest.mark.parametrize("at_ms", [0, NOW_MS + 3 * 3600 * 1000, 1 << 62])
def test_a_moment_outside_the_windows_is_refused(at_ms: int) -> None:
    raw, root_sha256 = forged()
    with pytest.raises(UntrustedChain):
        require_chain(parse(raw), root_sha256, at_ms)


@pytest.mark.parametrize("der", [b"\x30", bytes(100)])
def test_a_certificate_that_is_none_is_refused(der: bytes) -> None:
    raw, root_sha256 = forged(certificate=der)
    with pytest.raises(UntrustedChain):
        require_chain(parse(raw), root_sha256, NOW_MS)


def test_a_certificate_with_bytes_behind_it_is_refused() -> None:
    leaf = parse(forged()[0]).certificate
    raw, root_sha256 = forged(certificate=leaf + b"\0")
    with pytest.raises(UntrustedChain):
        require_chain(parse(raw), root_sha256, NOW_MS)


def test_another_payload_under_the_signature_is_refused() -> None:
    document, other = parse(forged()[0]), parse(forged()[0])
    key = require_chain(document, sha256(document.cabundle[0]).digest(), NOW_MS)
    with pytest.raises(BadDocumentSignature):
        require_signature(other, key)


@pytest.mark.parametrize("signature", [bytes(96), b"\xff" * 96])
def test_scalars_out_of_range_are_a_bad_signature(signature: bytes) -> None:
    raw, root_sha256 = forged()
    document = parse(raw[:-96] + signature)
    key = require_chain(document, root_sha256, NOW_MS)
    with pytest.raises(BadDocumentSignature):
        require_signature(document, key)
