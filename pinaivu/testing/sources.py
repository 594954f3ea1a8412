"""Deterministic stand-ins for what services take as arguments: randomness, a clock, a tokenizer.

For tests only: nothing drawn here is secret.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from pinaivu.codes import JobKind
from pinaivu.model_card import tokenizer_digest

_PROMPT_OVERHEAD: Final = 3


class SeededRandom:
    """A stream of bytes that is the same for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed.to_bytes(8)
        self._drawn = 0

    def __call__(self, count: int) -> bytes:
        """The next `count` bytes."""
        found = b""
        while len(found) < count:
            found += sha256(self._seed + self._drawn.to_bytes(8)).digest()
            self._drawn += 1
        return found[:count]


class SteppingClock:
    """A clock that moves by `step_ms` whenever it is read, and by `advance`."""

    def __init__(self, start_ms: int = 1_800_000_000_000, step_ms: int = 1) -> None:
        self._now_ms = start_ms
        self._step_ms = step_ms

    def __call__(self) -> int:
        """Milliseconds since 1970."""
        self._now_ms += self._step_ms
        return self._now_ms

    def advance(self, by_ms: int) -> None:
        """Let time pass."""
        self._now_ms += by_ms


class SpaceCounter:
    """A stand-in for a tokenizer: every space is a token. Counts parts of a text exactly."""

    digest = tokenizer_digest(b"spaces", "spaces")

    def count_text(self, text: str) -> int:
        """Spaces in a text."""
        return text.count(" ")

    def count_prompt(self, body: Mapping[str, Any], kind: JobKind = JobKind.CHAT) -> int:  # noqa: ARG002
        """Spaces in all messages, and a few for a template."""
        contents = "".join(str(message["content"]) for message in body["messages"])
        return _PROMPT_OVERHEAD + contents.count(" ")
