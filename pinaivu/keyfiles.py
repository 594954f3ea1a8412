"""Key files: 32 secret bytes as hex, readable by their owner only, made when they are missing."""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pinaivu.errors import InvalidEncoding, Misconfigured
from pinaivu.keys import SecretKey

_OWNER_ONLY: Final = 0o600
_OTHERS: Final = 0o077
_KEY: Final = re.compile(r"(?:0x)?[0-9a-fA-F]{64}")


class KeyFileUnsafe(Misconfigured):
    """A key file can't be read, holds no key, or is readable by others."""


def load_key(path: Path, random: Callable[[int], bytes]) -> SecretKey:
    """The key in `path`; a fresh one from `random(32)`, written there first, if there is none.

    Raises `KeyFileUnsafe` when others can read the file, it holds no key or can't be written.
    """
    try:
        if not path.exists():
            _create(path, SecretKey.generate(random))
    except OSError as error:
        raise KeyFileUnsafe(f"the key file {path} can't be written: {error}") from error
    return read_key(path)


def read_key(path: Path) -> SecretKey:
    """The key in `path`, 64 hex digits with or without 0x; `KeyFileUnsafe` as in `load_key`."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileUnsafe(f"the key file {path} can't be read: {error}") from error
    if mode & _OTHERS:
        raise KeyFileUnsafe(f"other users can read {path} (mode {mode:o}); run: chmod 600 {path}")
    if not _KEY.fullmatch(text):
        raise KeyFileUnsafe(f"{path} holds no key: 64 hex digits are needed")
    try:
        return SecretKey(bytes.fromhex(text.removeprefix("0x")))
    except InvalidEncoding as error:
        raise KeyFileUnsafe(f"{path} holds no key: {error}") from error


def _create(path: Path, key: SecretKey) -> None:
    write_private(path, key.secret.hex())


def write_private(path: Path, text: str) -> None:
    """Write a line that only the owner may read: the whole file or none, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
