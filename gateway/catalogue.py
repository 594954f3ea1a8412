"""Every error a client can be given: status, code, when it happens and what to do.

The page for users is made from this table, and a test holds the code to it. The statuses:

- **402** where somebody has to pay or allow more: no retry helps, and SDKs don't retry it, as they
  would a 429. A cap that ends by itself at midnight (UTC) is a 429 with `Retry-After`.
- **409** where another request stands in the way: an idempotency key that is in use for other
  bytes or still being served.
- **422** where the request is well formed, and the engine of every node that was asked refuses it.
- **499** is never seen by its client, which has gone; it is what logs and metrics say.
- **502** where what came back does not hold, or broke off behind its first part; **503** where
  nothing came at all. The latter is safe to repeat at once, the former may have cost something.
"""

from typing import Final

from msgspec import Struct


class Entry(Struct, frozen=True):
    """One error. `market`: the coordinator's own word for it; `retry`: it has `Retry-After`."""

    status: int
    when: str
    do: str
    param: str | None = None
    retry: bool = False
    market: bool = False


TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_funds_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    499: "client_closed_request",
    502: "upstream_error",
    503: "service_unavailable_error",
}
"""`type` of an error by its status; `api_error` for others."""

_CHANGE = "correct the request"
_AGAIN = "send it again"
_NEW_GRANT = "have the payer sign a new grant"

