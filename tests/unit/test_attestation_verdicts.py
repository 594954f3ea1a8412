"""What a verifier of the quorum signs, and everything that it refuses to sign.

The documents are forged under a root of their own, which the tests pin in AWS's place: no real
document can name our manifest. Real ones are judged too, and refused for what they are not.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from pinaivu.attestation import (
    BindingMismatch,
    DebugEnclave,
    MalformedDocument,
    SeenBlock,
    StaleDocument,
    UntrustedChain,
    UntrustedCode,
    VerifierTrust,
    judge,
    parse,
)
from pinaivu.attestation import aws as aws_module
from pinaivu.attestation.errors import AttestationRefused
from pinaivu.attestation.verdicts import VERDICT_LIFE_MS
from pinaivu.keys import SecretKey
from pinaivu.manifest import Block, Manifest, Parameters, local_development_parameters
from tests.unit.forged_attestations import DEBUG, NOW_MS, REAL, forged, repacked, vector

MINUTE_MS = 60_000
SIGNING = SecretKey(b"\x01" * 32)
PARAMETERS = local_development_parameters("http://127.0.0.1:8545")
BLOCK = Block(number=1_000, hash=b"\xb1" * 32)
BLOCK_MS = NOW_MS - 15 * MINUTE_MS


SEEN = SeenBlock(block=BLOCK, time_ms=BLOCK_MS)
ZERO_PCRS = {index: bytes(48) for index in range(16)}


def address(number: int) -> bytes:
    return bytes([number]) * 20


MANIFEST = Manifest(
    chain_id=1,
    settlement=address(1),
    receipt_log=address(2),
    enclave_registry=address(3),
    node_registry=address(4),
    model_registry=address(5),
    log_id=b"\x10" * 32,
    code_version="1.0.0",
    signing_key=SIGNING.compressed,
    note_key=b"\x0e" * 32,
    peer_key=SecretKey(b"\x02" * 32).compressed,
    parameters_digest=PARAMETERS.digest(),
    block=BLOCK,
)


@dataclass(frozen=True)
class Case:
    """A boot and the verifier looking at it; everything fits unless a test changes it."""

    manifest: Manifest = MANIFEST
    parameters: Parameters = PARAMETERS
    block: SeenBlock = SEEN
    now_ms: int = NOW_MS + MINUTE_MS
    trust: dict[str, Any] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], Any]:
    """Judges a case, with the forged document's root in AWS's place."""

    def run(case: Case) -> Any:
        bound = {
            "public_key": case.manifest.signing_key,
            "user_data": case.manifest.digest(),
            "nonce": case.manifest.block.hash,
        }
        raw, root_sha256 = forged(**{**bound, **case.document})
        monkeypatch.setattr(aws_module, "ROOT_G1_SHA256", root_sha256)
        verdict = judge(
            raw,
            case.manifest,
            case.parameters,
            trust=trusting(parse(raw).measurement, **case.trust),
            block=case.block,
            now_ms=case.now_ms,
        )
        return verdict, parse(raw)

    return run


def trusting(measurement: bytes, **changes: Any) -> VerifierTrust:
    own = {
        name: getattr(MANIFEST, name)
        for name in (
            "chain_id",
            "settlement",
            "receipt_log",
            "enclave_registry",
            "node_registry",
            "model_registry",
        )
    }
    code = frozenset({(measurement, PARAMETERS.digest())})
    return VerifierTrust(**{**own, "code": code, **changes})


def test_a_sound_boot_is_stated_field_by_field(judged: Callable[[Case], Any]) -> None:
    verdict, document = judged(Case())
    assert verdict.log_id == MANIFEST.log_id
    assert verdict.key == SIGNING.address
    assert verdict.measurement == document.measurement
    assert verdict.parameters_digest == PARAMETERS.digest()
    assert verdict.manifest_digest == MANIFEST.digest()
    assert verdict.payload_digest == document.payload_digest
    assert (verdict.block_number, verdict.block_hash) == (BLOCK.number, BLOCK.hash)
    assert verdict.document_ms == NOW_MS
    assert verdict.expires_ms == NOW_MS + VERDICT_LIFE_MS


def test_verifiers_sign_the_same_verdict_whenever_they_look(
    judged: Callable[[Case], Any],
) -> None:
    early, document = judged(Case(now_ms=NOW_MS - MINUTE_MS))
    late, _ = judged(Case(now_ms=NOW_MS + VERDICT_LIFE_MS - 1))
    assert msgspec.structs.replace(late, payload_digest=document.payload_digest) == early


@pytest.mark.parametrize(
    ("case", "error"),
    [
        pytest.param(Case(document={"pcrs": ZERO_PCRS}), DebugEnclave, id="debug"),
        pytest.param(Case(document={"public_key": b"\x02" * 33}), BindingMismatch, id="key"),
        pytest.param(Case(document={"user_data": b"\x02" * 32}), BindingMismatch, id="manifest"),
        pytest.param(Case(document={"user_data": None}), BindingMismatch, id="no-manifest"),
        pytest.param(Case(document={"nonce": b"\x02" * 32}), BindingMismatch, id="nonce"),
        pytest.param(
            Case(parameters=local_development_parameters("http://127.0.0.1:1")),
            BindingMismatch,
            id="parameters",
        ),
        pytest.param(
            Case(block=SeenBlock(block=Block(number=1_000, hash=b"\xb2" * 32), time_ms=BLOCK_MS)),
            BindingMismatch,
            id="block-of-another-chain",
        ),
        pytest.param(
            Case(block=SeenBlock(block=Block(number=1_001, hash=BLOCK.hash), time_ms=BLOCK_MS)),
            BindingMismatch,
            id="block-number",
        ),
        pytest.param(Case(trust={"code": frozenset()}), UntrustedCode, id="unknown-code"),
        pytest.param(
            Case(trust={"code": frozenset({(b"\x01" * 32, PARAMETERS.digest())})}),
            UntrustedCode,
            id="other-measurement",
        ),
        pytest.param(Case(now_ms=NOW_MS + VERDICT_LIFE_MS), StaleDocument, id="expired"),
        pytest.param(Case(now_ms=NOW_MS + 181 * MINUTE_MS), StaleDocument, id="old"),
        pytest.param(Case(now_ms=NOW_MS - 121_000), StaleDocument, id="future"),
        pytest.param(
            Case(block=SeenBlock(block=BLOCK, time_ms=NOW_MS + 120_001)),
            StaleDocument,
            id="before-its-block",
        ),
    ],
)
def test_what_does_not_fit_is_not_signed(
    judged: Callable[[Case], Any], case: Case, error: type[AttestationRefused]
) -> None:
    with pytest.raises(error):
        judged(case)


@pytest.mark.parametrize(
    "name",
    [
        "settlement",
        "receipt_log",
        "enclave_registry",
        "node_registry",
        "model_registry",
    ],
)
def test_a_boot_for_another_deployment_is_not_signed(
    judged: Callable[[Case], Any], name: str
) -> None:
    with pytest.raises(BindingMismatch, match=name):
        judged(Case(trust={name: address(9)}))
    with pytest.raises(BindingMismatch, match="chain_id"):
        judged(Case(trust={"chain_id": 2}))


def test_the_trusted_measurement_goes_with_its_parameters_only(
    judged: Callable[[Case], Any],
) -> None:
    _, document = judged(Case())
    other = frozenset({(document.measurement, b"\x01" * 32)})
    with pytest.raises(UntrustedCode, match="build the image from source"):
        judged(Case(trust={"code": other}))


def test_only_the_pinned_root_counts() -> None:
    raw, _ = forged(
        public_key=MANIFEST.signing_key, user_data=MANIFEST.digest(), nonce=MANIFEST.block.hash
    )
    with pytest.raises(UntrustedChain):
        judge_now(raw, Case())


@pytest.mark.parametrize("name", REAL)
def test_real_documents_about_something_else_are_refused(name: str) -> None:
    raw = vector(name)
    made_ms = parse(raw).timestamp_ms
    with pytest.raises(BindingMismatch):
        judge_now(raw, Case(now_ms=made_ms + MINUTE_MS))
    with pytest.raises(StaleDocument):
        judge_now(raw, Case(now_ms=made_ms + 181 * MINUTE_MS))
    with pytest.raises((BindingMismatch, MalformedDocument, UntrustedChain, AttestationRefused)):
        judge_now(repacked(raw, nonce=BLOCK.hash), Case(now_ms=made_ms))


@pytest.mark.parametrize("name", DEBUG)
def test_real_debug_documents_are_refused(name: str) -> None:
    raw = vector(name)
    with pytest.raises(DebugEnclave):
        judge_now(raw, Case(now_ms=parse(raw).timestamp_ms))


def judge_now(raw: bytes, case: Case) -> None:
    judge(
        raw,
        case.manifest,
        case.parameters,
        trust=trusting(parse(raw).measurement),
        block=replace(case.block),
        now_ms=case.now_ms,
    )
