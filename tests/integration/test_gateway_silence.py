"""Streams on which nothing happens for a while: signs of life that no client mistakes for more."""

import threading
from pathlib import Path

import httpx
import msgspec
import trio

from pinaivu.codes import Reason
from tests.integration.gateway_support import QUICK, Network, in_thread, network, request
from tests.integration.scripted_node import Work

LIVELY = QUICK.model_copy(update={"heartbeat_s": 0.05, "patience_s": 20})


def _lines(net: Network, seen: threading.Event, until: str) -> list[str]:
    """All lines of a stream; `seen` is set at the first that begins with `until`."""
    headers = {"authorization": f"Bearer {net.secret}"}
    body = request(stream=True)
    found = []
    url = f"{net.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=20) as answer:
        assert answer.status_code == httpx.codes.OK
        for line in answer.iter_lines():
            found.append(line)
            if line.startswith(until):
                seen.set()
    return [line for line in found if line]


async def _set(event: threading.Event) -> None:
    await trio.to_thread.run_sync(event.wait, 20)


async def test_stream_without_a_first_token_is_begun_and_kept_alive(tmp_path: Path) -> None:
    """Comments only, which OpenAI's SDKs skip; the answer follows as if nothing had been."""
    alive = threading.Event()

    async def slow(work: Work) -> None:
        await _set(alive)
        await work.say("Here.", finish="stop")
        await work.end()

    async with network(tmp_path, slow, limits=LIVELY) as net:
        lines = await in_thread(lambda: _lines(net, alive, ":"))
        first, *rest = [line for line in lines if not line.startswith(":")]
        assert lines[0].startswith(":")
        assert msgspec.json.decode(first.removeprefix("data: "))["choices"][0]["delta"]
        assert rest[-1] == "data: [DONE]"


async def test_silence_in_mid_stream_is_kept_alive(tmp_path: Path) -> None:
    alive = threading.Event()

    async def pausing(work: Work) -> None:
        await work.say("One")
        await _set(alive)
        await work.say(" two", finish="stop")
        await work.end()

    async with network(tmp_path, pausing, limits=LIVELY) as net:
        lines = await in_thread(lambda: _lines(net, alive, ": ping"))
        kinds = "".join("." if line.startswith(":") else "d" for line in lines)
        assert "d." in kinds
        assert lines[-1] == "data: [DONE]"


async def test_failure_after_signs_of_life_is_the_streams_one_error(tmp_path: Path) -> None:
    """The status has been given away; what went wrong is told all the same, once."""
    alive = threading.Event()

    async def refuses_late(work: Work) -> None:
        await _set(alive)
        await work.refuse(Reason.REFUSED_CAPACITY)

    async with network(tmp_path, refuses_late, limits=LIVELY) as net:
        lines = await in_thread(lambda: _lines(net, alive, ":"))
        (event,) = [line for line in lines if not line.startswith(":")]
        error = msgspec.json.decode(event.removeprefix("data: "))
        assert error["error"]["code"] == "no_node_left"
        assert error["request_id"]


async def test_official_sdk_reads_a_stream_with_comments(tmp_path: Path) -> None:
    async def slow(work: Work) -> None:
        await trio.sleep(3 * LIVELY.heartbeat_s)
        await work.say("Here.", finish="stop")
        await work.end()

    async with network(tmp_path, slow, limits=LIVELY) as net:
        chunks = await net.complete(stream=True)
        said = [c.choices[0].delta.content for c in chunks if c.choices]
        assert "".join(text or "" for text in said) == "Here."
