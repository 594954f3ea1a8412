"""A request body, read: its types checked, its demands on a node derived.

A body is read once, where it enters; `Request` objects are values from then on. The body itself
stays as the client sent it, for the digest and for the engine. Types are checked as strictly as
two implementations need to agree on what was asked; ranges only where the market depends on them,
so that an engine stays free to allow more.

Refused are features whose output no commitment covers or no count can follow: legacy functions,
audio, echoed prompts, hidden candidates (`best_of`) and a chat template of the caller's own.
"""

import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from pinaivu.codes import Feature, JobKind
from pinaivu.encoding import InvalidParameter, refuse
from pinaivu.fields import MAX_U32
from pinaivu.openai.bodies import (
    AssistantMessage,
    ChatMessage,
    ImagePart,
    ResponseFormat,
    StreamOptions,
    Tool,
    ToolMessage,
    UserMessage,
)

MAX_CHOICES: Final = 128
MAX_INPUTS: Final = 512
"""Texts of one embedding request: what comes back for them is held in memory by everybody."""
MAX_TOP_LOGPROBS: Final = 20

ModelId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:/@+-]{1,128}\Z")]
Positive = Annotated[int, Meta(ge=1, le=MAX_U32)]
Choices = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
TokenId = Annotated[int, Meta(ge=0, le=MAX_U32)]
Input: TypeAlias = str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
"""One text, several, one list of token ids, or several of those."""

_THINKING: Final = ("enable_thinking", "thinking")  # names chat templates give the switch
_NOT_PLAIN: Final = (
    Feature.TOOLS | Feature.STRUCTURED | Feature.LOGPROBS | Feature.CHOICES | Feature.REASONING
)


class Request(Struct, frozen=True, kw_only=True):
    """What every kind of request has."""

    kind: ClassVar[JobKind]

    model: ModelId
    user: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    pinaivu: dict[str, object] | None = None

    @property
    def choices(self) -> int:
        """How many choices the response has."""
        raise NotImplementedError

    @property
    def features(self) -> Feature:
        """What a node must be able to do, the kind of job included."""
        raise NotImplementedError

    def tokens_per_choice(self, default: int) -> int:
        """Most output tokens of one choice; `default` where the body sets none."""
        raise NotImplementedError

    def max_output_tokens(self, default: int) -> int:
        """Most output tokens over all choices: the job's `max_output_tokens`.

        Raises `InvalidParameter` where that is more than a job can name.
        """
        total = self.choices * self.tokens_per_choice(default)
        if total > MAX_U32:
            refuse(((), "max_tokens"), f"{total} tokens over all choices are more than {MAX_U32}")
        return total

    @property
    def continuable(self) -> bool:
        """Whether another node could go on from the text so far: one choice of plain text."""
        return not self.features & _NOT_PLAIN

    def check(self) -> None:
        """Raise `InvalidParameter` for members that are well typed and yet contradict others."""


class Generation(Request, frozen=True, kw_only=True):
    """What chat and completion requests share."""

    n: Choices | None = None
    max_tokens: Positive | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = None
    response_format: ResponseFormat | None = None
    prompt_logprobs: int | None = None
    # other names engines know for a prescribed form
    structured_outputs: object = None
    guided_json: object = None
    guided_regex: object = None
    guided_choice: object = None
    guided_grammar: object = None
    json_schema: object = None
    grammar: object = None
    # left out on purpose: see the module's docstring
    functions: None = None
    function_call: None = None
    audio: None = None
    modalities: list[Literal["text"]] | None = None
    chat_template: None = None
    prompt_embeds: None = None

    @property
    def choices(self) -> int:
        """How many choices the response has."""
        return self.n or 1

    def tokens_per_choice(self, default: int) -> int:
        """Most output tokens of one choice; `default` where the body sets none."""
        return self.max_tokens or default

    def _common_features(self) -> Feature:
        features = Feature(0)
        formatted = self.response_format is not None and self.response_format.type != "text"
        if formatted or any(
            form not in (None, "", False)
            for form in (
                self.structured_outputs,
                self.guided_json,
                self.guided_regex,
                self.guided_choice,
                self.guided_grammar,
                self.json_schema,
                self.grammar,
            )
        ):
            features |= Feature.STRUCTURED
        if self.prompt_logprobs is not None:
            features |= Feature.LOGPROBS
        if self.choices > 1:
            features |= Feature.CHOICES
        return features


