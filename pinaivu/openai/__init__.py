"""OpenAI bodies as far as the market has to understand them: pure functions over parsed JSON.

- `requests`: reads a body, says what it demands of a node, refuses what can't be committed to;
- `responses`: gathers a stream or a whole response into canonical choices and their text.

Members nobody here knows are left to the engine, unread and untouched. Nothing here counts tokens.
"""

from pinaivu.openai.requests import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Request,
    read_request,
)
from pinaivu.openai.responses import Aggregator, BadResponse, canonical_choices, finish_of, text

__all__ = [
    "Aggregator",
    "BadResponse",
    "ChatRequest",
    "CompletionRequest",
    "EmbeddingRequest",
    "Request",
    "canonical_choices",
    "finish_of",
    "read_request",
    "text",
]
