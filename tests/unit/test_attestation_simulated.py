"""Simulated documents: good enough to run a network on, and never mistaken for AWS's."""

from dataclasses import replace

import cbor2
import pytest

from enclave.nsm import NsmFailure
from enclave.simulator.nsm import SIMULATED_MODULE_ID, SimulatedNsm
from pinaivu.attestation import (
    Archival,
    AwsAttestation,
    BadDocumentSignature,
    Binding,
    BindingMismatch,
    DebugEnclave,
    Live,
    StaleDocument,
    UntrustedChain,
    parse,
    verify,
)
from pinaivu.attestation.simulated import (
    SIMULATED_MEASUREMENT,
    SIMULATED_PCRS,
    SimulatedAttestation,
    SimulatedDocumentWarning,
    verify_simulated,
)
from tests.unit.forged_attestations import (
    NOW_MS,
    anchored,
    binding_within,
    forged,
    repacked,
    vector,
)

BINDING = Binding(public_key=b"k" * 33, user_data=b"u" * 32, nonce=b"n" * 32)
ARCHIVAL = Archival(anchored_ms=NOW_MS + 1_000)

pytestmark = pytest.mark.filterwarnings(
    "ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"
)


def simulator() -> SimulatedNsm:
    return SimulatedNsm(now_ms=lambda: NOW_MS, random=bytes)


def document_of(nsm: SimulatedNsm) -> bytes:
    return nsm.attest(
        public_key=BINDING.public_key, user_data=BINDING.user_data, nonce=BINDING.nonce
    )


@pytest.fixture(scope="module")
def raw() -> bytes:
    return document_of(simulator())


@pytest.mark.parametrize("time", [ARCHIVAL, Live(now_ms=NOW_MS)])
def test_a_simulated_document_gives_a_simulated_attestation(
    raw: bytes, time: Archival | Live
) -> None:
    attestation = verify_simulated(raw, time=time, binding=BINDING)
    assert attestation.measurement == SIMULATED_MEASUREMENT
    assert attestation.payload_digest == parse(raw).payload_digest


def test_checking_one_warns(raw: bytes) -> None:
    with pytest.warns(SimulatedDocumentWarning):
        verify_simulated(raw, time=ARCHIVAL, binding=BINDING)


def test_production_refuses_it_by_name(raw: bytes) -> None:
    with pytest.raises(UntrustedChain, match="SIMULATED"):
        verify(raw, time=ARCHIVAL, binding=BINDING)


def test_production_refuses_it_by_the_pin_when_it_hides_its_name() -> None:
    raw, _ = forged()
    with pytest.raises(UntrustedChain, match="the trusted root is"):
        verify(raw, time=ARCHIVAL, binding=BINDING)


@pytest.mark.parametrize("hidden", [False, True])
def test_production_refuses_it_with_root_g1_spliced_in(raw: bytes, *, hidden: bool) -> None:
    """By its name; and where it hides that, because G1 didn't issue what follows."""
    root_g1 = parse(vector("fastcrypto-2.hex")).cabundle[0]
    honest = parse(forged()[0] if hidden else raw)
    spliced = [root_g1, *honest.cabundle[1:]]
    document = forged(cabundle=spliced)[0] if hidden else repacked(raw, cabundle=spliced)
    with pytest.raises(UntrustedChain, match="is not issued by" if hidden else "SIMULATED"):
        verify(document, time=ARCHIVAL, binding=BINDING)


def test_the_simulated_check_refuses_aws_documents() -> None:
    raw = vector("fastcrypto-2.hex")
    document = parse(raw)
    with pytest.raises(UntrustedChain, match="does not call itself SIMULATED"):
        verify_simulated(raw, time=anchored(document), binding=binding_within(document))


def test_the_simulated_check_refuses_chains_without_the_mark() -> None:
    with pytest.raises(UntrustedChain, match="does not call itself SIMULATED"):
        verify_simulated(forged()[0], time=ARCHIVAL, binding=BINDING)


