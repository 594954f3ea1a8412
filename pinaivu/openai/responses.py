"""A response, gathered: canonical choices for the digest, and the text that segments tile.

`Aggregator` takes the chunks of a stream, or a whole response as a single chunk, and gives the
choices an SDK would have at the end. What it gives does not depend on how the text was cut into
chunks. `text` and `canonical_choices` follow types.md, section 5; members that are null or empty
are dropped on every level of a message, so that a stream which never sent them agrees.

The order of the text is fixed (per choice: reasoning, content, refusal, tool calls), the order of
arrival is not. While `append_only` holds, what `add` returns is exactly what the text grew by at
its end, so bytes can be hashed and segments cut as they come; it always holds for one choice of
plain text.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from pinaivu.codes import Finish, JobKind
from pinaivu.encoding import UNREADABLE
from pinaivu.openai.chunks import Choice, Chunk, Function, Message, ToolCall
from pinaivu.openai.claims import BadResponse, Usage
from pinaivu.openai.embeddings import canonical_embeddings
from pinaivu.openai.requests import MAX_CHOICES

_REASONING, _CONTENT, _REFUSAL, _CALLS = range(4)
_NAME, _ARGUMENTS = range(2)

_Slot: TypeAlias = tuple[int, int, int, int]
"""Choice index, field, tool call index, part of the call: sorts as the text is ordered."""


class _State:
    """What is known of one choice beside its text."""

    def __init__(self) -> None:
        self.role = ""
        self.finish_reason: str | None = None
        self.by_alias = False
        self.call_ids: dict[int, str] = {}
        self.call_types: dict[int, str] = {}


class Aggregator:
    """Gathers one chat or completion response of `choices` choices."""

    def __init__(self, kind: JobKind, choices: int = 1) -> None:
        if kind not in (JobKind.CHAT, JobKind.COMPLETION):
            raise ValueError(f"{kind.name} responses have no chunks")
        self.kind = kind
        self.expected = choices
        self.usage: Usage | None = None
        self.append_only = True
        self.size = 0
        self.taken: Sequence[Choice] = ()
        self.took_back = False
        self._states: dict[int, _State] = {}
        self._slots: dict[_Slot, list[str]] = {}
        self._end: _Slot = (0, 0, 0, 0)

    def feed(self, data: bytes) -> str:
        """Take the data of one SSE event; as `add`, and faster than parsing it first."""
        try:
            return self._absorb(_DECODER.decode(data))
        except UNREADABLE as error:
            raise BadResponse(f"no response chunk: {error}") from error

    def add(self, chunk: object) -> str:
        """Take one parsed chunk or whole response; the text it brought, in the text's order.

        Raises `BadResponse` for what is none, for an error reported in it and for a choice beyond
        those expected; the aggregator is of no use afterwards.
        """
        try:
            return self._absorb(msgspec.convert(chunk, Chunk))
        except msgspec.ValidationError as error:
            raise BadResponse(f"no response chunk: {error}") from error

    @property
    def complete(self) -> bool:
        """Whether each expected choice has come to its end."""
        return len(self._states) == self.expected and all(
            state.finish_reason for state in self._states.values()
        )

    @property
    def plain(self) -> bool:
        """Whether the text so far is nothing but one choice's content."""
        return all(slot[:2] == (0, _CONTENT) for slot in self._slots)

    @property
    def finish_reason(self) -> str | None:
        """How the lowest choice ended; None while it has not."""
        return self._states[min(self._states)].finish_reason if self._states else None

    def text(self) -> bytes:
        """The text so far; after the last chunk, what the segments tile."""
        ordered = sorted(self._slots)
        return "".join("".join(self._slots[slot]) for slot in ordered).encode("utf-8")

    def choices(self) -> list[dict[str, object]]:
        """The canonical choices seen so far, ascending by index."""
        return [self._choice(index, self._states[index]) for index in sorted(self._states)]

    def _absorb(self, chunk: Chunk) -> str:
        if chunk.error is not None:
            raise BadResponse(f"the engine reports an error: {chunk.error!r:.200}")
        self.usage = chunk.usage or self.usage
        self.taken = sorted(chunk.choices, key=lambda choice: choice.index)
        added = []
        for choice in self.taken:
            if choice.index >= self.expected:
                raise BadResponse(f"choice {choice.index} where {self.expected} are expected")
            state = self._states.setdefault(choice.index, _State())
            state.finish_reason = choice.finish_reason or state.finish_reason
            for slot, fragment in self._fragments(choice, state):
                self._append(slot, fragment)
                added.append(fragment)
        return "".join(added)

    def _fragments(self, choice: Choice, state: _State) -> Iterator[tuple[_Slot, str]]:
        """The texts in a choice's chunk, in the text's order; ids and role go to the state.

        What is not taken of the choice is taken off it.
        """
        at = choice.index
        if self.kind == JobKind.COMPLETION:
            yield from _text_at((at, _CONTENT, 0, 0), choice.text)
            return
        if choice.delta is not None and choice.message is not None:
            raise BadResponse("a choice has a delta or a message, not both")
        choice.delta = message = choice.delta or choice.message
        if message is None:
            return
        state.role = state.role or message.role or ""
        yield from _text_at((at, _REASONING, 0, 0), self._reasoning(at, state, message))
        yield from _text_at((at, _CONTENT, 0, 0), message.content)
        yield from _text_at((at, _REFUSAL, 0, 0), message.refusal)
        for number, call in _numbered(message.tool_calls or ()):
            state.call_ids[number] = state.call_ids.get(number, "") + (call.id or "")
            state.call_types[number] = call.type or state.call_types.get(number, "")
            function = call.function or Function()
            yield from _text_at((at, _CALLS, number, _NAME), function.name)
            yield from _text_at((at, _CALLS, number, _ARGUMENTS), function.arguments)

    def _reasoning(self, at: int, state: _State, message: Message) -> str | None:
        """`reasoning` wins over its alias, even over what the alias brought before."""
        slot = (at, _REASONING, 0, 0)
        if message.reasoning:
            message.reasoning_content = None
            if state.by_alias:
                self.size -= len("".join(self._slots.pop(slot)).encode("utf-8"))
                self.append_only = state.by_alias = False
                self.took_back = True
            return message.reasoning
        if slot in self._slots and not state.by_alias:
            message.reasoning_content = None
        state.by_alias = bool(message.reasoning_content) or state.by_alias
        return message.reasoning_content

    def _append(self, slot: _Slot, fragment: str) -> None:
        try:
            self.size += len(fragment.encode("utf-8"))
        except UnicodeEncodeError as error:
            raise BadResponse("a chunk holds a lone surrogate") from error
        self._slots.setdefault(slot, []).append(fragment)
        self.append_only = self.append_only and slot >= self._end
        self._end = max(self._end, slot)

    def _choice(self, index: int, state: _State) -> dict[str, object]:
        choice: dict[str, object] = {"index": index, "finish_reason": state.finish_reason}
        if self.kind == JobKind.COMPLETION:
            return {**choice, "text": self._joined(index, _CONTENT)}
        message = _present(
            role=state.role or "assistant",
            reasoning=self._joined(index, _REASONING),
            content=self._joined(index, _CONTENT),
            refusal=self._joined(index, _REFUSAL),
            tool_calls=[call for call in self._calls(index, state) if call],
        )
        return {**choice, "message": message}

    def _calls(self, index: int, state: _State) -> Iterator[dict[str, object]]:
        for number in sorted(state.call_ids):
            function = _present(
                name=self._joined(index, _CALLS, number, _NAME),
                arguments=self._joined(index, _CALLS, number, _ARGUMENTS),
            )
            yield _present(
                id=state.call_ids[number], type=state.call_types[number], function=function
            )

    def _joined(self, index: int, field: int, call: int = 0, part: int = 0) -> str:
        return "".join(self._slots.get((index, field, call, part), ()))


