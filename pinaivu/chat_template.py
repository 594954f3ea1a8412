"""The prompt that an engine makes of a chat completion's messages: the model's own template.

The template is Jinja as Hugging Face models carry it, run in a sandbox that can neither reach
Python's internals nor change what it is given. The same preparation is done as by the engines
(llama.cpp and vLLM agree on it): text parts are joined by newlines where the template knows only
strings, `developer` is `system` where the template doesn't know it, a tool call's arguments are
handed over parsed.

Not promised: the same prompt as an engine that was given template options of its own. Bodies with
such options are refused.
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
_ENGINE_OPTIONS: Final = (
    "add_generation_prompt",
    "chat_template",
    "chat_template_kwargs",
    "continue_final_message",
    "documents",
)
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
        self._takes_parts = self._same("user", [{"type": "text", "text": _NEEDLE}], _NEEDLE)
        self._takes_null = self._same("assistant", None, "")

    def render(self, body: Mapping[str, Any]) -> str:
        """The prompt of a chat completion's body, up to where the assistant begins to speak.

        Raises `NotCountable` for content that is not text, for options that change the template's
        work inside an engine, and for messages that the template itself refuses.
        """
        for option in _ENGINE_OPTIONS:
            if option in body:
                raise NotCountable(option, "changes the prompt in ways that can't be counted")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise NotCountable("messages", "is no list of messages")
        prepared = [self._message(index, message) for index, message in enumerate(messages)]
        try:
            return self._render(prepared, body.get("tools") or None)
        except _TEMPLATE_ERRORS as error:
            raise NotCountable("messages", f"the model's chat template: {error}") from error

    def _render(self, messages: list[dict[str, Any]], tools: object = None) -> str:
        return self._template.render(messages=messages, tools=tools, add_generation_prompt=True)

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
        texts = [_part(f"{where}[{index}]", part) for index, part in enumerate(content)]
        if self._takes_parts:
            return [{"type": "text", "text": text} for text in texts]
        return "\n".join(texts)


def _part(where: str, part: object) -> str:
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
