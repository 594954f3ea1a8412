"""Request bodies: what they demand of a node, and how they are refused."""

from typing import Any

import pytest

from pinaivu.codes import Feature, JobKind
from pinaivu.encoding import InvalidParameter
from pinaivu.openai import ChatRequest, CompletionRequest, EmbeddingRequest, read_request

USER = {"role": "user", "content": "hi"}
CHAT: dict[str, Any] = {"model": "m", "messages": [USER]}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "hi"}
EMBEDDING: dict[str, Any] = {"model": "m", "input": "hi"}
PLAIN = {
    JobKind.CHAT: (CHAT, Feature.KIND_CHAT),
    JobKind.COMPLETION: (COMPLETION, Feature.KIND_COMPLETION),
    JobKind.EMBEDDING: (EMBEDDING, Feature.KIND_EMBEDDING),
}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}


@pytest.mark.parametrize("kind", JobKind)
def test_a_plain_body_demands_its_kind_only(kind: JobKind) -> None:
    body, feature = PLAIN[kind]
    request = read_request(kind, body)
    assert request.features == feature
    assert request.choices == 1
    assert request.model == "m"


def test_members_nobody_knows_are_left_alone() -> None:
    body = {**CHAT, "top_k": 5, "metadata": {"a": 1}, "min_p": 0.1}
    assert read_request(JobKind.CHAT, body).features == Feature.KIND_CHAT


def test_null_is_as_good_as_absent() -> None:
    optional = set(ChatRequest.__struct_fields__) - {"model", "messages"}
    request = read_request(JobKind.CHAT, {**CHAT, **dict.fromkeys(optional)})
    assert request == read_request(JobKind.CHAT, CHAT)


CHAT_FEATURES: list[tuple[dict[str, Any], Feature]] = [
    ({"tools": []}, Feature(0)),
    ({"tools": [TOOL]}, Feature.TOOLS),
    ({"tools": [TOOL], "tool_choice": "required"}, Feature.TOOLS),
    (
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
        Feature.TOOLS,
    ),
    ({"messages": [USER, {"role": "tool", "content": "1", "tool_call_id": "c"}]}, Feature.TOOLS),
    ({"response_format": {"type": "text"}}, Feature(0)),
    ({"response_format": {"type": "json_object"}}, Feature.STRUCTURED),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, Feature.STRUCTURED),
    ({"guided_regex": "a+"}, Feature.STRUCTURED),
    ({"guided_choice": ["a", "b"]}, Feature.STRUCTURED),
    ({"structured_outputs": {"json": {}}}, Feature.STRUCTURED),
    ({"grammar": ""}, Feature(0)),
    ({"logprobs": False}, Feature(0)),
    ({"logprobs": True, "top_logprobs": 2}, Feature.LOGPROBS),
    ({"prompt_logprobs": 0}, Feature.LOGPROBS),
    ({"n": 1}, Feature(0)),
    ({"n": 2}, Feature.CHOICES),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, Feature(0)),
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, Feature.IMAGES),
    ({"reasoning_effort": "none"}, Feature(0)),
    ({"reasoning_effort": "low"}, Feature.REASONING),
    ({"reasoning": {"effort": "low"}}, Feature.REASONING),
    ({"chat_template_kwargs": {"enable_thinking": False}}, Feature(0)),
    ({"chat_template_kwargs": {"enable_thinking": True}}, Feature.REASONING),
    (
        {
            "messages": [USER, {"role": "assistant", "content": "so"}],
            "continue_final_message": True,
        },
        Feature.CONTINUES,
    ),
    ({"n": 2, "logprobs": True, "tools": [TOOL]}, Feature(0b1101)),
]


@pytest.mark.parametrize(("members", "features"), CHAT_FEATURES)
def test_features_of_a_chat(members: dict[str, Any], features: Feature) -> None:
    request = read_request(JobKind.CHAT, {**CHAT, **members})
    assert request.features == Feature.KIND_CHAT | features


