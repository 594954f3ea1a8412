"""Replacing one function of a library, of exactly the version and text it was written for.

A `Patch` names a method, the digest of its source as it was read when the patch was written, and
what takes its place. `apply` puts all of a list in place or none: a library of another version, or
a text that differs by one character, is left as it is, and `PatchRefused` says which. Nothing here
knows what the patches do.
"""

import inspect
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any

from msgspec import Struct

from pinaivu.errors import Misconfigured


class PatchRefused(Misconfigured):
    """The library isn't the one a patch was written for; nothing was changed."""


class Patch(Struct, frozen=True):
    """One method of a class, and what takes its place."""

    owner: type
    name: str
    source: str
    """`source_digest` of the method it was written for."""
    replacement: Callable[..., Any]

    @property
    def title(self) -> str:
        """What it changes, for people."""
        return f"{self.owner.__module__}.{self.owner.__qualname__}.{self.name}"

    @property
    def in_force(self) -> bool:
        """Whether the class has the replacement now."""
        return vars(self.owner).get(self.name) is self.replacement


def source_digest(method: Callable[..., Any]) -> str:
    """First 16 hex digits of SHA-256 over a function's source text.

    Raises `PatchRefused` where there is none to read.
    """
    try:
        return sha256(inspect.getsource(method).encode()).hexdigest()[:16]
    except (OSError, TypeError) as error:
        raise PatchRefused(f"the source of {method!r} can't be read: {error}") from error


def apply(patches: Iterable[Patch], *, found: str, wanted: str) -> None:
    """Put every patch in force, if the version is the wanted one and every source is as pinned.

    Raises `PatchRefused` and changes nothing otherwise. What is in force already stays so.
    """
    if found != wanted:
        raise PatchRefused(f"written for version {wanted}, found {found}")
    due = [patch for patch in patches if not patch.in_force]
    for patch in due:
        original = vars(patch.owner).get(patch.name)
        if original is None or source_digest(original) != patch.source:
            raise PatchRefused(f"{patch.title} is not the text that the patch was written for")
    for patch in due:
        setattr(patch.owner, patch.name, patch.replacement)
