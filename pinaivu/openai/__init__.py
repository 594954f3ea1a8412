"""OpenAI bodies as far as the market has to understand them: pure functions over parsed JSON.

- `requests`: reads a body, says what it demands of a node, refuses what can't be committed to;
- `responses`, `embeddings`: gather a stream or a whole response into canonical choices and their
  text; `gathered` is what both have in common.

Members nobody here knows are left to the engine, unread and untouched. Nothing here counts tokens.
"""

from pinaivu.openai.chunks import Choice, Message
from pinaivu.openai.claims import BadResponse
from pinaivu.openai.gathered import Gathered, gather
from pinaivu.openai.requests import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Request,
    read_request,
    require_inline_images,
)
from pinaivu.openai.responses import Aggregator, canonical_choices, finish_of, text

__all__ = [
    "Aggregator",
    "BadResponse",
    "ChatRequest",
    "Choice",
    "CompletionRequest",
    "EmbeddingRequest",
    "Gathered",
    "Message",
    "Request",
    "canonical_choices",
    "finish_of",
    "gather",
    "read_request",
    "require_inline_images",
    "text",
]
