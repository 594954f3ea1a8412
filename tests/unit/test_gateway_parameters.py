"""What a body may hold: served, or refused by name; nothing in between."""

from typing import Any

import pytest

from gateway.errors import ApiError
from gateway.parameters import LABELS, REFUSED, SERVED, check_parameters, needed_by
from pinaivu.codes import Feature, JobKind


def refusal(kind: JobKind, **body: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        check_parameters(kind, body)
    return caught.value


@pytest.mark.parametrize("kind", JobKind)
def test_whatever_is_served_passes(kind: JobKind) -> None:
    body: dict[str, Any] = dict.fromkeys(SERVED[kind] | LABELS | {"model", "pinaivu"}, "x")
    if "stream_options" in body:
        body["stream_options"] = {"include_usage": True}
    check_parameters(kind, body)
    assert SERVED[kind].isdisjoint(REFUSED)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_can_not_be_served_is_refused_with_the_reason(name: str) -> None:
    error = refusal(JobKind.CHAT, **{name: {"a": 1}})
    assert (error.status, error.code, error.param) == (400, "unsupported_parameter", name)
    assert REFUSED[name] in error.message


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (JobKind.CHAT, "temprature"),
        (JobKind.CHAT, "prompt"),
        (JobKind.COMPLETION, "messages"),
        (JobKind.COMPLETION, "tools"),
        (JobKind.EMBEDDING, "temperature"),
    ],
)
def test_a_misspelt_or_misplaced_member_is_not_dropped(kind: JobKind, name: str) -> None:
    error = refusal(kind, **{name: 1})
    assert (error.status, error.code, error.param) == (400, "unknown_parameter", name)


@pytest.mark.parametrize(
    "body",
    [
        {"temprature": None},
        {"store": False, "service_tier": "auto", "echo": False},
        {"stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"stream_options": None},
    ],
)
def test_what_asks_for_nothing_passes(body: dict[str, Any]) -> None:
    """SDKs fill in nulls and defaults."""
    check_parameters(JobKind.CHAT, body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"store": True}, "store"),
        ({"service_tier": "priority"}, "service_tier"),
        (
            {"stream_options": {"continuous_usage_stats": True}},
            "stream_options.continuous_usage_stats",
        ),
    ],
)
def test_what_would_be_dropped_is_refused(body: dict[str, Any], param: str) -> None:
    assert refusal(JobKind.CHAT, **body).param == param


@pytest.mark.parametrize(
    ("missing", "body", "param"),
    [
        (Feature.TOOLS | Feature.LOGPROBS, {"tools": [1]}, "tools"),
        (Feature.TOOLS, {"messages": [1]}, "messages"),
        (Feature.STRUCTURED, {"structured_outputs": {}}, "structured_outputs"),
        (Feature.REASONING, {"chat_template_kwargs": {}}, "chat_template_kwargs"),
        (Feature.KIND_EMBEDDING, {"input": "x"}, "input"),
        (Feature.CHOICES, {"prompt": ["a", "b"]}, "prompt"),
    ],
)
def test_a_missing_feature_is_named_by_what_asks_for_it(
    missing: Feature, body: dict[str, Any], param: str
) -> None:
    assert needed_by(missing, body) == param
