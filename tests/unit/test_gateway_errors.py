"""The table of errors and the code agree, and each answer says whose turn it is."""

import ast
from pathlib import Path

import pytest

import gateway
from gateway.catalogue import BROKEN, CATALOGUE, TYPES
from gateway.errors import ApiError, MarketRefused, from_attempt, from_refusal
from gateway.quotas import _WHAT
from pinaivu.codes import Reason
from pinaivu.p2p import wire

SOURCES = sorted(Path(gateway.__path__[0]).rglob("*.py"))


def raised() -> list[tuple[str, int, str]]:
    """Where, status and code of every `ApiError` that names them itself."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "ApiError":
                continue
            values = [arg.value if isinstance(arg, ast.Constant) else None for arg in node.args[:2]]
            if isinstance(values[0], int) and isinstance(values[1], str):
                found.append((f"{path.name}:{node.lineno}", values[0], values[1]))
    return found


def test_every_error_of_the_code_stands_in_the_table() -> None:
    """With its status; a new one needs a row in gateway/catalogue.py, and the page with it."""
    calls = raised()
    assert len(calls) > 10
    wrong = [
        call for call in calls if call[2] not in CATALOGUE or CATALOGUE[call[2]].status != call[1]
    ]
    assert wrong == []


def test_every_limit_of_a_key_stands_in_the_table() -> None:
    assert all(CATALOGUE[code].status == 429 for code, _, _ in _WHAT.values())


def test_every_status_has_a_type_and_every_row_something_to_do() -> None:
    assert {entry.status for entry in CATALOGUE.values()} - TYPES.keys() == {500}
    assert all(entry.when and entry.do for entry in CATALOGUE.values())
    assert all(e.retry for code, e in CATALOGUE.items() if e.status in (429, 503))


def test_the_issue_s_statuses_are_all_there() -> None:
    demanded = {400, 401, 402, 403, 404, 409, 413, 422, 429, 499, 502, 503}
    assert demanded <= {entry.status for entry in CATALOGUE.values()}


@pytest.mark.parametrize(
    ("code", "status", "retry"),
    [
        ("insufficient_balance", 402, None),
        ("grant_exhausted", 402, None),
        ("account_exhausted", 402, None),
        ("grant_exhausted_today", 429, "7"),
        ("grant_revoked", 403, None),
        ("unknown_model", 404, None),
        ("debit_limit", 503, "7"),
        ("no_nodes_available", 503, "7"),
    ],
)
def test_a_refusal_of_the_market_keeps_its_code(code: str, status: int, retry: str | None) -> None:
    refused = MarketRefused(wire.Refused(code, "Because", retry_after_ms=6_500))
    error = from_refusal(refused)
    assert (error.status, error.code, error.headers().get("retry-after")) == (status, code, retry)
    assert error.message == f"Because; {CATALOGUE[code].do}."


def test_a_refusal_nobody_foresaw_has_a_code_all_the_same() -> None:
    """A coordinator can't put words into the gateway's mouth: not even those of its own errors."""
    for code in ("bad_signature", "invalid_api_key", "<script>"):
        error = from_refusal(MarketRefused(wire.Refused(code, "Because")))
        assert (error.status, error.code) == (503, "market_refused")


def test_what_no_node_offers_is_named() -> None:
    refused = MarketRefused(wire.Refused("no_nodes_available", "none", 1))
    error = from_refusal(refused, "tools")
    assert error.param == "tools"
    assert "tools" in error.message
    cheapest = MarketRefused(wire.Refused("no_nodes_within_limits", "the cheapest is 9", 2))
    error = from_refusal(cheapest, "pinaivu.max_price_out")
    assert error.param == "pinaivu.max_price_out"
    assert "the cheapest is 9" in error.message


def test_how_attempts_ended_decides_the_status() -> None:
    """Gone, broken off behind a part, refused by every engine, or just nobody there."""
    found = [
        from_attempt(Reason.CLIENT_GONE, "gone", cut=True),
        from_attempt(Reason.STREAM_BROKEN, "x", cut=True),
        from_attempt(Reason.REFUSED, "x", cut=False, engine_status=400),
        from_attempt(Reason.SILENT, "x", cut=False),
    ]
    assert [(error.status, error.code) for error in found] == [
        (499, "client_closed_request"),
        (502, "stream_broken"),
        (422, "request_refused"),
        (503, "no_node_left"),
    ]


def test_every_way_a_node_can_fail_has_a_word() -> None:
    reasons = range(Reason.REFUSED, Reason.PASSED_OVER)
    assert {Reason(reason).name.lower() for reason in reasons} == BROKEN.keys()


def test_an_error_says_its_type() -> None:
    assert ApiError(402, "grant_exhausted", "x").body()["error"]["type"] == TYPES[402]  # type: ignore[index]
