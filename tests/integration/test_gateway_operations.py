"""Health, readiness, drain, metrics and cross-origin requests of a running gateway."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from gateway.errors import ApiError
from gateway.http.metrics import metrics_of, serve_metrics
from gateway.metrics import MOST_OUTCOMES, Metrics
from gateway.reports import Report
from gateway.service import run_http
from gateway.traffic import Traffic
from pinaivu.codes import Reason, Status
from tests.integration.gateway_support import Network, in_thread, network, request
from tests.integration.p2p_support import until
from tests.integration.scripted_node import Work, speaks
from tests.unit.gateway_facts import MODEL


async def get(net: Network, path: str, **more: Any) -> httpx.Response:
    """A request without a key."""
    response: httpx.Response = await in_thread(
        lambda: httpx.get(net.url + path, timeout=20, **more)
    )
    return response


async def test_health_and_readiness_have_two_opinions(tmp_path: Path) -> None:
    """Without a node the gateway is well, but a new request has no chance."""
    async with network(tmp_path, speaks("Well.")) as net:
        assert (await get(net, "/health")).json() == (await get(net, "/healthz")).json()
        assert (await get(net, "/ready")).json() == {"status": "ready", "missing": []}
    async with network(tmp_path) as net:
        assert (await get(net, "/health")).status_code == 200
        response = await get(net, "/ready")
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert response.json() == {"status": "unavailable", "missing": ["nodes"]}


class Told:
    """A node that says one word at once, and the rest when it is told to."""

    def __init__(self) -> None:
        self.go_on = trio.Event()

    async def __call__(self, work: Work) -> None:
        """Play it."""
        await work.say("One")
        await self.go_on.wait()
        await work.say(" more.", finish="stop")
        await work.end()


@asynccontextmanager
async def streaming(net: Network, **named: str) -> AsyncGenerator[Callable[[], str]]:
    """A streamed request under way, with these headers; what its client has of it."""
    got = bytearray()

    async def read() -> None:
        body, headers = request(stream=True), {"authorization": f"Bearer {net.secret}"} | named
        url = f"{net.url}/v1/chat/completions"
        async with (
            httpx.AsyncClient(timeout=20) as http,
            http.stream("POST", url, json=body, headers=headers) as answer,
        ):
            async for some in answer.aiter_bytes():
                got.extend(some)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await until(lambda: b"One" in got)
        yield got.decode


async def test_drain_lets_streams_end_and_begins_nothing(tmp_path: Path) -> None:
    node = Told()
    async with network(tmp_path, node) as net, trio.open_nursery() as nursery:
        traffic, drained = net.gateway.traffic, trio.Event()

        async def drain() -> None:
            await traffic.drain(within_s=30, after_s=5)
            drained.set()

        async with streaming(net) as seen:
            nursery.start_soon(drain)
            await until(lambda: traffic.draining)
            ready = await get(net, "/ready")
            assert (ready.status_code, ready.json()["status"]) == (503, "draining")
            assert (await get(net, "/health")).status_code == 200
            refused = await get(net, "/v1/models")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert refused.json()["error"]["code"] == "draining"
            assert not drained.is_set()
            node.go_on.set()
        assert seen().endswith("data: [DONE]\n\n")
        with trio.fail_after(10):
            await drained.wait()
        assert (traffic.exchanges, traffic.answering) == (0, 0)


@pytest.mark.parametrize("named", [{}, {"idempotency-key": "once"}], ids=["plain", "named"])
async def test_what_does_not_end_in_time_is_stopped_and_accounted_for(
    tmp_path: Path, named: dict[str, str]
) -> None:
    """The node signs what it did, and its receipt says so, whoever may ask for the answer again."""
    acknowledged = trio.Event()  # the client sees the word before the node has that

    async def endless(work: Work) -> None:
        await work.say("One")
        acknowledged.set()
        await work.wait_cancel()
        await work.end()

    async with network(tmp_path, endless) as net:
        async with streaming(net, **named) as seen:
            await acknowledged.wait()
            await net.gateway.traffic.drain(within_s=0, after_s=5)
        assert "[DONE]" not in seen()
        receipt = await net.receipt()
        assert (receipt.status, receipt.reason) == (Status.CANCELLED, Reason.CLIENT_GONE)
        assert receipt.segments[0].prompt_billed > 0


async def test_metrics_tell_figures_and_no_secret(tmp_path: Path) -> None:
    async with network(tmp_path, speaks("Well.")) as net, trio.open_nursery() as nursery:
        metrics = metrics_of(net.gateway)
        (url,) = await nursery.start(serve_metrics, metrics, "127.0.0.1:0")
        binds = await nursery.start(_counted_http, net, metrics)
        counted = replace(net, url=binds[0])
        await counted.complete()
        for path in ("/v1/models", "/wp-admin/1", "/wp-admin/2"):
            await get(counted, path)
        await until(lambda: net.gateway.logs.waiting == 0)
        text = (await in_thread(lambda: httpx.get(f"{url}/metrics", timeout=20))).text
        nursery.cancel_scope.cancel()
    found = {
        (
            sample.name.removeprefix("pinaivu_gateway_"),
            *sorted(sample.labels.values()),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["requests_total", "complete", MODEL] == 1
    assert found["attempts_total", "none"] == 1
    assert found["tokens_total", "output", MODEL] > 0
    assert found["first_token_seconds_count", MODEL] == 1
    assert found["http_responses_total", "/v1/chat/completions", "200"] == 1
    assert found["http_responses_total", "/v1/models", "401"] == 1
    assert found["http_responses_total", "404", "none"] == 2
    assert found["node_peers",] == 1
    assert found["exchanges_under_way",] == 0
    assert "process_resident_memory_bytes" in text
    assert net.secret not in text
    assert net.nodes[0].key.address.hex() not in text


async def _counted_http(
    net: Network, metrics: Metrics, task_status: Any = trio.TASK_STATUS_IGNORED
) -> None:
    answered = metrics.answered
    await run_http(net.gateway, "127.0.0.1:0", trio.sleep_forever, task_status, counted=answered)


def test_a_coordinator_of_many_words_makes_no_more_series() -> None:
    metrics = Metrics(dict)
    for number in range(3 * MOST_OUTCOMES):
        metrics.served(report(outcome=f"refusal_{number}"))
    text = metrics.exposed().decode()
    assert text.count("pinaivu_gateway_requests_total{") == MOST_OUTCOMES + 1
    assert f'outcome="other"}} {2 * MOST_OUTCOMES:.1f}' in text


async def test_a_listener_that_fails_takes_nothing_with_it() -> None:
    """An exchange that is over is not under way, whatever its listeners do."""

    class Exchange:
        async def run(self) -> None:
            await trio.lowlevel.checkpoint()

        def stop(self) -> None:
            raise AssertionError

        def report(self) -> Report:
            return report()

    traffic = Traffic()
    traffic.heard.append(lambda _: 1 / 0)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        traffic.start(nursery, Exchange())
    assert traffic.exchanges == 0


async def test_places_are_taken_before_anything_is_waited_for() -> None:
    """A request holds its place while it is judged, and as an exchange; a refused one gives it."""
    ended = trio.Event()

    class Exchange:
        async def run(self) -> None:
            await ended.wait()

        def stop(self) -> None:
            raise AssertionError

        def report(self) -> Report:
            return report()

    traffic = Traffic()
    async with trio.open_nursery() as nursery:
        with traffic.place(2), traffic.place(2):
            with pytest.raises(ApiError, match="retry in a second") as caught, traffic.place(2):
                raise AssertionError
            assert (caught.value.status, caught.value.code) == (429, "too_many_requests")
            traffic.start(nursery, Exchange())
        with traffic.place(2):
            assert traffic.exchanges == 1
        with traffic.place(2), pytest.raises(ApiError), traffic.place(2):
            raise AssertionError
        ended.set()
    with traffic.place(1):
        assert traffic.exchanges == 0


async def test_other_origins_are_let_in_where_configured(tmp_path: Path) -> None:
    """Off by default; with an origin, that one's pages can call and read, and no other's."""
    asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
    asked["access-control-request-headers"] = "authorization,content-type"
    url = "/v1/chat/completions"
    async with network(tmp_path, speaks("Well.")) as net, trio.open_nursery() as nursery:
        response = await in_thread(lambda: httpx.options(net.url + url, headers=asked))
        assert response.status_code == 405
        assert "access-control-allow-origin" not in response.headers
        opened = replace(net.gateway, cors_origins=("https://app.example",))
        (place,) = await nursery.start(run_http, opened, "127.0.0.1:0", trio.sleep_forever)
        response = await in_thread(lambda: httpx.options(place + url, headers=asked))
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        assert "authorization" in response.headers["access-control-allow-headers"]
        stranger = asked | {"origin": "https://evil.example"}
        response = await in_thread(lambda: httpx.options(place + url, headers=stranger))
        assert "access-control-allow-origin" not in response.headers
        nursery.cancel_scope.cancel()


def report(**changes: Any) -> Report:
    """A request that went well, but for `changes`."""
    fields: dict[str, Any] = {
        "request_id": "id-1",
        "key_id": "key-1",
        "model": MODEL,
        "log_id": "0x11",
        "node": "0x22",
        "outcome": "complete",
        "attempts": ["none"],
        "prompt_tokens": 3,
        "output_tokens": 4,
        "units": 5,
        "first_token_ms": 6,
        "total_ms": 7,
        "streams": True,
    }
    return Report(**fields | changes)
