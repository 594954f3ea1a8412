"""What an engine really does of what it is said to do: each kind and feature is asked for once.

An offer is for kinds and features, and an engine that then refuses one, or leaves it out without a
word, counts against the node. Some also prepare a feature when it is first asked for, and take
longer over that than a gateway waits. So every one is tried before the node opens: what fails is
not offered, and a warning says what the engine said.

Not everything shows: a model may answer in words where tools were at hand, and a picture's answer
looks like any other. There it counts that the engine takes the request.
"""

import json
import logging
import struct
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from node.engines.errors import EngineBrokeOff, EngineRefused, EngineTimedOut
from node.engines.measure import MeasuredEngine
from node.engines.spec import KINDS, EngineSpec, continued
from pinaivu.codes import Feature, JobKind
from pinaivu.openai import BadResponse

Chunks = list[dict[str, Any]]
_TOKENS: Final = 8
_TEXT: Final = "Name a colour."
_OBJECT: Final = {
    "type": "object",
    "properties": {"colour": {"type": "string"}},
    "required": ["colour"],
    "additionalProperties": False,
}
_PIXELS: Final = 64
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trial:
    """A request for one feature, and how its answer shows that the feature was not ignored."""

    feature: Feature
    kind: JobKind
    body: dict[str, Any]
    shown: Callable[[Chunks], bool] = bool


async def tried(engine: MeasuredEngine, spec: EngineSpec) -> Feature:
    """What of `spec.features` a ready engine does. Errors other than of one request are raised."""
    does = spec.features
    for trial in trials(spec):
        said = await _tried(engine, trial)
        if said:
            does &= ~trial.feature
            name = (trial.feature.name or "").lower().removeprefix("kind_")
            _logger.warning(
                "the engine does not serve %r, so it is not offered: %s; configure it without, or"
                " mend the engine and start again",
                name,
                said,
            )
    return does


async def _tried(engine: MeasuredEngine, trial: Trial) -> str:
    """Why it does not do that; empty where it does."""
    try:
        chunks: Chunks = []
        async with engine.stream(trial.kind, json.dumps(trial.body).encode()) as events:
            async for batch in events:
                chunks += map(json.loads, batch)
    except (EngineRefused, EngineBrokeOff, EngineTimedOut, BadResponse) as error:
        return str(error)
    except ValueError:
        return "its answer is not JSON"
    return "" if trial.shown(chunks) else "it answers as if that had not been asked for"


def trials(spec: EngineSpec) -> Iterator[Trial]:
    """One trial for each kind and feature, the main kind excepted: that one is measured."""
    for kind, feature in KINDS.items():
        if feature & spec.features and kind != spec.main_kind:
            yield Trial(feature, kind, _body(spec, kind))
    main = spec.main_kind
    if main == JobKind.EMBEDDING:
        return
    body = _body(spec, main)
    for feature, (more, shown) in (_CHAT if main == JobKind.CHAT else _COMPLETION).items():
        if feature & spec.features:
            yield Trial(feature, main, body | more, shown)
    if Feature.CONTINUES & spec.features:
        yield Trial(Feature.CONTINUES, main, continued(body, "The colour"))


def _body(spec: EngineSpec, kind: JobKind) -> dict[str, Any]:
    text = {"max_tokens": _TOKENS, "temperature": 0, "stream": True}
    return spec.probe(_TEXT, kind) | (text if kind != JobKind.EMBEDDING else {})


def _choices(chunks: Chunks) -> Iterator[dict[str, Any]]:
    for chunk in chunks:
        yield from chunk.get("choices") or []


def _has_logprobs(chunks: Chunks) -> bool:
    return any(choice.get("logprobs") for choice in _choices(chunks))


def _has_two(chunks: Chunks) -> bool:
    return {choice.get("index") for choice in _choices(chunks)} == {0, 1}


def _is_object(chunks: Chunks) -> bool:
    """Whether it begins as JSON; unasked, a model names its colour in words.

    A model that thinks first may have come to say nothing yet.
    """
    deltas = [choice.get("delta") or {} for choice in _choices(chunks)]
    text = "".join(delta.get("content") or "" for delta in deltas).lstrip()
    return text.startswith("{") if text else bool(deltas)


def _picture() -> str:
    """A grey square, PNG."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", _PIXELS, _PIXELS, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x80" * _PIXELS) * _PIXELS)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return "data:image/png;base64," + b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


_Members = dict[Feature, tuple[dict[str, Any], Callable[[Chunks], bool]]]
_COMPLETION: Final[_Members] = {
    Feature.LOGPROBS: ({"logprobs": 2}, _has_logprobs),
    Feature.CHOICES: ({"n": 2, "temperature": 1}, _has_two),
}
_SCHEMA: Final = {"name": "colour", "schema": _OBJECT, "strict": True}
_TOOL: Final = {"name": "paint", "description": "Paint in a colour.", "parameters": _OBJECT}
_QUESTION: Final = [
    {"type": "text", "text": _TEXT},
    {"type": "image_url", "image_url": {"url": _picture()}},
]
_CHAT: Final[_Members] = {
    Feature.STRUCTURED: (
        {"response_format": {"type": "json_schema", "json_schema": _SCHEMA}},
        _is_object,
    ),
    Feature.LOGPROBS: ({"logprobs": True, "top_logprobs": 2}, _has_logprobs),
    Feature.CHOICES: ({"n": 2, "temperature": 1}, _has_two),
    Feature.TOOLS: (
        {"tools": [{"type": "function", "function": _TOOL}], "tool_choice": "auto"},
        bool,
    ),
    Feature.IMAGES: ({"messages": [{"role": "user", "content": _QUESTION}]}, bool),
    Feature.REASONING: ({"reasoning_effort": "low"}, bool),
}
