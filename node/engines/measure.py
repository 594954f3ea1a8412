"""What an engine can promise: measured at start-up with real requests, rounded against ourselves.

A promise is what the slowest of a few requests showed: with one request alone, and, where there
are several slots, with all of them busy. Every prompt begins differently, so that no engine answers
from a cache of an earlier prompt.

It is a promise for prompts of about the measured length on a machine as busy as now. A prompt ten
times as long waits longer for its first token; calibration by outcome (design §5) corrects that.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import trio

from node.engines.errors import EngineUnusable
from node.engines.spec import EngineSpec
from pinaivu.codes import JobKind

_NS_PER_MS: Final = 1_000_000
_NS_PER_1000_S: Final = 10**12
_FEWEST_TOKENS: Final = 8
_SENTENCE: Final = "Tell a long story about a lighthouse, its keeper, and the sea. "


class MeasuredEngine(Protocol):
    """What is measured: `EngineClient`, or a double with a clock of its own."""

    def stream(
        self, kind: JobKind, body: bytes
    ) -> AbstractAsyncContextManager[AsyncIterator[list[bytes]]]:
        """Stream an answer; see `EngineClient.stream`."""


@dataclass(frozen=True, slots=True)
class EnginePromise:
    """Milliseconds to the first token, and tokens per 1,000 seconds after it."""

    ttft_ms: int
    tps_milli: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """The slowest of the requests alone, and of the requests with every slot busy (else equal)."""

    alone: EnginePromise
    loaded: EnginePromise

    @property
    def promise(self) -> EnginePromise:
        """What can be kept whatever the other slots do."""
        return _slowest([self.alone, self.loaded])


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure: requests one after the other, tokens of each, sentences of its prompt.

    A sentence is about 15 tokens.
    """

    runs: int = 3
    tokens: int = 48
    sentences: int = 8


async def measure(
    engine: MeasuredEngine,
    spec: EngineSpec,
    *,
    clock_ns: Callable[[], int],
    nonce: str,
    effort: Effort = Effort(),  # frozen
) -> Measurement:
    """Measure a ready engine.

    `clock_ns` is monotonic; `nonce` makes the prompts differ from every earlier measurement's.
    Raises `EngineUnusable` if answers are too short to tell a rate, and the client's errors.
    """

    async def one(label: str) -> EnginePromise:
        body = _body(spec, f"{nonce} {label}. {_SENTENCE * effort.sentences}", effort)
        if spec.main_kind == JobKind.EMBEDDING:
            return await _timed_embedding(engine, body, clock_ns)
        return await _timed(engine, spec.main_kind, body, clock_ns)

    await one("warm-up")
    alone = _slowest([await one(f"alone {run}") for run in range(effort.runs)])
    if spec.slots == 1:
        return Measurement(alone, alone)
    together: list[EnginePromise] = []

    async def collect(label: str) -> None:
        together.append(await one(label))

    try:
        async with trio.open_nursery() as nursery:
            for slot in range(spec.slots):
                nursery.start_soon(collect, f"together {slot}")
    except ExceptionGroup as group:  # one failed request is enough to tell
        raise group.exceptions[0] from group
    return Measurement(alone, _slowest(together))


async def _timed_embedding(
    engine: MeasuredEngine, body: bytes, clock_ns: Callable[[], int]
) -> EnginePromise:
    """One request's figures, where nothing is generated: the least rate stands for none."""
    began = clock_ns()
    async with engine.stream(JobKind.EMBEDDING, body) as events:
        async for _ in events:
            pass
    return EnginePromise(ttft_ms=max(1, -(-(clock_ns() - began) // _NS_PER_MS)), tps_milli=1)


async def _timed(
    engine: MeasuredEngine, kind: JobKind, body: bytes, clock_ns: Callable[[], int]
) -> EnginePromise:
    """One request's figures. Tokens that came with the first were not waited for: not counted."""
    began = clock_ns()
    first = last = first_tokens = tokens = 0
    async with engine.stream(kind, body) as events:
        async for batch in events:
            now = clock_ns()
            chunks = [json.loads(payload) for payload in batch]
            if texts := sum(_has_text(chunk) for chunk in chunks):
                last = now
                if not first:
                    first, first_tokens = now, texts
            tokens = max(tokens, *(_reported(chunk) for chunk in chunks))
    if tokens - first_tokens < _FEWEST_TOKENS or last <= first:
        raise EngineUnusable(
            f"the engine answered a measurement with {tokens} tokens; too few to tell its speed"
        )
    return EnginePromise(
        ttft_ms=-(-(first - began) // _NS_PER_MS),
        tps_milli=max(1, (tokens - first_tokens) * _NS_PER_1000_S // (last - first)),
    )


def _body(spec: EngineSpec, prompt: str, effort: Effort) -> bytes:
    if spec.main_kind == JobKind.EMBEDDING:
        return json.dumps(spec.probe(prompt)).encode()
    body: dict[str, Any] = {
        **spec.probe(prompt),
        "max_tokens": effort.tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **spec.measuring,
    }
    return json.dumps(body).encode()


def _has_text(chunk: dict[str, Any]) -> bool:
    choice = chunk["choices"][0] if chunk.get("choices") else {}
    delta = choice.get("delta") or choice
    return any(delta.get(name) for name in ("content", "reasoning_content", "reasoning", "text"))


def _reported(chunk: dict[str, Any]) -> int:
    usage = chunk.get("usage") or {}
    return int(usage.get("completion_tokens") or 0)


def _slowest(promises: list[EnginePromise]) -> EnginePromise:
    return EnginePromise(
        ttft_ms=max(promise.ttft_ms for promise in promises),
        tps_milli=min(promise.tps_milli for promise in promises),
    )
