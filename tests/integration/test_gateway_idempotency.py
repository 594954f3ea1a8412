"""`Idempotency-Key`: sent again, a request neither runs nor is billed again."""

from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import trio

from pinaivu.codes import Reason
from pinaivu.p2p import wire
from tests.integration.gateway_support import QUICK, Network, in_thread, network, request
from tests.integration.p2p_support import until
from tests.integration.scripted_node import Work, speaks
from tests.integration.test_gateway_http import _another_key, _rotated, call, code_of

PATH = "/v1/chat/completions"
NAMED = {"idempotency-key": "order 66"}


async def post(net: Network, headers: dict[str, str] = NAMED, **body: Any) -> httpx.Response:
    secret = body.pop("secret", None)
    return await call(net, "POST", PATH, json=request(**body), headers=headers, secret=secret)


def streamed(response: httpx.Response) -> tuple[str, list[str]]:
    """The text and the finish reasons of server-sent events."""
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert events.pop() == "[DONE]"
    choices = [c for event in events for c in httpx.Response(200, text=event).json()["choices"]]
    reasons = [c["finish_reason"] for c in choices if c["finish_reason"]]
    return "".join(c["delta"].get("content") or "" for c in choices), reasons


async def test_same_request_gets_the_same_answer_and_runs_once(tmp_path: Path) -> None:
    async with network(tmp_path, speaks("Just ", "once."), key={"streams": 1}) as net:
        first, second = await post(net), await post(net)
        assert first.status_code == second.status_code == 200
        assert first.json() == second.json()
        assert second.headers["x-request-id"] == first.headers["x-request-id"]
        assert len(net.coordinator.cases) == 1
        assert len(net.nodes[0].works) == 1
        await net.receipt()
        assert (await post(net)).json() == first.json()
        usage = (await call(net, "GET", "/v1/usage")).json()
        assert usage["total"]["requests"] == 1


async def test_streamed_answer_is_streamed_again(tmp_path: Path) -> None:
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    async with network(tmp_path, speaks("Just ", "once.")) as net:
        first, second = await post(net, **options), await post(net, **options)
        assert streamed(first) == streamed(second) == ("Just once.", ["stop"])
        assert '"usage":' in second.text
        assert f'"request_id":"{first.headers["x-request-id"]}"' in second.text
        assert len(net.coordinator.cases) == 1


async def test_streamed_tool_calls_are_streamed_again(tmp_path: Path) -> None:
    """As the official SDK reads them: in a chunk, each call has its number."""
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in "fg"]
    calls = [
        {"index": number, "id": f"c{number}", "type": "function", "function": function}
        for number, function in enumerate({"name": name, "arguments": "{}"} for name in "fg")
    ]

    async def calls_both(work: Work) -> None:
        work.send({"role": "assistant", "tool_calls": calls}, finish="tool_calls")
        await work.wait_acks(1)
        await work.end()

    async with network(tmp_path, calls_both) as net:

        def ask() -> Any:
            with net.client as client:
                body = request(tools=tools)
                with client.chat.completions.stream(**body, extra_headers=NAMED) as stream:
                    return stream.get_final_completion().choices[0].message.tool_calls

        first, second = await in_thread(ask), await in_thread(ask)
        assert [call.function.name for call in first] == ["f", "g"]
        assert second == first
        assert len(net.coordinator.cases) == 1


async def test_name_is_the_keys_own_and_for_one_body(tmp_path: Path) -> None:
    async with network(tmp_path, speaks("Hi.")) as net:
        assert (await post(net)).status_code == 200
        other = await post(net, temperature=0.5)
        assert code_of(other) == (422, "idempotency_conflict")
        assert code_of(await post(net, stream=True)) == (422, "idempotency_conflict")
        another = await in_thread(lambda: _another_key(net))
        assert (await post(net, secret=another, temperature=0.5)).status_code == 200
        assert len(net.coordinator.cases) == 2


@pytest.mark.parametrize("name", ["", "x" * 256, "tab\there"])
async def test_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    async with network(tmp_path) as net:
        response = await post(net, {"idempotency-key": name})
        assert code_of(response) == (400, "invalid_value")
        assert response.json()["error"]["param"] == "idempotency-key"


