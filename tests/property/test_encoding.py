"""JCS and strict JSON under random documents."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from pinaivu.encoding import MAX_SAFE_INTEGER, InvalidParameter, jcs, parse_json

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False).filter(
        lambda x: not MAX_SAFE_INTEGER < abs(x) < 1e21
    )
    | st.text(st.characters(exclude_categories=["Cs"]))
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=15,
)


@given(DOCUMENTS)
def test_an_accepted_document_equals_its_canonical_form(document: object) -> None:
    raw = json.dumps(document).encode()
    canonical = jcs(document)
    assert parse_json(raw) == parse_json(canonical) == document
    assert jcs(parse_json(raw)) == jcs(parse_json(canonical)) == canonical


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_canonical_number_is_the_shortest_that_reads_back(value: float) -> None:
    """ECMAScript's form: no more digits than `repr`, an exponent only below 1e-6 or from 1e21."""
    text = jcs(value).decode()
    assert float(text) == value
    digits = [c for c in text.partition("e")[0] if c.isdigit()]
    shortest = [c for c in repr(value).partition("e")[0] if c.isdigit()]
    assert "".join(digits).strip("0") == "".join(shortest).strip("0")
    assert ("e" in text) == (value != 0 and not 1e-6 <= math.fabs(value) < 1e21)


@given(st.binary(max_size=60) | st.text('{}[]",:019eE.- \\udntrfals').map(str.encode))
def test_random_bytes_are_read_or_refused(raw: bytes) -> None:
    """Whatever arrives, the outcome is a value with a canonical form, or an error of ours."""
    try:
        value = parse_json(raw)
    except InvalidParameter:
        return
    assert jcs(parse_json(jcs(value))) == jcs(value)
