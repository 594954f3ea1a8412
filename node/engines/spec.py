"""What an engine is, as a value: how to start it, what it can do, how its gauges are called.

Three kinds: `llamacpp` and `vllm` are started as child processes on a port of 127.0.0.1 that the
supervisor picks; `attached` runs elsewhere. Nothing is started or looked up here.

A child sees only the variables that `child_environment` lets through, so that the node's keys and
tokens, which may stand in its environment, are never handed on.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pinaivu.codes import Feature, JobKind

_PASSED_ON: Final = frozenset(
    {"HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "TMPDIR", "XDG_CACHE_HOME"}
)
_PASSED_ON_PREFIXES: Final = ("CUDA_", "NCCL_", "NVIDIA_", "OMP_", "VLLM_CPU_")
_VLLM_ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",  # weights come from a directory whose digests are on the model card
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
KINDS: Final = {
    JobKind.CHAT: Feature.KIND_CHAT,
    JobKind.COMPLETION: Feature.KIND_COMPLETION,
    JobKind.EMBEDDING: Feature.KIND_EMBEDDING,
}
"""What an engine that serves a kind of request says."""
_UNKNOWN_TO_LLAMACPP: Final = frozenset(
    {
        "allowed_token_ids",
        "bad_words",
        "dimensions",
        "documents",
        "include_reasoning",
        "include_stop_str_in_output",
        "min_tokens",
        "mm_processor_kwargs",
        "repetition_penalty",
        "return_tokens_as_token_ids",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "stop_token_ids",
        "structured_outputs",
        "thinking_token_budget",
        "vllm_xargs",
    }
)
_TEXT_FEATURES: Final = (
    Feature.KIND_CHAT
    | Feature.KIND_COMPLETION
    | Feature.STRUCTURED
    | Feature.LOGPROBS
    | Feature.CONTINUES
)


@dataclass(frozen=True, slots=True)
class GaugeNames:
    """Names of an engine's gauges under `/metrics`: requests it works on, requests that wait."""

    running: str
    waiting: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """One engine with one model.

    `model` is the name the engine knows it by, `slots` the requests it works on at once,
    `context_tokens` what one request may use. A child has `argv` (without the port) and `env`, its
    whole environment; an attached engine has `url` and perhaps `api_key`. `measuring` are
    members of a request that this engine understands and that keep it from stopping early;
    `ignored` are members that others of the market obey and this one would silently leave.
    """

    kind: str
    model: str
    slots: int
    context_tokens: int
    features: Feature
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    health_path: str | None = "/health"
    gauges: GaugeNames | None = None
    measuring: Mapping[str, Any] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()

    @property
    def main_kind(self) -> JobKind:
        """What it is tried and measured with: chat where it chats."""
        return next(kind for kind, feature in KINDS.items() if feature & self.features)

    def probe(self, text: str, kind: JobKind | None = None) -> dict[str, Any]:
        """The least body of a request about a text, of the main kind where none is named."""
        member: dict[JobKind, dict[str, Any]] = {
            JobKind.CHAT: {"messages": [{"role": "user", "content": text}]},
            JobKind.COMPLETION: {"prompt": text},
            JobKind.EMBEDDING: {"input": text},
        }
        return {"model": self.model, **member[kind or self.main_kind]}

    def command(self, port: int) -> tuple[str, ...]:
        """The child's command line, serving on `port`."""
        return (*self.argv, "--port", str(port))


