"""Prompt and text counts, the chat template's sandbox, and the tokenizer digest."""

import copy
import hashlib
from pathlib import Path
from typing import Any

import pytest

from pinaivu.chat_template import ChatTemplate, NotCountable
from pinaivu.encoding import InvalidParameter
from pinaivu.errors import InvalidEncoding, Misconfigured
from pinaivu.tokens import TEMPLATE_FILE, TOKENIZER_FILE, Tokenizer
from tests.unit.tiny_tokenizer import TEMPLATE, tiny_tokenizer_json

HI = {"role": "user", "content": "hi"}
FUNCTION = {"name": "f", "arguments": '{"a": 1}'}
CALL = {"id": "c1", "type": "function", "function": FUNCTION}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizer_json(), TEMPLATE)


def chat(*messages: object, **members: object) -> dict[str, Any]:
    return {"model": "m", "messages": list(messages), **members}


def test_the_digest_covers_both_files_under_its_tag(tokenizer: Tokenizer) -> None:
    """Recomputed here from types.md section 6, with nothing of ours."""
    parts = b"pnv1:tokenizer".ljust(16, b"\0")
    parts += hashlib.sha256(tiny_tokenizer_json()).digest()
    parts += hashlib.sha256(TEMPLATE.encode()).digest()
    assert tokenizer.digest == hashlib.sha256(parts).digest()


def test_a_prompt_is_the_template_s_text_with_the_assistant_s_turn_opened(
    tokenizer: Tokenizer,
) -> None:
    body = chat({"role": "system", "content": "be brief"}, HI)
    text = "<|begin|>system\nbe brief<|end|>\n<|begin|>user\nhi<|end|>\n<|begin|>assistant\n"
    assert tokenizer.render_prompt(body) == text
    assert tokenizer.count_prompt(body) == tokenizer.count_text(text)


def test_special_tokens_are_one_token_each(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("<|begin|><|end|>") == [0, 1]


def test_nothing_is_added_around_a_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.count_text("") == 0
    assert tokenizer.stream().finish() == 0


def test_truncation_and_padding_in_the_file_are_ignored() -> None:
    """Such settings are left over from training; a count that stops at 8 would be free text."""
    settings = (
        b'"truncation":{"direction":"Right","max_length":8,"strategy":"LongestFirst","stride":0}'
    )
    file = tiny_tokenizer_json().replace(b'"truncation":null', settings)
    assert file != tiny_tokenizer_json()
    assert Tokenizer(file, TEMPLATE).count_text("1 " * 50) == 100


def test_a_lone_surrogate_has_no_tokens(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidEncoding, match="surrogate"):
        tokenizer.count_text("a\ud800")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[]"])
def test_a_file_that_is_no_tokenizer_is_refused(content: bytes) -> None:
    with pytest.raises(Misconfigured, match=r"tokenizer\.json"):
        Tokenizer(content, TEMPLATE)


def test_a_directory_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no tokenizer in"):
        Tokenizer.from_directory(tmp_path)


def test_a_directory_s_template_is_read_byte_for_byte(tmp_path: Path) -> None:
    """Line ends are part of the digest and of the prompt."""
    (tmp_path / TOKENIZER_FILE).write_bytes(tiny_tokenizer_json())
    (tmp_path / TEMPLATE_FILE).write_bytes(b"a\r\n{{ messages[0]['content'] }}")
    read = Tokenizer.from_directory(tmp_path)
    made = Tokenizer(tiny_tokenizer_json(), "a\r\n{{ messages[0]['content'] }}")
    assert read.digest == made.digest


def test_text_parts_are_joined_by_newlines_where_the_template_knows_only_strings() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    one = ChatTemplate(TEMPLATE).render(chat({"role": "user", "content": parts}))
    assert one == ChatTemplate(TEMPLATE).render(chat({"role": "user", "content": "a\nb"}))


def test_text_parts_are_handed_over_where_the_template_goes_through_them() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% if m.content is string %}[{{ m.content }}]{% else %}"
        "{% for part in m.content %}[{{ part.text }}]{% endfor %}{% endif %}{% endfor %}"
    )
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert template.render(chat({"role": "user", "content": parts})) == "[a][b]"


def test_a_template_that_prints_parts_as_python_does_not_get_them() -> None:
    template = ChatTemplate("{{ messages[0].content }}")
    parts = [{"type": "text", "text": "a"}]
    assert template.render(chat({"role": "user", "content": parts})) == "a"


@pytest.mark.parametrize("message", [{"role": "assistant", "content": None}, {"role": "assistant"}])
def test_no_content_is_empty_content(message: dict[str, Any]) -> None:
    """An assistant that called a tool said nothing."""
    empty = ChatTemplate(TEMPLATE).render(chat(HI, {"role": "assistant", "content": ""}))
    assert ChatTemplate(TEMPLATE).render(chat(HI, message)) == empty


def test_a_developer_speaks_as_system() -> None:
    system = ChatTemplate(TEMPLATE).render(chat({"role": "system", "content": "x"}, HI))
    assert ChatTemplate(TEMPLATE).render(chat({"role": "developer", "content": "x"}, HI)) == system


def test_a_developer_stays_one_where_the_template_knows_the_role() -> None:
    template = ChatTemplate("{% if messages[0].role == 'developer' %}dev{% endif %}")
    assert template.render(chat({"role": "developer", "content": "x"})) == "dev"


