"""One event of a response, as engines send it: the members that anybody here reads, and no others.

What is encoded again has the members that were there and not null.
"""

from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct

from pinaivu.openai.claims import Usage
from pinaivu.openai.requests import MAX_CHOICES

MAX_CALLS: Final = 1024
"""Tool calls that one choice may have: far more than any model makes."""

Index = Annotated[int, Meta(ge=0)]

# Nested as deeply as a chat's are, so that whoever encodes them again, wherever, can do so.
_Leaf: TypeAlias = str | int | float | bool | None
_Flat: TypeAlias = _Leaf | list[_Leaf] | dict[str, _Leaf]  # a token's bytes
_Alternative: TypeAlias = _Leaf | list[_Flat] | dict[str, _Flat]
_Alternatives: TypeAlias = _Leaf | list[_Alternative] | dict[str, _Alternative]
_Entry: TypeAlias = _Leaf | list[_Alternatives] | dict[str, _Alternatives]
Logprobs: TypeAlias = dict[str, _Leaf | list[_Entry] | dict[str, _Entry]]


class Function(Struct, omit_defaults=True):
    """What a tool call calls, or a part of it."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct, omit_defaults=True):
    """A tool call, or a part of it."""

    index: Annotated[int, Meta(ge=0, lt=MAX_CALLS)] | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None


class Message(Struct, omit_defaults=True):
    """A chat's message, or a part of it."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=MAX_CALLS)] | None = None


class Choice(Struct):
    """One choice's part of an event; `delta` or `message` in a chat, `text` in a completion."""

    index: Index = 0
    delta: Message | None = None
    message: Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Chunk(Struct):
    """One event."""

    choices: Annotated[list[Choice], Meta(max_length=MAX_CHOICES)] = []
    usage: Usage | None = None
    error: object = None
