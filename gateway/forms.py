"""The shape of an answer, by the kind of request: what of an engine's event a client is shown.

A form is given what was taken of an event for the commitments, so it shows nothing else, and
logprobs. What says that a choice is over is left out of chunks: `closing` gives it, once the node's
end frame was checked.
"""

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from gateway.demands import Demand
from pinaivu.codes import JobKind
from pinaivu.openai import Choice, Message

Canonical = Mapping[str, Any]
_FLOAT32_BYTES: Final = 4
_SILENCE: Final = Message()


class Form:
    """What the forms of generated text share; one is made for each attempt at an answer."""

    id_prefix: ClassVar[str]
    chunk_object: ClassVar[str]
    whole_object: ClassVar[str]
    logprob_lists: ClassVar[tuple[str, ...]]

    def __init__(self, *, streams: bool = False) -> None:
        self._streams = streams  # then log probabilities are passed on and needn't be kept
        self._logprobs: dict[int, dict[str, list[Any]]] = {}

    def shown(self, choices: Sequence[Choice]) -> list[dict[str, Any]]:
        """The choices of a chunk, without what ends them."""
        return [part for part in map(self._part, choices) if part]

    def closing(self, choices: Sequence[Canonical]) -> list[dict[str, Any]]:
        """The choices of the last chunk: how each of the canonical ones ended."""
        return [
            {"index": c["index"], **self._nothing(), "finish_reason": c["finish_reason"]}
            for c in choices
        ]

    def whole(
        self, head: Mapping[str, Any], choices: Sequence[Canonical], usage: Mapping[str, int]
    ) -> dict[str, Any]:
        """The body of a whole answer, from its canonical choices."""
        told = [
            {
                "index": choice["index"],
                **self._whole_part(choice),
                "finish_reason": choice["finish_reason"],
                "logprobs": self._logprobs.get(choice["index"]),
            }
            for choice in choices
        ]
        return {**head, "choices": told, "usage": usage}

    def _part(self, choice: Choice) -> dict[str, Any]:
        logprobs = choice.logprobs
        if logprobs:
            self._keep_logprobs(choice.index, logprobs)
        said = self._said(choice)
        if not said and not logprobs:
            return {}
        part = {"index": choice.index, **(said or self._nothing()), "finish_reason": None}
        return part | ({"logprobs": logprobs} if logprobs else {})

    def _keep_logprobs(self, index: int, logprobs: Mapping[str, Any]) -> None:
        if self._streams:
            return
        kept = self._logprobs.setdefault(index, {})
        for name in self.logprob_lists:
            found = logprobs.get(name)
            if isinstance(found, list):
                kept.setdefault(name, []).extend(found)

    def _said(self, choice: Choice) -> dict[str, Any]:
        """What a chunk's choice says, or nothing."""
        raise NotImplementedError

    def _nothing(self) -> dict[str, Any]:
        """What a chunk's choice has that says nothing."""
        raise NotImplementedError

    def _whole_part(self, choice: Canonical) -> dict[str, Any]:
        """What a whole answer's choice says."""
        raise NotImplementedError


class ChatForm(Form):
    """A chat completion; the role is told once, whoever goes on with the answer.

    Reasoning has two names among engines and clients; it is shown under both, and counted once.
    """

    id_prefix = "chatcmpl-"
    chunk_object = "chat.completion.chunk"
    whole_object = "chat.completion"
    logprob_lists = ("content", "refusal")

    def __init__(self, *, streams: bool = False) -> None:
        super().__init__(streams=streams)
        self._told_role: set[int] = set()

    def _said(self, choice: Choice) -> dict[str, Any]:
        delta = choice.delta or Message()
        if not delta.role or choice.index in self._told_role:
            delta.role = None
        else:
            self._told_role.add(choice.index)
        delta.reasoning = delta.reasoning_content = delta.reasoning or delta.reasoning_content
        return {} if delta == _SILENCE else {"delta": delta}

    def _nothing(self) -> dict[str, Any]:
        return {"delta": {}}

    def _whole_part(self, choice: Canonical) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        message |= _with_both_names(choice["message"])
        if "tool_calls" in message:
            message["tool_calls"] = [_whole_call(call) for call in message["tool_calls"]]
        return {"message": message}


class CompletionForm(Form):
    """A completion."""

    id_prefix = "cmpl-"
    chunk_object = whole_object = "text_completion"
    logprob_lists = ("tokens", "token_logprobs", "top_logprobs", "text_offset", "content")

    def _said(self, choice: Choice) -> dict[str, Any]:
        return {"text": choice.text} if choice.text else {}

    def _nothing(self) -> dict[str, Any]:
        return {"text": ""}

    def _whole_part(self, choice: Canonical) -> dict[str, Any]:
        return {"text": choice["text"]}


class EmbeddingForm(Form):
    """Embeddings, which come whole, as base64 or as numbers."""

    id_prefix = "embd-"
    chunk_object = whole_object = "list"

    def __init__(self, *, as_base64: bool) -> None:
        super().__init__()
        self._as_base64 = as_base64

    def whole(
        self, head: Mapping[str, Any], choices: Sequence[Canonical], usage: Mapping[str, int]
    ) -> dict[str, Any]:
        """The body of the answer."""
        data = [
            {
                "object": "embedding",
                "index": choice["index"],
                "embedding": self._told(choice["embedding"]),
            }
            for choice in choices
        ]
        counted = {name: usage[name] for name in ("prompt_tokens", "total_tokens")}
        return {"object": "list", "model": head["model"], "data": data, "usage": counted}

    def _told(self, embedding: str) -> str | tuple[float, ...]:
        if self._as_base64:
            return embedding
        packed = base64.b64decode(embedding)
        return struct.unpack(f"<{len(packed) // _FLOAT32_BYTES}f", packed)


def _with_both_names(message: Mapping[str, Any]) -> dict[str, Any]:
    thought = message.get("reasoning") or message.get("reasoning_content")
    return {**message, **({"reasoning": thought, "reasoning_content": thought} if thought else {})}


def _whole_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call with the members that canonical form leaves out where they are empty."""
    empty = {"name": "", "arguments": ""}
    return {"id": "", "type": "function", **call, "function": empty | call.get("function", {})}


def form_of(demand: Demand) -> Form:
    """The form of a request's answer."""
    match demand.request.kind:
        case JobKind.CHAT:
            return ChatForm(streams=demand.streams)
        case JobKind.COMPLETION:
            return CompletionForm(streams=demand.streams)
        case JobKind.EMBEDDING:
            return EmbeddingForm(as_base64=demand.body.get("encoding_format") == "base64")
