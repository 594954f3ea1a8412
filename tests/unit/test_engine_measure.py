"""What is promised, from scripted engines with a clock of their own: exact to the unit."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from node.engines.errors import EngineRefused, EngineUnusable
from node.engines.measure import Effort, EnginePromise, measure
from node.engines.spec import EngineSpec, attached
from pinaivu.codes import Feature, JobKind

MS = 1_000_000
Batch = tuple[int, list[dict[str, Any]]]


def text(content: str = "x") -> dict[str, Any]:
    return {"choices": [{"delta": {"content": content}}]}


ROLE = {"choices": [{"delta": {"role": "assistant", "content": None}}]}


def usage(tokens: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"completion_tokens": tokens}}


def answer(first_ms: float, each_ms: float, tokens: int = 11) -> list[Batch]:
    """The first token after `first_ms`, each other after `each_ms`, then the usage report."""
    steps = [(int(first_ms * MS), [ROLE, text()])]
    steps += [(int(each_ms * MS), [text()]) for _ in range(tokens - 1)]
    return [*steps, (5 * MS, [usage(tokens)])]


class ScriptedEngine:
    """Gives one scripted answer after the other; its clock moves only as scripted."""

    def __init__(self, answers: Sequence[list[Batch]]) -> None:
        self.now = 10**15
        self.kinds: list[JobKind] = []
        self.bodies: list[dict[str, Any]] = []
        self._answers = list(answers)

    def clock(self) -> int:  # noqa: D102
        return self.now

    @asynccontextmanager
    async def stream(  # noqa: D102
        self, kind: JobKind, body: bytes
    ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        self.kinds.append(kind)
        self.bodies.append(json.loads(body))
        await trio.lowlevel.checkpoint()
        yield self._batches(self._answers.pop(0))

    async def _batches(self, steps: list[Batch]) -> AsyncIterator[list[bytes]]:
        for wait_ns, chunks in steps:
            self.now += wait_ns
            yield [json.dumps(chunk).encode() for chunk in chunks]


def spec(slots: int = 1) -> EngineSpec:
    return attached("http://h", "m", slots=slots, context_tokens=512)


async def test_the_slowest_run_counts_and_the_warm_up_does_not() -> None:
    """11 tokens; those after the first took 10 × 20 ms: 50 per second, 50,000 per 1,000 s."""
    engine = ScriptedEngine([answer(900, 90), answer(100, 10), answer(80, 20), answer(90, 10)])
    found = await measure(engine, spec(), clock_ns=engine.clock, nonce="n")
    assert found.alone == found.loaded == found.promise == EnginePromise(100, 50_000)


async def test_fractions_are_rounded_against_the_promise() -> None:
    """100.0001 ms are 101; 10 tokens in 210 ms are 47,619.04 per 1,000 s."""
    engine = ScriptedEngine([answer(1, 1), answer(100.0001, 21)])
    found = await measure(engine, spec(), clock_ns=engine.clock, nonce="n", effort=Effort(runs=1))
    assert found.promise == EnginePromise(101, 47_619)


async def test_tokens_that_came_with_the_first_are_not_part_of_the_rate() -> None:
    """10 of 20 tokens in the first batch: the other 10 took 100 ms."""
    steps: list[Batch] = [(50 * MS, [text()] * 10), *((10 * MS, [text()]) for _ in range(10))]
    steps.append((0, [usage(20)]))
    engine = ScriptedEngine([answer(1, 1), steps])
    found = await measure(engine, spec(), clock_ns=engine.clock, nonce="n", effort=Effort(runs=1))
    assert found.promise == EnginePromise(50, 100_000)


async def test_with_several_slots_the_promise_holds_while_all_are_busy() -> None:
    """This double works on one at a time: the second waits the first's 295 ms, then its own 70."""
    engine = ScriptedEngine([answer(1, 1), answer(50, 10), answer(40, 25), answer(70, 20)])
    effort = Effort(runs=1)
    found = await measure(engine, spec(2), clock_ns=engine.clock, nonce="n", effort=effort)
    assert found.alone == EnginePromise(50, 100_000)
    assert found.loaded == found.promise == EnginePromise(365, 40_000)


async def test_every_prompt_begins_differently() -> None:
    """Else the engine's prefix cache would answer, and promise what no customer gets."""
    engine = ScriptedEngine([answer(1, 1)] * 6)
    await measure(engine, spec(2), clock_ns=engine.clock, nonce="n1", effort=Effort(runs=3))
    prompts = [body["messages"][0]["content"] for body in engine.bodies]
    assert len({prompt[:20] for prompt in prompts}) == 6
    assert all(prompt.startswith("n1 ") for prompt in prompts)


async def test_prompts_are_as_long_as_they_are_to_be() -> None:
    engine = ScriptedEngine([answer(1, 1)] * 2)
    effort = Effort(runs=1, sentences=3)
    await measure(engine, spec(), clock_ns=engine.clock, nonce="n1", effort=effort)
    prompts = [body["messages"][0]["content"] for body in engine.bodies]
    assert [prompt.count("lighthouse") for prompt in prompts] == [3, 3]


@pytest.mark.parametrize(
    "steps",
    [answer(10, 10, tokens=8), [(MS, [ROLE])], [(MS, [text()] * 20), (MS, [usage(20)])]],
    ids=["too short", "no text", "all at once"],
)
async def test_an_answer_without_a_rate_promises_nothing(steps: list[Batch]) -> None:
    engine = ScriptedEngine([steps])
    with pytest.raises(EngineUnusable, match="too few"):
        await measure(engine, spec(), clock_ns=engine.clock, nonce="n")


async def test_a_refusal_while_all_slots_are_busy_is_the_refusal_itself() -> None:
    class Full(ScriptedEngine):
        @asynccontextmanager
        async def stream(
            self, kind: JobKind, body: bytes
        ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
            if b"together 1" in body:
                raise EngineRefused(429, b"full")
            async with super().stream(kind, body) as events:
                yield events

    engine = Full([answer(1, 1)] * 5)
    with pytest.raises(EngineRefused, match="429"):
        await measure(engine, spec(2), clock_ns=engine.clock, nonce="n")


async def test_an_engine_that_only_embeds_promises_its_first_answer_alone() -> None:
    """Nothing is generated, so no rate is promised."""
    engine = ScriptedEngine([[(7 * MS, [{"data": []}])]] * 3)
    embeds = attached("http://h", "m", slots=1, context_tokens=512, features=Feature.KIND_EMBEDDING)
    effort = Effort(runs=2)
    found = await measure(engine, embeds, clock_ns=engine.clock, nonce="n", effort=effort)
    assert found.promise == EnginePromise(7, 1)
    assert set(engine.kinds) == {JobKind.EMBEDDING}
    assert engine.bodies[0].keys() == {"model", "input"}