def llamacpp(
    gguf: Path,
    model: str,
    *,
    env: Mapping[str, str],
    slots: int = 1,
    context_tokens: int = 2048,
    threads: int = 1,
    embeddings: bool = False,
    python: str = sys.executable,
) -> EngineSpec:
    """The llama.cpp server of the `xllamacpp` package with a GGUF file.

    With `embeddings` it serves these too, the mean over a text's tokens. Its script is started by
    path and without its folder on the import path (`-P`), so it runs from any working directory.
    """
    script = Path(__file__).with_name("llamacpp_server.py")
    options = {
        "--gguf": str(gguf.absolute()),
        "--alias": model,
        "--slots": str(slots),
        "--context": str(context_tokens),
        "--threads": str(threads),
    }
    return EngineSpec(
        kind="llama.cpp",
        model=model,
        slots=slots,
        context_tokens=context_tokens,
        features=_TEXT_FEATURES | (Feature.KIND_EMBEDDING if embeddings else Feature(0)),
        argv=(python, "-P", str(script), *_flat(options), *(["--embeddings"] * embeddings)),
        env=env,
        gauges=GaugeNames("llamacpp:requests_processing", "llamacpp:requests_deferred"),
        measuring={"ignore_eos": True},
        ignored=_UNKNOWN_TO_LLAMACPP,
    )


def vllm(
    directory: Path,
    model: str,
    *,
    python: str,
    env: Mapping[str, str],
    slots: int = 16,
    context_tokens: int = 8192,
    tool_parser: str | None = None,
    reasoning_parser: str | None = None,
    embeddings: bool = False,
    images: bool = False,
    extra: tuple[str, ...] = (),
) -> EngineSpec:
    """VLLM's OpenAI server with a model directory, from the environment that `python` belongs to.

    With `embeddings` the model is one that embeds and does nothing else; `images`: it takes them.
    `extra` is appended to the command line (`--dtype`, `--tensor-parallel-size`, …). The module is
    started instead of the `vllm` script because repackaged builds break the latter.
    """
    options = {
        "--model": str(directory.absolute()),
        "--served-model-name": model,
        "--host": "127.0.0.1",
        "--max-model-len": str(context_tokens),
        "--max-num-seqs": str(slots),
    }
    features = Feature.KIND_EMBEDDING if embeddings else _TEXT_FEATURES | Feature.CHOICES
    if images:
        features |= Feature.IMAGES
    flags: tuple[str, ...] = ()
    if tool_parser:
        features |= Feature.TOOLS
        flags = ("--enable-auto-tool-choice", "--tool-call-parser", tool_parser)
    if reasoning_parser:
        features |= Feature.REASONING
        flags = (*flags, "--reasoning-parser", reasoning_parser)
    module = (python, "-m", "vllm.entrypoints.openai.api_server")
    return EngineSpec(
        kind="vllm",
        model=model,
        slots=slots,
        context_tokens=context_tokens,
        features=features,
        argv=(*module, *_flat(options), *flags, *extra),
        env={**env, **_VLLM_ENVIRONMENT},
        gauges=GaugeNames("vllm:num_requests_running", "vllm:num_requests_waiting"),
        measuring={"ignore_eos": True},
    )


def attached(
    url: str,
    model: str,
    *,
    slots: int,
    context_tokens: int,
    features: Feature = Feature.KIND_CHAT,
    api_key: str | None = None,
    health_path: str | None = None,
) -> EngineSpec:
    """An OpenAI-compatible server that runs elsewhere, e.g. `http://10.0.0.7:8000`.

    What it can do must be said, because no endpoint tells. Without a `health_path` its list of
    models stands for its health.
    """
    return EngineSpec(
        kind="attached",
        model=model,
        slots=slots,
        context_tokens=context_tokens,
        features=features,
        url=url,
        api_key=api_key,
        health_path=health_path,
    )


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Of `environ`, what an engine may see: paths, language, and the settings of its hardware."""
    return {
        name: value
        for name, value in environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }


def continued(body: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The request `body` for an engine that goes on after `text` instead of beginning.

    Understood by vLLM and by our llama.cpp server. Its prompt count is not the job's: prompts are
    counted on the client's own body.
    """
    if "prompt" in body:
        return {**body, "prompt": body["prompt"] + text}
    return {
        **body,
        "messages": [*body["messages"], {"role": "assistant", "content": text}],
        "add_generation_prompt": False,
        "continue_final_message": True,
    }


def _flat(options: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(word for pair in options.items() for word in pair)
