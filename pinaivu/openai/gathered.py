"""One face for what gathers a response, whatever its kind."""

from collections.abc import Sequence
from typing import Protocol

from pinaivu.codes import JobKind
from pinaivu.openai.chunks import Choice
from pinaivu.openai.claims import Usage
from pinaivu.openai.embeddings import Embeddings
from pinaivu.openai.responses import Aggregator


class Gathered(Protocol):
    """What has come of a response of any kind."""

    usage: Usage | None
    size: int
    append_only: bool
    taken: Sequence[Choice]
    """The choices of the last event, by index, cut to what was taken: a chat's in `delta`."""
    took_back: bool
    """Whether text was taken back that an event before had brought."""

    def feed(self, data: bytes) -> str:
        """Take the data of one event; the text it brought. Raises `BadResponse`."""

    @property
    def complete(self) -> bool:
        """Whether everything expected has come to its end."""

    @property
    def plain(self) -> bool:
        """Whether the text so far is nothing but one choice's content."""

    @property
    def finish_reason(self) -> str | None:
        """How the lowest choice ended; None while it has not."""

    def text(self) -> bytes:
        """The text so far; after the last event, what the segments tile."""

    def choices(self) -> list[dict[str, object]]:
        """The canonical choices seen so far, ascending by index."""


def gather(kind: JobKind, choices: int = 1, prefix: str = "") -> Gathered:
    """What gathers a response of `choices` choices, of which `prefix` has come already."""
    if kind == JobKind.EMBEDDING:
        return Embeddings(choices)
    aggregator = Aggregator(kind, choices)
    if prefix:
        said = {"text": prefix} if kind == JobKind.COMPLETION else {"delta": {"content": prefix}}
        aggregator.add({"choices": [said]})
    return aggregator