async def test_request_under_way_is_awaited_by_an_sdk_that_repeats_it(tmp_path: Path) -> None:
    """409 with Retry-After, which the official SDK follows by itself."""
    speak = trio.Event()

    async def slow(work: Work) -> None:
        await speak.wait()
        await speaks("At last.")(work)

    async with network(tmp_path, slow) as net, trio.open_nursery() as nursery:
        answers: list[httpx.Response] = []

        async def ask() -> None:
            answers.append(await post(net))

        nursery.start_soon(ask)
        await until(lambda: bool(net.nodes and net.nodes[0].works))
        waiting = await post(net)
        assert code_of(waiting) == (409, "idempotency_in_progress")
        assert waiting.headers["retry-after"] == "1"

        def repeat() -> Any:
            with net.client.with_options(max_retries=20) as client:
                return client.chat.completions.create(**request(), extra_headers=NAMED)

        speak.set()
        found = await in_thread(repeat)
        await until(lambda: bool(answers))
        assert found.id == answers[0].json()["id"]
        assert len(net.coordinator.cases) == 1


async def test_client_that_went_away_finds_its_answer(tmp_path: Path) -> None:
    """With a name a request is served to its end; without one it is stopped at once."""
    speak = trio.Event()

    async def slow(work: Work) -> None:
        await work.say("Some ")
        await speak.wait()
        await speaks("more.")(work)

    async with network(tmp_path, slow) as net:

        def hang_up() -> None:
            client = net.client.with_options(timeout=1)
            with pytest.raises(openai.APITimeoutError):
                client.chat.completions.create(**request(), extra_headers=NAMED)

        await in_thread(hang_up)
        assert code_of(await post(net)) == (409, "idempotency_in_progress")
        speak.set()
        await net.receipt()
        answer = await post(net)
        assert answer.json()["choices"][0]["message"]["content"] == "Some more."
        assert len(net.coordinator.cases) == 1


async def test_answer_that_is_not_kept_is_pointed_to(tmp_path: Path) -> None:
    limits = QUICK.model_copy(update={"content_hours": 0})
    async with network(tmp_path, speaks("Gone."), limits=limits) as net:
        first = await post(net)
        again = await post(net)
        assert code_of(again) == (409, "idempotency_ended")
        assert f"/v1/receipts/{first.headers['x-request-id']}" in again.json()["error"]["message"]
        assert again.headers["x-should-retry"] == "false"
        assert len(net.coordinator.cases) == 1


async def test_answer_sealed_to_a_former_secret_is_pointed_to(tmp_path: Path) -> None:
    """A key that was rotated meanwhile can't open it; the request doesn't run again."""
    async with network(tmp_path, speaks("Gone.")) as net:
        assert (await post(net)).status_code == 200
        fresh = await in_thread(lambda: _rotated(net))
        assert code_of(await post(net, secret=fresh)) == (409, "idempotency_ended")
        assert len(net.coordinator.cases) == 1


async def test_request_that_never_ran_may_be_repeated(tmp_path: Path) -> None:
    """Refused by a quota, by the market, by the grant: the name is free again."""
    async with network(tmp_path, speaks("Now."), key={"tokens_per_minute": 250}) as net:
        assert (await post(net, max_tokens=240)).status_code == 429
        net.coordinator.refusal = wire.Refused(
            "no_nodes_available", "nobody", int(Reason.NO_NODES_AVAILABLE), 1000
        )
        assert code_of(await post(net)) == (503, "no_nodes_available")
        net.coordinator.refusal = None
        assert (await post(net)).status_code == 200


async def test_request_that_ran_and_failed_is_not_repeated(tmp_path: Path) -> None:
    async def breaks_off(work: Work) -> None:
        await work.say("Some text")
        work.stream.reset("the node dies")

    async with network(tmp_path, breaks_off) as net:
        failed = await post(net, n=2)
        assert failed.status_code in {502, 503}
        assert code_of(await post(net, n=2)) == (409, "idempotency_ended")
        assert len(net.nodes[0].works) == 1
