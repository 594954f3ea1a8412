"""The prompt that an engine makes of a chat completion's messages: the model's own template.

The template is Jinja as Hugging Face models carry it, run in a sandbox that can neither reach
Python's internals nor change what it is given. The same preparation is done as by the engines
(llama.cpp and vLLM agree on it): text parts are joined by newlines where the template knows only
strings, `developer` is `system` where the template doesn't know it, a tool call's arguments are
handed over parsed, options of a body (`chat_template_kwargs`, `reasoning_effort`, `documents`,
`add_generation_prompt`, `continue_final_message`) reach the template as vLLM hands them over.

An image counts as what the template writes in its place, the same on both sides. An engine makes
more tokens of it, how many depends on the model's eye: those are nowhere defined and not billed.

Not promised: the same prompt as an engine that was started with a template of its own.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pinaivu.encoding import InvalidParameter
from pinaivu.errors import Misconfigured

_NEEDLE: Final = "pinaivu probe"
_SPECIAL_NAMES: Final = {"bos_token", "eos_token", "pad_token", "unk_token"}
_IMAGE: Final = {"type": "image"}
_OURS: Final = frozenset({"messages", "tools", "documents"})
_OPTIONS: Final = frozenset({"add_generation_prompt", "continue_final_message"})
_TEMPLATE_ERRORS: Final = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class NotCountable(InvalidParameter):
    """A body whose prompt tokens can't be told from its text, e.g. with an image.

    `parameter` names the member that stands in the way.
    """


class ChatTemplate:
    """One model's chat template.

    Raises `Misconfigured` for a text that is no template, or that needs `bos_token` or its like:
    counts may depend only on what the tokenizer digest covers, so such a template sets them itself.
    """

    def __init__(self, source: str) -> None:
        environment = _environment()
        try:
            needed = meta.find_undeclared_variables(environment.parse(source)) & _SPECIAL_NAMES
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise Misconfigured(f"the chat template does not parse: {error}") from error
        if needed:
            name = min(needed)
            raise Misconfigured(
                f"the chat template uses {name}; put {{% set {name} = '…' %}} at its beginning"
            )
        self._knows_developer = "developer" in source
        text = {"type": "text", "text": _NEEDLE}
        self._takes_parts = self._same("user", [text], _NEEDLE)
        self._takes_images = self._takes_parts and self._writes([text, _IMAGE])
        self._takes_null = self._same("assistant", None, "")

    def render(self, body: Mapping[str, Any]) -> str:
        """The prompt of a chat completion's body, up to where the assistant begins to speak.

        Raises `NotCountable` for content that the template can't show, for a template of the
        caller's own, for options that contradict each other, and for messages that the template
        itself refuses.
        """
        if body.get("chat_template") is not None:
            raise NotCountable("chat_template", "is not the model's own")
        continues, options = bool(body.get("continue_final_message")), _options(body)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise NotCountable("messages", "is no list of messages")
        prepared = [self._message(index, message) for index, message in enumerate(messages)]
        try:
            text = self._render(prepared, body.get("tools") or None, **options)
        except _TEMPLATE_ERRORS as error:
            raise NotCountable("messages", f"the model's chat template: {error}") from error
        return _up_to_the_end_of(messages[-1], text) if continues else text

    def _render(
        self, messages: list[dict[str, Any]], tools: object = None, **options: object
    ) -> str:
        given = {"add_generation_prompt": True} | options
        return self._template.render(messages=messages, tools=tools, **given)

    def _writes(self, content: list[dict[str, str]]) -> bool:
        """Whether the template shows the last part of `content` at all."""
        try:
            one, other = (
                self._render([{"role": "user", "content": parts}])
                for parts in (content, content[:-1])
            )
        except _TEMPLATE_ERRORS:
            return False
        return one != other

    def _same(self, role: str, content: object, text: str) -> bool:
        """Whether the template makes of `content` what it makes of the same content as a string."""
        opening = [] if role == "user" else [{"role": "user", "content": _NEEDLE}]
        try:
            one, other = (
                self._render([*opening, {"role": role, "content": value}])
                for value in (content, text)
            )
        except _TEMPLATE_ERRORS:
            return False
        return one == other

    def _message(self, index: int, message: object) -> dict[str, Any]:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise NotCountable(f"messages[{index}]", "is no message with a role")
        prepared = dict(message)
        if prepared["role"] == "developer" and not self._knows_developer:
            prepared["role"] = "system"
        prepared["content"] = self._content(f"messages[{index}].content", message.get("content"))
        if message.get("tool_calls"):
            where = f"messages[{index}].tool_calls"
            prepared["tool_calls"] = list(_tool_calls(where, message["tool_calls"]))
        return prepared

    def _content(self, where: str, content: object) -> object:
        if content is None:
            return None if self._takes_null else ""
        if isinstance(content, str):
            return content
        if not isinstance(content, list):
            raise NotCountable(where, "is neither text nor a list of text parts")
        parts = [self._part(f"{where}[{index}]", part) for index, part in enumerate(content)]
        if self._takes_parts:
            return parts
        return "\n".join(part["text"] for part in parts)

    def _part(self, where: str, part: object) -> dict[str, str]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "image_url" and self._takes_images:
            return dict(_IMAGE)
        if kind == "image_url":
            raise NotCountable(where, "is an image, and this model's chat template shows none")
        return {"type": "text", "text": _text(where, part)}


def _options(body: Mapping[str, Any]) -> dict[str, object]:
    """What a body tells the template beside messages and tools."""
    options: dict[str, object] = {}
    if body.get("documents"):
        options["documents"] = body["documents"]
    if body.get("reasoning_effort") is not None:
        options["reasoning_effort"] = body["reasoning_effort"]
    for name, value in (body.get("chat_template_kwargs") or {}).items():
        where = f"chat_template_kwargs.{name}"
        if name in _OURS or name in _OPTIONS:
            raise NotCountable(where, "is a parameter of its own")
        if not isinstance(value, str | int | float | None):
            raise NotCountable(where, "is neither a switch, a number nor a text")
        options[name] = value
    for name in _OPTIONS & body.keys():
        options[name] = bool(body[name])
    if options.get("continue_final_message") and options.get("add_generation_prompt", True):
        raise NotCountable("continue_final_message", "needs add_generation_prompt to be false")
    return options


def _up_to_the_end_of(message: Mapping[str, Any], text: str) -> str:
    """A prompt cut where the last message's own text ends, as Hugging Face's library cuts it."""
    content = message.get("content")
    if isinstance(content, list) and content:
        content = content[-1].get("text")
    said = content.strip() if isinstance(content, str) else ""
    place = text.rfind(said) if said else -1
    if place < 0:
        raise NotCountable("continue_final_message", "needs a last message with text to go on from")
    whole = str(content).lstrip()
    return text[: place + len(whole if text.startswith(whole, place) else said)]


def _text(where: str, part: object) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else None
    raise NotCountable(where, f"is no text ({kind})" if isinstance(kind, str) else "is no text")


def _tool_calls(where: str, calls: object) -> Iterator[dict[str, Any]]:
    if not isinstance(calls, list):
        raise NotCountable(where, "is no list of calls")
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise NotCountable(f"{where}[{index}]", "calls no function")
        yield {**call, "function": {**function, "arguments": _parsed(function.get("arguments"))}}


def _parsed(arguments: object) -> object:
    """A tool call's arguments as templates want them: parsed, if they are an object's JSON."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks what a model is trained on; here it is nothing.

    Templates made with Hugging Face's training tools contain it.
    """

    tags = {"generation"}  # noqa: RUF012  # jinja declares it as a plain class attribute

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    return environment


def _to_json(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002  # the signature that templates call
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """JSON as Hugging Face's filter writes it: not escaped for HTML, keys in the order given."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
