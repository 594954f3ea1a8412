"""The shape of an answer, by the kind of request: what of an engine's event a client is shown.

A form cuts an engine's choices to the members that commitments cover, and logprobs. What says that
a choice is over is left out of chunks: `closing` gives it, once the node's end frame was checked.
"""

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from gateway.demands import Demand
from pinaivu.codes import JobKind
from pinaivu.openai import BadResponse

Choice = Mapping[str, Any]
_DELTA: Final = frozenset(
    {"role", "content", "refusal", "reasoning", "reasoning_content", "tool_calls"}
)
_FLOAT32_BYTES: Final = 4


class Form:
    """What the forms of generated text share; one is made for each attempt at an answer."""

    id_prefix: ClassVar[str]
    chunk_object: ClassVar[str]
    whole_object: ClassVar[str]
    logprob_lists: ClassVar[tuple[str, ...]]
    in_chunks: ClassVar[bool] = True

    def __init__(self, *, streams: bool = False) -> None:
        self._streams = streams  # then log probabilities are passed on and needn't be kept
        self._logprobs: dict[int, dict[str, list[Any]]] = {}

    def shown(self, choices: Sequence[Choice]) -> list[dict[str, Any]]:
        """The choices of a chunk, without what ends them."""
        return [part for part in map(self._part, choices) if part]

    def closing(self, choices: Sequence[Choice]) -> list[dict[str, Any]]:
        """The choices of the last chunk: how each of the canonical ones ended."""
        return [
            {"index": c["index"], **self._nothing(), "finish_reason": c["finish_reason"]}
            for c in choices
        ]

    def whole(
        self, head: Mapping[str, Any], choices: Sequence[Choice], usage: Mapping[str, int]
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
        index, logprobs = choice.get("index", 0), choice.get("logprobs")
        if logprobs:
            self._keep_logprobs(index, logprobs)
        said = self._said(index, choice)
        if not said and not logprobs:
            return {}
        part = {"index": index, **(said or self._nothing()), "finish_reason": None}
        return part | ({"logprobs": logprobs} if logprobs else {})

    def _keep_logprobs(self, index: int, logprobs: object) -> None:
        if not isinstance(logprobs, dict):
            raise BadResponse("logprobs are an object")
        if self._streams:
            return
        kept = self._logprobs.setdefault(index, {})
        for name in self.logprob_lists:
            found = logprobs.get(name)
            if isinstance(found, list):
                kept.setdefault(name, []).extend(found)

    def _said(self, index: int, choice: Choice) -> dict[str, Any]:
        """What a chunk's choice says, or nothing."""
        raise NotImplementedError

    def _nothing(self) -> dict[str, Any]:
        """What a chunk's choice has that says nothing."""
        raise NotImplementedError

    def _whole_part(self, choice: Choice) -> dict[str, Any]:
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

    def _said(self, index: int, choice: Choice) -> dict[str, Any]:
        raw = choice.get("delta") or choice.get("message") or {}
        delta = {name: raw[name] for name in raw.keys() & _DELTA if raw[name] is not None}
        if "role" in delta:
            if index in self._told_role:
                del delta["role"]
            self._told_role.add(index)
        return {"delta": _with_both_names(delta)} if delta else {}

    def _nothing(self) -> dict[str, Any]:
        return {"delta": {}}

    def _whole_part(self, choice: Choice) -> dict[str, Any]:
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

    def _said(self, index: int, choice: Choice) -> dict[str, Any]:  # noqa: ARG002 - a chat's needs it
        text = choice.get("text")
        return {"text": text} if text else {}

    def _nothing(self) -> dict[str, Any]:
        return {"text": ""}

    def _whole_part(self, choice: Choice) -> dict[str, Any]:
        return {"text": choice["text"]}


class EmbeddingForm(Form):
    """Embeddings, which come whole, as base64 or as numbers."""

    id_prefix = "embd-"
    chunk_object = whole_object = "list"
    in_chunks = False

    def __init__(self, *, as_base64: bool) -> None:
        super().__init__()
        self._as_base64 = as_base64

    def whole(
        self, head: Mapping[str, Any], choices: Sequence[Choice], usage: Mapping[str, int]
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