def test_tools_and_parsed_arguments_reach_the_template() -> None:
    template = ChatTemplate(
        "{% if tools %}{{ tools | tojson }}{% endif %}"
        "{% for m in messages %}{% for c in m.tool_calls or [] %}"
        "{{ c.function.arguments.a + 1 }}{% endfor %}{% endfor %}"
    )
    calling = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    tools = [{"type": "function", "function": {"name": "é<"}}]
    rendered = template.render(chat(HI, calling, tools=tools))
    assert rendered == '[{"type": "function", "function": {"name": "é<"}}]2'


def test_the_body_is_not_changed(tokenizer: Tokenizer) -> None:
    body = chat(
        {"role": "developer", "content": "x"}, HI, {"role": "assistant", "tool_calls": [CALL]}
    )
    before = copy.deepcopy(body)
    tokenizer.count_prompt(body)
    assert body == before


IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        (chat({"role": "user", "content": [IMAGE]}), "messages[0].content[0]"),
        (chat(HI, {"role": "user", "content": [{"type": "text"}]}), "messages[1].content[0]"),
        (chat({"role": "user", "content": ["bare"]}), "messages[0].content[0]"),
        (chat({"role": "user", "content": 7}), "messages[0].content"),
        (chat({"content": "x"}), "messages[0]"),
        (chat("x"), "messages[0]"),
        (chat(), "messages"),
        ({"messages": "x"}, "messages"),
        ({}, "messages"),
        (chat(HI, {"role": "assistant", "tool_calls": [{}]}), "messages[1].tool_calls[0]"),
        (chat(HI, {"role": "assistant", "tool_calls": {"a": 1}}), "messages[1].tool_calls"),
        (chat(HI, chat_template="x"), "chat_template"),
        (chat(HI, continue_final_message=True), "continue_final_message"),
        (
            chat(HI, continue_final_message=True, add_generation_prompt=True),
            "continue_final_message",
        ),
        (chat(HI, chat_template_kwargs={"messages": "x"}), "chat_template_kwargs.messages"),
        (chat(HI, chat_template_kwargs={"a": [1]}), "chat_template_kwargs.a"),
        (
            chat(
                HI,
                {"role": "assistant", "content": " "},
                continue_final_message=True,
                add_generation_prompt=False,
            ),
            "continue_final_message",
        ),
    ],
)
def test_what_cannot_be_counted_is_named(
    tokenizer: Tokenizer, body: dict[str, Any], parameter: str
) -> None:
    with pytest.raises(NotCountable) as caught:
        tokenizer.count_prompt(body)
    assert caught.value.parameter == parameter
    assert isinstance(caught.value, InvalidParameter)


PARTS = (
    "{% for message in messages %}<{{ message.role }}>"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|image|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}</>{% endfor %}"
    "{% for document in documents or [] %}[{{ document.title }}]{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if enable_thinking %}<think>{% endif %}"
    "{{ reasoning_effort }}{% endif %}"
)


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        (
            chat({"role": "user", "content": [{"type": "text", "text": "See"}, IMAGE]}),
            "<user>See<|image|></><assistant>",
        ),
        (chat(HI, chat_template_kwargs={"enable_thinking": True}), "{HI}<assistant><think>"),
        (chat(HI, chat_template_kwargs={"enable_thinking": False}), "{HI}<assistant>"),
        (chat(HI, reasoning_effort="low"), "{HI}<assistant>low"),
        (chat(HI, documents=[{"title": "A"}]), "{HI}[A]<assistant>"),
        (chat(HI, add_generation_prompt=False), "{HI}"),
        (
            chat(
                HI,
                {"role": "assistant", "content": "Once "},
                continue_final_message=True,
                add_generation_prompt=False,
            ),
            "{HI}<assistant>Once ",
        ),
    ],
    ids=["image", "thinks", "does not", "effort", "documents", "no answer yet", "continued"],
)
def test_a_template_gets_the_options_of_the_body(body: dict[str, Any], prompt: str) -> None:
    """Images are what the template writes for them; a text to go on from ends the prompt."""
    opening = f"<user>{HI['content']}</>"
    assert ChatTemplate(PARTS).render(body) == prompt.replace("{HI}", opening)


def test_a_template_may_refuse_messages() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(NotCountable, match="roles must alternate"):
        template.render(chat(HI))


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'a': 1}) }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__['json'] }}",
    ],
)
def test_a_template_reaches_neither_python_nor_the_body(source: str) -> None:
    with pytest.raises(NotCountable, match=r"unsafe|undefined"):
        ChatTemplate(source).render(chat(HI))


@pytest.mark.parametrize("name", ["bos_token", "eos_token"])
def test_a_template_that_needs_more_than_the_digest_covers_is_refused(name: str) -> None:
    source = "{{ " + name + " }}{{ messages[0].content }}"
    with pytest.raises(Misconfigured, match=name):
        ChatTemplate(source)
    given = ChatTemplate("{% set " + name + " = '<s>' %}" + source)
    assert given.render(chat(HI)) == "<s>hi"


def test_a_text_that_is_no_template_is_refused() -> None:
    with pytest.raises(Misconfigured, match="does not parse"):
        ChatTemplate("{% for %}")


def test_what_training_tools_put_into_templates_is_understood() -> None:
    source = (
        "{%- for m in messages %}\n"
        "    {%- if loop.index > 1 %}{% break %}{% endif %}\n"
        "    {% generation %}{{ m.content }}{% endgeneration %}\n"
        "{% endfor %}"
    )
    assert ChatTemplate(source).render(chat(HI, HI)) == "hi"
