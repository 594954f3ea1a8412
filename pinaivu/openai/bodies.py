"""The parts of a request body: messages, their contents, tools, formats.

Only members the market reads, or whose type two implementations must agree on, are declared; all
others pass through unread. A part, message or tool of a kind not declared here is refused.
"""

from typing import Literal, TypeAlias

from msgspec import Struct


class TextPart(Struct, frozen=True, tag_field="type", tag="text"):
    """Text within a message."""

    text: str


class RefusalPart(Struct, frozen=True, tag_field="type", tag="refusal"):
    """A refusal within an earlier answer."""

    refusal: str


class ImageUrl(Struct, frozen=True):
    """Where an image is, or the image as a data URL."""

    url: str


class ImagePart(Struct, frozen=True, tag_field="type", tag="image_url"):
    """An image within a message."""

    image_url: ImageUrl


class CalledFunction(Struct, frozen=True):
    """A function the model called earlier."""

    name: str
    arguments: str


class ToolCall(Struct, frozen=True, tag_field="type", tag="function"):
    """A call in an earlier answer."""

    id: str
    function: CalledFunction


class SystemMessage(Struct, frozen=True, tag_field="role", tag="system"):
    """Instructions."""

    content: str | list[TextPart]


class DeveloperMessage(Struct, frozen=True, tag_field="role", tag="developer"):
    """Instructions, under their newer name."""

    content: str | list[TextPart]


class UserMessage(Struct, frozen=True, tag_field="role", tag="user"):
    """What the user says."""

    content: str | list[TextPart | ImagePart]


class AssistantMessage(Struct, frozen=True, tag_field="role", tag="assistant"):
    """An earlier answer, or the beginning of this one."""

    content: str | list[TextPart | RefusalPart] | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: None = None


class ToolMessage(Struct, frozen=True, tag_field="role", tag="tool"):
    """What a called function returned."""

    content: str | list[TextPart]
    tool_call_id: str


ChatMessage: TypeAlias = (
    SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage
)


class FunctionTool(Struct, frozen=True):
    """A function the model may call."""

    name: str
    parameters: dict[str, object] | None = None


class Tool(Struct, frozen=True, tag_field="type", tag="function"):
    """A tool the model may use."""

    function: FunctionTool


class ResponseFormat(Struct, frozen=True):
    """The form the answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, object] | None = None


class StreamOptions(Struct, frozen=True):
    """How to stream."""

    include_usage: bool | None = None