COMPLETION_FEATURES: list[tuple[dict[str, Any], int, Feature]] = [
    ({"prompt": [1, 2, 3]}, 1, Feature(0)),
    ({"prompt": ["a"]}, 1, Feature(0)),
    ({"prompt": ["a", "b"]}, 2, Feature.CHOICES),
    ({"prompt": [[1, 2], [3]], "n": 2}, 4, Feature.CHOICES),
    ({"n": 3, "best_of": 3}, 3, Feature.CHOICES),
    ({"best_of": 1, "echo": False}, 1, Feature(0)),
    ({"logprobs": 0}, 1, Feature.LOGPROBS),
    ({"guided_json": {}}, 1, Feature.STRUCTURED),
]


@pytest.mark.parametrize(("members", "choices", "features"), COMPLETION_FEATURES)
def test_features_of_a_completion(members: dict[str, Any], choices: int, features: Feature) -> None:
    request = read_request(JobKind.COMPLETION, {**COMPLETION, **members})
    assert request.choices == choices
    assert request.features == Feature.KIND_COMPLETION | features


@pytest.mark.parametrize(
    ("value", "choices"), [("a", 1), ([1, 2], 1), (["a", "b"], 2), ([[1], [2], [3]], 3)]
)
def test_choices_of_an_embedding(value: object, choices: int) -> None:
    request = read_request(JobKind.EMBEDDING, {**EMBEDDING, "input": value})
    assert request.choices == choices
    assert request.features == Feature.KIND_EMBEDDING
    assert request.max_output_tokens(100) == 0
    assert not request.continuable


@pytest.mark.parametrize(
    ("kind", "members", "per_choice", "total"),
    [
        (JobKind.CHAT, {}, 100, 100),
        (JobKind.CHAT, {"n": 3}, 100, 300),
        (JobKind.CHAT, {"max_tokens": 7}, 7, 7),
        (JobKind.CHAT, {"max_completion_tokens": 8}, 8, 8),
        (JobKind.CHAT, {"max_tokens": 8, "max_completion_tokens": 8, "n": 2}, 8, 16),
        (JobKind.CHAT, {"max_tokens": (1 << 32) - 1}, (1 << 32) - 1, (1 << 32) - 1),
        (JobKind.COMPLETION, {}, 100, 100),
        (JobKind.COMPLETION, {"max_tokens": 7, "prompt": ["a", "b"], "n": 2}, 7, 28),
    ],
)
def test_output_limits(kind: JobKind, members: dict[str, Any], per_choice: int, total: int) -> None:
    request = read_request(kind, {**PLAIN[kind][0], **members})
    assert request.tokens_per_choice(100) == per_choice
    assert request.max_output_tokens(100) == total


def test_an_output_limit_beyond_what_a_job_can_name_is_refused() -> None:
    request = read_request(JobKind.CHAT, {**CHAT, "max_tokens": 1 << 31, "n": 2})
    with pytest.raises(InvalidParameter, match="max_tokens: 4294967296 tokens"):
        request.max_output_tokens(100)


@pytest.mark.parametrize(
    ("members", "continuable"),
    [
        ({}, True),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, True),
        ({"n": 2}, False),
        ({"tools": [TOOL]}, False),
        ({"logprobs": True}, False),
        ({"response_format": {"type": "json_object"}}, False),
        ({"reasoning_effort": "high"}, False),
    ],
)
def test_only_one_plain_choice_can_be_continued(
    members: dict[str, Any], *, continuable: bool
) -> None:
    assert read_request(JobKind.CHAT, {**CHAT, **members}).continuable == continuable


def test_every_role_is_read() -> None:
    messages = [
        {"role": "system", "content": "s", "name": "n"},
        {"role": "developer", "content": [{"type": "text", "text": "d"}]},
        {"role": "user", "content": [{"type": "text", "text": "u"}, IMAGE]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "r"}]},
        {"role": "assistant", "refusal": "r"},
        {"role": "tool", "content": "t", "tool_call_id": "c"},
    ]
    request = read_request(JobKind.CHAT, {**CHAT, "messages": messages})
    assert isinstance(request, ChatRequest)
    assert [type(m).__name__ for m in request.messages] == [
        "SystemMessage",
        "DeveloperMessage",
        "UserMessage",
        "AssistantMessage",
        "AssistantMessage",
        "ToolMessage",
    ]


