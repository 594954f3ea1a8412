"""A case of the matrix: a client's request, what the engine must get and plays, what is seen.

Expectations are over plain JSON, the same for every SDK. A case's name goes along as `user`, so
the scripted engine knows which script to play.
"""

import base64
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from tests.conformance.scripts import Script

MODEL: Final = "scripted-vision"
ENGINE_MODEL: Final = "scripted"
PATHS: Final = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
}
DEFAULT_TOKENS: Final = {"chat": 1024, "completions": 16}
HI: Final = {"role": "user", "content": "Say hi."}
PIXEL: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)

Seen = dict[str, Any]
"""What a driver says of a call: `body` or `chunks`, or `error`; and `headers`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request in one way. `feature` is the row of the matrix it belongs to."""

    name: str
    feature: str
    call: str
    body: dict[str, Any]
    script: Script
    check: Callable[[Seen], None]
    stream: bool = False
    changed: dict[str, Any] = field(default_factory=dict)
    """What the engine gets beside or instead of the client's members."""
    reaches_engine: bool = True

    @property
    def request(self) -> dict[str, Any]:
        """What the client sends."""
        own = {"model": MODEL, "user": self.name} | self.body
        return own | ({"stream": True} if self.stream else {})


def expected_body(case: Case) -> dict[str, Any]:
    """Exactly what the engine must get: the client's body, but for what an engine is told anew."""
    dropped = {"max_completion_tokens", "pinaivu"}
    body = {name: value for name, value in case.request.items() if name not in dropped}
    body["model"] = ENGINE_MODEL
    if case.call == "embeddings":
        return {"encoding_format": "base64"} | body | case.changed  # SDKs ask for base64
    asked = case.body.get("max_completion_tokens") or case.body.get("max_tokens")
    return (
        body
        | {
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": asked or DEFAULT_TOKENS[case.call],
        }
        | case.changed
    )


def said(seen: Seen, index: int = 0) -> dict[str, Any]:
    """The message of a choice, gathered from chunks or as it came."""
    assert "error" not in seen, seen["error"]
    if "body" in seen:
        message: dict[str, Any] = seen["body"]["choices"][index]["message"]
        return {name: value for name, value in message.items() if value not in (None, [])}
    return _gathered(seen["chunks"], index)


def _gathered(chunks: list[Any], index: int) -> dict[str, Any]:
    message: dict[str, Any] = {}
    calls: dict[int, dict[str, Any]] = {}
    for choice in _choices(chunks, index):
        delta = choice["delta"]
        for name in ("role", "content", "refusal", "reasoning", "reasoning_content"):
            if delta.get(name):
                message[name] = message.get(name, "") + delta[name]
        for call in delta.get("tool_calls") or []:
            known = calls.setdefault(call["index"], {"function": {"arguments": ""}})
            known |= {name: call[name] for name in ("id", "type") if call.get(name)}
            function = call.get("function") or {}
            if function.get("name"):
                known["function"]["name"] = function["name"]
            known["function"]["arguments"] += function.get("arguments") or ""
    return message | ({"tool_calls": [calls[n] for n in sorted(calls)]} if calls else {})


def _choices(chunks: list[Any], index: int) -> list[Any]:
    return [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]


def finish(seen: Seen, index: int = 0) -> str:
    """How a choice ended."""
    if "body" in seen:
        return str(seen["body"]["choices"][index]["finish_reason"])
    (reason,) = {c["finish_reason"] for c in _choices(seen["chunks"], index)} - {None}
    return str(reason)


def text(seen: Seen, index: int = 0) -> str:
    """The text of a completion's choice."""
    assert "error" not in seen, seen["error"]
    if "body" in seen:
        return str(seen["body"]["choices"][index]["text"])
    return "".join(c["text"] for c in _choices(seen["chunks"], index))


def logprobs(seen: Seen, index: int = 0) -> dict[str, Any]:
    """The logprobs of a choice, lists joined over chunks."""
    if "body" in seen:
        found: dict[str, Any] = seen["body"]["choices"][index]["logprobs"]
        return {name: value for name, value in found.items() if value}
    joined: dict[str, Any] = {}
    for choice in _choices(seen["chunks"], index):
        for name, values in (choice.get("logprobs") or {}).items():
            if values:
                joined[name] = joined.get(name, []) + values
    return joined


def last(seen: Seen) -> dict[str, Any]:
    """The body, or the last chunk: where `request_id` and usage stand."""
    found: dict[str, Any] = seen["body"] if "body" in seen else seen["chunks"][-1]
    return found


def error(seen: Seen) -> tuple[int | None, str, str | None]:
    """Status, code and parameter of an error; no status for one in mid-stream."""
    found = seen["error"]
    return found["status"], found["code"], found["param"]


def floats(*values: float) -> str:
    """Base64 of float32 values, as engines send them."""
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


@cache
def all_cases() -> dict[str, Case]:
    """The cases of every page, by name."""
    from tests.conformance import chats, others  # noqa: PLC0415 - they are made of this module

    found = [*chats.cases(), *others.cases()]
    assert len({case.name for case in found}) == len(found)
    return {case.name: case for case in found}


def by_name(name: str) -> Case:
    """A case."""
    return all_cases()[name]
