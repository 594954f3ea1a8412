"""Random bundles, randomly changed: nothing that differs from what was signed is ever proven."""

import copy
import json
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pinaivu import bundles
from pinaivu.bundles import pack
from pinaivu.codes import Mode
from pinaivu.encoding import jcs, parse_json
from pinaivu.errors import InvalidEncoding
from pinaivu.testing.bundles import BundleFactory, Json, Made
from pinaivu.testing.scenarios import SCENARIOS, Scenario, Turn
from pinaivu.verify import INCOMPLETE, PROVEN, REFUTED, Verifier, development
from tests.unit.verify_support import RICH, attest

pytestmark = pytest.mark.filterwarnings(
    "ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"
)

_FAILING = (Turn.REFUSED, Turn.BROKEN, Turn.BROKEN_SIGNED, Turn.PASSED_OVER)
_LAST = (Turn.SERVED, Turn.CLIENT_GONE, Turn.UNREPORTED, Turn.DISPUTED, Turn.UNSIGNED)
_MADE = (*SCENARIOS.values(), RICH)


def patient(examples: int) -> settings:
    """Settings for examples that are whole networks."""
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Any line of turns that an auction of enough nodes can have."""
    before = draw(st.lists(st.sampled_from(_FAILING), max_size=2))
    if Turn.BROKEN in before or Turn.BROKEN_SIGNED in before:
        # a second break would begin where the first one ended, and end before it
        last = draw(st.sampled_from([turn for turn in _LAST if turn != Turn.CLIENT_GONE]))
        before = before[: 1 + next(i for i, t in enumerate(before) if "BROKEN" in t.name)]
    else:
        last = draw(st.sampled_from(_LAST))
    return Scenario(
        turns=(*before, last),
        mode=draw(st.sampled_from(Mode)),
        nodes=draw(st.integers(len(before) + 1, 5)),
        silent=draw(st.integers(0, 1)),
        with_account=draw(st.booleans()),
        output_tokens=draw(st.integers(60, 110)),
    )


@cache
def made(scenario: Scenario) -> tuple[BundleFactory, Made, Verifier]:
    factory = BundleFactory(attest=attest)
    bundle = factory.make(scenario)
    return factory, bundle, Verifier(development(factory.domain), factory.chain)


@patient(60)
@given(scenario=scenarios())
def test_any_correct_bundle_is_proven(scenario: Scenario) -> None:
    """But for a text that broke and was never reported: its first part has no commitment."""
    _, bundle, verifier = made(scenario)
    report = verifier.verify(bundle.raw, bundle.copies)
    broke = any(turn in (Turn.BROKEN, Turn.BROKEN_SIGNED) for turn in scenario.turns)
    if broke and scenario.turns[-1] == Turn.UNREPORTED:
        assert [step.id for step in report.unmet] == ["V5"], report.to_text()
    else:
        assert report.exit_code == PROVEN, report.to_text()


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all numbers and texts in a document."""
    if isinstance(value, dict):
        return [p for key in value for p in leaves(value[key], (*path, key))]
    if isinstance(value, list):
        return [p for number, item in enumerate(value) for p in leaves(item, (*path, number))]
    return [path]


def put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


@st.composite
def other_values(draw: st.DrawFn, old: Any) -> Any:
    """Something else in a field's place: near it, of its form, or of none."""
    if isinstance(old, int):
        return draw(st.integers(0, 2**40) | st.booleans() | st.just(str(old)))
    position = draw(st.integers(0, max(0, len(old) - 1)))
    letter = draw(st.sampled_from("0123456789abcdefABx\n \u2014"))
    near = old[:position] + letter + old[position + 1 :]
    return draw(st.sampled_from([near, near, near, old + letter, old[:-1], old.upper(), 7, None]))


@patient(300)
@given(scenario=st.sampled_from(_MADE), data=st.data())
def test_a_changed_field_is_never_proven(scenario: Scenario, data: st.DataObject) -> None:
    _, bundle, verifier = made(scenario)
    document: Json = copy.deepcopy(bundle.document)
    path = data.draw(st.sampled_from(leaves(document)), label="path")
    old = at(document, path)
    new = data.draw(other_values(old), label="new")
    assume(new != old or type(new) is not type(old))
    put(document, path, new)
    try:
        raw = pack(document)
    except InvalidEncoding:
        return
    report = verifier.verify(raw, bundle.copies)
    assert report.exit_code in (REFUTED, INCOMPLETE), report.to_text()


@patient(100)
@given(scenario=st.sampled_from(_MADE), data=st.data())
def test_a_member_taken_out_of_an_object_is_never_proven(
    scenario: Scenario, data: st.DataObject
) -> None:
    _, bundle, verifier = made(scenario)
    document: Json = copy.deepcopy(bundle.document)
    path = data.draw(st.sampled_from(leaves(document)), label="path")
    cut = data.draw(st.integers(1, len(path)), label="depth")
    holder = at(document, path[: cut - 1])
    failure = (
        isinstance(holder, list)
        and path[0] == "failures"
        and holder[-1] is at(document, path[:cut])
    )
    assume(not (failure and scenario.turns[-1] in _FAILING))
    del holder[path[cut - 1]]
    try:
        raw = pack(document)
    except InvalidEncoding:
        return
    assert verifier.verify(raw, bundle.copies).exit_code != PROVEN


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(document=st.dictionaries(st.text(), json_values, max_size=4))
def test_the_fast_look_at_a_text_agrees_with_jcs(document: dict[str, Any]) -> None:
    """Whichever encoder wrote it, a text is canonical if and only if JCS writes the same."""
    try:
        canonical = jcs(document)
    except InvalidEncoding:
        return
    as_is = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    for text in (canonical, msgspec.json.encode(document, order="sorted"), as_is):
        try:
            value = parse_json(text)
        except InvalidEncoding:
            continue
        assert isinstance(value, dict)
        assert bundles._canonical(value, text) == (jcs(value) == text)