def test_a_simulated_document_cannot_claim_another_measurement(raw: bytes) -> None:
    pcrs = {**parse(raw).pcrs, 0: b"\1" * 48}
    with pytest.raises(UntrustedChain, match="not the simulator's"):
        verify_simulated(repacked(raw, pcrs=pcrs), time=ARCHIVAL, binding=BINDING)


def test_everything_but_the_root_is_checked(raw: bytes) -> None:
    for refusal, document, time, binding in (
        (BindingMismatch, raw, ARCHIVAL, replace(BINDING, nonce=b"")),
        (StaleDocument, raw, Archival(anchored_ms=0), BINDING),
        (BadDocumentSignature, repacked(raw, nonce=b""), ARCHIVAL, BINDING),
        (UntrustedChain, repacked(raw, timestamp=1), Archival(anchored_ms=None), BINDING),
    ):
        with pytest.raises(refusal):
            verify_simulated(document, time=time, binding=binding)


def test_two_runs_share_the_measurement_and_no_certificate(raw: bytes) -> None:
    first, second = parse(raw), parse(document_of(simulator()))
    assert first.measurement == second.measurement == SIMULATED_MEASUREMENT
    assert not {*first.cabundle, first.certificate} & {*second.cabundle, second.certificate}


def test_one_run_keeps_its_root() -> None:
    nsm = simulator()
    assert parse(document_of(nsm)).cabundle[0] == parse(document_of(nsm)).cabundle[0]


def test_the_simulated_registers_are_fixed() -> None:
    """Local networks register this measurement beforehand; changing it breaks their state."""
    assert SIMULATED_PCRS[0].hex().startswith("e6c7117ffdc63fc0")
    assert (
        SIMULATED_MEASUREMENT.hex()
        == "eb8200f01814aef002588fd7d3afed4053a6a9f4efca75c991197f809c67da54"
    )


def test_the_simulator_keeps_the_modules_limits() -> None:
    nsm = simulator()
    for field, length in (("public_key", 1025), ("user_data", 513), ("nonce", 513)):
        with pytest.raises(NsmFailure, match=field):
            nsm.attest(
                **{**dict.fromkeys(("public_key", "user_data", "nonce")), field: bytes(length)}
            )


def test_the_simulators_description_fits_its_documents(raw: bytes) -> None:
    nsm, document = simulator(), parse(raw)
    assert nsm.describe().module_id == document.module_id == SIMULATED_MODULE_ID
    assert nsm.describe().locked_pcrs == document.pcrs.keys()
    assert nsm.pcrs() == document.pcrs


def test_a_simulated_document_has_the_form_of_a_real_one(raw: bytes) -> None:
    real, simulated = cbor2.loads(vector("base-nitro-validator-repaired.bin")), cbor2.loads(raw)
    assert simulated[:2] == real[:2]
    payload, model = cbor2.loads(simulated[2]), cbor2.loads(real[2])
    assert list(payload) == list(model)
    assert len(payload["cabundle"]) == len(model["cabundle"])
    assert payload["pcrs"].keys() == model["pcrs"].keys()


def test_the_two_results_share_no_base_and_are_made_by_their_checks_only(raw: bytes) -> None:
    assert AwsAttestation.__mro__[1:] == SimulatedAttestation.__mro__[1:] == (object,)
    document = parse(raw)
    with pytest.raises(TypeError):
        AwsAttestation(document=document, anchored_ms=None, seal=object())
    with pytest.raises(TypeError):
        SimulatedAttestation(document=document, seal=None)
    attestation = verify_simulated(raw, time=ARCHIVAL, binding=BINDING)
    with pytest.raises(TypeError):
        replace(attestation, document=document, seal=object())


def test_simulated_debug_documents_are_refused_too(raw: bytes) -> None:
    zeroed = dict.fromkeys(range(16), bytes(48))
    with pytest.raises((DebugEnclave, UntrustedChain)):
        verify_simulated(repacked(raw, pcrs=zeroed), time=ARCHIVAL, binding=BINDING)
