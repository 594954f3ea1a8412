"""`Idempotency-Key`: a request that is sent again neither runs nor is billed again.

The name is claimed durably before the job is submitted, for the API key that sent it, and stands
for 24 hours. A request of the same name then gets

- the same answer, while the gateway keeps answers, as one chunk where it is to be streamed;
- 409 `idempotency_in_progress` with `Retry-After` while the first one is still being served, by
  whatever process;
- 409 `idempotency_ended` where the first one ended without a whole answer, or its answer is not
  kept any more: it may have been billed, as its receipt says;
- 422 `idempotency_conflict` where its body is another one.

If nothing was dispatched for the first one, the name is free again. A request with a name is served
to its end when its client goes away, so that the next one finds the answer.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import msgspec
import trio

from gateway.demands import Demand
from gateway.errors import ApiError
from gateway.outlet import Outlet
from gateway.seals import Seal
from pinaivu.commitments import NOT_COMMITTED
from pinaivu.encoding import jcs
from pinaivu.store import gateway_claims as claims
from pinaivu.store.gateway_claims import Claim, Earlier
from pinaivu.store.writer import Writer

HEADER: Final = "idempotency-key"
_MOST_CHARACTERS: Final = 255
_DONE: Final = b"data: [DONE]\n\n"


class Ended(ApiError):
    """There is nothing to be had by repeating the request; the official SDKs don't, then."""

    def headers(self) -> dict[str, str]:
        """What says so to the SDKs."""
        return super().headers() | {"x-should-retry": "false"}


class Replay:
    """An answer given before, with what the HTTP side uses of a request under way."""

    def __init__(self, stored: bytes, demand: Demand) -> None:
        self.answer = self
        self.streams = demand.streams
        self.body: dict[str, Any] = msgspec.json.decode(stored)
        self.request_id = str(self.body.get("request_id", ""))
        self.headers = {"x-request-id": self.request_id}
        self.size = len(stored)
        self.error: ApiError | None = None
        self.shown = True
        self.begun, self.over = trio.Event(), trio.Event()
        self.begun.set()
        self.over.set()
        self._wants_usage = demand.wants_usage
        self.outlet = Outlet()
        if self.streams:
            self.outlet.write(b"".join(self._events()))
        self.outlet.close()

    def leave(self) -> None:
        """The client has gone: nothing runs for it."""

    def _events(self) -> list[bytes]:
        head = {name: self.body[name] for name in ("id", "created", "model")}
        kind = self.body["object"]
        head["object"] = "chat.completion.chunk" if kind == "chat.completion" else kind
        chunks: list[dict[str, Any]] = [
            {"choices": [_opened(choice) for choice in self.body["choices"]]},
            {"choices": [_closed(choice) for choice in self.body["choices"]]},
        ]
        if self._wants_usage:
            chunks.append({"choices": [], "usage": self.body["usage"]})
        chunks[-1]["request_id"] = self.request_id
        return [b"data: " + msgspec.json.encode(head | one) + b"\n\n" for one in chunks] + [_DONE]


def _opened(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice as a chunk has it: a chat's `message` is its `delta`, and calls are numbered."""
    shown = {"delta" if name == "message" else name: value for name, value in choice.items()}
    if calls := shown.get("delta", {}).get("tool_calls"):
        numbered = [{"index": number, **call} for number, call in enumerate(calls)]
        shown["delta"] = shown["delta"] | {"tool_calls": numbered}
    return shown | {"finish_reason": None}


def _closed(choice: dict[str, Any]) -> dict[str, Any]:
    empty: dict[str, Any] = {"delta": {}} if "message" in choice else {"text": ""}
    return {"index": choice["index"], "finish_reason": choice["finish_reason"]} | empty


class Claims:
    """The names that requests were made under, as one process takes them."""

    def __init__(self, writer: Writer, process_id: bytes, now_ms: Callable[[], int]) -> None:
        self._writer = writer
        self._process_id = process_id
        self._now_ms = now_ms
        self._last_ms = 0

    async def take(
        self, key_id: str, name: str | None, demand: Demand, seal: Seal
    ) -> Claim | Replay | None:
        """Claim the name of a request, or what it stands for; None for a request without one.

        `seal` is the key's, which opens its answers.
        """
        if name is None:
            return None
        if not (0 < len(name) <= _MOST_CHARACTERS and name.isascii() and name.isprintable()):
            raise ApiError(
                400,
                "invalid_value",
                f"{HEADER}: 1 to {_MOST_CHARACTERS} printable ASCII characters. Correct it.",
                param=HEADER,
            )
        wanted = Claim(
            key_id=key_id,
            name=sha256(name.encode("ascii")).digest(),
            body_digest=_digest(demand),
            process_id=self._process_id,
            begun_ms=self._moment(),
        )
        earlier = await self._writer.write_rows_apart(
            lambda rows: claims.claim(rows, wanted), synced=True
        )
        return wanted if earlier is None else _replay(earlier, demand, seal)

    def _moment(self) -> int:
        """Now, or a little later: no two claims have the same."""
        self._last_ms = max(self._now_ms(), self._last_ms + 1)
        return self._last_ms

    async def forget(self, content_ms: int) -> None:
        """Drop claims that no longer stand, and answers older than `content_ms`."""
        now = self._now_ms()
        await self._writer.write_apart(
            lambda session: claims.forget(session, now - content_ms, now - claims.VALID_MS)
        )


def _digest(demand: Demand) -> bytes:
    """Of the whole body, how it is to be delivered included, and of what kind it is."""
    how = {name: demand.body[name] for name in NOT_COMMITTED & demand.body.keys()}
    return sha256(int(demand.request.features).to_bytes(8) + demand.digest + jcs(how)).digest()


def _replay(earlier: Earlier, demand: Demand, seal: Seal) -> Replay:
    if not earlier.same_body:
        raise ApiError(
            422,
            "idempotency_conflict",
            "This Idempotency-Key was used with another body; use a new one for a new request.",
            param=HEADER,
        )
    if earlier.running:
        raise ApiError(
            409,
            "idempotency_in_progress",
            "The first request with this Idempotency-Key is still being served; retry in a second.",
            param=HEADER,
            retry_after_s=1,
        )
    answer = seal.open(earlier.job_id, "answer", earlier.answer) if earlier.job_id else None
    if answer is None:
        which = UUID(bytes=earlier.job_id) if earlier.job_id else "unknown"
        raise Ended(
            409,
            "idempotency_ended",
            f"The request with this Idempotency-Key is over and its answer isn't kept;"
            f" GET /v1/receipts/{which} says what was billed. Use a new Idempotency-Key to ask"
            " again.",
            param=HEADER,
        )
    return Replay(answer, demand)
