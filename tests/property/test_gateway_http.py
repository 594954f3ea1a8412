"""Whatever is sent to a running gateway is answered, in time and as documented.

Schemathesis makes requests that fit the description and requests that don't; a second test sends
bodies that are nearly right, byte by byte. A status from 500 on is a finding, but for the two that
say what can't be reached; so is an answer of another shape, and one that never comes.
"""

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import schemathesis
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.gateway_support import Network, network, request
from tests.integration.scripted_node import speaks
from tests.property.gateway_openapi import DESCRIPTION, UNAVAILABLE

_CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
_ANSWERED_S = 30
_DEFAULT_EXAMPLES = 100
_MEMBERS = [*request(stream=True), "stop", "n", "seed", "tools", "pinaivu"]
_BODY = msgspec.json.encode(request(stream=True))


def share(part: int) -> settings:
    """A part of the profile's examples: a request costs more than a function's call."""
    profile = settings.default
    return settings(
        max_examples=max(1, (profile.max_examples if profile else _DEFAULT_EXAMPLES) // part),
        phases=[Phase.explicit, Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )


@pytest.mark.timeout(0)
async def test_every_route_answers_as_described(tmp_path: Path) -> None:
    """Requests that fit, with the key, and chat bodies that don't."""
    schema = schemathesis.openapi.from_dict(DESCRIPTION)
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    assert {operation.path for operation in operations} == set(DESCRIPTION["paths"])
    async with network(tmp_path, speaks("Well.")) as net:
        for operation in operations:
            chat = operation.path.endswith("completions")
            part = 8 if chat else 25
            await trio.to_thread.run_sync(play, net, operation, GenerationMode.POSITIVE, part)
            if chat:
                await trio.to_thread.run_sync(play, net, operation, GenerationMode.NEGATIVE, part)


def play(
    net: Network, operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, part: int
) -> None:
    """Make requests and have the description look at the answers."""

    @share(part)
    @given(case=operation.as_strategy(generation_mode=mode))
    def each(case: Case[Any]) -> None:
        headers = {"authorization": f"Bearer {net.secret}"}
        answer = case.call(base_url=net.url, headers=headers, timeout=_ANSWERED_S)
        case.validate_response(answer, checks=_CHECKS)

    each()


@st.composite
def nearly_right(draw: st.DrawFn) -> bytes:
    """A good body with a piece replaced, repeated or left out; or a good member made strange."""
    if draw(st.booleans()):
        name = draw(
            st.sampled_from([*request(stream=True), "stop", "n", "seed", "tools", "pinaivu"])
        )
        odd: st.SearchStrategy[Any] = st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
            max_leaves=8,
        )
        return msgspec.json.encode(request(stream=True) | {name: draw(odd)})
    start = draw(st.integers(0, len(_BODY)))
    stop = draw(st.integers(start, min(len(_BODY), start + 30)))
    piece = draw(st.binary(max_size=30) | st.just(_BODY[start:stop] * 2) | st.just(b"[" * 5000))
    return _BODY[:start] + piece + _BODY[stop:]


@pytest.mark.timeout(0)
async def test_bodies_that_are_nearly_right_are_answered(tmp_path: Path) -> None:
    """A stream, or an error in OpenAI's form that names what to do; afterwards all is well."""

    def play_bodies(net: Network) -> None:
        with httpx.Client(base_url=net.url, timeout=_ANSWERED_S) as http:

            @share(2)
            @given(raw=nearly_right())
            def each(raw: bytes) -> None:
                require_answer(http, net.secret, raw)

            each()

    async with network(tmp_path, speaks("Well.")) as net:
        await trio.to_thread.run_sync(play_bodies, net)
        assert (await net.complete()).choices
        assert net.gateway.traffic.exchanges == 0


def require_answer(http: httpx.Client, key: str, raw: bytes) -> None:
    """The answer to a body is one of those that may be."""
    headers = {"authorization": f"Bearer {key}"}
    answer = http.post("/v1/chat/completions", content=raw, headers=headers)
    if answer.status_code == httpx.codes.OK:
        assert "data: [DONE]" in answer.text or answer.json()["choices"]
        return
    assert answer.status_code < 500 or str(answer.status_code) in UNAVAILABLE, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert answer.status_code not in (429, 503) or answer.headers["retry-after"]