def test_each_kind_has_its_type() -> None:
    assert isinstance(read_request(JobKind.COMPLETION, COMPLETION), CompletionRequest)
    assert isinstance(read_request(JobKind.EMBEDDING, EMBEDDING), EmbeddingRequest)


REFUSED_CHATS: list[tuple[dict[str, Any], str]] = [
    ({"model": 1}, "model"),
    ({"model": None}, "model"),
    ({"model": ""}, "model"),
    ({"model": "a b"}, "model"),
    ({"model": "m\n"}, "model"),
    ({"model": "m" * 129}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [USER, {"content": "hi"}]}, "messages[1].role"),
    ({"messages": [{"role": "oracle", "content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "function", "content": "hi", "name": "f"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "messages[0].content[0].type"),
    (
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        "messages[0].content[0].type",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
    ),
    ({"messages": [{"role": "system", "content": [IMAGE]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "tool", "content": "t"}]}, "messages[0].tool_call_id"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f"}}]}]},
        "messages[0].tool_calls[0].function.arguments",
    ),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"n": 2.0}, "n"),
    ({"n": True}, "n"),
    ({"n": "2"}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 1 << 32}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": True}, "stream_options"),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"stop": [1]}, "stop[0]"),
    ({"logprobs": 1}, "logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
    ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": "json"}, "response_format"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"function_call": "auto"}, "function_call"),
    ({"audio": {"voice": "a"}}, "audio"),
    ({"modalities": ["text", "audio"]}, "modalities[1]"),
    ({"chat_template": "{{ x }}"}, "chat_template"),
    ({"continue_final_message": True}, "continue_final_message"),
    ({"pinaivu": 5}, "pinaivu"),
]


@pytest.mark.parametrize(("members", "parameter"), REFUSED_CHATS)
def test_a_refused_chat_names_the_parameter(members: dict[str, Any], parameter: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        read_request(JobKind.CHAT, {**CHAT, **members})
    assert caught.value.parameter == parameter
    assert str(caught.value) == f"{parameter}: {caught.value.reason}"


REFUSED_COMPLETIONS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": ["a", ""]}, "prompt[1]"),
    ({"prompt": [[1], []]}, "prompt[1]"),
    ({"prompt": ["a", 1]}, "prompt"),
    ({"prompt": [1, [1]]}, "prompt"),
    ({"prompt": [-1]}, "prompt[0]"),
    ({"prompt": [True]}, "prompt[0]"),
    ({"prompt": {"a": 1}}, "prompt"),
    ({"prompt": ["a"] * 65, "n": 2}, "prompt"),
    ({"echo": True}, "echo"),
    ({"best_of": 2}, "best_of"),
    ({"best_of": 3, "n": 2}, "best_of"),
    ({"logprobs": True}, "logprobs"),
    ({"logprobs": -1}, "logprobs"),
    ({"prompt_embeds": "AAAA"}, "prompt_embeds"),
]


@pytest.mark.parametrize(("members", "parameter"), REFUSED_COMPLETIONS)
def test_a_refused_completion_names_the_parameter(members: dict[str, Any], parameter: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        read_request(JobKind.COMPLETION, {**COMPLETION, **members})
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    ("members", "parameter"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", [1]]}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
    ],
)
def test_a_refused_embedding_names_the_parameter(members: dict[str, Any], parameter: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        read_request(JobKind.EMBEDDING, {**EMBEDDING, **members})
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    ("kind", "member"),
    [
        (JobKind.CHAT, "model"),
        (JobKind.CHAT, "messages"),
        (JobKind.COMPLETION, "prompt"),
        (JobKind.EMBEDDING, "input"),
    ],
)
def test_a_missing_parameter_is_required(kind: JobKind, member: str) -> None:
    body = {name: value for name, value in PLAIN[kind][0].items() if name != member}
    with pytest.raises(InvalidParameter, match=f"^{member}: is required$"):
        read_request(kind, body)


@pytest.mark.parametrize("body", [None, [], "x", 1])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    with pytest.raises(InvalidParameter, match="must be a JSON object") as caught:
        read_request(JobKind.CHAT, body)
    assert caught.value.parameter is None
