"""Debug mode, binding and the two time modes."""

from dataclasses import replace
from typing import Any

import pytest

from pinaivu.attestation import (
    Archival,
    AttestationRefused,
    BadDocumentSignature,
    Binding,
    BindingMismatch,
    DebugEnclave,
    Document,
    Live,
    StaleDocument,
    TimeMode,
    UntrustedChain,
    parse,
)
from pinaivu.attestation._core import require_attested
from pinaivu.attestation.policy import judged_at_ms, require_binding, require_production_mode
from tests.unit.forged_attestations import NOW_MS, binding_within, forged

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
BINDING = Binding(public_key=b"k" * 33, user_data=b"u" * 32, nonce=b"n" * 32)


@pytest.fixture(scope="module")
def made() -> tuple[Document, bytes]:
    raw, root_sha256 = forged()
    return parse(raw), root_sha256


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_zero_or_missing_measured_register_is_debug_mode(
    made: tuple[Document, bytes], index: int
) -> None:
    document, _ = made
    zeroed = {**document.pcrs, index: bytes(48)}
    with pytest.raises(DebugEnclave):
        require_production_mode(replace(document, pcrs=zeroed))
    del zeroed[index]
    with pytest.raises(DebugEnclave):
        require_production_mode(replace(document, pcrs=zeroed))


def test_zero_registers_beyond_the_measured_ones_are_no_debug_mode(
    made: tuple[Document, bytes],
) -> None:
    require_production_mode(made[0])
    assert not any(made[0].pcrs[3])


@pytest.mark.parametrize(
    "binding",
    [
        replace(BINDING, public_key=b"K" * 33),
        replace(BINDING, user_data=b"u" * 31),
        replace(BINDING, nonce=b""),
        replace(BINDING, nonce=None),
    ],
)
def test_a_binding_is_exact_in_every_field(made: tuple[Document, bytes], binding: Binding) -> None:
    require_binding(made[0], BINDING)
    with pytest.raises(BindingMismatch):
        require_binding(made[0], binding)


def test_an_absent_field_satisfies_none_only(made: tuple[Document, bytes]) -> None:
    document = replace(made[0], user_data=None)
    require_binding(document, replace(BINDING, user_data=None))
    with pytest.raises(BindingMismatch):
        require_binding(document, replace(BINDING, user_data=b""))


@pytest.mark.parametrize("age_ms", [-5 * MINUTE_MS, 0, 5 * MINUTE_MS])
def test_live_judges_at_the_verifiers_clock(made: tuple[Document, bytes], age_ms: int) -> None:
    assert judged_at_ms(made[0], Live(now_ms=NOW_MS + age_ms)) == NOW_MS + age_ms


@pytest.mark.parametrize("delay_ms", [-2 * MINUTE_MS, 0, 3 * HOUR_MS])
def test_archival_judges_at_the_documents_time(made: tuple[Document, bytes], delay_ms: int) -> None:
    assert judged_at_ms(made[0], Archival(anchored_ms=NOW_MS + delay_ms)) == NOW_MS
    assert judged_at_ms(made[0], Archival(anchored_ms=None)) == NOW_MS


@pytest.mark.parametrize(
    "mode",
    [
        Live(now_ms=NOW_MS + 5 * MINUTE_MS + 1),
        Live(now_ms=NOW_MS - 5 * MINUTE_MS - 1),
        Archival(anchored_ms=NOW_MS - 2 * MINUTE_MS - 1),
        Archival(anchored_ms=NOW_MS + 3 * HOUR_MS + 1),
        Archival(anchored_ms=0),
    ],
)
def test_times_outside_the_bounds_are_refused(made: tuple[Document, bytes], mode: TimeMode) -> None:
    with pytest.raises(StaleDocument):
        judged_at_ms(made[0], mode)


def test_live_without_a_challenge_is_the_callers_mistake(made: tuple[Document, bytes]) -> None:
    document, root_sha256 = made
    unchallenged = replace(document, nonce=None)
    with pytest.raises(ValueError, match="challenge"):
        require_attested(
            unchallenged,
            root_sha256=root_sha256,
            time=Live(now_ms=NOW_MS),
            binding=binding_within(unchallenged),
        )


@pytest.mark.parametrize("time", [Live(now_ms=NOW_MS), Archival(anchored_ms=None)])
def test_both_modes_accept_a_good_document(made: tuple[Document, bytes], time: TimeMode) -> None:
    document, root_sha256 = made
    require_attested(document, root_sha256=root_sha256, time=time, binding=BINDING)


PARTS: tuple[tuple[type[AttestationRefused], dict[str, Any]], ...] = (
    (DebugEnclave, {"document": {"pcrs": {}}}),
    (UntrustedChain, {"root_sha256": bytes(32)}),
    (StaleDocument, {"time": Archival(anchored_ms=0)}),
    (BadDocumentSignature, {"document": {"signature": bytes(96)}}),
    (BindingMismatch, {"binding": replace(BINDING, nonce=b"")}),
)


@pytest.mark.parametrize(("refusal", "change"), PARTS, ids=[r.__name__ for r, _ in PARTS])
def test_each_part_failing_alone_fails_the_whole(
    made: tuple[Document, bytes], refusal: type[AttestationRefused], change: dict[str, Any]
) -> None:
    document = replace(made[0], **change.get("document", {}))
    arguments = {"root_sha256": made[1], "time": Archival(anchored_ms=None), "binding": BINDING}
    keywords = {name: value for name, value in change.items() if name != "document"}
    with pytest.raises(refusal):
        require_attested(document, **{**arguments, **keywords})
