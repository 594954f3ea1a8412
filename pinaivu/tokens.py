"""Counting tokens with the model's own tokenizer file: the counts that both sides bill by.

    tokenizer = Tokenizer(tokenizer_json, chat_template)
    tokenizer.count_prompt(body)          # what the engine will read
    counter = tokenizer.stream()
    counter.feed("Par"), counter.feed("is")
    counter.finish()                      # == tokenizer.count_text("Paris")

Prompts of completions and inputs of embeddings have no template: their tokens are those of each
text alone, and token ids count as they are. What an engine puts around them (a beginning of
sequence, a separator) is not counted. An embedding has no output tokens.

Counting is pure and needs no engine. What an engine sampled may be another split of the same text
(it can choose " a" and "b" where the tokenizer would write " ab"), so counts of two parties agree
on text, and agree with an engine's own report only within the tolerance of `types.md` §8, V9.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, Self

import tokenizers
from tokenizers import processors

from pinaivu.chat_template import ChatTemplate, NotCountable
from pinaivu.codes import JobKind
from pinaivu.errors import InvalidEncoding, Misconfigured
from pinaivu.model_card import tokenizer_digest

TOKENIZER_FILE: Final = "tokenizer.json"
TEMPLATE_FILE: Final = "chat_template.jinja"

_LATEST_CHARS: Final = 4 << 10  # so much is not left for later: counting it all takes a while
_KEPT_CHARS: Final = 32
_LONGEST_WORD_CHARS: Final = 256
_SPELT_OUT: Final = 11  # bytes that one byte may become by normalisation, at most
_INPUTS: Final = {JobKind.COMPLETION: "prompt", JobKind.EMBEDDING: "input"}


class OutputCounter(Protocol):
    """Counts the output tokens of an answer that arrives in pieces."""

    def feed(self, text: str) -> int:
        """Add a piece; the tokens of everything so far."""

    def finish(self) -> int:
        """The tokens of the whole."""


class Tokenizer:
    """One model's tokenizer and chat template.

    Raises `Misconfigured` when the files are no tokenizer or no usable template.
    """

    def __init__(self, tokenizer_json: bytes, chat_template: str) -> None:
        self.digest = tokenizer_digest(tokenizer_json, chat_template)
        """32 bytes, to be compared with the model card's."""
        self._template = ChatTemplate(chat_template)
        try:
            self._model = tokenizers.Tokenizer.from_str(tokenizer_json.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise Misconfigured("tokenizer.json is not UTF-8") from error
        except Exception as error:  # the library raises nothing narrower
            raise Misconfigured(f"tokenizer.json is no tokenizer: {error}") from error
        self._model.no_truncation()
        self._model.no_padding()
        # Nothing is added around a text, and offsets stay those of the text itself.
        self._model.post_processor = processors.Sequence([])
        added = self._model.get_added_tokens_decoder().values()
        self._longest_added = max((len(token.content) for token in added), default=0)

    @classmethod
    def from_directory(cls, directory: Path) -> Self:
        """The tokenizer of a model's directory: `tokenizer.json` and `chat_template.jinja`.

        Raises `Misconfigured` also when a file can't be read. Compare `digest` with the model card.
        """
        try:
            tokenizer_json = (directory / TOKENIZER_FILE).read_bytes()
            template = (directory / TEMPLATE_FILE).read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"no tokenizer in {directory}: {error}") from error
        return cls(tokenizer_json, template)

    def count_text(self, text: str) -> int:
        """Tokens of a text alone. Raises `InvalidEncoding` for a lone surrogate."""
        return len(self._encode(text))

    def count_prompt(self, body: Mapping[str, Any], kind: JobKind = JobKind.CHAT) -> int:
        """Tokens that a request's body has the model read; for a chat by its template.

        Raises `NotCountable` naming the member (see `ChatTemplate.render`).
        """
        if kind == JobKind.CHAT:
            return self.count_text(self._template.render(body))
        name = _INPUTS[kind]
        given = body.get(name)
        if isinstance(given, list) and not any(isinstance(item, int) for item in given):
            return sum(self._count_input(f"{name}[{i}]", item) for i, item in enumerate(given))
        return self._count_input(name, given)

    def count_output(self, text: str, kind: JobKind = JobKind.CHAT) -> int:
        """Output tokens of an answer's text, or of a part of it."""
        return 0 if kind == JobKind.EMBEDDING else self.count_text(text)

    def render_prompt(self, body: Mapping[str, Any]) -> str:
        """The text whose tokens `count_prompt` counts."""
        return self._template.render(body)

    def stream(self) -> "StreamCounter":
        """A counter for a text that arrives in pieces."""
        return StreamCounter(self._encode, self._longest_added)

    def output_counter(self, kind: JobKind) -> OutputCounter:
        """A counter for the output of such a job."""
        return NothingGenerated() if kind == JobKind.EMBEDDING else self.stream()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text alone. Raises `InvalidEncoding` for a lone surrogate."""
        return list(self._encode(text).ids)

    def _count_input(self, where: str, given: object) -> int:
        """Tokens of one text or list of token ids."""
        if isinstance(given, str):
            return self.count_text(given)
        if not isinstance(given, list) or not all(isinstance(item, int) for item in given):
            raise NotCountable(where, "is neither text nor token ids")
        known = self._model.get_vocab_size(with_added_tokens=True)
        if any(not 0 <= token < known for token in given):
            raise NotCountable(where, f"names a token that the model lacks; it has {known}")
        return len(given)

    def _encode(self, text: str) -> tokenizers.Encoding:
        try:
            return self._model.encode(text, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError) as error:
            raise InvalidEncoding("a text with a lone surrogate has no tokens") from error


class NothingGenerated:
    """The counter of what has no output tokens, whatever its text."""

    def feed(self, text: str) -> int:  # noqa: ARG002 - as the protocol has it
        """Nothing."""
        return 0

    def finish(self) -> int:
        """Nothing."""
        return 0


class LateCounter:
    """Counts a growing text only where it may have reached a border that somebody asks for.

        counter.feed("Par")
        counter.reaches(32)       # False, without counting: three bytes are no 32 tokens
        counter.count             # exact, and counts what is left to count

    A token of an ASCII text stands for at least one of its characters, but for the one that some
    tokenizers put before all of it. Other text may be spelt out before it is split: U+FDFA, three
    bytes, becomes 33. So most pieces of a stream needn't be counted by themselves.
    """

    def __init__(self, counter: OutputCounter) -> None:
        self._counter = counter
        self._counted = 0
        self._uncounted: list[str] = []
        self._uncounted_chars = 0
        self._most = 1  # tokens that there can be

    def feed(self, text: str) -> None:
        """Add a piece."""
        if text:
            self._uncounted.append(text)
            self._uncounted_chars += len(text)
            self._most += len(text) if text.isascii() else _SPELT_OUT * len(text.encode())
            if self._uncounted_chars >= _LATEST_CHARS:
                self._count_rest()

    def reaches(self, tokens: int) -> bool:
        """Whether there are at least so many tokens."""
        return self._most >= tokens and self.count >= tokens

    @property
    def count(self) -> int:
        """Tokens of everything so far."""
        self._count_rest()
        return self._counted

    def finish(self) -> int:
        """Tokens of the whole text, exactly."""
        self._count_rest()
        return self._counter.finish()

    def _count_rest(self) -> None:
        if self._uncounted:
            self._counted = self._counter.feed("".join(self._uncounted))
            self._uncounted.clear()
            self._uncounted_chars = 0
            self._most = self._counted + 1


class StreamCounter:
    """Counts the tokens of a growing text by looking at its last few words only.

    Everything before a *seam* is counted for good. A seam is a place where the tokenizer splits the
    text anyway, behind a visible character, and far enough from the end for no later text to join
    both sides: neither a special token nor a run of white space can reach across it. Counted
    for good are the tokens of all less those of the rest alone, so what a tokenizer adds at the
    beginning of any text cancels. The argument holds for tokenizers whose splitting looks at most
    one character ahead of visible text (byte-level BPE as in GPT-2, Llama 3, Qwen, SmolLM).

    `feed` is exact unless a word is longer than 256 characters; within such a word it is
    a close estimate, so that its cost stays linear. `finish` is exact in either case.
    """

    def __init__(self, encode: Callable[[str], tokenizers.Encoding], longest_added: int) -> None:
        self._encode = encode
        self._kept = max(_KEPT_CHARS, longest_added)
        self._limit = 3 * self._kept
        self._sealed = 0  # tokens before the last seam
        self._head: list[str] = []  # since the last seam: pieces cut off an over-long word
        self._head_tokens = 0
        self._window = ""
        self._window_tokens = 0

    @property
    def count(self) -> int:
        """Tokens so far, as `feed` last said."""
        return self._sealed + self._head_tokens + self._window_tokens

    def feed(self, text: str) -> int:
        """Add a piece; return the tokens of everything so far."""
        if text:
            self._window += text
            encoding = self._encode(self._window)
            self._window_tokens = len(encoding)
            if len(self._window) > self._limit:
                self._shorten(encoding)
        return self.count

    def finish(self) -> int:
        """Tokens of the whole text, exactly `Tokenizer.count_text` of the pieces joined."""
        if self._head:
            self._seal("".join(self._head) + self._window, 0)
            self._window = ""
        return self.count

    def _shorten(self, encoding: tokenizers.Encoding) -> None:
        found = self._seam(encoding)
        if found:
            place, tokens_after = found
            self._seal("".join(self._head) + self._window[:place], tokens_after)
            self._window = self._window[place:]
        elif len(self._window) > _LONGEST_WORD_CHARS:
            self._cut(encoding)
        else:
            self._limit = min(2 * self._limit, _LONGEST_WORD_CHARS)
            return
        self._limit = 3 * self._kept

    def _seam(self, encoding: tokenizers.Encoding) -> tuple[int, int] | None:
        """The last seam of the window, and the tokens after it."""
        words, offsets = encoding.word_ids, encoding.offsets
        for index in range(len(words) - 1, 0, -1):
            place = offsets[index][0]
            if place > len(self._window) - self._kept or words[index] == words[index - 1]:
                continue
            if place < 1 or self._window[place - 1].isspace():
                continue
            return place, len(self._encode(self._window[place:]))
        return None

    def _seal(self, text: str, tokens_after: int) -> None:
        """Count the text before a seam for good; it begins at the seam before."""
        before = self._window_tokens - tokens_after
        self._sealed += len(self._encode(text)) if self._head else before
        self._head, self._head_tokens = [], 0
        self._window_tokens = tokens_after

    def _cut(self, encoding: tokenizers.Encoding) -> None:
        """Set the first half of an over-long word aside, at a token's border, to bound the work."""
        offsets = encoding.offsets
        index = len(offsets) // 2
        while offsets[index][0] < offsets[index - 1][1]:  # inside a character of several tokens
            index -= 1
        place = offsets[index][0]
        self._head.append(self._window[:place])
        self._window = self._window[place:]
        self._head_tokens += index
        self._window_tokens -= index
