"""A key's limits over HTTP: rates and their headers, scopes, models, terms of key and headers."""

import re
from pathlib import Path

import msgspec
import openai
import pytest

from gateway.http.rates import rate_headers
from pinaivu.p2p import wire
from pinaivu.store.gateway_meters import DAY_MS, MINUTE_MS, Meter, month_of
from pinaivu.store.gateway_policy import Policy
from pinaivu.terms import Terms
from tests.integration.gateway_support import in_thread, network, now_ms, request
from tests.integration.scripted_node import Work, speaks
from tests.integration.test_gateway_http import call, code_of
from tests.unit.gateway_facts import NOW

PATH = "/v1/chat/completions"
NODE = "0x" + "ab" * 20


async def test_every_answer_says_what_is_left(tmp_path: Path) -> None:
    """Of a completion, a stream, an error, a list; a third request gets 429 and says it too."""
    limits = {"requests_per_minute": 10_000, "tokens_per_minute": 400}
    async with network(tmp_path, speaks("Hi."), key=limits) as net:
        fresh = await call(net, "GET", "/v1/models")
        assert fresh.headers["x-ratelimit-remaining-requests"] == "10000"
        first = await call(net, "POST", PATH, json=request(max_tokens=200))
        assert first.status_code == 200
        assert first.headers["x-ratelimit-limit-requests"] == "10000"
        assert first.headers["x-ratelimit-limit-tokens"] == "400"
        left = int(first.headers["x-ratelimit-remaining-tokens"])
        assert 300 < left < 400  # what was reserved and not used is given back before the end
        assert re.fullmatch(r"\d+m?s|1m0s", first.headers["x-ratelimit-reset-tokens"])
        stream = await call(net, "POST", PATH, json=request(max_tokens=100, stream=True))
        assert int(stream.headers["x-ratelimit-remaining-tokens"]) < left - 100
        refused = await call(net, "POST", PATH, json=request(max_tokens=390))
        assert code_of(refused) == (429, "rate_limit_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "x-ratelimit-remaining-tokens" in refused.headers
        wrong = await call(net, "POST", PATH, content=b"{")
        assert wrong.status_code == 400
        assert "x-ratelimit-remaining-requests" in wrong.headers
        stranger = await call(net, "GET", "/v1/models", secret="sk-pnv-x")
        assert not [name for name in stranger.headers if name.startswith("x-ratelimit")]


def test_headers_tell_of_the_limit_with_least_left() -> None:
    meter = Meter(
        minute=NOW // MINUTE_MS,
        minute_requests=3,
        minute_tokens=50,
        day=NOW // DAY_MS,
        day_tokens=90,
        day_units=0,
        month=month_of(NOW),
        month_tokens=700,
        month_units=0,
        streams=0,
    )
    policy = Policy(tokens_per_minute=60, daily_tokens=95, monthly_tokens=1000)
    found = rate_headers(policy, meter, NOW)
    assert found["x-ratelimit-limit-tokens"] == "95"
    assert found["x-ratelimit-remaining-tokens"] == "5"
    assert found["x-ratelimit-reset-tokens"] == "9h46m40s"
    assert "x-ratelimit-limit-requests" not in found
    later = rate_headers(Policy(requests_per_minute=4), meter, NOW + MINUTE_MS)
    assert later["x-ratelimit-remaining-requests"] == "4"
    full = rate_headers(Policy(requests_per_minute=2), meter, NOW)
    assert full["x-ratelimit-remaining-requests"] == "0"
    assert full["x-ratelimit-reset-requests"] == "40s"
    assert rate_headers(Policy(), meter, NOW) == {}


async def test_requests_of_a_minute_are_counted(tmp_path: Path) -> None:
    async with network(tmp_path, speaks("Hi."), key={"requests_per_minute": 1}) as net:
        first = now_ms() // MINUTE_MS
        answers = [await call(net, "POST", PATH, json=request()) for _ in range(4)]
        minutes = now_ms() // MINUTE_MS - first + 1
        refused = [answer for answer in answers if answer.status_code == 429]
        assert 1 <= len(answers) - len(refused) <= minutes
        assert {code_of(answer) for answer in refused} <= {(429, "rate_limit_exceeded")}


async def test_node_that_floods_uses_up_nobodys_day(tmp_path: Path) -> None:
    """What goes beyond the award counts for nothing: the next request is served."""
    flood = msgspec.json.encode({"choices": [{"index": 0, "delta": {"content": "ab " * 30_000}}]})

    async def floods_once(work: Work) -> None:
        if len(net.nodes[0].works) > 1:
            await speaks("Hi.")(work)
            return
        work.stream.send(wire.encode(wire.Chunk([flood])))
        await work.stream.wait_over()

    async with network(tmp_path, floods_once, key={"daily_tokens": 20_000}) as net:
        broken = await call(net, "POST", PATH, json=request(max_tokens=10))
        assert code_of(broken) == (502, "protocol_violation")
        assert (await net.receipt()).total == 0
        assert (await call(net, "POST", PATH, json=request(max_tokens=10))).status_code == 200


async def test_key_without_a_scope_is_refused_by_name(tmp_path: Path) -> None:
    async with network(tmp_path, speaks("Hi."), key={"scopes": ("usage",)}) as net:
        for method, path in (("POST", PATH), ("GET", "/v1/receipts/x")):
            response = await call(net, method, path)
            assert code_of(response) == (403, "scope_missing")
            assert "usage" in response.json()["error"]["message"]
        assert (await call(net, "GET", "/v1/usage")).status_code == 200
        with pytest.raises(openai.PermissionDeniedError):
            await net.complete()


async def test_key_for_another_model_is_refused_by_parameter(tmp_path: Path) -> None:
    async with network(tmp_path, speaks("Hi."), key={"models": ("other",)}) as net:
        response = await call(net, "POST", PATH, json=request())
        assert code_of(response) == (403, "model_not_allowed")
        assert response.json()["error"]["param"] == "model"


async def test_terms_come_from_key_headers_and_body(tmp_path: Path) -> None:
    """Of ceilings the least, of lists what all allow, else what is nearest to the request."""
    key = Terms(max_cost_units=900, max_price_out=500_000, value_of_time=7, auction="standing")
    headers = {
        "x-pinaivu-max-cost-units": "800",
        "x-pinaivu-value-of-time": "8",
        "x-pinaivu-deny": NODE,
    }
    body = {"max_cost_units": 10_000, "max_price_out": 900_000, "auction": "live"}
    async with network(tmp_path, speaks("Hi."), key={"terms": key}) as net:

        def ask() -> object:
            client = net.client.chat.completions
            extra = {"pinaivu": body}
            return client.create(**request(), extra_headers=headers, extra_body=extra)

        await in_thread(ask)
        job = net.coordinator.only.job.message
        assert (job.max_cost, job.max_price_out) == (800, 500_000)
        assert (job.value_of_time, job.mode) == (8, 1)
        assert job.deny == (bytes.fromhex(NODE[2:]),)


async def test_header_that_is_no_term_is_refused_by_name(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        for name, text in (("x-pinaivu-max-price", "1"), ("x-pinaivu-auction", "dutch")):
            response = await call(net, "POST", PATH, json=request(), headers={name: text})
            assert code_of(response) == (400, "invalid_value")
            assert response.json()["error"]["param"] == name
        assert net.coordinator.cases == {}
