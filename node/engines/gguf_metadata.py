"""The metadata at the head of a GGUF file, as plain values.

    fields = read_metadata(Path("MODEL.gguf"))
    fields["general.architecture"]

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
Tensors, which are the rest of the file, are not looked at. The package `gguf` reads the same, value
by value through numpy, which takes seconds for a vocabulary.
"""

import mmap
import struct
from pathlib import Path
from typing import Any, Final

_HEAD: Final = struct.Struct("<4sIQQ")  # magic, version, tensors, fields
_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_ARRAY_HEAD: Final = struct.Struct("<IQ")  # type of each value, how many
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {
    number: struct.Struct("<" + letter)
    for number, letter in zip((*range(8), 10, 11, 12), "BbHhIif?Qqd", strict=True)
}


def read_metadata(path: Path) -> dict[str, Any]:
    """All fields by name; arrays are lists. Raises `ValueError` for what is no GGUF file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            magic, version, _, fields = _HEAD.unpack_from(data)
            if magic != _MAGIC or version not in _VERSIONS:
                raise ValueError("it does not begin as one of version 2 or 3 does")
            reader = _Reader(data, _HEAD.size)
            return {reader.string(): reader.value(reader.scalar(_U32)) for _ in range(fields)}
        except struct.error as error:
            raise ValueError(f"it ends too soon: {error}") from error


class _Reader:
    """Reads one value after the other."""

    def __init__(self, data: mmap.mmap, place: int) -> None:
        self._data = data
        self._place = place

    def scalar(self, form: struct.Struct) -> Any:
        (value,) = form.unpack_from(self._data, self._place)
        self._place += form.size
        return value

    def string(self) -> str:
        length = self.scalar(_U64)
        raw = self._data[self._place : self._place + length]
        if len(raw) < length:
            raise ValueError("it ends within a string")
        self._place += length
        return raw.decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            of, count = _ARRAY_HEAD.unpack_from(self._data, self._place)
            self._place += _ARRAY_HEAD.size
            return [self.value(of) for _ in range(count)]
        if kind not in _SCALARS:
            raise ValueError(f"it has a value of unknown type {kind}")
        return self.scalar(_SCALARS[kind])