CATALOGUE: Final[dict[str, Entry]] = {
    "invalid_value": Entry(
        400, "a member is missing, mistyped or contradicts another", _CHANGE, "*"
    ),
    "unknown_parameter": Entry(
        400, "nobody here knows this member, so an engine could ignore it", "leave it out", "*"
    ),
    "unsupported_parameter": Entry(
        400,
        "the market can't serve this member",
        "leave it out, or use what the message names",
        "*",
    ),
    "context_length_exceeded": Entry(
        400,
        "prompt and output don't fit the model's context",
        "shorten the prompt or lower `max_tokens`",
        "*",
    ),
    "above_grant": Entry(
        400, "a price limit is above the payer's grant", "lower the price limits", market=True
    ),
    "missing_api_key": Entry(401, "no key was sent", "send `Authorization: Bearer sk-pnv-…`"),
    "invalid_api_key": Entry(401, "the key is unknown or revoked", "use another key"),
    "expired_api_key": Entry(401, "the key's time is over", "use another key"),
    "insufficient_balance": Entry(
        402,
        "the payer's deposit doesn't cover what the request may cost",
        "deposit more, or set `max_tokens` or a price limit",
        market=True,
    ),
    "grant_exhausted": Entry(
        402, "the payer's grant is used up", "have the payer sign a new grant", market=True
    ),
    "account_exhausted": Entry(
        402, "the key's own account is used up", "have its limit raised", market=True
    ),
    "no_grant": Entry(403, "no valid grant pays for this model with this key", _NEW_GRANT),
    "scope_missing": Entry(
        403, "the key may not do this", "use a key with the scope that the message names"
    ),
    "model_not_allowed": Entry(
        403, "the key is for other models", "choose one of them, or have the key's list widened"
    ),
    "model_not_granted": Entry(
        403, "the grant names other models", "choose one of them, or " + _NEW_GRANT, market=True
    ),
    "grant_expired": Entry(403, "the grant is not valid now", _NEW_GRANT, market=True),
    "grant_revoked": Entry(403, "the payer has revoked it on chain", _NEW_GRANT, market=True),
    "wrong_grant": Entry(
        403,
        "the grant is for another gateway or log",
        "have the payer sign the right one",
        market=True,
    ),
    "not_assigned": Entry(
        403,
        "the payer's balance is not assigned to this log",
        "have the payer assign it",
        market=True,
    ),
    "model_not_found": Entry(
        404, "this gateway doesn't serve the model", "GET `/v1/models`", "model"
    ),
    "unknown_model": Entry(
        404, "the model is in no registry", "GET `/v1/models`", "model", market=True
    ),
    "other_fingerprint": Entry(
        404,
        "the model is registered with other weights than demanded",
        "demand those, or none",
        "pinaivu.fingerprint",
        market=True,
    ),
    "request_not_found": Entry(
        404, "this key has made no request of this id", "use `request_id` of an answer"
    ),
    "key_not_found": Entry(404, "there is no key of this id", "list the keys"),
    "no_receipt": Entry(404, "the market refused the request: nothing was charged", "nothing"),
    "not_found": Entry(404, "there is no such path", "see this page"),
    "method_not_allowed": Entry(405, "the path has other methods", "see this page"),
    "request_timeout": Entry(408, "the body took longer than a minute to come", _AGAIN),
    "idempotency_in_progress": Entry(
        409,
        "the first request with this `Idempotency-Key` is still being served",
        "wait for its answer",
        "idempotency-key",
        retry=True,
    ),
    "idempotency_ended": Entry(
        409,
        "the first request with this `Idempotency-Key` is over and its answer isn't kept",
        "see its receipt; draw a new key to ask again",
        "idempotency-key",
    ),
    "request_too_large": Entry(
        413, "the body is larger than this gateway takes", "send less at once"
    ),
    "idempotency_conflict": Entry(
        422,
        "the `Idempotency-Key` was used for another request",
        "draw a new one",
        "idempotency-key",
    ),
    "request_refused": Entry(
        422, "the engine of every node that was asked refused the request", "do as it says"
    ),
    "rate_limit_exceeded": Entry(
        429, "the key's requests or tokens a minute are used up", "retry in a moment", retry=True
    ),
    "too_many_streams": Entry(
        429, "the key has as many requests under way as it may", "wait for one to end", retry=True
    ),
    "quota_exceeded": Entry(
        429,
        "the key's quota of the day or month (UTC) is used up",
        "wait for the next one",
        retry=True,
    ),
    "too_many_requests": Entry(429, "more is under way than allowed", _AGAIN, retry=True),
    "grant_exhausted_today": Entry(
        429,
        "the grant's daily cap is reached",
        "wait for the next day (UTC)",
        retry=True,
        market=True,
    ),
    "client_closed_request": Entry(499, "the client went away before the end", "nothing"),
    "internal_error": Entry(500, "a fault of the gateway", "retry, and report the request id"),
    "coordinator_fault": Entry(502, "what the coordinator answered doesn't hold", _AGAIN),
    "no_nodes_available": Entry(
        503,
        "no node serves this model now, or none what `param` asks for",
        "retry in a moment, or leave that out",
        "*",
        retry=True,
        market=True,
    ),
    "no_nodes_within_limits": Entry(
        503,
        "nodes serve it, none within the limits; the message names the cheapest offer",
        "raise the limit that stands in the way",
        "*",
        retry=True,
        market=True,
    ),
    "no_node_left": Entry(
        503,
        "every node that was asked failed before its first token",
        _AGAIN,
        retry=True,
        market=True,
    ),
    "deadline_passed": Entry(
        503, "the auction ended behind the job's deadline", _AGAIN, retry=True, market=True
    ),
    "epoch_ended": Entry(503, "the coordinator is being replaced", _AGAIN, retry=True, market=True),
    "debit_limit": Entry(
        503,
        "the log may not debit that much more at once",
        "retry later, or set `max_tokens` or a price limit",
        retry=True,
        market=True,
    ),
    "settlement_behind": Entry(
        503, "receipts wait too long for the chain", "retry later", retry=True, market=True
    ),
    "market_refused": Entry(
        503, "the coordinator refused the job for another reason", _AGAIN, retry=True
    ),
    "draining": Entry(503, "the gateway is shutting down", "retry in a few seconds", retry=True),
    "coordinator_unreachable": Entry(503, "no coordinator can be reached", _AGAIN, retry=True),
    "chain_unavailable": Entry(
        503, "the chain's endpoint can't be reached", "retry in a few seconds", retry=True
    ),
    "storage_unavailable": Entry(
        503, "the gateway's database can't be reached", _AGAIN, retry=True
    ),
}
"""By code. `param` is the parameter named; `*`: whichever it is."""

BROKEN: Final[dict[str, str]] = {
    "refused": "the node refused to go on",
    "refused_prompt_count": "the node counts another prompt",
    "refused_expired": "its award ran out",
    "refused_capacity": "the node was full",
    "silent": "the node was silent",
    "stream_broken": "its stream broke off",
    "protocol_violation": "the node broke the protocol",
    "engine_error": "its engine failed",
    "too_slow": "the node fell silent in mid-answer",
}
"""Codes of a 502 that ends a stream behind its first part: how the last node failed."""


def markdown() -> str:
    """The table of the page for users."""
    lines = ["| status | `code` | `param` | when | what to do |", "| --- | --- | --- | --- | --- |"]
    for code, entry in sorted(CATALOGUE.items(), key=lambda item: item[1].status):
        status = f"{entry.status}, `Retry-After`" if entry.retry else str(entry.status)
        param = {None: "", "*": "the member"}.get(entry.param, f"`{entry.param}`")
        lines.append(f"| {status} | `{code}` | {param} | {entry.when} | {entry.do} |")
    broken = ", ".join(f"`{code}` ({why})" for code, why in BROKEN.items())
    lines.append(f"| 502, in mid-stream | {broken} | | nobody can go on with it | {_AGAIN} |")
    return "\n".join(lines) + "\n"
