"""The HTTP surface: who is let in, what is refused and how, receipts, bundles, usage."""

import os
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import trio

from gateway.seals import Seal
from pinaivu import bundles
from pinaivu.encoding import to_hex
from pinaivu.p2p import wire
from pinaivu.store.database import open_database
from pinaivu.store.gateway_keys import create_key, list_keys, revoke_key, rotate_key
from tests.integration.gateway_support import (
    QUICK,
    Network,
    in_thread,
    network,
    now_ms,
    request,
)
from tests.integration.p2p_support import until
from tests.integration.scripted_node import Work, speaks
from tests.unit.gateway_facts import MODEL, model

BUNDLE: dict[str, Any] = dict.fromkeys(bundles.REQUIRED) | {"version": 1}


async def call(
    net: Network, method: str, path: str, *, secret: str | None = None, **more: Any
) -> httpx.Response:
    """One request with a key, in a thread."""
    headers = {"authorization": f"Bearer {secret or net.secret}"} | more.pop("headers", {})
    response: httpx.Response = await in_thread(
        lambda: httpx.request(method, net.url + path, headers=headers, timeout=20, **more)
    )
    return response


def code_of(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"].endswith(".")
    return response.status_code, error["code"]


async def test_bodies_are_refused_with_what_to_do(tmp_path: Path) -> None:
    """Each fault names its parameter; none of them reaches the market."""
    cases: list[tuple[dict[str, Any] | bytes, int, str, str | None]] = [
        (b"{", 400, "invalid_value", None),
        (b"[]", 400, "invalid_value", None),
        (b"\xff", 400, "invalid_value", None),
        (b'{"model":"m","model":"m"}', 400, "invalid_value", "model"),
        (request(seed=2**53), 400, "invalid_value", "seed"),
        (request(messages=[]), 400, "invalid_value", "messages"),
        (request(model="nobody/serves-this"), 404, "model_not_found", "model"),
        (request(max_tokens=0), 400, "invalid_value", "max_tokens"),
        (request(max_tokens=5000), 400, "context_length_exceeded", "max_tokens"),
        (request(pinaivu={"max_price": 1}), 400, "invalid_value", "pinaivu"),
        (request(pinaivu={"auction": "dutch"}), 400, "invalid_value", "pinaivu"),
        (request(pinaivu={"allow": ["0x12"]}), 400, "invalid_value", "pinaivu"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, 400, "invalid_value", None),
    ]
    async with network(tmp_path) as net:
        for body, status, code, param in cases:
            content = body if isinstance(body, bytes) else None
            json = None if content else body
            path = "/v1/chat/completions"
            response = await call(net, "POST", path, content=content, json=json)
            assert code_of(response) == (status, code), body
            assert response.json()["error"]["param"] == param, body
        assert net.coordinator.cases == {}


async def test_bodies_above_the_limit_are_not_read_to_their_end(tmp_path: Path) -> None:
    limits = QUICK.model_copy(update={"max_body_bytes": 2048})
    async with network(tmp_path, limits=limits) as net:
        announced = await call(net, "POST", "/v1/chat/completions", content=b" " * 4096)
        assert code_of(announced) == (413, "request_too_large")

        def pieces() -> Any:
            for _ in range(10):
                yield b" " * 1024

        chunked = await call(net, "POST", "/v1/chat/completions", content=pieces())
        assert code_of(chunked) == (413, "request_too_large")


async def test_strangers_are_turned_away(tmp_path: Path) -> None:
    """No key, a wrong key, a revoked key: 401; a revocation takes effect in seconds."""
    async with network(tmp_path, speaks("Hi.")) as net:
        missing = await call(net, "GET", "/v1/models", headers={"authorization": ""})
        assert code_of(missing) == (401, "missing_api_key")
        wrong = await call(net, "GET", "/v1/models", secret="sk-pnv-wrong")
        assert code_of(wrong) == (401, "invalid_api_key")
        assert (await call(net, "GET", "/v1/models")).status_code == 200
        database = open_database(net.database, "gateway")
        revoke_key(database, list_keys(database)[0].key_id, now_ms())
        database.close()
        await trio.sleep(2.0)  # what access.py promises
        assert code_of(await call(net, "GET", "/v1/models")) == (401, "invalid_api_key")
        with pytest.raises(openai.AuthenticationError):
            await net.complete()


async def test_models_are_listed_and_shown(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        models = await in_thread(lambda: list(net.client.models.list()))
        assert [model.id for model in models] == [MODEL]
        found = await in_thread(lambda: net.client.models.retrieve(MODEL))
        assert found.model_extra["context_length"] == model().context_tokens
        with pytest.raises(openai.NotFoundError):
            await in_thread(lambda: net.client.models.retrieve("other"))


async def test_unknown_paths_and_methods_have_the_same_form(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        assert code_of(await call(net, "GET", "/v1/nothing")) == (404, "not_found")
        assert code_of(await call(net, "PUT", "/v1/models")) == (405, "method_not_allowed")


async def test_daily_quota_is_enforced_and_counted(tmp_path: Path) -> None:
    """What a request may use is reserved, what it used is counted, the rest is refused."""
    async with network(tmp_path, speaks("Well."), key={"daily_tokens": 300}) as net:
        await net.complete(max_tokens=200)
        await net.receipt()
        usage = (await call(net, "GET", "/v1/usage")).json()
        used = usage["today"]["tokens"]
        assert 0 < used < 100
        assert usage["today"]["requests"] == usage["total"]["requests"] == 1
        assert usage["total"]["tokens"] == used
        assert usage["today"]["reserved_tokens"] == 0
        with pytest.raises(openai.RateLimitError, match="lower max_tokens") as caught:
            await net.complete(max_tokens=290)
        assert int(caught.value.response.headers["retry-after"]) > 0
        assert (await net.complete(max_tokens=100)).choices


async def test_daily_amount_bounds_what_a_job_may_cost(tmp_path: Path) -> None:
    """The job's own limit is what is left of the day; with nothing left it isn't sent."""
    async with network(tmp_path, speaks("Well."), key={"daily_units": 40}) as net:
        await net.complete()
        assert net.coordinator.only.job.message.max_cost == 40
    async with network(tmp_path, speaks("Well."), key={"daily_units": 0}) as net:
        with pytest.raises(openai.RateLimitError, match="daily"):
            await net.complete()
        assert net.coordinator.cases == {}


async def test_callers_terms_stand_on_the_job(tmp_path: Path) -> None:
    terms = {
        "max_price_in": 200_000,
        "max_price_out": 500_000,
        "max_cost_units": 900,
        "value_of_time": 7,
        "auction": "standing",
        "deny": ["0x" + "ff" * 20, "0x" + "EE" * 20],
    }
    async with network(tmp_path, speaks("Well.")) as net:
        await net.complete(extra_body={"pinaivu": terms})
        job = net.coordinator.only.job.message
        assert (job.max_price_in, job.max_price_out, job.max_cost) == (200_000, 500_000, 900)
        assert (job.value_of_time, job.mode) == (7, 2)
        assert job.deny == (b"\xee" * 20, b"\xff" * 20)
        row = await net.gateway.ledger.request(job.job_id)
        assert row is not None
        sent = net.nodes[0].works[0].dispatch.body
        assert sent == Seal.of(net.secret).open(job.job_id, "request", row.body)


async def test_receipt_is_awaited_then_shown_to_its_key_only(tmp_path: Path) -> None:
    """202 with Retry-After while there is none; another key doesn't learn that it exists."""
    async with network(tmp_path, speaks("Well.")) as net:
        net.coordinator.receipts_flow = trio.Event()
        answer = await net.complete()
        path = f"/v1/receipts/{answer.model_extra['request_id']}"
        waiting = await call(net, "GET", path)
        assert waiting.status_code == 202
        assert waiting.headers["retry-after"] == "2"
        assert waiting.json()["state"] == "delivered"
        net.coordinator.receipts_flow.set()
        receipt = await net.receipt()
        found = (await call(net, "GET", path)).json()
        assert found["receipt"]["message"]["payer"] == to_hex(receipt.payer)
        assert found["settlement"] == {"state": "batched", "sequence": 1}
        assert found["index"] == 0
        other = await in_thread(lambda: _another_key(net))
        assert code_of(await call(net, "GET", path, secret=other)) == (404, "request_not_found")
        assert code_of(await call(net, "GET", "/v1/receipts/x")) == (404, "request_not_found")


async def test_bundle_is_opened_for_its_holder(tmp_path: Path) -> None:
    """The public bundle, with salt, request and response; nothing else is changed."""
    async with network(tmp_path, speaks("Well.")) as net:
        answer = await net.complete()
        receipt = await net.receipt()
        path = f"/v1/receipts/{answer.model_extra['request_id']}/bundle"
        assert (await call(net, "GET", path)).status_code == 202
        net.log.packed = bundles.pack(BUNDLE)
        document = bundles.unpack((await call(net, "GET", path)).content)
        row = await net.gateway.ledger.request(receipt.job_id)
        assert row is not None
        holder = document.pop("holder")
        assert document == BUNDLE
        assert holder["salt"] == to_hex(row.salt_root)
        assert holder["request"] == request()
        (choice,) = holder["response"]["choices"]
        assert choice["message"]["content"] == "Well."
        assert row.body
        assert MODEL.encode() not in row.body
        assert row.response
        assert b"Well." not in row.response
        other = await in_thread(lambda: _another_key(net))
        assert code_of(await call(net, "GET", path, secret=other)) == (404, "request_not_found")


async def test_contents_kept_under_a_former_secret_are_nobodys(tmp_path: Path) -> None:
    """A rotated key keeps receipt and salt; what was sealed to its old secret is lost."""
    async with network(tmp_path, speaks("Well.")) as net:
        answer = await net.complete()
        await net.receipt()
        net.log.packed = bundles.pack(BUNDLE)
        fresh = await in_thread(lambda: _rotated(net))
        path = f"/v1/receipts/{answer.model_extra['request_id']}/bundle"
        document = bundles.unpack((await call(net, "GET", path, secret=fresh)).content)
        assert document["holder"].keys() == {"salt"}


async def test_contents_are_not_kept_where_that_is_configured(tmp_path: Path) -> None:
    limits = QUICK.model_copy(update={"content_hours": 0})
    async with network(tmp_path, speaks("Well."), limits=limits) as net:
        await net.complete()
        receipt = await net.receipt()
        row = await net.gateway.ledger.request(receipt.job_id)
        assert row is not None
        assert (row.body, row.response) == (None, None)


async def test_coordinator_out_of_reach_is_said_at_once(tmp_path: Path) -> None:
    """503 and unhealthy without it; healthy again, by itself, when it is back."""
    limits = QUICK.model_copy(update={"submit_within_s": 0.3})
    async with network(tmp_path, speaks("Well."), limits=limits) as net:
        net.coordinator.refusal = wire.Refused("starting", "not yet", retry_after_ms=100)
        with pytest.raises(openai.InternalServerError) as caught:
            await net.complete()
        assert caught.value.body["code"] == "coordinator_unreachable"  # type: ignore[index]
        net.coordinator.refusal, net.coordinator.away = None, True
        for stream in net.coordinator.streams:
            stream.reset("gone")
        await until(lambda: not net.gateway.logs.connected)
        assert (await call(net, "GET", "/healthz")).status_code == 503
        net.coordinator.away = False
        await until(lambda: bool(net.gateway.logs.connected))
        assert (await call(net, "GET", "/healthz")).json()["status"] == "ok"
        assert (await net.complete()).choices


async def test_a_refusal_for_longer_than_a_request_waits_is_the_answer(tmp_path: Path) -> None:
    """Not asked again, and not taken for a coordinator out of reach."""
    async with network(tmp_path, speaks("Well.")) as net:
        net.coordinator.refusal = wire.Refused("debit_limit", "none left", retry_after_ms=60_000)
        response = await call(net, "POST", "/v1/chat/completions", json=request())
        assert (response.status_code, response.headers["retry-after"]) == (503, "60")
        assert response.json()["error"]["code"] == "debit_limit"


async def test_requests_above_the_limit_are_told_to_come_back(tmp_path: Path) -> None:
    limits = QUICK.model_copy(update={"max_in_flight": 1, "patience_s": 30})

    async def waits(work: Work) -> None:
        await work.wait_cancel()

    async with network(tmp_path, waits, limits=limits) as net, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(openai.APITimeoutError):
                await in_thread(
                    lambda: net.client.with_options(timeout=2).chat.completions.create(**request())
                )

        nursery.start_soon(ask)
        await until(lambda: bool(net.nodes[0].works))
        with pytest.raises(openai.RateLimitError) as caught:
            await net.complete()
        assert caught.value.body["code"] == "too_many_requests"  # type: ignore[index]


async def test_nothing_is_served_without_a_database(tmp_path: Path) -> None:
    """Neither known nor unknown keys are let in when they can't be looked up."""
    async with network(tmp_path, speaks("Well.")) as net:
        engine = net.gateway.ledger._writer._database._engine
        engine.dispose()
        (tmp_path / "gateway.db").rename(tmp_path / "gone.db")
        os.mkdir(tmp_path / "gateway.db")  # noqa: PTH102 - a folder where the file should be
        response = await call(net, "GET", "/v1/models")
        assert code_of(response) == (503, "storage_unavailable")
        assert (await call(net, "GET", "/healthz")).status_code == 503


def _another_key(net: Network) -> str:
    database = open_database(net.database, "gateway")
    new = create_key(
        database,
        payer=net.keys.payer.address,
        label="other",
        random=os.urandom,
        now_ms=now_ms(),
    )
    database.close()
    return new.secret


def _rotated(net: Network) -> str:
    database = open_database(net.database, "gateway")
    (key,) = list_keys(database)
    new = rotate_key(database, key.key_id, random=os.urandom, now_ms=now_ms())
    database.close()
    return new.secret
