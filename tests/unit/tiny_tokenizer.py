"""A real byte-level BPE tokenizer of a few hundred tokens, trained here in milliseconds."""

from functools import cache
from string import ascii_letters
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

TEMPLATE: Final = (
    "{% for message in messages %}<|begin|>{{ message['role'] }}\n"
    "{{ message['content'] + '<|end|>' }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
_SAMPLE: Final = [
    "The keeper's lamp isn't lit, and they've seen 12 ships pass; we'll wait.\n\n",
    '  Whitespace   comes in  runs\tand\r\nlines. "Quoted", (bracketed) -- dashed...',
    "a\n \n \n \nb\n \n \n \nc",
    "über naïve café 巴黎是法国的首都 😀😀 end|> <|beg aaaaaaaa bbbb",
]
_LLAMA3: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITTERS: Final = ("digits", "llama3")


@cache
def tiny_tokenizer_json(splitter: str = "digits") -> bytes:
    """`tokenizer.json` with SmolLM's way of splitting (`digits`) or Llama 3's (`llama3`)."""
    split = {
        "digits": [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ],
        "llama3": [
            pre_tokenizers.Split(Regex(_LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ],
    }[splitter]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(text, special=True) for text in ("<|begin|>", "<|end|>")],
    )
    tokenizer.train_from_iterator(_SAMPLE, trainer)
    return tokenizer.to_str().encode()


def with_marked_beginning(tokenizer_json: bytes) -> bytes:
    """The same tokens behind Llama 2's way of normalizing, which marks a text's beginning."""
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    tokenizer.normalizer = normalizers.Prepend("_")
    return tokenizer.to_str().encode()


def right_to_left_alphabet() -> bytes:
    """A tokenizer whose merges build the alphabet from its end: YZ, XYZ and so on."""
    suffixes = [ascii_letters[start:] for start in range(len(ascii_letters) - 2, -1, -1)]
    vocab = {token: index for index, token in enumerate([*ascii_letters, "Ġ", *suffixes])}
    merges = [(suffix[0], suffix[1:]) for suffix in suffixes]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer.to_str().encode()