class ChatRequest(Generation, frozen=True, kw_only=True):
    """The body of a chat completion."""

    kind: ClassVar[JobKind] = JobKind.CHAT

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, object] | None = None
    reasoning_effort: str | None = None
    reasoning: dict[str, object] | None = None
    chat_template_kwargs: dict[str, object] | None = None
    continue_final_message: bool | None = None

    def tokens_per_choice(self, default: int) -> int:
        """Most output tokens of one choice; `default` where the body sets none."""
        return self.max_completion_tokens or self.max_tokens or default

    @property
    def features(self) -> Feature:
        """What a node must be able to do, the kind of job included."""
        features = Feature.KIND_CHAT | self._common_features()
        if self.tools or any(_uses_tools(message) for message in self.messages):
            features |= Feature.TOOLS
        if self.logprobs:
            features |= Feature.LOGPROBS
        if any(_shows_image(message) for message in self.messages):
            features |= Feature.IMAGES
        if self._reasons():
            features |= Feature.REASONING
        if self.continue_final_message:
            features |= Feature.CONTINUES
        return features

    def check(self) -> None:
        """Raise `InvalidParameter` for members that are well typed and yet contradict others."""
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            refuse(((), "max_tokens"), "differs from max_completion_tokens; send one of them")
        if self.top_logprobs is not None and not self.logprobs:
            refuse(((), "top_logprobs"), "needs logprobs to be true")
        if self.continue_final_message and not isinstance(self.messages[-1], AssistantMessage):
            refuse(((), "continue_final_message"), "needs an assistant message at the end")

    def _reasons(self) -> bool:
        switches = self.chat_template_kwargs or {}
        return bool(
            self.reasoning_effort not in (None, "none")
            or self.reasoning
            or any(switches.get(name) for name in _THINKING)
        )


class CompletionRequest(Generation, frozen=True, kw_only=True):
    """The body of a completion."""

    kind: ClassVar[JobKind] = JobKind.COMPLETION

    prompt: Input
    logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    best_of: Choices | None = None
    echo: bool | None = None
    suffix: Literal[""] | None = None

    @property
    def choices(self) -> int:
        """How many choices the response has: `n` for each prompt."""
        return (self.n or 1) * len(inputs(self.prompt))

    @property
    def features(self) -> Feature:
        """What a node must be able to do, the kind of job included."""
        features = Feature.KIND_COMPLETION | self._common_features()
        if self.logprobs is not None:
            features |= Feature.LOGPROBS
        return features

    @property
    def continuable(self) -> bool:
        """Whether another node could go on from the text so far: a text, and one choice of it."""
        return isinstance(self.prompt, str) and not self.features & _NOT_PLAIN

    def check(self) -> None:
        """Raise `InvalidParameter` for members that are well typed and yet contradict others."""
        _check_input("prompt", self.prompt)
        if self.echo:
            refuse(((), "echo"), "is not supported: the prompt would be billed as output")
        if self.best_of not in (None, self.n or 1):
            refuse(((), "best_of"), "is not supported beyond n: its candidates can't be counted")
        if self.choices > MAX_CHOICES:
            refuse(((), "prompt"), f"asks for more than {MAX_CHOICES} choices, n for each prompt")


