"""However a text is cut into pieces, counting the pieces gives the tokens of the whole."""

from collections.abc import Iterator
from functools import cache
from random import Random
from string import ascii_letters

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinaivu.tokens import LateCounter, Tokenizer
from tests.unit.tiny_tokenizer import (
    SPLITTERS,
    TEMPLATE,
    right_to_left_alphabet,
    tiny_tokenizer_json,
    with_marked_beginning,
)


@cache
def tokenizer(splitter: str) -> Tokenizer:
    return Tokenizer(tiny_tokenizer_json(splitter), TEMPLATE)


# What has broken incremental counting elsewhere: runs of white space, contractions, digits, pieces
# of special tokens, combining marks, characters of several tokens.
ATOMS = [
    *("a", "the", " keeper", "'", "s", "'re", "LL", "1", "23", " 4", ".", "...", "!?", "-- "),
    *(" ", " ", " " * 9, " " * 45, "\n", "\n" * 40, "\r\n", "\t", " \n ", "\u00a0", "\u2028"),
    *("<|", "<|beg", "in|>", "<|begin|>", "<|end|>", "|>", "<"),
    *("é", "e\u0301", "\u0301", "巴黎", "😀", "👩‍👧", "\u200d", "ﬁ", "Ⅷ", "٣"),
]


def pieces_of(seed: int) -> Iterator[str]:
    """A hundred pieces; made from a seed because lists that Hypothesis draws stay too short."""
    random = Random(seed)  # noqa: S311  # no secret
    for _ in range(100):
        yield "".join(random.choices(ATOMS, k=random.randint(0, 6)))


@pytest.mark.parametrize("splitter", SPLITTERS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_every_count_on_the_way_is_exact(splitter: str, seed: int) -> None:
    """Also where a piece ends inside a special token, a contraction or a run of spaces."""
    counter = tokenizer(splitter).stream()
    text = ""
    for piece in pieces_of(seed):
        text += piece
        assert counter.feed(piece) == tokenizer(splitter).count_text(text)
    assert counter.finish() == tokenizer(splitter).count_text(text)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(["word " * 30 + "\n" + " " * 45, "\n"], id="blank lines join far back"),
        pytest.param(["word " * 30 + "<|be", "gin|>"], id="special token in two"),
        pytest.param(["word " * 30 + "it'", "s"], id="contraction in two"),
        pytest.param(["word " * 30 + " " * 45, "x"], id="last space joins the next word"),
    ],
)
@pytest.mark.parametrize("splitter", SPLITTERS)
def test_later_text_reaches_back(splitter: str, pieces: list[str]) -> None:
    counter = tokenizer(splitter).stream()
    for piece in pieces:
        counter.feed(piece)
    assert counter.finish() == tokenizer(splitter).count_text("".join(pieces))


def test_what_a_tokenizer_adds_at_a_text_s_beginning_is_counted_once() -> None:
    """Restarting such a tokenizer anywhere adds a mark that the whole text doesn't have."""
    json = with_marked_beginning(tiny_tokenizer_json())
    counter, whole = Tokenizer(json, TEMPLATE).stream(), Tokenizer(json, TEMPLATE)
    text = "the keeper's lamp (not 1) " * 12
    for start in range(0, len(text), 3):
        counter.feed(text[start : start + 3])
    assert counter.finish() == whole.count_text(text)


def test_a_word_is_not_cut_while_its_last_letter_can_still_join_it() -> None:
    """Merges that run from right to left: only Z makes one token of the whole alphabet."""
    whole = Tokenizer(right_to_left_alphabet(), TEMPLATE)
    counter = whole.stream()
    before = counter.feed("ab " * 30 + ascii_letters[:-1])
    after = counter.feed(ascii_letters[-1])
    assert after == whole.count_text("ab " * 30 + ascii_letters)
    assert after < before


@pytest.mark.parametrize("splitter", SPLITTERS)
@given(
    word=st.text(st.sampled_from("abcé巴😀"), min_size=1, max_size=30),
    repeats=st.integers(1, 150),
    step=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_a_word_without_end_is_counted_exactly_at_its_end(
    splitter: str, word: str, repeats: int, step: int
) -> None:
    """On the way the count may be off by a token per cut; at the end it is not."""
    text = word * repeats
    counter = tokenizer(splitter).stream()
    for start in range(0, len(text), step):
        counter.feed(text[start : start + step])
    exact = tokenizer(splitter).count_text(text)
    assert abs(counter.count - exact) <= max(2, exact // 50)
    assert counter.finish() == exact
    assert counter.count == exact


@pytest.mark.parametrize("text", ["word " * 20_000, "a" * 100_000, " " * 100_000])
def test_work_grows_with_the_text_and_not_with_its_square(text: str) -> None:
    """Characters given to the tokenizer, per character of the text, stay bounded."""
    real = tokenizer("digits")
    budget = 80 * len(text)

    def encode(window: str) -> object:
        nonlocal budget
        budget -= len(window)
        assert budget > 0
        return real._encode(window)

    counter = real.stream()
    counter._encode = encode  # type: ignore[assignment]
    for start in range(0, len(text), 4):
        counter.feed(text[start : start + 4])
    counter.finish()


@pytest.mark.parametrize("splitter", SPLITTERS)
@given(seed=st.integers(0, 2**32), step=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_a_late_counter_knows_every_border(splitter: str, seed: int, step: int) -> None:
    """It never says that a border isn't reached because it hasn't counted."""
    counter = LateCounter(tokenizer(splitter).stream())
    text, border = "", step
    for piece in pieces_of(seed):
        text += piece
        counter.feed(piece)
        true = tokenizer(splitter).count_text(text)
        assert counter.reaches(border) == (true >= border)
        while border <= true:
            border += step
    assert counter.count == counter.finish() == tokenizer(splitter).count_text(text)


def test_a_late_counter_counts_seldom() -> None:
    """Between two borders a few times, and not once for each word."""

    class Asked:
        """A counter that says how often it was asked."""

        def __init__(self) -> None:
            self.times = 0
            self._real = tokenizer(SPLITTERS[0]).stream()

        def feed(self, text: str) -> int:
            self.times += 1
            return self._real.feed(text)

        def finish(self) -> int:
            return self._real.finish()

    asked = Asked()
    counter = LateCounter(asked)
    words = 3200
    for number in range(words):
        counter.feed(" lit")
        counter.reaches(32 * (1 + number // 32))
    assert counter.finish() == words
    assert asked.times < words / 2
