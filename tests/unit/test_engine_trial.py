"""What is offered of what an engine is said to do: engines that refuse, ignore and do."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import pytest
import trio
from PIL import Image

from node.engines.errors import EngineBrokeOff, EngineRefused, EngineTimedOut, EngineUnreachable
from node.engines.spec import attached
from node.engines.trial import trials, tried
from pinaivu.codes import Feature, JobKind
from pinaivu.openai import BadResponse

TALK = Feature.KIND_CHAT | Feature.KIND_COMPLETION
TEXT = Feature.STRUCTURED | Feature.LOGPROBS | Feature.CHOICES | Feature.CONTINUES
ALL = TALK | Feature.KIND_EMBEDDING | TEXT | Feature.TOOLS | Feature.IMAGES | Feature.REASONING
Chunk = dict[str, Any]


def choice(text: str, index: int = 0, **more: Any) -> Chunk:
    return {"choices": [{"index": index, "delta": {"content": text}, **more}]}


def able(kind: JobKind, body: dict[str, Any]) -> list[Chunk]:
    """Everything that is asked for, as it is done."""
    if kind == JobKind.EMBEDDING:
        return [{"data": [{"embedding": [0.5]}]}]
    text = '{"colour": "red"}' if "response_format" in body else "Red."
    more: Chunk = {"logprobs": {"content": []}} if body.get("logprobs") else {}
    return [choice(text, index, **more) for index in range(body.get("n", 1))]


class Engine:
    """A double whose answers are `answers`, and which keeps what it was asked."""

    def __init__(self, answers: Callable[[JobKind, dict[str, Any]], list[Chunk]]) -> None:
        self.asked: list[tuple[JobKind, dict[str, Any]]] = []
        self._answers = answers

    @asynccontextmanager
    async def stream(  # noqa: D102
        self, kind: JobKind, body: bytes
    ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        await trio.lowlevel.checkpoint()
        self.asked.append((kind, json.loads(body)))
        yield self._batches(self._answers(*self.asked[-1]))

    async def _batches(self, chunks: list[Chunk]) -> AsyncIterator[list[bytes]]:
        for chunk in chunks:
            yield [json.dumps(chunk).encode()]


async def does(
    answers: Callable[[JobKind, dict[str, Any]], list[Chunk]], features: Feature = ALL
) -> Feature:
    spec = attached("http://h", "m", slots=1, context_tokens=512, features=features)
    return await tried(Engine(answers), spec)


async def test_what_an_engine_does_is_kept() -> None:
    assert await does(able) == ALL


@pytest.mark.parametrize("features", [Feature.KIND_EMBEDDING, Feature.KIND_CHAT])
async def test_the_main_kind_alone_takes_no_trial(features: Feature) -> None:
    spec = attached("http://h", "m", slots=1, context_tokens=512, features=features)
    assert list(trials(spec)) == []


async def test_completions_alone_are_tried_as_completions() -> None:
    features = Feature.KIND_COMPLETION | Feature.LOGPROBS | Feature.CHOICES | Feature.CONTINUES
    spec = attached("http://h", "m", slots=1, context_tokens=512, features=features)
    engine = Engine(able)
    assert await tried(engine, spec) == features
    assert [kind for kind, _ in engine.asked] == [JobKind.COMPLETION] * 3
    assert [body["prompt"] for _, body in engine.asked][-1].endswith("The colour")


@pytest.mark.parametrize(
    "error",
    [EngineRefused(400, b"no such thing"), EngineBrokeOff("died"), EngineTimedOut("silent")],
    ids=["refused", "broke off", "timed out"],
)
async def test_what_fails_is_not_offered_and_said(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def picky(kind: JobKind, body: dict[str, Any]) -> list[Chunk]:
        if "tools" in body or kind == JobKind.EMBEDDING:
            raise error
        return able(kind, body)

    assert await does(picky) == ALL & ~Feature.TOOLS & ~Feature.KIND_EMBEDDING
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    for name, message in zip(("embedding", "tools"), said, strict=True):
        assert f"'{name}'" in message
        assert str(error) in message
        assert "mend the engine and start again" in message


async def test_what_is_ignored_is_not_offered(caplog: pytest.LogCaptureFixture) -> None:
    """An answer in words, one choice, no probabilities: as if nothing had been asked for."""
    found = await does(lambda _kind, _body: [choice("Red.")])
    assert found == ALL & ~(Feature.STRUCTURED | Feature.LOGPROBS | Feature.CHOICES)
    assert caplog.text.count("as if that had not been asked for") == 3


async def test_an_answer_that_says_nothing_shows_nothing() -> None:
    assert await does(lambda _kind, _body: []) == Feature.KIND_CHAT


async def test_who_thinks_first_may_have_said_nothing_yet() -> None:
    """A reasoning parser's eight tokens are all thoughts; the schema binds what comes after."""

    def thinks(_kind: JobKind, _body: dict[str, Any]) -> list[Chunk]:
        return [{"choices": [{"index": 0, "delta": {"reasoning_content": "Okay"}}]}]

    features = Feature.KIND_CHAT | Feature.STRUCTURED | Feature.REASONING
    assert await does(thinks, features) == features


async def test_an_answer_that_is_none_is_not_offered(caplog: pytest.LogCaptureFixture) -> None:
    def odd(kind: JobKind, body: dict[str, Any]) -> list[Chunk]:
        if kind == JobKind.EMBEDDING:  # as the client's reader of such answers says it
            raise BadResponse("a vector is a list of numbers")
        return able(kind, body)

    assert await does(odd) == ALL & ~Feature.KIND_EMBEDDING
    assert "a vector is a list of numbers" in caplog.text


async def test_an_engine_that_is_gone_is_no_matter_of_features() -> None:
    def gone(_kind: JobKind, _body: dict[str, Any]) -> list[Chunk]:
        raise EngineUnreachable("gone")

    with pytest.raises(EngineUnreachable):
        await does(gone)


async def test_the_picture_is_one() -> None:
    engine = Engine(able)
    features = Feature.KIND_CHAT | Feature.IMAGES
    await tried(engine, attached("http://h", "m", slots=1, context_tokens=9, features=features))
    ((_, body),) = engine.asked
    url = body["messages"][0]["content"][1]["image_url"]["url"]
    raw = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    with Image.open(BytesIO(raw)) as picture:
        picture.load()
        assert (picture.format, picture.size) == ("PNG", (64, 64))
