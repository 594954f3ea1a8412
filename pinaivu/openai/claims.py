"""What an engine or node says beside its answer, and the error for what says nothing valid."""

from msgspec import Struct

from pinaivu.errors import PeerFault


class BadResponse(PeerFault):
    """An engine or node sent what is no OpenAI response or chunk, or reported an error in it."""


class Usage(Struct):
    """The engine's own report of token counts; a claim, never the only source."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