def canonical_choices(kind: JobKind, response: Mapping[str, Any]) -> list[dict[str, object]]:
    """The canonical choices of a whole response, e.g. of what an SDK returned (`model_dump()`).

    Raises `BadResponse` for what is no response of that kind, or names a choice twice.
    """
    if kind == JobKind.EMBEDDING:
        return canonical_embeddings(response)
    raw = response.get("choices")
    if not isinstance(raw, list):
        raise BadResponse("a response has a list of choices")
    aggregator = Aggregator(kind, MAX_CHOICES)
    aggregator.add(response)
    choices = aggregator.choices()
    if len(choices) != len(raw):
        raise BadResponse("a response names a choice twice")
    return choices


def text(choices: Sequence[Mapping[str, Any]]) -> bytes:
    """The text of canonical choices (types.md, section 5, "text(response)")."""
    return "".join(part for choice in choices for part in _text_of(choice)).encode("utf-8")


def finish_of(reason: str | None) -> Finish:
    """The code for an engine's finish reason; one nobody knows, or none, is an engine error."""
    return _FINISH.get(reason or "", Finish.ENGINE_ERROR)


_DECODER: Final = msgspec.json.Decoder(Chunk)
_FINISH: Final = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "tool_calls": Finish.TOOL_CALLS,
    "content_filter": Finish.CONTENT_FILTER,
    "abort": Finish.CANCELLED,
}


def _numbered(calls: Sequence[ToolCall]) -> list[tuple[int, ToolCall]]:
    """Calls by their index, ascending; it is their place where an engine gives none."""
    for position, call in enumerate(calls):
        call.index = position if call.index is None else call.index
        call.type = call.type or None
    return sorted(((call.index or 0, call) for call in calls), key=lambda pair: pair[0])


def _text_at(slot: _Slot, fragment: str | None) -> Iterator[tuple[_Slot, str]]:
    if fragment:
        yield slot, fragment


def _present(**members: object) -> dict[str, object]:
    return {name: value for name, value in members.items() if value}


def _text_of(choice: Mapping[str, Any]) -> Iterator[str]:
    message = choice.get("message")
    if message is None:
        yield choice.get("embedding") or choice.get("text") or ""
        return
    for name in ("reasoning", "content", "refusal"):
        yield message.get(name, "")
    for call in message.get("tool_calls", ()):
        function = call.get("function", {})
        yield function.get("name", "")
        yield function.get("arguments", "")
