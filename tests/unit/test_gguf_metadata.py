"""What a GGUF file says of its model, as its own package writes it; broken ones are refused."""

from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter

from node.engines.gguf_metadata import read_metadata

SCALARS: dict[str, tuple[str, Any]] = {
    "uint8": ("u8", 255),
    "int8": ("i8", -128),
    "uint16": ("u16", 65_535),
    "int16": ("i16", -32_768),
    "uint32": ("u32", 2**32 - 1),
    "int32": ("i32", -(2**31)),
    "float32": ("f32", 0.5),
    "uint64": ("u64", 2**64 - 1),
    "int64": ("i64", -(2**63)),
    "float64": ("f64", 0.1),
    "bool": ("b", True),
    "string": ("s", "Ġ wort\n"),
}
ARRAYS: dict[str, list[Any]] = {"tokens": ["a", "Ġb", "ss"], "types": [1, 3], "scores": [0.5, -2.0]}


def written(path: Path) -> Path:
    writer = GGUFWriter(path, "llama")
    for kind, (name, value) in SCALARS.items():
        getattr(writer, f"add_{kind}")(name, value)
    for name, values in ARRAYS.items():
        writer.add_array(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    found = read_metadata(written(tmp_path / "m.gguf"))
    assert found == {"general.architecture": "llama", **dict(SCALARS.values()), **ARRAYS}
    assert found["b"] is True


def test_a_file_that_ends_too_soon_is_refused(tmp_path: Path) -> None:
    """Wherever it ends: no field is ever made up."""
    whole = written(tmp_path / "m.gguf").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"ends|empty"):
            read_metadata(tmp_path / "cut")


@pytest.mark.parametrize(
    ("at", "other", "reason"),
    [(0, b"GGML", "begin"), (4, b"\x01", "begin"), (24 + 8 + 20, b"\x0d", "unknown type 13")],
    ids=["magic", "version", "type"],
)
def test_another_format_is_refused(tmp_path: Path, at: int, other: bytes, reason: str) -> None:
    whole = bytearray(written(tmp_path / "m.gguf").read_bytes())
    whole[at : at + len(other)] = other
    (tmp_path / "other").write_bytes(whole)
    with pytest.raises(ValueError, match=reason):
        read_metadata(tmp_path / "other")
