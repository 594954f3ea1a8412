"""An engine's embedding answer, cut into events as a stream has them: one for each embedding.

Each is `{"data": [{"index", "embedding"}]}` with the base64 that commitments cover; the engine's
usage report comes last. The first batch holds one embedding: it goes out on trust, and what is at
risk is no more than that. The others are filled up to what fits into a frame.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from pinaivu.codes import JobKind
from pinaivu.openai import BadResponse, canonical_choices

BATCH_BYTES: Final = 1 << 20
_encode: Final = msgspec.json.Encoder().encode


def parts(answer: bytes) -> Iterator[list[bytes]]:
    """Batches of events. Raises `BadResponse` for what is no embedding answer."""
    try:
        response = msgspec.json.decode(answer, type=dict)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadResponse(f"no embedding response: {error}") from error
    events = [_encode({"data": [part]}) for part in canonical_choices(JobKind.EMBEDDING, response)]
    yield events[:1]
    batch, size = list[bytes](), 0
    for event in [*events[1:], _encode({"usage": response.get("usage")})]:
        if size + len(event) > BATCH_BYTES and batch:
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += len(event)
    yield batch
