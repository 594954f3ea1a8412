"""Every member a request's body may have, and what becomes of it: nothing is silently dropped.

What stands in `SERVED` is handed to the node unchanged. Some of it becomes a feature that only
some nodes offer (`pinaivu.openai`); the rest every engine of a market knows: the parameters of
OpenAI's API, and vLLM's beside it. `LABELS` reach the engine too and have no effect there.
`REFUSED` are known and can't be served: no count, price or commitment could follow what they do,
or some engines would ignore them. All others are refused as unknown. A member that is null counts
as absent.
"""

from collections.abc import Mapping
from typing import Any, Final

from gateway.errors import ApiError
from pinaivu.codes import Feature, JobKind

_SAMPLING: Final = frozenset(
    {
        "allowed_token_ids",
        "bad_words",
        "frequency_penalty",
        "ignore_eos",
        "include_stop_str_in_output",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "min_p",
        "min_tokens",
        "n",
        "presence_penalty",
        "repetition_penalty",
        "response_format",
        "return_tokens_as_token_ids",
        "seed",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "stop",
        "stop_token_ids",
        "stream",
        "stream_options",
        "structured_outputs",
        "temperature",
        "top_k",
        "top_p",
        "vllm_xargs",
    }
)
SERVED: Final[dict[JobKind, frozenset[str]]] = {
    JobKind.CHAT: _SAMPLING
    | {
        "add_generation_prompt",
        "chat_template_kwargs",
        "continue_final_message",
        "documents",
        "include_reasoning",
        "max_completion_tokens",
        "messages",
        "mm_processor_kwargs",
        "modalities",
        "parallel_tool_calls",
        "reasoning_effort",
        "thinking_token_budget",
        "tool_choice",
        "tools",
        "top_logprobs",
    },
    JobKind.COMPLETION: _SAMPLING | {"best_of", "prompt", "suffix"},
    JobKind.EMBEDDING: frozenset({"dimensions", "encoding_format", "input", "stream"}),
}
"""By kind of request, beside `model`, the labels and `pinaivu`."""

LABELS: Final = frozenset({"metadata", "prompt_cache_key", "safety_identifier", "user"})
"""Names and notes of the caller's; nodes see them."""

_OWN: Final = "is an engine's own matter"
_FORMAT: Final = "is known to some engines only; use response_format"
REFUSED: Final[dict[str, str]] = {
    "add_special_tokens": "changes the prompt beyond its count",
    "audio": "is not served: no commitment covers sound",
    "chat_template": "is the model's own: the count of the prompt follows it",
    "echo": "is not served: the prompt would be billed as output",
    "function_call": "is the old form; use tool_choice",
    "functions": "is the old form; use tools",
    "grammar": _FORMAT,
    "guided_choice": _FORMAT,
    "guided_grammar": _FORMAT,
    "guided_json": _FORMAT,
    "guided_regex": _FORMAT,
    "id_slot": _OWN,
    "json_schema": _FORMAT,
    "kv_transfer_params": _OWN,
    "length_penalty": "is for beam search, whose candidates can't be counted",
    "logits_processors": "would run code of the caller's on a node",
    "n_predict": "is another word for max_tokens; use that",
    "n_probs": "is another word for logprobs; use that",
    "prediction": "is not served: rejected predictions can't be counted",
    "priority": "is not for callers: who waits is decided by the auction",
    "prompt_embeds": "is not served: it can't be counted",
    "prompt_logprobs": "is not served: no commitment covers it",
    "reasoning": "is another API's form; use reasoning_effort",
    "request_id": "is drawn by the gateway",
    "return_token_ids": "is not served: no commitment covers it",
    "truncate_prompt_tokens": "changes the prompt beyond its count; shorten it yourself",
    "use_beam_search": "is not served: its candidates can't be counted",
    "web_search_options": "is not served: nodes look nothing up",
}
"""Known, and why it is not served."""

_HARMLESS: Final[dict[str, tuple[object, ...]]] = {
    "echo": (False,),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "use_beam_search": (False,),
}
"""Values that ask for what is done anyway; any other is refused."""

_ELSEWHERE: Final = {
    "service_tier": "is for tiers that the market doesn't have; set value_of_time in `pinaivu`",
    "store": "is not served: answers are kept for their bundles, a day or as configured",
}
_STREAM_OPTIONS: Final = frozenset({"include_usage"})

NEEDED_BY: Final[dict[Feature, str]] = {
    Feature.KIND_COMPLETION: "prompt",
    Feature.KIND_EMBEDDING: "input",
    Feature.KIND_CHAT: "messages",
    Feature.TOOLS: "tools",
    Feature.STRUCTURED: "response_format",
    Feature.LOGPROBS: "logprobs",
    Feature.CHOICES: "n",
    Feature.IMAGES: "messages",
    Feature.REASONING: "reasoning_effort",
    Feature.CONTINUES: "continue_final_message",
}
"""The member that a feature comes from; the first of a job's that nobody offers is named."""


def check_parameters(kind: JobKind, body: Mapping[str, Any]) -> None:
    """Refuse, by name, a member that would be dropped or ignored on its way."""
    known = SERVED[kind] | LABELS | {"model", "pinaivu"}
    for name, value in body.items():
        if value is None or value in _HARMLESS.get(name, ()):
            continue
        if why := REFUSED.get(name) or _ELSEWHERE.get(name):
            raise _unsupported(name, why)
        if name not in known:
            raise _unknown(name)
    for name, value in (body.get("stream_options") or {}).items():
        if name not in _STREAM_OPTIONS and value:
            raise _unsupported(f"stream_options.{name}", "is not served; leave it out")


def needed_by(missing: Feature, body: Mapping[str, Any]) -> str:
    """The member of a body that asks for one of the missing features."""
    others = {
        "tools": ("tools", "messages"),
        "response_format": ("response_format", "structured_outputs"),
        "n": ("n", "prompt"),
        "reasoning_effort": ("reasoning_effort", "chat_template_kwargs"),
    }
    name = next(name for feature, name in NEEDED_BY.items() if feature & missing)
    return next((other for other in others.get(name, ()) if body.get(other) is not None), name)


def markdown() -> str:
    """The tables of the page for users."""
    names = sorted({name for served in SERVED.values() for name in served} - REFUSED.keys())
    lines = ["| member | chat | completions | embeddings |", "| --- | --- | --- | --- |"]
    for name in names:
        cells = ("served" if name in SERVED[kind] else "" for kind in JobKind)
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    lines += ["", "| refused | because it |", "| --- | --- |"]
    for name, why in sorted((REFUSED | _ELSEWHERE).items()):
        lines.append(f"| `{name}` | {why} |")
    return "\n".join(lines) + "\n"


def _unsupported(name: str, why: str) -> ApiError:
    return ApiError(400, "unsupported_parameter", f"{name} {why}.", param=name)


def _unknown(name: str) -> ApiError:
    message = f"{name!r} is no parameter of this endpoint; leave it out, or correct its name."
    return ApiError(400, "unknown_parameter", message, param=name)