class EmbeddingRequest(Request, frozen=True, kw_only=True):
    """The body of an embedding request."""

    kind: ClassVar[JobKind] = JobKind.EMBEDDING

    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Positive | None = None

    @property
    def choices(self) -> int:
        """How many embeddings the response has."""
        return len(inputs(self.input))

    @property
    def features(self) -> Feature:
        """What a node must be able to do, the kind of job included."""
        return Feature.KIND_EMBEDDING

    def tokens_per_choice(self, default: int) -> int:  # noqa: ARG002 - nothing is generated
        """None: embeddings have no output tokens."""
        return 0

    @property
    def continuable(self) -> bool:
        """Whether another node could go on from the text so far: there is no text."""
        return False

    def check(self) -> None:
        """Raise `InvalidParameter` for members that are well typed and yet contradict others."""
        _check_input("input", self.input)
        if self.choices > MAX_INPUTS:
            refuse(((), "input"), f"has more than {MAX_INPUTS} texts; send them apart")
        if self.stream:
            refuse(((), "stream"), "is for generated text; an embedding comes as a whole")


_TYPES: Final[dict[JobKind, type[Request]]] = {
    JobKind.CHAT: ChatRequest,
    JobKind.COMPLETION: CompletionRequest,
    JobKind.EMBEDDING: EmbeddingRequest,
}


def read_request(kind: JobKind, body: object) -> Request:
    """The request a parsed body makes.

    Raises `InvalidParameter` naming the member that is missing, mistyped or not supported.
    """
    if not isinstance(body, dict):
        raise InvalidParameter(None, "the body must be a JSON object")
    try:
        request = msgspec.convert(body, _TYPES[kind])
    except msgspec.ValidationError as error:
        raise _named(str(error)) from error
    request.check()
    return request


def require_inline_images(request: Request) -> None:
    """Raise `InvalidParameter` for an image that somebody would have to fetch.

    No commitment covers what is found behind a URL, and a node's engine that fetches what strangers
    name knocks at its owner's doors.
    """
    messages = request.messages if isinstance(request, ChatRequest) else []
    for number, message in enumerate(messages):
        parts = message.content if isinstance(message.content, list) else []
        for place, part in enumerate(parts):
            if isinstance(part, ImagePart) and not part.image_url.url.startswith("data:"):
                where = f"messages[{number}].content[{place}].image_url.url"
                raise InvalidParameter(where, "is fetched by nobody; send the image as a data: URL")


def inputs(value: Input) -> Sequence[str | list[int]]:
    """The texts or token lists that a `prompt` or `input` consists of."""
    if isinstance(value, str):
        return [value]
    tokens = [item for item in value if isinstance(item, int)]
    return [tokens] if tokens else [item for item in value if not isinstance(item, int)]


def _check_input(name: str, value: Input) -> None:
    if not isinstance(value, str) and len({type(item) for item in value}) > 1:
        refuse(((), name), "mixes texts, token ids and lists of token ids")
    for index, item in enumerate(inputs(value)):
        if not item:
            path = ((), name) if isinstance(value, str) else (((), name), index)
            refuse(path, "is empty")


def _uses_tools(message: ChatMessage) -> bool:
    if isinstance(message, AssistantMessage):
        return bool(message.tool_calls)
    return isinstance(message, ToolMessage)


def _shows_image(message: ChatMessage) -> bool:
    if not isinstance(message, UserMessage) or isinstance(message.content, str):
        return False
    return any(isinstance(part, ImagePart) for part in message.content)


_MISSING: Final = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_LOCATED: Final = re.compile(r"(?P<reason>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)


def _named(message: str) -> InvalidParameter:
    """Turn msgspec's one-line message into parameter and reason."""
    located = _LOCATED.fullmatch(message)
    reason, path = (located["reason"], located["path"] or "") if located else (message, "")
    missing = _MISSING.fullmatch(reason)
    if missing:
        path, reason = f"{path}.{missing['name']}", "is required"
    return InvalidParameter(path.removeprefix(".") or None, reason[:1].lower() + reason[1:])
