"""Command lines and environments of engines, without starting any."""

from pathlib import Path

import pytest

from node.engines.spec import attached, child_environment, continued, llamacpp, vllm
from pinaivu.codes import Feature

ENV = {"PATH": "/bin"}


def test_vllm_is_started_as_a_module_of_its_own_environment() -> None:
    spec = vllm(Path("/m"), "org/model", python="/venv/bin/python", env=ENV, slots=4)
    assert spec.command(8001) == (
        *("/venv/bin/python", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", "/m", "--served-model-name", "org/model", "--host", "127.0.0.1"),
        *("--max-model-len", "8192", "--max-num-seqs", "4", "--port", "8001"),
    )
    assert spec.env["HF_HUB_OFFLINE"] == "1"
    assert spec.env["PATH"] == "/bin"
    assert spec.gauges is not None
    assert spec.gauges.running == "vllm:num_requests_running"


def test_vllm_serves_tools_only_with_a_parser_for_them() -> None:
    plain = vllm(Path("/m"), "m", python="p", env=ENV)
    able = vllm(Path("/m"), "m", python="p", env=ENV, tool_parser="hermes", reasoning_parser="r1")
    assert not plain.features & (Feature.TOOLS | Feature.REASONING)
    assert able.features == plain.features | Feature.TOOLS | Feature.REASONING
    assert able.argv[-5:] == (
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        *("--reasoning-parser", "r1"),
    )


def test_extra_arguments_of_vllm_come_last() -> None:
    spec = vllm(Path("/m"), "m", python="p", env=ENV, extra=("--dtype", "float32"))
    assert spec.command(1)[-4:] == ("--dtype", "float32", "--port", "1")


def test_llamacpp_is_started_by_path_so_that_any_working_directory_does() -> None:
    spec = llamacpp(Path("m.gguf"), "m", env=ENV, slots=2, context_tokens=512, python="python3")
    command = spec.command(8001)
    assert command[:2] == ("python3", "-P")
    assert Path(command[2]).is_absolute()
    assert Path(command[2]).name == "llamacpp_server.py"
    options = dict(zip(command[3::2], command[4::2], strict=True))
    assert options.pop("--gguf") == str(Path("m.gguf").absolute())
    assert options == {
        "--alias": "m",
        "--slots": "2",
        "--context": "512",
        "--threads": "1",
        "--port": "8001",
    }


def test_an_attached_engine_promises_nothing_that_was_not_said() -> None:
    assert attached("http://h", "m", slots=1, context_tokens=1).features == Feature.KIND_CHAT


def test_a_key_is_not_shown() -> None:
    spec = attached("http://h", "m", slots=1, context_tokens=1, api_key="s3cret")
    assert "s3cret" not in repr(spec)


@pytest.mark.parametrize(
    "name", ["NODE_KEY", "AWS_SECRET_ACCESS_KEY", "VLLM_API_KEY", "HF_TOKEN", "PYTHONPATH"]
)
def test_secrets_and_loader_settings_do_not_reach_a_child(name: str) -> None:
    given = {name: "x", "PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0"}
    assert child_environment(given) == {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0"}


def test_a_continued_body_ends_with_the_text_so_far() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    more = continued(body, "so far")
    assert more["messages"][-1] == {"role": "assistant", "content": "so far"}
    assert (more["add_generation_prompt"], more["continue_final_message"]) == (False, True)
    assert more["max_tokens"] == 5
    assert body["messages"] == [{"role": "user", "content": "hi"}]


def test_an_engine_is_tried_with_what_it_serves() -> None:
    """A chat where it chats, else a completion, else an embedding."""
    kinds = [Feature.KIND_CHAT | Feature.KIND_EMBEDDING, Feature.KIND_COMPLETION]
    found = [
        attached("http://h", "m", slots=1, context_tokens=1, features=features).probe("Hi")
        for features in (*kinds, Feature.KIND_EMBEDDING)
    ]
    assert found == [
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        {"model": "m", "prompt": "Hi"},
        {"model": "m", "input": "Hi"},
    ]


def test_embeddings_are_served_where_that_was_said() -> None:
    plain = llamacpp(Path("m.gguf"), "m", env=ENV)
    both = llamacpp(Path("m.gguf"), "m", env=ENV, embeddings=True)
    assert both.features == plain.features | Feature.KIND_EMBEDDING
    assert (both.argv[-1], plain.argv[-2]) == ("--embeddings", "--threads")
    only = vllm(Path("/m"), "m", python="p", env=ENV, embeddings=True)
    assert only.features == Feature.KIND_EMBEDDING
    looks = vllm(Path("/m"), "m", python="p", env=ENV, images=True)
    assert Feature.IMAGES in looks.features


def test_a_completion_goes_on_behind_its_own_prompt() -> None:
    assert continued({"prompt": "Once "}, "upon")["prompt"] == "Once upon"
